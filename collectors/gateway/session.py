"""One session between a client and its server, after both logins: pure. Bytes of either side in, what to do out.

It follows the protocol so that every statement is written down before it is forwarded and completed when its answer
has come. A queue holds what the client has sent and the server has not answered, in the order in which it will be
(manual, 55.2.2 to 55.2.4). Three things make the order hard, and are followed as the server does them: an error in the
extended protocol lets everything up to the next Sync pass unread; during a COPY from the client Sync and Flush are
passed over; and a name that a Parse or Bind gives to a statement or portal holds only when the server has said so.

The client's own order is kept. Nothing is held back that is not judged: what is not asked for passes in whole reads.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from collectors.gateway.actions import Actions, Judge, Moment, Settings
from collectors.gateway.names import Names
from collectors.gateway.records import UNKNOWN, Begun, Ended, Record, Said, Way
from collectors.gateway.wire import backend, frontend
from collectors.gateway.wire.frames import Frames, Message
from collectors.gateway.wire.violation import ProtocolViolation
from pgwitness.core.events import Outcome, Parsed

QUEUE_MAX: Final = 100_000
"""Messages of a client that wait for their answer; a pipeline that is longer has to be read from."""


@dataclass(slots=True)
class _Sent:
    """Something that the client has sent and the server will answer. `kind` is the message's type."""

    kind: int
    name: bytes = b""
    """What a Parse, Bind or Close names; of an Execute its portal."""
    said: Said | None = None
    statement: bytes = b""
    """What a Bind makes a portal of."""
    number: int = 0
    began_ns: int = 0
    rows: int | None = None
    sqlstate: str | None = None
    ended_ns: int = 0
    outcome: Outcome = "unknown"
    ran: bool = True
    failed: bool = False


_ANSWERS: Final = {
    backend.PARSE_COMPLETE: frontend.PARSE,
    backend.BIND_COMPLETE: frontend.BIND,
    backend.CLOSE_COMPLETE: frontend.CLOSE,
}
_COMMITS: Final = (b"COMMIT\0", b"PREPARE TRANSACTION\0")
_ROLLS_BACK: Final = b"ROLLBACK\0"


