"""From a message of the log to what it witnesses: statements, sessions, failed logins. Pure but for what it remembers.

Each message gives its events at once, with one exception. `log_statement` writes a statement before it runs, and its
duration, if at all, in a line of its own: such a statement waits for that line, for another of its session, or for
`WAIT_US` of the log's own time. So does a session that was authorized, since it may yet be refused: only what it does
next shows that it began. Whatever lets an event go gives it its place, so places only grow.

Who wrote a line is asked before what it says (`collectors.log.interpretation.provenance`). A line that a session's code
wrote in the server's form changes nothing that is remembered of any session: it is told as what it is, the first of a
session at once and more of them once in `AGAIN_US` of the log's time.

What is remembered (`Memory`) belongs to the collector's state: how sessions authenticated, and what waits. It holds
nothing that may not leave the collector.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from collectors.log.formats.record import LogRecord
from collectors.log.interpretation import complaint, forms, guarded, prepared
from collectors.log.interpretation.extensions import AUDIT, audited, explained
from collectors.log.interpretation.imitations import Imitations
from collectors.log.interpretation.logins import WAIT_US, Logins
from collectors.log.interpretation.provenance import Provenance, weaker
from collectors.log.interpretation.readings import Queries, executed, possible, quoted
from collectors.log.interpretation.running import STARTED, Progress, Running
from collectors.log.interpretation.texts import Text, Texts, masked_parsed
from collectors.log.languages import english
from collectors.log.probes import gives_nothing
from collectors.names import Names
from collectors.own import OwnSessions
from pgwitness.core.events import LogFormat, LogPlace, Session, Statement, Trust
from pgwitness.core.privacy import Tokenizer
from pgwitness.core.sql.identifiers import parts
from pgwitness.core.sql.statements import CUT, IDLE, facts

DURATION_MS_MAX = 1e12
PENDING_MAX = 1_000
VXID_CHARS_MAX = 32
LEARNED_MAX = 4_096
"""Statements whose names were learned; then all begin anew."""
Seen = Statement | Session
_FAILED = frozenset({"ERROR", "FATAL", "PANIC"})
_SILENCING = re.compile(r"log_(?:statement|min_messages)\b", re.IGNORECASE)
_SETS = re.compile(r"\bset(?:_config)?\b", re.IGNORECASE)
"""What may take a session's statements out of the log: to mention both is enough."""


class Memory(Struct, frozen=True):
    """What is kept over a restart: authentication by session, statements that wait for their duration, what runs."""

    auth: list[tuple[str, str, str]] = []
    pending: list[tuple[str, Statement]] = []
    running: Progress = Progress()
    connecting: list[tuple[str, Session]] = []
    proven: list[str] = []
    """Sessions of `auth` whose line was certain."""


