"""From a message of the log to what it witnesses: statements, sessions, failed logins. Pure but for what it remembers.

Each message gives its events at once, with one exception. `log_statement` writes a statement before it runs, and its
duration, if at all, in a line of its own: such a statement waits for that line, for another of its session, or for
`WAIT_US` of the log's own time. Whatever lets an event go gives it its place, so places only grow.

What is remembered (`Memory`) belongs to the collector's state: how sessions authenticated, and what waits. It holds
nothing that may not leave the collector.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from collectors.log import complaint
from collectors.log.extensions import AUDIT, audited, explained
from collectors.log.record import LOCAL, LogRecord
from collectors.log.running import STARTED, Progress, Running
from collectors.log.texts import Text, Texts, executed
from collectors.names import Names
from pgwitness.events import LogFormat, LogPlace, Session, Statement
from pgwitness.privacy import Tokenizer
from pgwitness.statements import IDLE

WAIT_US = 1_000_000
SESSIONS_MAX = 10_000
DURATION_MS_MAX = 1e12
PENDING_MAX = 1_000

Seen = Statement | Session
Operation = Literal["connect", "disconnect", "login_failed"]

_AUTHENTICATED = re.compile(r'connection authenticated: (?:identity|user)="(?P<identity>.*)" method=(?P<method>\S+)')
_APPLICATION = re.compile(r" application_name=(?P<name>.*?)(?: (?:SSL|GSS) .*)?$", re.DOTALL)
_DISCONNECTION = re.compile(r"disconnection: session time: (\d{1,9}):(\d\d):(\d\d(?:\.\d+)?)")
_REFUSED = re.compile(
    r"(?:password|\S+) authentication failed for user|no pg_hba\.conf entry for|pg_hba\.conf rejects "
    r"|role \".*\" (?:does not exist|is not permitted to log in)|database \".*\" does not exist"
    r"|permission denied for database"
)
_SILENCING = re.compile(r"log_(?:statement|min_messages)\b", re.IGNORECASE)
_SETS = re.compile(r"\bset(?:_config)?\b", re.IGNORECASE)
"""What may take a session's statements out of the log: to mention both is enough."""
_REFUSING = frozenset({"3D000", "42501", "53300"})
"""SQLSTATEs that end a login besides class 28; a session that has begun does not die of them."""


class Memory(Struct, frozen=True):
    """What is kept over a restart: authentication by session, statements that wait for their duration, what runs."""

    auth: list[tuple[str, str, str]] = []
    pending: list[tuple[str, Statement]] = []
    running: Progress = Progress()


