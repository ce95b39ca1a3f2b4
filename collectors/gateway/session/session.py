"""One session between a client and its server, after both logins: pure. Bytes of either side in, what to do out.

It follows the protocol so that every statement is written down before it is forwarded and completed when its answer
has come. A queue holds what the client has sent and the server has not answered, in the order in which it will be
(manual, 55.2.2 to 55.2.4). Three things make the order hard, and are followed as the server does them: an error in the
extended protocol lets everything up to the next Sync pass unread; during a COPY from the client Sync and Flush are
passed over; and a name that a Parse or Bind gives to a statement or portal holds only when the server has said so.

The client's own order is kept. Nothing is held back that is not judged: what is not asked for passes in whole reads.
A statement that is refused is answered by the server all the same: another one goes in its place, which fails
(`collectors.gateway.session.refusing`), and the error that comes of it is the only thing that is written anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from collectors.beacon.encodings import codec_of
from collectors.gateway.session import limiting, refusing, short, waiting
from collectors.gateway.session.actions import NOT_KNOWN, Actions, Asked, Decision, Judge, Moment
from collectors.gateway.session.coming import Coming
from collectors.gateway.session.handles import Handles, Sort, as_handle
from collectors.gateway.session.limiting import Limit
from collectors.gateway.session.looking import Seen
from collectors.gateway.session.metering import Counted, Meter
from collectors.gateway.session.names import Names
from collectors.gateway.session.refusing import Refused
from collectors.gateway.session.room import ROOM_BYTES_MAX, Room
from collectors.gateway.session.waiting import Held
from collectors.gateway.spool.records import Begun, Ended, Record, Way
from collectors.gateway.wire import backend, frontend
from collectors.gateway.wire.frames import HEADER, Frames, Message, Piece, frame
from collectors.gateway.wire.lexing import Reported
from collectors.gateway.wire.native import Ledger
from collectors.gateway.wire.violation import ProtocolViolation
from collectors.guard import errors
from detectors.gatekeeper import Verdict
from pgwitness.core.events import Outcome
from pgwitness.core.sql.tree.facts import Handle

QUEUE_MAX: Final = 100_000
"""Messages of a client that wait for their answer; a pipeline that is longer has to be read from."""

NAME_BYTES_MAX: Final = 63
FLUSH: Final = frame(b"H")
CUT_AGAIN_S: Final = 1.0
"""How long after a cancel that has ended nothing the next one is tried."""
COMING_MAX: Final = 2_000
"""Names that wait for their answer in a session for which the rules have changed: each has to be asked about."""


@dataclass(slots=True)
class _Sent:
    """Something that the client has sent and the server will answer. `kind` is the message's type."""

    kind: int
    name: bytes = b""
    """What a Parse, Bind or Close names; of an Execute its portal."""
    decision: Decision = NOT_KNOWN
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
    other: Decision | None = None
    """What an Execute ran, where that is not what was thought when it was sent."""
    refused: Refused | None = None
    """What went in its place; None where it went itself."""
    warning: bytes = b""
    """What its client is told before its answer."""
    simple: bool = False
    """Whether it came as a simple query, whose answer ends with ReadyForQuery."""
    own: bool = False
    """Whether the gateway sent it for itself; the client reads nothing of its answer."""
    limit: Limit | None = None
    """By which it is limited, or of which it is a part."""
    limited: _Sent | None = None
    """The statement whose rows this one checks."""
    meter: Meter | None = None
    """By which its answer is measured, or of what comes of whose it is a part."""
    why: str = ""
    """Why it was cut or undone, for the evidence."""
    watched: bool = False
    """Whether its answer is waited for with care: it is written anew, or something is put before it."""


_ANSWERS: Final = {
    backend.PARSE_COMPLETE: frontend.PARSE,
    backend.BIND_COMPLETE: frontend.BIND,
    backend.CLOSE_COMPLETE: frontend.CLOSE,
}
_COMMITS: Final = (b"COMMIT\0", b"PREPARE TRANSACTION\0")
_CURSORS: Final = (b"DECLARE CURSOR\0", b"CLOSE CURSOR\0")
_ROLLS_BACK: Final = b"ROLLBACK\0"
_OF_CLIENT: Final = frozenset((backend.ROW_DESCRIPTION, backend.PARAMETER_STATUS, backend.READY))
"""What passes in whosever answer it comes."""
_COMPLETES: Final = frozenset(
    (backend.COMMAND_COMPLETE, backend.EMPTY_QUERY, backend.SUSPENDED, backend.ERROR, backend.FUNCTION_RESULT)
)