class Interpreter:
    """Reads the messages of one instance's log, in their order.

    `names` are those of what exists. `own` knows the collectors' own sessions: what they read is left out. `ordered`
    says whether the messages of different sessions come in the order in which the server wrote them.
    """

    def __init__(
        self,
        token: Tokenizer,
        log_format: LogFormat,
        own: OwnSessions | None = None,
        names: Names | None = None,
        *,
        ordered: bool = True,
        provenance: Provenance | None = None,
    ) -> None:
        self.texts = Texts(token, names)
        self._learned: set[str] = set()
        self.own = 0
        """Statements of the collectors themselves that were left out."""
        self.ignored = 0
        self.guarded: dict[str, int] = {}
        """By effect, how often the guard in the database refused, and by `staged` how often it would have."""
        """Messages that witness nothing."""
        self.known = 0
        """Messages in a form that is known and witnesses something, whoever wrote them."""
        self.unknown = 0
        """Messages of the kind that witnesses something, in no form that is known."""
        self.doubts = False
        """Whether an extension or a language was made since this was last set to false."""
        self.provenance = provenance or Provenance(log_format)
        self._queries = Queries()
        self._imitations = Imitations()
        self._logins = Logins(log_format)
        self._token = token
        self._format = log_format
        self._own = own
        self._ordered = ordered and log_format != "stderr"  # a text log's lines can be forged
        self._pending: dict[str, Statement] = {}
        self._running = Running()

    # -- what is remembered ------------------------------------------------------------------------------------

    @property
    def memory(self) -> Memory:
        """Return what a successor must know."""
        logins = self._logins
        auth = [(key, method, identity) for key, (method, identity) in logins.auth.items()]
        connecting = list(logins.connecting.items())
        return Memory(auth, list(self._pending.items()), self._running.progress, connecting, sorted(logins.proven))

    def remember(self, memory: Memory) -> None:
        """Take up what a predecessor knew."""
        self._logins.auth = {key: (method, identity) for key, method, identity in memory.auth}
        self._pending = dict(memory.pending)
        self._running = Running(memory.running)
        self._logins.connecting = dict(memory.connecting)
        self._logins.proven = set(memory.proven)

    @property
    def waits(self) -> bool:
        """Whether a statement waits for its duration, or a session for its first act."""
        return bool(self._pending or self._logins.connecting)

    @property
    def imitated(self) -> int:
        """Lines in the server's form that a session's code wrote."""
        return self._imitations.lines

    def lost(self) -> None:
        """Lines of the log are missing: nothing is said of who ran alone until all that may have begun is over."""
        self._running.lost()

    # -- messages ----------------------------------------------------------------------------------------------

    def read(self, record: LogRecord, log: str, offset: int, captured_at_us: int, index: int = 0) -> list[Seen]:
        """Return what a message witnesses; `log` and `offset` are its place, `index` what was given of that before."""
        events: list[Seen] = []
        ignored = self.ignored
        if self._pending or self._logins.connecting:
            self._expire(record, events)
        message = record.message
        severity = record.severity
        place = LogPlace(log, offset, index, _line(record))
        self._running.at(record.time_us)
        if message.startswith(AUDIT) and severity not in _FAILED:
            self._audit(record, place, captured_at_us, events)
        elif severity == "LOG":
            if not self._log(record, message, place, captured_at_us, events):
                message = english(message) or ""
                record = replace(record, message=message)
                if not message or not self._log(record, message, place, captured_at_us, events):
                    self.ignored += 1
                    self.unknown += 1
        elif severity in _FAILED:
            self._error(record, place, captured_at_us, events)
        else:
            self.ignored += 1
        if self.ignored == ignored:
            self.known += 1
        if len(events) == 1 and events[0].place is place:
            return events
        return _placed(events, log, offset, index)

    def _log(self, record: LogRecord, message: str, place: LogPlace, at_us: int, events: list[Seen]) -> bool:
        """Read a message at LOG; false for one whose form is not known."""
        if message.startswith("duration: "):
            self._duration(record, place, at_us, events)
        elif message.startswith("statement: "):
            self._begun(record, "statement", place, at_us, events)
        elif message.startswith("execute "):
            self._begun(record, "execute", place, at_us, events)
        elif message.startswith(("connection ", "disconnection: ", "replication connection ")):
            self._session(record, place, at_us, events)
        elif message.startswith("fastpath function call: "):
            if self.provenance.judge(record, "fastpath") is not None:
                self._running.begins(_key(record))
            self.ignored += 1
        elif guarded.staged(record):
            self.guarded["staged"] = self.guarded.get("staged", 0) + 1
            self.ignored += 1
        elif message.startswith(forms.ORDINARY):
            if message == STARTED and record.user is None and self.provenance.judge(record, "started") is not None:
                self._running.started()
            self.ignored += 1
        else:
            return False
        return True

    def _imitation(self, record: LogRecord, kind: str, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        """Tell of a line that a session's code wrote in the server's form, and who that session is."""
        lines = self._imitations.count(_key(record), record.time_us)
        if lines:
            text = Text(None, self.texts.hash(record.message))
            found = self._statement(record, text, "imitated", place, at_us, outcome="unknown")
            events.append(replace(found, imitates=kind, lines=lines, trust=self.provenance.session))

    def idle(self, log: str, offset: int, index: int = 0) -> list[Seen]:
        """Let go what waits, because nothing has been written for a while."""
        events: list[Seen] = [*self._logins.idle(), *self._pending.values()]
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
        trust: Trust = "likely",
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
            client_addr=forms.address(host) if host is not None else None,
            client_port=record.port,
            xid=record.xid or None,
            statement=text.statement,
            duration_ms=duration_ms,
        )
        if record.query_id:
            more["query_id"] = record.query_id
        if self._own is not None and self._own.commands(record.application, record.session):
            more["own"] = True
        if record.vxid is not None:
            more["vxid"] = record.vxid[:VXID_CHARS_MAX]
        if text.doubtful:
            trust = "claimed"
        if trust != "likely":
            more["trust"] = trust
        if self._logins.auth and (method := self._logins.method(_key(record), trust)) is not None:
            more["auth_method"] = method
        if text.hash is not None or text.parsed is not None or text.tags:
            more |= {"statement_hash": text.hash, "parsed": text.parsed, "tags": dict(text.tags)}
        for name, value in more.items():
            force_setattr(found, name, value)
        return found

    def _text(self, record: LogRecord, texts: Sequence[str], *, unproven: bool = False) -> Text:
        """Read a statement, or what it may be; `unproven`: nobody knows yet whether what it names exists."""
        if record.readings:
            texts = list(dict.fromkeys(text for reading in record.readings for text in quoted(reading)))
        if not texts:
            return Text(None, self.texts.hash(record.message))
        text = texts[0]
        if len(texts) > 1:
            decided = self._queries.decide(record.query_id, texts)
            if decided is None:
                return possible([self.texts.read(text) for text in texts], self.texts.hash(record.message))
            text = decided
        found = self.texts.read(text, complaint.unproven(self.texts.names) if unproven else None)
        if "create_extension" in found.operations:  # or a language: what functions can do may be another thing now
            self.doubts = True
        if record.query_id and len(texts) == 1 and found.statement is not None:
            self._queries.learn(record.query_id, found.statement)
        return found

    def _by_name(self, record: LogRecord, found: Text) -> Text:
        """Add what an EXECUTE runs, where the server says it."""
        if "execute" not in found.operations or found.statement is None or not record.detail:
            return found
        said = prepared.ran(found.statement, record.detail)
        return found if said is None else found._replace(parsed=self.texts.without_values(said))

    def _failed(self, text: str | None, said: complaint.Complaint) -> Text:
        """Read the statement of an error."""
        if text is None:
            return Text(None, None)
        if not said.known:
            return Text(None, self.texts.hash(text))
        found = self.texts.read(text, said.hide, all_names=True)
        if found.parsed is None:
            return found
        return found._replace(parsed=masked_parsed(found.parsed, lambda name, quoted: said.hide(name, quoted, False)))

    def _ran(self, text: Text, trust: Trust) -> None:
        """Take up that what a statement names is there, where no catalogue says it."""
        names = self.texts.names
        if not names and trust != "claimed" and text.statement and text.statement not in self._learned:
            if text.statement.endswith(CUT):
                return  # nobody has parsed it
            if len(self._learned) >= LEARNED_MAX:
                self._learned.clear()
            self._learned.add(text.statement)
            known = facts(text.statement, freed=True)
            names.see(part for name in (*known.relations, *known.columns, *known.functions) for part in parts(name))

    def _is_own(self, record: LogRecord, text: Text) -> bool:
        """Only what the collectors read, and set for it, is left out: a write in their session is told."""
        if self._own is None or "select" not in text.operations or not set(text.operations) <= {"select", "set"}:
            return False
        if not self._own.has(record.user, record.application, record.session):
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
        kind = forms.of_duration(message, end)
        trust = self.provenance.judge(record, kind) if kind is not None else "claimed"
        if trust is None:
            self._imitation(record, str(kind), place, at_us, events)
            return
        if kind == "statement":
            texts = [message[end + 13 :]]
        elif kind == "execute":
            texts = executed(message[end + 10 :])
        elif kind == "plan":
            self._explained(record, message[end + 7 :], duration_ms, place, at_us, events, trust)
            return
        elif kind == "duration":
            self._ended(record, duration_ms, events, trust)
            return
        else:  # parse and bind are no executions, a fastpath call shows no statement
            self.ignored += 1
            return
        # Only a statement that was not announced has its text here: who else is not announced nobody knows.
        self._running.unannounced(_key(record))
        text = self._by_name(record, self._text(record, texts))
        self._ran(text, trust)
        if not self._is_own(record, text):
            events.append(self._statement(record, text, "duration", place, at_us, duration_ms, trust, **_rows(texts)))

    def _explained(
        self,
        record: LogRecord,
        body: str,
        duration_ms: float,
        place: LogPlace,
        at_us: int,
        events: list[Seen],
        trust: Trust,
    ) -> None:
        found = explained(body)
        if found.query_id and not record.query_id:
            record = replace(record, query_id=found.query_id)
        text = self._text(record, _one(found.text))
        if not self._is_own(record, text):
            events.append(
                self._statement(record, text, "auto_explain", place, at_us, duration_ms, trust, row_count=found.rows)
            )

    def _begun(self, record: LogRecord, kind: str, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        """Keep a statement that log_statement tells, until it is known how long it took."""
        trust = self.provenance.judge(record, kind)
        if trust is None:
            self._imitation(record, kind, place, at_us, events)
            return
        texts = [record.message[11:]] if kind == "statement" else executed(record.message[8:])
        key = _key(record)
        self._running.ends(key)
        waiting = self._pending.pop(key, None)
        if waiting is not None:
            events.append(waiting)
        found = self._by_name(record, self._text(record, texts, unproven=True))
        if any(map(silences, texts)):
            self._running.lost()
        if not _is_idle(found, record.xid):
            self._running.begins(key)
        if self._is_own(record, found):
            return
        if len(self._pending) >= PENDING_MAX:
            events.append(self._pending.pop(next(iter(self._pending))))
        self._pending[key] = self._statement(
            record, found, "statement", place, at_us, trust=trust, outcome="unknown", **_rows(texts)
        )

    def _ended(self, record: LogRecord, duration_ms: float, events: list[Seen], trust: Trust) -> None:
        key = _key(record)
        waiting = self._pending.pop(key, None)
        if waiting is None:
            if not record.xid:  # else it may yet commit, and the line that has its id tells of no statement
                self._running.ends(key)
            self.ignored += 1
            return
        trust = weaker(trust, waiting.trust)
        alone = self._running.ends(key) and self._ordered and trust != "claimed"
        self._ran(Text(waiting.statement, None), trust)
        events.append(
            replace(
                waiting,
                occurred_at_us=record.time_us,
                duration_ms=duration_ms,
                outcome="success",
                xid=record.xid or waiting.xid,
                query_id=record.query_id or waiting.query_id,
                vxid=record.vxid or waiting.vxid,
                alone=alone,
                trust=trust,
            )
        )

    def _expire(self, record: LogRecord, events: list[Seen]) -> None:
        here = _key(record)
        if self._logins.connecting:
            events += self._logins.due(here, record)
        while self._pending:
            key, waiting = next(iter(self._pending.items()))
            if record.time_us - waiting.occurred_at_us < WAIT_US:
                return
            if key == here:
                return  # this may be the very line it waits for
            del self._pending[key]
            events.append(waiting)

    def _audit(self, record: LogRecord, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        trust = self.provenance.judge(record, "audit")
        if trust is None:
            self._imitation(record, "audit", place, at_us, events)
            return
        found = audited(record.message)
        if found is None:
            text, audit, rows = Text(None, self.texts.hash(record.message)), None, None
        else:
            text = self._text(record, [found.text]) if found.text is not None else Text(None, None)
            audit, rows = found.audit, found.rows
        if not self._is_own(record, text):
            # pgAudit writes before or while a statement runs: that it succeeded nobody has said.
            events.append(
                self._statement(
                    record,
                    text,
                    "pgaudit",
                    place,
                    at_us,
                    trust=trust,
                    outcome="unknown",
                    audit=audit or {},
                    row_count=rows,
                )
            )

    # -- errors and sessions -----------------------------------------------------------------------------------

    def _error(self, record: LogRecord, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        key = _key(record)
        self._running.ends(key)
        connecting = self._logins.connecting.pop(key, None)
        fatal = record.severity == "FATAL"
        if fatal and (connecting is not None or forms.refused(record) or forms.never_began(record)):
            events.append(self._logins.refused(key, record, place, at_us, self.provenance.error(record)))
            return
        if record.backend_type not in (None, "client backend") or (record.user is None and record.statement is None):
            self.ignored += 1
            return
        waiting = self._pending.pop(_key(record), None)
        said = complaint.complaint(
            record.message,
            record.sqlstate,
            record.detail,
            record.statement,
            self.texts.names,
            self._token,
            raised=self.provenance.raised(record),
        )
        text = self._failed(record.statement, said)
        if waiting is not None:
            begun = self._text(record, [record.statement], unproven=True) if record.statement is not None else text
            if (waiting.statement, waiting.statement_hash) != (begun.statement, begun.hash):
                events.append(waiting)
            else:
                place = replace(place, line=waiting.place.line)
                if text.parsed is None and text.statement == waiting.statement:
                    text = text._replace(parsed=waiting.parsed)
        denied = record.sqlstate == "42501" or (record.sqlstate or "").startswith("28")
        more: dict[str, Any] = {}
        if denied and (decided := guarded.decided(record)) is not None:
            more["decided"] = decided
            self.guarded[decided.effect] = self.guarded.get(decided.effect, 0) + 1
        events.append(
            self._statement(
                record,
                text,
                "error",
                place,
                at_us,
                trust=self.provenance.error(record),
                outcome="denied" if denied else "failure",
                sqlstate=record.sqlstate,
                error=said.message,
                error_detail=said.detail,
                **more,
            )
        )

    def _session(self, record: LogRecord, place: LogPlace, at_us: int, events: list[Seen]) -> None:
        kind = forms.of_session(record.message)
        trust = self.provenance.judge(record, kind) if kind is not None else "claimed"
        key = _key(record)
        if trust is None:
            self._imitation(record, str(kind), place, at_us, events)
        elif kind == "received":
            self._logins.forget(key)  # a process id that comes again is another session
            self.ignored += 1
        elif kind == "authenticated":
            self._logins.authenticated(key, record, trust)
        elif kind == "authorized":
            events += self._logins.authorized(key, record, place, at_us, trust)
        elif kind == "disconnection":
            self._running.ends(key)
            self._imitations.ends(key)
            waiting = self._pending.pop(key, None)
            if waiting is not None:
                events.append(waiting)
            events.append(self._logins.disconnected(key, record, place, at_us, trust))
        else:
            self.ignored += 1


def _key(record: LogRecord) -> str:
    return record.session or str(record.pid)


def _one(text: str | None) -> list[str]:
    return [] if text is None else [text]


def silences(text: str) -> bool:
    """Return whether a statement may take a session's statements out of the log.

    To mention the setting and that something is set is enough, but for the beacon's own functions, which look at it.
    """
    if text.startswith(_OUR_FUNCTION):
        return _SETS_IT.search(text) is not None
    return _SILENCING.search(text) is not None and _SETS.search(text) is not None


_OUR_FUNCTION = "CREATE OR REPLACE FUNCTION pgwitness."
_SETS_IT = re.compile(
    r"\bset(?:_config\s*\(\s*'|\s+(?:local\s+|session\s+)?)log_(?:statement|min_messages)\b", re.IGNORECASE
)


def _is_idle(text: Text, xid: int) -> bool:
    """Return whether a statement cannot write and cannot commit what was written; `xid` is the one at its beginning."""
    words = set(text.operations)
    return text.statement is not None and bool(words) and words <= (IDLE if xid else IDLE | {"commit"})


def _line(record: LogRecord) -> str | None:
    if record.session is None or record.line is None:
        return None
    return f"{record.session}/{record.line}"


def _placed(events: list[Seen], log: str, offset: int, index: int) -> list[Seen]:
    """Return events that one line lets go places of that line, in their order."""
    if not events or (len(events) == 1 and _is_at(events[0].place, log, offset, index)):
        return events
    return [
        replace(event, place=LogPlace(log, offset, number, event.place.line if event.place is not None else None))
        for number, event in enumerate(events, index)
    ]


def _is_at(place: LogPlace | None, log: str, offset: int, index: int) -> bool:
    return place is None or (place.offset == offset and place.index == index and place.log == log)


def _rows(texts: Sequence[str]) -> dict[str, int]:
    """Return the number of rows of a statement whose text alone tells it: none."""
    return {"row_count": 0} if len(texts) == 1 and gives_nothing(texts[0]) else {}
