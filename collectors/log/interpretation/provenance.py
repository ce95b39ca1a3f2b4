"""Who wrote a line of the log: the server itself, or code that a session ran. Pure.

Any role writes any text at LOG (`RAISE LOG 'duration: …'`), so what a line says proves nothing of who wrote it. What
proves it is the place in the server's source that `log_error_verbosity = verbose` adds: only `exec_simple_query`
writes `statement: …`. Without it there is what a function cannot leave out: PL/pgSQL always leaves a context, and
nearly all code the statement that called it. That tells them apart as long as no language but those of `ORDINARY`
is installed; PL/Perl's END block leaves neither. A plain text log can be written into from outside (a line feed in a
startup packet's user, a NOTICE of another server that libpq prints), so its lines are never better than `claimed` where
the prefix prints names, and `certain` only where nothing in the server prints past it.

`pgwitness.core.events.Trust` has the levels; None stands for a line that a session's code wrote.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from collectors.log.formats.record import LogRecord
from pgwitness.core.events import LogFormat, Trust

ORDINARY = frozenset({"internal", "c", "sql", "plpgsql"})
"""Languages whose functions cannot write a line of the log without leaving a context."""
PRINTING = frozenset({"dblink", "postgres_fdw"})
"""Extensions through which another server's notices reach standard error as they are."""
RAISE = "RAISE"
RAISING = "exec_stmt_raise"
AUTHENTICATION = "authentication"
"""What the process title says while a session authenticates, whatever `lc_messages` is."""

SIMPLE, EXECUTE, PARSE, BIND = "exec_simple_query", "exec_execute_message", "exec_parse_message", "exec_bind_message"
FASTPATH, PLAN = "HandleFunctionRequest", "explain_ExecutorEnd"

WRITERS: dict[str, frozenset[str]] = {
    "statement": frozenset({SIMPLE}),
    "execute": frozenset({EXECUTE}),
    "parse": frozenset({PARSE}),
    "bind": frozenset({BIND}),
    "fastpath": frozenset({FASTPATH}),
    "duration": frozenset({SIMPLE, EXECUTE, PARSE, BIND, FASTPATH}),
    "plan": frozenset({PLAN}),
    "received": frozenset({"BackendInitialize"}),
    "authenticated": frozenset({"set_authn_id", "ClientAuthentication"}),
    "authorized": frozenset({"PerformAuthentication"}),
    "ready": frozenset({"PostgresMain"}),
    "disconnection": frozenset({"log_disconnections"}),
    "audit": frozenset({"log_audit_event"}),
    "replication": frozenset({"exec_replication_command"}),
    "started": frozenset({"reaper", "process_pm_child_exit", "PostmasterStateMachine", "ServerLoop"}),
}
"""Which functions of PostgreSQL's source write each kind of line, from 15 to 18."""
_AUTHENTICATING = ("authenticated", "authorized")


class Surroundings(Struct, frozen=True):
    """What is known of a server beside its log: the databases that have no language but those of `ORDINARY`.

    `quiet`: that is so of all of them, and none has what prints into standard error past the server (`PRINTING`,
    subscriptions). `odd` are the other databases. As long as nobody could ask, nothing is known.
    """

    plain: frozenset[str] = frozenset()
    quiet: bool = False
    odd: frozenset[str] = frozenset()

    def ordinary(self, database: str | None) -> bool:
        """Whether no function of a database can write a line without leaving a context."""
        return database in self.plain if database else bool(self.plain)


class Provenance:
    """Judges lines of one log; `names` says whether a text log's prefix prints what a client chooses (`%u`, `%d`)."""

    def __init__(self, log_format: LogFormat, *, names: bool = True, surroundings: Surroundings | None = None) -> None:
        self.surroundings = surroundings or Surroundings()
        self._text = log_format == "stderr"
        self._names = names

    @property
    def session(self) -> Trust:
        """How far the facts of its session that every line carries can be trusted, whoever wrote its message."""
        if not self._text:
            return "likely"
        return "likely" if self.surroundings.quiet and not self._names else "claimed"

    def judge(self, record: LogRecord, kind: str) -> Trust | None:
        """Say how sure it is that the server wrote a line of a kind (a key of `WRITERS`); None: a session did."""
        location = record.location
        if location is not None:
            if _function(location) not in WRITERS[kind]:
                return None
            return "certain" if not record.readings and (not self._text or self.session == "likely") else "claimed"
        if _left_by_code(record, kind):
            return None
        title = record.title
        if kind in _AUTHENTICATING and not self._text:
            if title is not None and title != AUTHENTICATION:
                return None
            if title is None:
                return "claimed"  # update_process_title is off
        if record.readings:
            return "claimed"
        if self._text:
            return self.session
        return "likely" if self.surroundings.ordinary(record.database) else "claimed"

    def raised(self, record: LogRecord) -> bool:
        """Return whether an error is in the words of a function that raised it, as far as its line shows."""
        if record.location is not None and _function(record.location) == RAISING:
            return True
        return _raised((record.context or "").split("\n")[:1])

    def error(self, record: LogRecord) -> Trust:
        """Say how far an error can be trusted: functions raise errors too, and those are errors like others."""
        if self._text:
            return self.session
        return "certain" if record.location is not None else "likely"


def _function(location: str) -> str:
    return location.partition(",")[0].strip()


def _left_by_code(record: LogRecord, kind: str) -> bool:
    """Return whether a line shows that it was written while code ran, as the server's own of its kind are not."""
    if record.sqlstate not in (None, "", "00000"):
        return True
    if record.statement and kind != "replication":
        return True
    context = record.context
    if not context:
        return False
    return kind != "plan" or _raised(context.split("\n"))


def _raised(context: Iterable[str]) -> bool:
    """Return whether a context has a line of RAISE: the word is not translated, nearly always last."""
    return any(line.rstrip().endswith(RAISE) or f" {RAISE} " in line or f"在{RAISE}" in line for line in context)


def weaker(one: Trust, other: Trust) -> Trust:
    """Return the one of two that proves less."""
    return one if _LEVELS.index(one) >= _LEVELS.index(other) else other


_LEVELS: tuple[Trust, ...] = ("certain", "likely", "claimed")