class Session:
    """The state of one session. `number` names it on the spool."""

    def __init__(self, number: int, settings: dict[str, str], judge: Judge) -> None:
        self.number = number
        self.settings = dict(settings)
        """What the server has reported, by the names of its settings."""
        self.status = "I"
        self.statements = 0
        self._transaction = 1
        self._judge = judge
        self._client = Frames(frontend.WANTED, "frontend")
        self._server = Frames(backend.WANTED, "backend")
        self._sent: deque[_Sent] = deque()
        self._skipping = False
        """The server reads nothing until a Sync, which has not been sent yet."""
        self._copying = False
        """The server reads the data of a COPY, of which the client has not sent the end yet."""
        self._prepared = Names("prepared statements")
        self._portals = Names("portals")
        self._coming: deque[_Sent] = deque()
        """Of what was sent, what will give a name when the server has done it."""
        self._undone = False
        """An error came since the last ReadyForQuery, of whatever message: what ran before it is undone."""
        self._undecided: list[_Sent] = []
        """What has run since the last ReadyForQuery, and may be undone before the next."""
        self._application = settings.get("application_name", "")
        self._rows = 0
        self._now = Moment(0, 0)

    @property
    def waiting(self) -> int:
        """How many messages the server has not answered yet."""
        return len(self._sent)

    # -- the client --------------------------------------------------------------------------------------------

    def client(self, data: bytes, now: Moment) -> Actions:
        """Take what the client has sent."""
        done = Actions()
        self._now = now
        try:
            for piece in self._client.feed(data):
                if isinstance(piece, Message):
                    self._from_client(piece, now, done)
                    done.to_server.append(piece.frame)
                else:
                    done.to_server.append(piece)
            if len(self._sent) > QUEUE_MAX:
                raise ProtocolViolation(
                    f"a pipeline of more than {QUEUE_MAX} messages that are not answered: read the answers", "54000"
                )
        except ProtocolViolation as error:
            done.close = error
        return done

    def _from_client(self, message: Message, now: Moment, done: Actions) -> None:
        kind = message.type
        if kind == frontend.QUERY:
            said = self._read(frontend.query_text(message.body))
            self._begin("query", _Sent(kind, said=said), said, now, done)
        elif kind == frontend.PARSE:
            parsed = frontend.parse(message.body)
            self._name(_Sent(kind, parsed.name, self._read(parsed.text)))
        elif kind == frontend.BIND:
            bound = frontend.bind(message.body)
            self._name(_Sent(kind, bound.portal, self._expected(frontend.PARSE, bound.statement), bound.statement))
        elif kind == frontend.EXECUTE:
            portal = frontend.execute(message.body)
            said = self._expected(frontend.BIND, portal)
            self._begin("execute", _Sent(kind, portal, said), said, now, done)
        elif kind == frontend.FUNCTION_CALL:
            said = Said(parsed=Parsed(operations=["select"], functions=[f"oid {frontend.function_oid(message.body)}"]))
            self._begin("function", _Sent(kind, said=said), said, now, done)
        elif kind == frontend.CLOSE:
            sort, name = frontend.close(message.body)
            self._name(_Sent(kind, name, None, sort))
        elif kind == frontend.DESCRIBE:
            frontend.close(message.body)
            self._queue(_Sent(kind))
        elif kind == frontend.SYNC:
            self._sync()
        elif kind in (frontend.COPY_DONE, frontend.COPY_FAIL):
            if not self._copying:
                self._sent.append(_Sent(kind))
            self._copying = False
        elif kind == frontend.TERMINATE:
            done.ended = True

    def _sync(self) -> None:
        if self._copying:
            # Whether the server still copies, or has failed and waits for just this Sync, cannot be known here: taken
            # for the other, what follows would run unseen.
            raise ProtocolViolation("a Sync in the midst of a COPY, whose end has to come first")
        self._skipping = False
        self._sent.append(_Sent(frontend.SYNC))

    def _begin(self, way: Way, sent: _Sent, said: Said, now: Moment, done: Actions) -> None:
        """Write down a statement before it goes; one that the server will pass over is no statement."""
        if self._skipping:
            return
        self.statements += 1
        sent.number, sent.began_ns = self.statements, now.ns
        named = self.settings.get("application_name", "")
        done.records.append(
            Begun(
                session=self.number,
                at_us=now.us,
                number=sent.number,
                way=way,
                said=said,
                application=named if named != self._application else None,
            )
        )
        self._queue(sent)

    def _queue(self, sent: _Sent) -> None:
        if not self._skipping:
            self._sent.append(sent)

    def _name(self, sent: _Sent) -> None:
        if not self._skipping:
            self._coming.append(sent)
        self._queue(sent)

    def _read(self, text: bytes) -> Said:
        settings = Settings(
            self.settings.get("client_encoding", "UTF8"), self.settings.get("standard_conforming_strings", "on") == "on"
        )
        return self._judge(text, settings).said

    def _expected(self, kind: int, name: bytes) -> Said:
        """Return what a name will stand for when the server comes to it, if all before succeeds."""
        for sent in reversed(self._coming):
            if sent.kind == kind and sent.name == name:
                return sent.said or UNKNOWN
            closes = b"S" if kind == frontend.PARSE else b"P"
            if sent.kind == frontend.CLOSE and sent.name == name and sent.statement == closes:
                return UNKNOWN
        return (self._prepared if kind == frontend.PARSE else self._portals).get(name)

    # -- the server --------------------------------------------------------------------------------------------

    def server(self, data: bytes, now: Moment) -> Actions:
        """Take what the server has sent; all of it goes on to the client."""
        done = Actions(to_client=[data])
        self._now = now
        try:
            for piece in self._server.feed(data):
                if isinstance(piece, Message):
                    self._from_server(piece, now, done)
        except ProtocolViolation as error:
            done.close = error
        return done

    def _from_server(self, message: Message, now: Moment, done: Actions) -> None:
        kind = message.type
        self._rows += message.rows
        if kind == backend.PARAMETER_STATUS:
            name, value = backend.parameter(message.body)
            self.settings[name] = value
        elif kind == backend.READY:
            self._ready(backend.status(message.body), now, done)
        elif kind == backend.ERROR:
            self._failed(backend.fields(message.body), now, done)
        elif kind in (backend.COPY_IN, backend.COPY_BOTH):
            self._copy_in()
        else:
            self._answered(kind, message, now, done)

    def _head(self) -> _Sent | None:
        """Return what the server answers now: the ends of a COPY that never began are passed over by it."""
        while self._sent and self._sent[0].kind in (frontend.COPY_DONE, frontend.COPY_FAIL):
            self._sent.popleft()
        return self._sent[0] if self._sent else None

    def _answered(self, kind: int, message: Message, now: Moment, done: Actions) -> None:
        head = self._head()
        if head is None:
            return
        if (asked := _ANSWERS.get(kind)) is not None and head.kind != asked:
            raise ProtocolViolation("the server has answered what was not asked")
        if kind == backend.PARSE_COMPLETE:
            self._prepared.put(head.name, head.said or UNKNOWN)
            self._named()
        elif kind == backend.BIND_COMPLETE:
            self._portals.put(head.name, self._prepared.get(head.statement))
            self._named()
        elif kind == backend.CLOSE_COMPLETE:
            (self._prepared if head.statement == b"S" else self._portals).forget(head.name)
            self._named()
        elif kind in (backend.ROW_DESCRIPTION, backend.NO_DATA) and head.kind == frontend.DESCRIBE:
            self._sent.popleft()
        elif kind in (backend.COMMAND_COMPLETE, backend.EMPTY_QUERY, backend.SUSPENDED):
            self._completed(kind, head, message, now, done)

    def _named(self) -> None:
        self._coming.popleft()
        self._sent.popleft()

    def _completed(self, kind: int, head: _Sent, message: Message, now: Moment, done: Actions) -> None:
        if head.kind not in (frontend.QUERY, frontend.EXECUTE):
            return
        rows = self._rows if kind == backend.SUSPENDED else None
        if kind == backend.COMMAND_COMPLETE:
            rows = backend.command_rows(message.body)
            if message.body in _COMMITS:
                self._settle("success", done)
            elif message.body == _ROLLS_BACK:
                self._settle("unknown", done)  # the tag does not say to where
        self._rows = 0
        if rows is not None:
            head.rows = (head.rows or 0) + rows
        if head.kind == frontend.EXECUTE:
            self._sent.popleft()
            self._end(head, "success", now)

    def _failed(self, said: dict[str, str], now: Moment, done: Actions) -> None:
        """Take an error: it ends what is being answered, and in the extended protocol all up to the next Sync."""
        head = self._head()
        self._rows = 0
        if head is None:
            return
        self._undone = True
        if head.kind in (frontend.QUERY, frontend.FUNCTION_CALL):
            head.sqlstate = said.get("C", "XX000")
            self._leave_copy()
            return
        if head.kind == frontend.SYNC:
            return  # what is deferred fails when the transaction is to end: ReadyForQuery follows all the same
        self._leave_copy()
        ran = True
        while self._sent and self._sent[0].kind != frontend.SYNC:
            sent = self._sent.popleft()
            if self._coming and self._coming[0] is sent:
                self._coming.popleft()
            if sent.number:
                sent.sqlstate = said.get("C", "XX000") if ran else None
                self._end(sent, "failure", now, ran=ran)
            ran = False
        self._skipping = not self._sent

    def _leave_copy(self) -> None:
        self._copying = False

    def _ready(self, status: str, now: Moment, done: Actions) -> None:
        head = self._head()
        if head is not None and head.kind in (frontend.QUERY, frontend.FUNCTION_CALL):
            self._end(head, "success" if head.sqlstate is None else "failure", now)
        elif head is None or head.kind != frontend.SYNC:
            raise ProtocolViolation("the server is ready and has not answered just what was sent")
        self._sent.popleft()
        self._copying, self._rows = False, 0
        self.status = status
        self._settle("pending" if status != "I" else "rolled_back" if self._undone else "success", done)
        self._undone = False
        if status == "I":
            self._transaction += 1
            self._portals.clear()

    def _copy_in(self) -> None:
        """Take up that the server reads data now: what was sent ahead of their end it passes over."""
        head = self._head()
        if head is None:
            return
        behind = list(self._sent)[1:]
        while behind and behind[0].kind == frontend.SYNC:
            del behind[0]
        self._copying = not behind
        if behind and behind.pop(0).kind not in (frontend.COPY_DONE, frontend.COPY_FAIL):
            raise ProtocolViolation("something else than data behind a COPY from the client")
        self._sent = deque([head, *behind])

    def _end(self, sent: _Sent, outcome: Outcome, now: Moment, *, ran: bool = True) -> None:
        """Take up how a statement ended; whether that lasts says the end of its transaction."""
        sent.outcome, sent.ended_ns, sent.ran = outcome, now.ns, ran
        sent.failed = self.status == "E"
        if sent.kind == frontend.EXECUTE and ran:
            actual = self._portals.get(sent.name)
            sent.statement, sent.said = (b"!", actual) if actual is not sent.said else (b"", actual)
        self._undecided.append(sent)

    def _settle(self, lasts: Outcome, done: Actions) -> None:
        """Write down what came of what has run, where `lasts` is what became of what succeeded."""
        done.records += [self._ended(sent, lasts) for sent in self._undecided]
        self._undecided.clear()

    def _ended(self, sent: _Sent, lasts: Outcome) -> Ended:
        return Ended(
            session=self.number,
            at_us=self._now.us,
            number=sent.number,
            outcome=lasts if sent.outcome == "success" else sent.outcome,
            rows=sent.rows,
            sqlstate=sent.sqlstate,
            duration_ms=round((sent.ended_ns - sent.began_ns) / 1e6, 3),
            ran=sent.ran,
            failed=sent.failed,
            transaction=self._transaction if self.status != "I" else 0,
            said=sent.said if sent.statement == b"!" else None,
        )

    def lost(self, now: Moment) -> list[Record]:
        """Complete what has no answer when a connection has ended: what came of it nobody here knows."""
        self._now = now
        done = Actions()
        for sent in self._sent:
            if sent.number:
                sent.outcome, sent.ended_ns = "unknown", now.ns
                self._undecided.append(sent)
        self._settle("unknown", done)
        self._sent.clear()
        self._coming.clear()
        return done.records