class Session:
    """The state of one session. `number` names it on the spool."""

    def __init__(self, number: int, settings: dict[str, str], judge: Judge, ledger: Ledger | None = None) -> None:
        """`ledger` takes what goes the short lane; without one there is none."""
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
        self._by_sql = Handles()
        self._watching = 0
        """How many answers to come are written anew, or have something put before them."""
        self._ahead = 0
        """Of a message whose rest has not come, the bytes that were passed on already."""
        self._leftover: list[bytes] = []
        """Names of the gateway's own that an error kept it from closing."""
        self._held: Held | None = None
        self._room = Room()
        """What has come behind a statement that waits, or is measured."""
        self.mark: Callable[[Verdict, str, int], str] | None = None
        """Writes what the guard in the database lets an approved statement pass by, of a text at a time."""
        self._reads_rows = False
        """Whether rows of the server are cut out, for what was approved."""
        self._notices: list[bytes] = []
        """What the client is to be told when no answer is in its midst."""
        self._withheld = b""
        """The end of a limited statement's answer, which its client reads when its rows were checked."""
        self._coming: Coming[_Sent] = Coming()
        """Of what was sent, what will give a name when the server has done it."""
        self._undone = False
        """An error came since the last ReadyForQuery, of whatever message: what ran before it is undone."""
        self._undecided: list[_Sent] = []
        """What has run since the last ReadyForQuery, and may be undone before the next."""
        self._reported = Reported()
        self._application = settings.get("application_name", "")
        self._rows = 0
        self._now = Moment(0, 0)
        self._meter: Meter | None = None
        """Of the statement that runs and is measured: what comes behind it waits."""
        self._metered: _Sent | None = None
        self._counted = Counted()
        self._rows_answered = 0
        """Rows of all answers that have ended."""
        self._last: _Sent | None = None
        """The statement that began last."""
        self.lane = short.lane(ledger, self, number, self._prepared, self._portals)
        """For who has a read: what it takes is taken, and all of the read goes on as it is."""
        for name, value in settings.items():
            judge.reported(name, value)

    @property
    def waiting(self) -> int:
        """How many messages the server has not answered yet."""
        under_way = self._held is not None or self._meter is not None
        return len(self._sent) + len(self._room) + under_way + (self.lane is not None and self.lane.waiting)

    # -- the short lane ----------------------------------------------------------------------------------------

    def _enter(self, now: Moment) -> None:
        """Let the short lane take what comes next, if the session rests and nothing but a statement is asked of it."""
        if self.lane is None or self.status == "E" or not self._rests():
            return
        ground = self._judge.ground(now.us)
        if ground is not None:
            named = self.settings.get("application_name", "")
            suffix = short.suffix(named if named != self._application else None, self._judge.intent or None)
            self.lane.enter(*ground, suffix, self.status, self.statements, self._transaction)

    def _rests(self) -> bool:
        """Say whether nothing is under way, withheld, or known that another statement could refer to by SQL."""
        under_way = self._sent or self._coming or self._undecided or self._watching or self._skipping or self._copying
        known = self._leftover or self._withheld or self._by_sql or self._held or self._meter or self._notices
        return not under_way and not known and self._reported.sure and self._client.between and self._server.between

    def _leave(self) -> None:
        """Go on from where the short lane has come to."""
        left = self.lane.leave() if self.lane is not None and (self.lane.engaged or self.lane.waiting) else None
        if left is None:
            return
        parsed, described, data, decision, portal, statement, number, began_ns = left
        self._reported.sure = False
        kind = frontend.QUERY if portal is None or statement is None else frontend.EXECUTE
        execute = _Sent(kind, portal or b"", decision, number=number, began_ns=began_ns)
        if portal is None or statement is None:
            self._reported.went(frontend.query_text(data[HEADER:]))
            self._sent.append(execute)
            return
        if parsed:
            body = data[HEADER : 1 + int.from_bytes(data[1:HEADER], "big")]
            self._reported.went(frontend.parse(body).text)
            self._name(_Sent(frontend.PARSE, statement, decision))
        self._name(_Sent(frontend.BIND, portal, decision, statement))
        if described:
            self._queue(_Sent(frontend.DESCRIBE))
        self._sent += (execute, _Sent(frontend.SYNC))

    def look(self) -> Seen:
        """Return what the session does now."""
        if self.lane is not None:
            if self.lane.waiting:
                self._leave()
            if self.lane.last is not None and (self._last is None or self.lane.last[1] > self._last.number):
                decision, number, ended_ns = self.lane.last
                self._last = _Sent(frontend.QUERY, decision=decision, number=number, ended_ns=ended_ns)
        running = next((sent for sent in self._sent if sent.number), None)
        shown = running or self._last
        return Seen(
            self.status,
            bool(self._sent),
            (running.began_ns if running is not None else shown.ended_ns) if shown is not None else 0,
            shown.decision.said.statement if shown is not None else None,
            self.statements,
            self._rows_answered + self._rows + self._server.rows + (self.lane.rows if self.lane is not None else 0),
            self.settings.get("application_name", ""),
        )

    # -- the client --------------------------------------------------------------------------------------------

    def long_texts(self, data: bytes, bytes_min: int) -> list[bytes]:
        """List the texts of at least so many bytes that are whole with what the client has sent; nothing is taken."""
        if self._client.held + len(data) < bytes_min:
            return []
        return [
            text
            for message in self._client.whole_with(data, bytes_min)
            if (text := frontend.text_of(message)) is not None and len(text) >= bytes_min
        ]

    def client(self, data: bytes, now: Moment) -> Actions:
        """Take what the client has sent."""
        self._leave()
        done = Actions()
        self._now = now
        try:
            self._take(self._client.feed(data), now, done)
            if len(self._sent) > QUEUE_MAX:
                raise ProtocolViolation(
                    f"a pipeline of more than {QUEUE_MAX} messages that are not answered: read the answers", "54000"
                )
        except ProtocolViolation as error:
            done.close = error
        return done

    def _take(self, pieces: list[Piece], now: Moment, done: Actions) -> None:
        """Take what the client has sent, up to a statement that waits, or is waited for."""
        for place, piece in enumerate(pieces):
            if self._room or not self._may_go(piece):
                self._room.put(pieces[place:])
                return
            done.to_server.append(self._from_client(piece, now, done) if isinstance(piece, Message) else piece)
            if self._meter is not None and self._meter.copying and isinstance(piece, Message):
                done.to_server.append(FLUSH)  # the one behind the COPY was passed over, as all is in its midst

    def _may_go(self, piece: Piece) -> bool:
        """Say whether a piece may go now: behind what waits or is measured none may, but for what that copies in."""
        if self._meter is None:
            return self._held is None
        if not self._meter.copying or not self._copying:
            return False
        if isinstance(piece, Message) and piece.type not in (frontend.COPY_DONE, frontend.COPY_FAIL, frontend.SYNC):
            raise ProtocolViolation("something else than data in the midst of a COPY from the client")
        return True

    @property
    def held(self) -> bool:
        """Whether a statement waits for approval."""
        return self._held is not None

    @property
    def is_full(self) -> bool:
        """Whether no more should be read from the client, because so much waits behind a statement."""
        return self._room.size > ROOM_BYTES_MAX

    def resume(self, verdict: Verdict, now: Moment) -> Actions:
        """Go on with the statement that waits: run it by the approval that the verdict names, or refuse it."""
        done = Actions()
        self._now = now
        held, self._held = self._held, None
        if held is None:
            return done
        decision = held.asked.decision._replace(verdict=verdict)
        try:
            if held.message.type == frontend.QUERY:
                done.to_server.append(self._run_query(held.message, held.read, decision, now, done))
            else:
                done.to_server.append(self._run(held.message, decision, now, done))
            self._take(self._room.leave(), now, done)
        except ProtocolViolation as error:
            done.close = error
        return done

    def tell(self, message: str, hint: str) -> Actions:
        """Tell the client something while its statement waits, as soon as no answer is in the midst."""
        codec = codec_of(self.settings.get("client_encoding", "UTF8"))
        self._notices.append(backend.error("NOTICE", "00000", message, hint, codec=codec, kind=b"N"))
        done = Actions()
        self._tell(done)
        return done

    def _tell(self, done: Actions) -> None:
        if self._notices and self._server.between and not self._ahead:
            done.to_client += self._notices
            self._notices = []

    def _wait(self, message: Message, read: bytes, decision: Decision, done: Actions) -> bytes:
        """Hold a statement that has to be approved, and all that comes behind it."""
        done.asked = Asked(decision, decision.exact)
        done.settings = self.settings
        self._held = Held(message, read, done.asked)
        return b""

    def _from_client(self, message: Message, now: Moment, done: Actions) -> bytes:
        """Take a message; return what goes to the server for it."""
        sent = self._taken(message, now, done)
        self._reported.sure = False
        return sent

    def _decide(self, message: Message, text: bytes, now: Moment) -> tuple[Decision, bytes]:
        """Decide on a text; return the message, too, by which the server reads what was judged."""
        decision = self._judge.decide(text, now.us, self._reported.surety(text))
        self._reported.went(text)
        sent = message.frame if decision.forward is None else frontend.with_text(message, decision.forward)
        if decision.handles:
            named = self._named_by_sql(decision, now)
            decision = decision if decision.denied else named._replace(masked=decision.masked)
        return decision, sent

    def _taken(self, message: Message, now: Moment, done: Actions) -> bytes:
        kind = message.type
        if kind == frontend.QUERY:
            return self._query(message, now, done)
        if kind == frontend.PARSE:
            return self._parse(message, now, done)
        if kind == frontend.BIND:
            bound = frontend.bind(message.body)
            portal, statement = _key(bound.portal), _key(bound.statement)
            decision = self._bound(statement, self._expected(frontend.PARSE, statement), now)
            self._name(_Sent(kind, portal, waiting.with_values(decision, message), statement))
        elif kind == frontend.EXECUTE:
            return self._execute(message, now, done)
        elif kind == frontend.FUNCTION_CALL:
            return self._call(message, now, done)
        elif kind == frontend.CLOSE:
            sort, name = frontend.close(message.body)
            self._name(_Sent(kind, _key(name), statement=sort))
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
        return message.frame

    def _call(self, message: Message, now: Moment, done: Actions) -> bytes:
        decision = self._judge.function(frontend.function_oid(message.body), now.us)
        sent = _Sent(message.type, decision=waiting.refused(decision, waiting.BY_NAME) if decision.waits else decision)
        self._begin("function", sent, now, done)
        return message.frame if sent.refused is None else sent.refused.instead(message.frame)

    def _query(self, message: Message, now: Moment, done: Actions) -> bytes:
        decision, read = self._decide(message, frontend.query_text(message.body), now)
        if decision.waits and not self._skipping:
            if not decision.handles:
                return self._wait(message, read, decision._replace(exact=message.body), done)
            decision = waiting.refused(decision, waiting.BY_NAME)
        return self._run_query(message, read, decision, now, done)

    def _run_query(self, message: Message, read: bytes, decision: Decision, now: Moment, done: Actions) -> bytes:
        decision = self._admitted(decision, now)
        if decision.limit and not self._skipping:
            return self._limited_query(frontend.query_text(read[HEADER:]), decision, now, done)
        sent = _Sent(message.type, decision=decision)
        self._begin("query", sent, now, done)
        return read if sent.refused is None else sent.refused.instead(message.frame)

    def _limited_query(self, text: bytes, decision: Decision, now: Moment, done: Actions) -> bytes:
        """Run a simple query as an extended one, so that its rows can be checked before it ends."""
        assert decision.verdict is not None
        limit = self._limit(decision.verdict, text, now)
        before = self._own(limit.before(), limit)
        meter = self._meter_of(decision, simple=True)
        for kind in (frontend.PARSE, frontend.BIND):
            self._name(_Sent(kind, decision=waiting.unused(decision), own=True, limit=limit, meter=meter))
        self._queue(_Sent(frontend.DESCRIBE, own=True, limit=limit, meter=meter))
        sent = _Sent(frontend.EXECUTE, decision=decision, limit=limit, simple=True, meter=meter)
        self._begin("query", sent, now, done)
        if meter is not None:
            self._measure(meter, sent, done)
            return b"".join([*before, *limiting.as_one(text), FLUSH])
        behind = self._own([*limit.behind(), limiting.closing()], limit, sent)
        self._queue(_Sent(frontend.SYNC, watched=True))
        return b"".join([*before, *limiting.as_one(text), *behind, limiting.SYNC])

    def _limit(self, verdict: Verdict, text: bytes, now: Moment) -> Limit:
        mark = ""
        if verdict.approval and self.mark is not None:
            codec = codec_of(self.settings.get("client_encoding", "UTF8"))
            mark = self.mark(verdict, text.decode(codec, "replace"), now.us)
        return Limit(verdict, mark)

    def _admitted(self, decision: Decision, now: Moment) -> Decision:
        """Count a statement that is about to run, where its rate is limited; refuse one too many."""
        if decision.verdict is None or not decision.verdict.rates or decision.denied or self._skipping:
            return decision
        return self._judge.admitted(decision, now.us)

    def _own(self, frames: list[bytes], limit: Limit, limited: _Sent | None = None) -> list[bytes]:
        """Send messages of the gateway's own."""
        if limited is None:
            frames = [*(frame(b"C", b"S" + name + b"\0") for name in self._leftover), *frames]
            self._leftover = []
        elif limit.verdict.approval:
            self._server.want(backend.DATA_ROW, backend.MESSAGE_BYTES_MAX)  # its check says what was counted in one
            self._reads_rows = True
        for each in frames:
            kind, body = each[0], each[HEADER:]
            if kind == frontend.EXECUTE:
                self._queue(_Sent(kind, frontend.execute(body), own=True, limit=limit, limited=limited))
            elif kind == frontend.CLOSE:
                sort, name = frontend.close(body)
                self._name(_Sent(kind, name, statement=sort, own=True, limit=limit))
            elif kind == frontend.PARSE:
                self._name(_Sent(kind, frontend.parse(body).name, own=True, limit=limit))
            else:
                bound = frontend.bind(body)
                self._name(_Sent(kind, bound.portal, NOT_KNOWN, bound.statement, own=True, limit=limit))
        return frames

    def _parse(self, message: Message, now: Moment, done: Actions) -> bytes:
        """Take a Parse: what may not run is not prepared either, so that no name of it remains."""
        parsed = frontend.parse(message.body)
        decision, read = self._decide(message, parsed.text, now)
        if decision.waits and not decision.handles:
            decision = decision._replace(exact=waiting.of_text(message.body))
        sent = _Sent(message.type, _key(parsed.name), decision)
        if not decision.denied:
            sent.watched = decision.masked is not None
            self._name(sent)
            return read
        if not self._skipping:
            self._coming.append(sent)
        self._begin("parse", sent, now, done)
        self._skipping = True  # the server fails at it, and reads nothing behind it until a Sync
        assert sent.refused is not None
        return sent.refused.instead(message.frame)

    def _execute(self, message: Message, now: Moment, done: Actions) -> bytes:
        portal = _key(frontend.execute(message.body))
        decision = self._running(portal, now)
        if decision.waits:
            exact = self._expected(frontend.BIND, portal).exact
            if exact and not decision.handles and not self._skipping:
                return self._wait(message, message.frame, decision._replace(exact=exact), done)
            decision = waiting.refused(decision, waiting.BY_NAME)
        return self._run(message, decision, now, done)

    def _run(self, message: Message, decision: Decision, now: Moment, done: Actions) -> bytes:
        portal = _key(frontend.execute(message.body))
        decision = self._admitted(decision, now)
        sent = _Sent(message.type, portal, decision)
        if decision.limit and not self._skipping:
            assert decision.verdict is not None
            sent.limit = limit = self._limit(decision.verdict, decision.exact.partition(b"\0")[0], now)
            before = self._own(limit.before(), limit)
            sent.meter = self._meter_of(decision, portal=portal)
            self._begin("execute", sent, now, done)
            if sent.meter is not None:
                self._measure(sent.meter, sent, done)
                return b"".join([*before, message.frame, FLUSH])
            return b"".join([*before, message.frame, *self._own(limit.behind(), limit, sent)])
        self._begin("execute", sent, now, done)
        if sent.refused is None:
            return message.frame
        self._skipping = True
        return sent.refused.instead(message.frame)

    # -- what is measured ----------------------------------------------------------------------------------------

    def _meter_of(self, decision: Decision, portal: bytes = b"", *, simple: bool = False) -> Meter | None:
        """Return what measures the answer of a statement, where that is limited; also of what copies in, to wait."""
        verdict = decision.verdict
        assert verdict is not None
        known = decision.reading.known if decision.reading is not None else None
        if not verdict.reads and (known is None or "copy_from" not in known.operations):
            return None
        fetched = [handle.name for handle in decision.handles if handle.verb == "fetch"]
        meter = Meter(verdict, simple, fetched[0].encode() if fetched else None if simple else portal)
        self._counted.begin(meter)
        return meter

    def _measure(self, meter: Meter, sent: _Sent, done: Actions) -> None:
        """Measure a statement from now on, and keep what its client sends behind it."""
        self._meter, self._metered = meter, sent
        if meter.verdict.seconds is not None:
            done.expires = (meter.verdict.seconds, meter)

    def expired(self, token: object, now: Moment) -> Actions:
        """Take up that a time is over that was asked for: what runs too long is cut."""
        done = Actions()
        self._now = now
        meter, metered = self._meter, self._metered
        if meter is None or metered is None or meter is not token or meter.ended or meter.cancelling:
            return done
        head = self._head()
        if head is None or (head.meter is not meter and head.limit is not metered.limit):
            done.expires = (meter.verdict.seconds or CUT_AGAIN_S, meter)  # what is before it runs, and is not meant
            return done
        meter.late()
        self._cut(meter, done)
        return done

    def _cut(self, meter: Meter, done: Actions) -> None:
        meter.cancelling = done.cancel = True

    def cancelled(self, now: Moment) -> Actions:
        """Take up that the server was asked to cancel: what it runs later is not meant any more."""
        done = Actions()
        self._now = now
        meter = self._meter
        if meter is not None:
            meter.cancelling = False
            if meter.ended:
                self._go_on(meter, now, done)
            else:
                done.expires = (CUT_AGAIN_S, meter)
        return done

    def _over(self, now: Moment, done: Actions, *, failed: bool) -> None:
        """Take up that what is measured has ended; what waits goes when a cancel can hit nothing else any more."""
        meter = self._meter
        assert meter is not None
        meter.ended, meter.failed = True, failed
        self._counted.ended(meter)
        if not meter.cancelling:
            self._go_on(meter, now, done)

    def _go_on(self, meter: Meter, now: Moment, done: Actions) -> None:
        """Send what checks the statement that was measured, or fails in its place, then what has waited for it."""
        limited, self._meter, self._metered = self._metered, None, None
        assert limited is not None
        limit = limited.limit
        assert limit is not None
        if not meter.failed:
            if meter.cut is not None:
                self._queue(_Sent(frontend.EXECUTE, own=True, limit=limit, limited=limited, meter=meter))
                done.to_server.append(frontend.execute_of(meter.portal))
            behind = [*limit.behind(), *([limiting.closing()] if meter.simple else [])]
            done.to_server += self._own(behind, limit, limited)
        if meter.simple:
            self._skipping = False
            sync = _Sent(frontend.SYNC)
            self._queue(sync)
            sync.watched = True
            self._watching += 1
            done.to_server.append(limiting.SYNC)
        self._take(self._room.leave(), now, done)

    # -- names -------------------------------------------------------------------------------------------------

    def _named_by_sql(self, decision: Decision, now: Moment) -> Decision:
        """Decide on a text that gives or runs names of SQL, which protocol and SQL share.

        Which of the two has given a name last is not followed: it is judged by all that it may stand for.
        """
        targets: list[Handle] = []
        for sort, name in self._by_sql.run(decision.handles):
            by_sql = self._by_sql.find(sort, name)
            by_protocol = self._meant(sort, name.encode())
            if by_sql is None and (by_protocol is None or self._by_sql.knows(sort, name)):
                return self._judge.behind(decision, None, now.us)
            targets += [*(by_sql or ()), *(by_protocol or ())]
        return self._judge.behind(decision, targets, now.us) if targets else decision

    def _bound(self, statement: bytes, decision: Decision, now: Moment) -> Decision:
        """Decide on what a portal is made of: a statement of the protocol, of SQL by the same name, or either."""
        name = statement.decode(errors="replace")
        known = self._by_sql.knows("statement", name)
        if decision.reading is not None and not known:
            return decision
        return self._judge.behind(decision, self._by_sql.find("statement", name), now.us)

    def _meant(self, sort: Sort, name: bytes) -> list[Handle] | None:
        """Return what a name of the protocol may stand for by now; None where that is not known."""
        kind = frontend.PARSE if sort == "statement" else frontend.BIND
        if len(self._coming.of(kind, name)) > COMING_MAX:
            raise ProtocolViolation(
                f"a name is given more than {COMING_MAX} times in a pipeline: read the answers", "54000"
            )
        meant = [decision.reading for decision in self._meanings(kind, name) if decision.reading is not None]
        return [as_handle(reading.known) for reading in meant] or None

    def _meanings(self, kind: int, name: bytes) -> list[Decision]:
        """List all that a name may stand for when the server comes to it, whatever fails before."""
        held = self._prepared if kind == frontend.PARSE else self._portals
        found = [held.get(name)]
        for sent in self._coming.of(kind, name):
            if sent.kind == kind and sent.refused is None:
                found += [sent.decision] if kind == frontend.PARSE else self._meanings(frontend.PARSE, sent.statement)
        return found

    def _running(self, portal: bytes, now: Moment) -> Decision:
        """Decide on what a portal runs."""
        decision = self._expected(frontend.BIND, portal)
        if decision.reading is None:
            return self._by_name(decision, portal, now)
        again = self._judge.again(decision, now.us)
        if again.handles:
            again = self._named_by_sql(again, now)  # names that it runs may stand for something else by now
        if self._by_sql.knows("cursor", name := portal.decode(errors="replace")) and not again.denied:
            again = self._judge.behind(again, self._by_sql.find("cursor", name), now.us)
        if self._judge.scopes > 1 and not again.denied:
            # What a name stood for before may be refused by now, and is what runs if the Parse behind it fails.
            if len(self._coming) > COMING_MAX:
                raise ProtocolViolation(f"a pipeline of more than {COMING_MAX} names: read the answers", "54000")
            for other in self._meanings(frontend.BIND, portal):
                if other.reading is None:
                    continue
                if (found := self._judge.again(other, now.us)).denied:
                    return found
                if found.waits and not again.waits:
                    return waiting.refused(found, waiting.BY_NAME)
        return again

    def _by_name(self, decision: Decision, portal: bytes, now: Moment) -> Decision:
        """Decide on a portal that is a cursor of SQL."""
        return self._judge.behind(decision, self._by_sql.find("cursor", portal.decode(errors="replace")), now.us)

    def _sync(self) -> None:
        if self._copying:
            # Whether the server still copies, or has failed and waits for just this Sync, cannot be known here: taken
            # for the other, what follows would run unseen.
            raise ProtocolViolation("a Sync in the midst of a COPY, whose end has to come first")
        self._skipping = False
        self._sent.append(_Sent(frontend.SYNC))

    def _begin(self, way: Way, sent: _Sent, now: Moment, done: Actions) -> None:
        """Write down a statement before it goes; one that the server will pass over is no statement.

        What is refused is replaced all the same, so that it could not run where it is read against expectation.
        """
        decision = sent.decision
        if decision.verdict is not None:
            if decision.denied:
                sent.refused = Refused.of(decision.verdict)
            elif not self._skipping and decision.verdict.effect == "warn":
                sent.warning = refusing.warning(decision.verdict, self.settings.get("client_encoding", "UTF8"))
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
                said=decision.said,
                application=named if named != self._application else None,
                verdict=decision.verdict,
                intent=decision.said.tags.get("intent") or self._judge.intent or None,
            )
        )
        if decision.marks is not None and sent.refused is None:
            self._judge.ran(decision)
        self._last = sent
        self._sent.append(sent)
        if decision.verdict is not None or decision.masked is not None:
            sent.watched = True
            self._watching += 1

    def _queue(self, sent: _Sent) -> None:
        if not self._skipping:
            if sent.own or sent.watched:
                sent.watched = True
                self._watching += 1
            self._sent.append(sent)

    def _pop(self) -> _Sent:
        """Take up that what the server answers now is answered."""
        sent = self._sent.popleft()
        if sent.watched:
            sent.watched = False
            self._watching -= 1
        return sent

    def _name(self, sent: _Sent) -> None:
        if not self._skipping:
            self._coming.append(sent)
        self._queue(sent)

    def _expected(self, kind: int, name: bytes) -> Decision:
        """Return what a name will stand for when the server comes to it, if all before succeeds."""
        coming = self._coming.of(kind, name)
        if coming:
            return coming[-1].decision if coming[-1].kind == kind else NOT_KNOWN
        return (self._prepared if kind == frontend.PARSE else self._portals).get(name)

    # -- the server --------------------------------------------------------------------------------------------

    def server(self, data: bytes, now: Moment) -> Actions:
        """Take what the server has sent; it goes on to the client, but for errors that stand for refusals."""
        self._leave()
        done = Actions()
        self._now = now
        try:
            if self._watching:
                self._watch(data, now, done)
            else:
                self._pass(data, now, done)
            if not self._sent:
                self._enter(now)
        except ProtocolViolation as error:
            done.close = error
        self._tell(done)
        return done

    def _pass(self, data: bytes, now: Moment, done: Actions) -> None:
        """Pass on an answer as it is."""
        done.to_client.append(data)
        try:
            for piece in self._server.feed(data):
                if isinstance(piece, Message):
                    self._from_server(piece, now, done)
        finally:
            self._ahead = self._server.held

    def _watch(self, data: bytes, now: Moment, done: Actions) -> None:
        """Pass on an answer piece by piece, as some of it is not what the server wrote."""
        passed: list[bytes] = []
        for piece in self._server.feed(data):
            if isinstance(piece, Message):
                if piece.type == backend.DATA_ROW and self._is_measured():
                    instead = self._measured(piece.frame, done)
                else:
                    instead = self._answer_to(piece)
                    if self._meter is not None:
                        self._meter.message(piece)
                self._from_server(piece, now, done)
                passed.append(instead)
            else:
                passed.append(self._measured(piece, done))
        if passed:
            passed[0] = passed[0][self._ahead :]
            self._ahead = 0
        if not self._watching:
            pending = self._server.pending
            passed.append(pending[self._ahead :])
            self._ahead = len(pending)
        done.to_client.append(b"".join(passed))

    def _is_measured(self) -> bool:
        """Say whether what the server answers now is measured."""
        return self._meter is not None and bool(self._sent) and self._sent[0].meter is self._meter

    def _measured(self, piece: bytes, done: Actions) -> bytes:
        """Return what the client may read of a piece of an answer."""
        meter = self._meter
        if meter is None or not self._is_measured():
            return piece
        was = meter.cut
        passed = meter.take(piece)
        if was is None and meter.cut is not None and not meter.cancelling:
            self._cut(meter, done)
        return passed

    def _answer_to(self, message: Message) -> bytes:
        """Return what the client reads for a message of the server."""
        head = self._head()
        if message.type in (backend.ERROR, backend.READY):
            withheld, self._withheld = self._withheld, b""
            if withheld and message.type == backend.READY:
                return withheld + message.frame
        if head is None or not head.watched:
            return message.frame
        if message.type == backend.ERROR and self._is_cut(head, message):
            meter = head.meter or self._meter
            assert meter is not None
            return meter.answer(self.settings.get("client_encoding", "UTF8"))
        if head.own:
            return self._answer_to_own(head, message)
        if head.limit is not None and message.type in (backend.COMMAND_COMPLETE, backend.SUSPENDED):
            if head.meter is not None and head.meter.cut is None and head.limit.rows is None and not head.simple:
                return message.frame  # nothing is left that could undo it
            self._withheld = message.frame
            return b""
        if message.type == backend.ERROR and head.refused is not None:
            return head.refused.answer(message.frame, self.settings.get("client_encoding", "UTF8"))
        if message.type == backend.ERROR and head.decision.masked is not None:
            return head.decision.masked.answer(message.frame, self.settings.get("client_encoding", "UTF8"))
        if head.warning and message.type in _COMPLETES:
            warning, head.warning = head.warning, b""
            return warning + message.frame
        return message.frame

    def _is_cut(self, head: _Sent, message: Message) -> bool:
        """Say whether an error comes of the cut of what is measured; take it up where it does."""
        meter, limited = head.meter or self._meter, head.limited or self._metered
        if meter is None or limited is None or head.limit is not limited.limit:
            return False
        if not meter.is_own(backend.fields(message.body)):
            return False
        limited.outcome, limited.sqlstate = "denied", refusing.SQLSTATE
        limited.rows, limited.why = meter.passed, f"cut: {meter.cut}"
        return True

    def _answer_to_own(self, head: _Sent, message: Message) -> bytes:
        """Return what the client reads of the answer to a message of the gateway's own: of errors and rows only."""
        if message.type in _OF_CLIENT:
            return message.frame
        if message.type == backend.DATA_ROW:
            if head.limit is not None:
                head.limit.told(message.body)
            return b""
        if message.type != backend.ERROR or head.limit is None:
            released = b""
            if message.type == backend.COMMAND_COMPLETE and head.limited is not None and not head.limited.simple:
                released, self._withheld = self._withheld, b""
            return released
        said, encoding = backend.fields(message.body), self.settings.get("client_encoding", "UTF8")
        if head.kind == frontend.PARSE and said.get("R") == "exec_parse_message" and said.get("C") == "42601":
            head.limit.stopped = True
            return head.limit.alone(encoding)
        rows = head.limit.exceeded(said)
        if rows is None:
            return message.frame
        if head.limited is not None:
            head.limited.outcome, head.limited.sqlstate = "denied", refusing.SQLSTATE
            head.limited.why = f"undone: it changed {rows} rows"
        self._leftover.append(head.name)
        return head.limit.answer(rows, encoding)

    def _from_server(self, message: Message, now: Moment, done: Actions) -> None:
        kind = message.type
        self._rows += message.rows
        if kind == backend.DATA_ROW:
            self._rows += 0 if self._sent and self._sent[0].own else 1
        elif kind == backend.PARAMETER_STATUS:
            name, value = backend.parameter(message.body)
            self.settings[name] = value
            self._judge.reported(name, value)
        elif kind == backend.READY:
            self._ready(backend.status(message.body), now, done)
        elif kind == backend.ERROR:
            self._failed(backend.fields(message.body), now, done)
        elif kind in (backend.COPY_IN, backend.COPY_BOTH):
            self._copy_in(now, done)
        else:
            self._answered(kind, message, now, done)

    def _head(self) -> _Sent | None:
        """Return what the server answers now: the ends of a COPY that never began are passed over by it."""
        while self._sent and self._sent[0].kind in (frontend.COPY_DONE, frontend.COPY_FAIL):
            self._pop()
        return self._sent[0] if self._sent else None

    def _answered(self, kind: int, message: Message, now: Moment, done: Actions) -> None:
        head = self._head()
        if head is None:
            return
        if (asked := _ANSWERS.get(kind)) is not None and head.kind != asked:
            raise ProtocolViolation("the server has answered what was not asked")
        if kind == backend.PARSE_COMPLETE:
            self._prepared.put(head.name, head.decision)
            self._named()
        elif kind == backend.BIND_COMPLETE:
            made = self._prepared.get(head.statement)
            bound = made if head.own else self._bound(head.statement, made, now)
            self._portals.put(head.name, waiting.bound(bound, made, head.decision))
            if self._counted:
                self._counted.made(head.name)
            self._named()
        elif kind == backend.CLOSE_COMPLETE:
            (self._prepared if head.statement == b"S" else self._portals).forget(head.name)
            self._named()
        elif kind in (backend.ROW_DESCRIPTION, backend.NO_DATA) and head.kind == frontend.DESCRIBE:
            self._pop()
        elif kind in (backend.COMMAND_COMPLETE, backend.EMPTY_QUERY, backend.SUSPENDED):
            self._completed(kind, head, message, now, done)

    def _named(self) -> None:
        self._coming.popleft()
        self._pop()

    def _completed(self, kind: int, head: _Sent, message: Message, now: Moment, done: Actions) -> None:
        if head.kind not in (frontend.QUERY, frontend.EXECUTE):
            return
        rows = self._rows if kind == backend.SUSPENDED else None
        if kind == backend.COMMAND_COMPLETE:
            rows = backend.command_rows(message.body)
            if message.body in _CURSORS and self._counted:
                self._counted.tagged(message.body, head.decision.handles)
            if message.body in _COMMITS:
                self._settle("success", done)
            elif message.body == _ROLLS_BACK:
                self._settle("unknown", done)  # the tag does not say to where
        self._rows = 0
        if rows is not None:
            head.rows = (head.rows or 0) + rows
            self._rows_answered += 0 if head.own else rows
        if head.kind == frontend.EXECUTE:
            self._pop()
            if not head.own:
                self._end(head, "success", now)
            if head is self._metered:
                self._over(now, done, failed=False)

    def _failed(self, said: dict[str, str], now: Moment, done: Actions) -> None:
        """Take an error: it ends what is being answered, and in the extended protocol all up to the next Sync."""
        head = self._head()
        self._rows = 0
        if head is None:
            return
        self._undone = True
        if head.kind in (frontend.QUERY, frontend.FUNCTION_CALL):
            head.sqlstate = _sqlstate(head, said)
            self._leave_copy()
            return
        if head.kind == frontend.SYNC:
            return  # what is deferred fails when the transaction is to end: ReadyForQuery follows all the same
        self._leave_copy()
        ran = True
        while self._sent and self._sent[0].kind != frontend.SYNC:
            sent = self._pop()
            if self._coming.first() is sent:
                self._coming.popleft()
            if sent.number and sent.limit is not None and sent.limit.stopped:
                sent.sqlstate = refusing.SQLSTATE
                self._end(sent, "denied", now)
            elif sent.number:
                sent.sqlstate = _sqlstate(sent, said) if ran else None
                # The guard in the database counts, too, and may be the first to undo what a limit is about.
                undone = ran and sent.limit is not None and errors.is_own(said.get("W"))
                self._end(sent, "denied" if undone else "failure", now, ran=ran)
            ran = False
        self._skipping = not self._sent
        if self._metered is not None and not any(sent is self._metered for sent in self._sent):
            self._over(now, done, failed=True)

    def _leave_copy(self) -> None:
        self._copying = False

    def _ready(self, status: str, now: Moment, done: Actions) -> None:
        head = self._head()
        if head is not None and head.kind in (frontend.QUERY, frontend.FUNCTION_CALL):
            self._end(head, "success" if head.sqlstate is None else "failure", now)
            if head.sqlstate is None and head.refused is None and len(self._sent) == 1:
                self._by_sql.ended(head.decision.handles)
        elif head is None or head.kind != frontend.SYNC:
            raise ProtocolViolation("the server is ready and has not answered just what was sent")
        self._pop()
        self._copying, self._rows = False, 0
        self.status = status
        self._settle("pending" if status != "I" else "rolled_back" if self._undone else "success", done)
        self._undone = False
        if not self._sent:
            self._reported.again()
            if self._reads_rows:
                self._server.pass_on(backend.DATA_ROW)
                self._reads_rows = False
        if status == "I":
            self._transaction += 1
            self._portals.clear()
            if self._counted:
                self._counted.transaction_ended(self._by_sql.lasts)
            if not self._sent:
                self._by_sql.transaction_ended()
                self._judge.ended()

    def _copy_in(self, now: Moment, done: Actions) -> None:
        """Take up that the server reads data now: what was sent ahead of their end it passes over."""
        head = self._head()
        if head is None:
            return
        ahead: list[Piece] = []
        if head is self._metered and head.meter is not None:
            head.meter.copying = True
            ahead = self._room.leave()
            while ahead and (ahead[0].type == frontend.SYNC if isinstance(ahead[0], Message) else ahead[0] == FLUSH):
                del ahead[0]
        behind = list(self._sent)[1:]
        while behind and behind[0].kind == frontend.SYNC:
            del behind[0]
        self._copying = not behind
        if behind and behind.pop(0).kind not in (frontend.COPY_DONE, frontend.COPY_FAIL):
            raise ProtocolViolation("something else than data behind a COPY from the client")
        self._sent = deque([head, *behind])
        self._take(ahead, now, done)

    def _end(self, sent: _Sent, outcome: Outcome, now: Moment, *, ran: bool = True) -> None:
        """Take up how a statement ended; whether that lasts says the end of its transaction."""
        if sent.refused is not None and sent.sqlstate == refusing.SQLSTATE:
            outcome = "denied"
        if sent.meter is not None and sent.meter.cut is not None and sent.sqlstate == refusing.SQLSTATE:
            outcome, sent.rows = "denied", sent.meter.passed
        sent.outcome, sent.ended_ns, sent.ran = outcome, now.ns, ran
        sent.failed = self.status == "E"
        if sent.kind == frontend.EXECUTE and ran and sent.refused is None:
            actual = self._portals.get(sent.name)
            if actual.said is not sent.decision.said and actual.reading is not None:
                sent.other = actual
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
            duration_ms=(sent.ended_ns - sent.began_ns) // 1000 / 1000,
            ran=sent.ran,
            failed=sent.failed,
            changed=sent.limit.ran if sent.limit is not None and not sent.own else None,
            transaction=self._transaction if self.status != "I" else 0,
            said=None if sent.other is None else sent.other.said,
            error=sent.why or None,
        )

    def lost(self, now: Moment) -> list[Record]:
        """Complete what has no answer when a connection has ended: what came of it nobody here knows."""
        self._leave()
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


def _key(name: bytes) -> bytes:
    """Return a name as the server keeps it: of a longer one the rest is lost (`NAMEDATALEN`)."""
    return name[:NAME_BYTES_MAX]


def _sqlstate(sent: _Sent, said: dict[str, str]) -> str:
    """Return the SQLSTATE that the client was told."""
    ours = (sent.refused is not None and sent.refused.is_own(said)) or (
        sent.meter is not None and sent.meter.is_own(said)
    )
    return refusing.SQLSTATE if ours else said.get("C", "XX000")