class Interpreter:
    """Reads the messages of one instance's log, in their order.

    `names` are those of what exists. `own_role` is the role that the collectors themselves log in with: what it reads
    under their name is left out. `ordered` says whether the messages of different sessions come in the order in which
    the server wrote them.
    """

    def __init__(
        self,
        token: Tokenizer,
        log_format: LogFormat,
        own_role: str | None = None,
        names: Names | None = None,
        *,
        ordered: bool = True,
    ) -> None:
        self.texts = Texts(token, names)
        self.own = 0
        """Statements of the collectors themselves that were left out."""
        self.ignored = 0
        """Messages that witness nothing."""
        self._token = token
        self._format = log_format
        self._own_role = own_role
        self._ordered = ordered and log_format != "stderr"  # a text log's lines can be forged
        self._auth: dict[str, tuple[str, str]] = {}
        self._pending: dict[str, Statement] = {}
        self._running = Running()

    # -- what is remembered ------------------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """Give what a successor must know."""
        auth = [(key, method, identity) for key, (method, identity) in self._auth.items()]
        return Memory(auth, list(self._pending.items()), self._running.progress)

    def remember(self, memory: Memory) -> None:
        """Take up what a predecessor knew."""
        self._auth = {key: (method, identity) for key, method, identity in memory.auth}
        self._pending = dict(memory.pending)
        self._running = Running(memory.running)

    @property
    def waits(self) -> bool:
        """Whether a statement waits for its duration."""
        return bool(self._pending)

    def lost(self) -> None:
        """Lines of the log are missing: nothing is said of who ran alone until all that may have begun is over."""
        self._running.lost()

    # -- messages ----------------------------------------------------------------------------------------------

    def read(self, record: LogRecord, log: str, offset: int, captured_at_us: int, index: int = 0) -> list[Seen]:
        """Give what a message witnesses; `log` and `offset` are its place, `index` what was given of that before."""
        events: list[Seen] = []
        if self._pending:
            self._expire(record, events)
        message = record.message
        severity = record.severity
        place = LogPlace(log, offset, index, _line(record))
        self._running.at(record.time_us)
        if message.startswith(AUDIT):
            self._audit(record, place, captured_at_us, events)
        elif severity == "LOG":
            if message.startswith("duration: "):
                self._duration(record, place, captured_at_us, events)
            elif message.startswith("statement: "):
                self._begun(record, message[11:], place, captured_at_us, events)
            elif message.startswith("execute "):
                self._begun(record, executed(message[8:]), place, captured_at_us, events)
            elif message.startswith(("connection ", "disconnection: ", "replication connection ")):
                self._session(record, place, captured_at_us, events)
            else:
                self._other(record)
        elif severity in ("ERROR", "FATAL", "PANIC"):
            self._error(record, place, captured_at_us, events)
        else:
            self.ignored += 1
        if len(events) == 1 and events[0].place is place:
            return events
        return _placed(events, log, offset, index)

    def _other(self, record: LogRecord) -> None:
        self.ignored += 1
        if record.message.startswith("fastpath function call: "):
            self._running.begins(_key(record))
        elif record.message == STARTED and record.user is None:
            self._running.started()

    def idle(self, log: str, offset: int, index: int = 0) -> list[Seen]:
        """Let go what waits, because nothing has been written for a while."""
        events: list[Seen] = list(self._pending.values())
        self._pending.clear()
        return _placed(events, log, offset, index)

    # -- statements --------------------------------------------------------------------------------------------

    def _statement(
        self,
        record: LogRecord,
        text: Text,
        source: Any,
        place: LogPlace,
        captured_at_us: int,
        duration_ms: float | None = None,
        **more: Any,
    ) -> Statement:
        # Once a line. Python calls with fifteen names directly, with more through a mapping that costs four times as
        # much: what fewer statements have is put in behind, before anybody else has it.
        host = record.host
        found = Statement(
            captured_at_us=captured_at_us,
            place=place,
            format=self._format,
            source=source,
            occurred_at_us=record.time_us,
            pid=record.pid,
            session_start_us=record.start_us,
            role=record.user,
            database=record.database,
            application=record.application,
            client_addr=address(host) if host is not None else None,
            client_port=record.port,
            xid=record.xid or None,
            statement=text.statement,
            duration_ms=duration_ms,
        )
        if record.query_id:
            more["query_id"] = record.query_id
        if self._auth and (auth := self._auth.get(_key(record))) is not None:
            more["auth_method"] = auth[0]
        if text.hash is not None or text.parsed is not None or text.tags:
            more |= {"statement_hash": text.hash, "parsed": text.parsed, "tags": dict(text.tags)}
        for name, value in more.items():
            force_setattr(found, name, value)
        return found

    def _text(self, record: LogRecord, text: str | None, *, unproven: bool = False) -> Text:
        """Read a statement; `unproven`: nobody knows yet whether what it names exists."""
        if text is None:
            return Text(None, self.texts.hash(record.message))
        return self.texts.read(text, complaint.unproven(self.texts.names) if unproven and '"' in text else None)

    def _failed(self, text: str | None, said: complaint.Complaint) -> Text:
        """Read the statement of an error."""
        if text is None:
            return Text(None, None)
        return self.texts.read(text, said.hide) if said.known else Text(None, self.texts.hash(text))

    def _is_own(self, record: LogRecord, text: Text) -> bool:
        """Only what the collectors read is left out: a write under their name is somebody else's."""
        if record.user != self._own_role or record.user is None:
            return False
        if not (record.application or "").startswith("pgwitness") or set(text.operations) != {"select"}:
            return False
        self.own += 1
        return True

    def _duration(self, record: LogRecord, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        message = record.message
        end = message.find(" ms", 10)
        try:
            duration_ms = float(message[10:end])
            if not 0.0 <= duration_ms <= DURATION_MS_MAX:
                raise ValueError
        except ValueError:
            self.ignored += 1
            return
        end += 3
        if message.startswith("  statement: ", end):
            quoted: str | None = message[end + 13 :]
        elif message.startswith("  execute ", end):
            quoted = executed(message[end + 10 :])
        elif message.startswith("  plan:", end):
            self._explained(record, message[end + 7 :], duration_ms, place, at_us, events)
            return
        elif end == len(message):
            self._ended(record, duration_ms, events)
            return
        else:  # parse and bind are no executions, a fastpath call shows no statement
            self.ignored += 1
            return
        # Only a statement that was not announced has its text here: who else is not announced nobody knows.
        self._running.unannounced(_key(record))
        text = self._text(record, quoted)
        if not self._is_own(record, text):
            events.append(self._statement(record, text, "duration", place, at_us, duration_ms=duration_ms))

    def _explained(
        self, record: LogRecord, body: str, duration_ms: float, place: LogPlace, at_us: int, events: list[Seen]
    ) -> None:
        found = explained(body)
        text = self._text(record, found.text)
        if found.query_id and not record.query_id:
            record = replace(record, query_id=found.query_id)
        if not self._is_own(record, text):
            events.append(
                self._statement(
                    record, text, "auto_explain", place, at_us, duration_ms=duration_ms, row_count=found.rows
                )
            )

    def _begun(self, record: LogRecord, text: str | None, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        """Keep a statement that log_statement tells, until it is known how long it took."""
        key = _key(record)
        self._running.ends(key)
        waiting = self._pending.pop(key, None)
        if waiting is not None:
            events.append(waiting)
        found = self._text(record, text, unproven=True)
        if text is not None and _SILENCING.search(text) is not None and _SETS.search(text) is not None:
            self._running.lost()
        if not _is_idle(found, record.xid):
            self._running.begins(key)
        if self._is_own(record, found):
            return
        if len(self._pending) >= PENDING_MAX:
            events.append(self._pending.pop(next(iter(self._pending))))
        self._pending[key] = self._statement(record, found, "statement", place, at_us, outcome="unknown")

    def _ended(self, record: LogRecord, duration_ms: float, events: list[Seen]) -> None:
        key = _key(record)
        waiting = self._pending.pop(key, None)
        if waiting is None:
            if not record.xid:  # else it may yet commit, and the line that has its id tells of no statement
                self._running.ends(key)
            self.ignored += 1
            return
        alone = self._running.ends(key) and self._ordered
        events.append(
            replace(
                waiting,
                occurred_at_us=record.time_us,
                duration_ms=duration_ms,
                outcome="success",
                xid=record.xid or waiting.xid,
                query_id=record.query_id or waiting.query_id,
                alone=alone,
            )
        )

    def _expire(self, record: LogRecord, events: list[Seen]) -> None:
        while self._pending:
            key, waiting = next(iter(self._pending.items()))
            if record.time_us - waiting.occurred_at_us < WAIT_US:
                return
            if key == _key(record):
                return  # this may be the very line it waits for
            del self._pending[key]
            events.append(waiting)

    def _audit(self, record: LogRecord, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        found = audited(record.message)
        if found is None:
            text, audit, rows = Text(None, self.texts.hash(record.message)), None, None
        else:
            text = self._text(record, found.text) if found.text is not None else Text(None, None)
            audit, rows = found.audit, found.rows
        if not self._is_own(record, text):
            # pgAudit writes before or while a statement runs: that it succeeded nobody has said.
            events.append(
                self._statement(
                    record, text, "pgaudit", place, at_us, outcome="unknown", audit=audit or {}, row_count=rows
                )
            )

    # -- errors and sessions -----------------------------------------------------------------------------------

    def _error(self, record: LogRecord, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        self._running.ends(_key(record))
        if record.severity == "FATAL" and _refused(record):
            auth = self._auth.pop(_key(record), ("", ""))
            events.append(self._told(record, "login_failed", place, at_us, auth, sqlstate=record.sqlstate))
            return
        if record.backend_type not in (None, "client backend") or (record.user is None and record.statement is None):
            self.ignored += 1
            return
        waiting = self._pending.pop(_key(record), None)
        said = complaint.complaint(
            record.message, record.sqlstate, record.detail, record.statement, self.texts.names, self._token
        )
        text = self._failed(record.statement, said)
        if waiting is not None:
            begun = self._text(record, record.statement, unproven=True) if record.statement is not None else text
            if (waiting.statement, waiting.statement_hash) != (begun.statement, begun.hash):
                events.append(waiting)
            else:
                place = replace(place, line=waiting.place.line)
        denied = record.sqlstate == "42501" or (record.sqlstate or "").startswith("28")
        events.append(
            self._statement(
                record,
                text,
                "error",
                place,
                at_us,
                outcome="denied" if denied else "failure",
                sqlstate=record.sqlstate,
                error=said.message,
                error_detail=said.detail,
            )
        )

    def _session(self, record: LogRecord, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        message = record.message
        key = _key(record)
        if message.startswith("connection authenticated: "):
            found = _AUTHENTICATED.match(message)
            if found is not None:
                self._auth.pop(key, None)
                while len(self._auth) >= SESSIONS_MAX:
                    del self._auth[next(iter(self._auth))]
                self._auth[key] = (found["method"], found["identity"])
        elif message.startswith(("connection authorized: ", "replication connection authorized: ")):
            named = _APPLICATION.search(message)
            record = replace(record, application=named["name"] if named is not None else "")
            kind = "walsender" if message.startswith("replication") else record.backend_type or "client backend"
            auth = self._auth.get(key, ("", ""))
            events.append(self._told(record, "connect", place, at_us, auth, backend_type=kind))
        elif message.startswith("disconnection: "):
            self._running.ends(key)
            waiting = self._pending.pop(key, None)
            if waiting is not None:
                events.append(waiting)
            auth = self._auth.pop(key, ("", ""))
            time = _DISCONNECTION.match(message)
            took = (int(time[1]) * 3600 + int(time[2]) * 60 + float(time[3])) * 1000 if time is not None else None
            kind = record.backend_type or "client backend"
            events.append(self._told(record, "disconnect", place, at_us, auth, backend_type=kind, duration_ms=took))
        else:
            self.ignored += 1

    def _told(
        self,
        record: LogRecord,
        operation: Operation,
        place: LogPlace,
        at_us: int,
        auth: tuple[str, str],
        **more: Any,
    ) -> Session:
        client_addr = address(record.host)
        return Session(
            captured_at_us=at_us,
            operation=operation,
            occurred_at_us=record.time_us,
            pid=record.pid,
            backend_start_us=record.start_us or 0,
            role=record.user or _quoted(record.message, "user" if "user" in record.message else "role"),
            database=record.database,
            application=record.application or "",
            client_addr=None if client_addr == LOCAL else client_addr,
            client_port=record.port,
            auth_method=auth[0] or None,
            identity=auth[1] or None,
            place=place,
            format=self._format,
            **more,
        )


def _key(record: LogRecord) -> str:
    return record.session or str(record.pid)


def _is_idle(text: Text, xid: int) -> bool:
    """Say whether a statement cannot write and cannot commit what was written; `xid` is the one at its beginning."""
    words = set(text.operations)
    return text.statement is not None and bool(words) and words <= (IDLE if xid else IDLE | {"commit"})


def _line(record: LogRecord) -> str | None:
    if record.session is None or record.line is None:
        return None
    return f"{record.session}/{record.line}"


def _placed(events: list[Seen], log: str, offset: int, index: int) -> list[Seen]:
    """Give events that one line lets go places of that line, in their order."""
    if not events or (len(events) == 1 and _is_at(events[0].place, log, offset, index)):
        return events
    return [
        replace(event, place=LogPlace(log, offset, number, event.place.line if event.place is not None else None))
        for number, event in enumerate(events, index)
    ]


def _is_at(place: LogPlace | None, log: str, offset: int, index: int) -> bool:
    return place is None or (place.offset == offset and place.index == index and place.log == log)


def _refused(record: LogRecord) -> bool:
    if record.sqlstate is None:
        return _REFUSED.match(record.message) is not None
    return record.sqlstate.startswith("28") or record.sqlstate in _REFUSING


def _quoted(message: str, word: str) -> str | None:
    found = re.search(rf'{word} "([^"]*)"', message)
    return found[1] if found is not None else None


@lru_cache(maxsize=4096)
def address(host: str | None) -> str | None:
    """Give a client's address: `local`, an address, or None for a name (log_hostname), which proves nothing."""
    if host is None or host == LOCAL:
        return host
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        return None
