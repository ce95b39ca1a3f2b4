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
from typing import Final

from collectors.beacon.encodings import codec_of
from collectors.gateway.session import limiting, refusing, short, waiting
from collectors.gateway.session.actions import NOT_KNOWN, Actions, Asked, Decision, Judge, Moment
from collectors.gateway.session.answers import Answers
from collectors.gateway.session.limiting import Limit
from collectors.gateway.session.looking import Seen
from collectors.gateway.session.meanings import Meanings
from collectors.gateway.session.metering import Counted, Meter
from collectors.gateway.session.outcomes import Outcomes
from collectors.gateway.session.refusing import Refused
from collectors.gateway.session.room import ROOM_BYTES_MAX, Room
from collectors.gateway.session.sent import Sent, kept
from collectors.gateway.session.waiting import Held
from collectors.gateway.spool.records import Begun, Record, Way
from collectors.gateway.wire import backend, frontend
from collectors.gateway.wire.frames import HEADER, Frames, Message, Piece, frame
from collectors.gateway.wire.lexing import Reported
from collectors.gateway.wire.native import Ledger
from collectors.gateway.wire.violation import ProtocolViolation
from collectors.guard import errors
from detectors.gatekeeper import Verdict
from pgwitness.core.events import Outcome

QUEUE_MAX: Final = 100_000
"""Messages of a client that wait for their answer; a pipeline that is longer has to be read from."""

FLUSH: Final = frame(b"H")
CUT_AGAIN_S: Final = 1.0
"""How long after a cancel that has ended nothing the next one is tried."""


_ANSWERS: Final = {
    backend.PARSE_COMPLETE: frontend.PARSE,
    backend.BIND_COMPLETE: frontend.BIND,
    backend.CLOSE_COMPLETE: frontend.CLOSE,
}
_COMMITS: Final = (b"COMMIT\0", b"PREPARE TRANSACTION\0")
_CURSORS: Final = (b"DECLARE CURSOR\0", b"CLOSE CURSOR\0")
_ROLLS_BACK: Final = b"ROLLBACK\0"


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
        self._sent: deque[Sent] = deque()
        self._skipping = False
        """The server reads nothing until a Sync, which has not been sent yet."""
        self._copying = False
        """The server reads the data of a COPY, of which the client has not sent the end yet."""
        self._names = Meanings(judge)
        self._watching = 0
        """How many answers to come are written anew, or have something put before them."""
        self._ahead = 0
        """Of a message whose rest has not come, the bytes that were passed on already."""
        self._answers = Answers(self.settings)
        self._held: Held | None = None
        self._room = Room()
        """What has come behind a statement that waits, or is measured."""
        self.mark: Callable[[Verdict, str, int], str] | None = None
        """Writes what the guard in the database lets an approved statement pass by, of a text at a time."""
        self._reads_rows = False
        """Whether rows of the server are cut out, for what was approved."""
        self._notices: list[bytes] = []
        """What the client is to be told when no answer is in its midst."""
        self._undone = False
        """An error came since the last ReadyForQuery, of whatever message: what ran before it is undone."""
        self._outcomes = Outcomes(number)
        self._reported = Reported()
        self._application = settings.get("application_name", "")
        self._rows = 0
        self._now = Moment(0, 0)
        self._meter: Meter | None = None
        """Of the statement that runs and is measured: what comes behind it waits."""
        self._metered: Sent | None = None
        self._counted = Counted()
        self._rows_answered = 0
        """Rows of all answers that have ended."""
        self._last: Sent | None = None
        """The statement that began last."""
        self.lane = short.lane(ledger, self, number, self._names.prepared, self._names.portals)
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
        names, answers = self._names, self._answers
        under_way = self._sent or names.coming or self._outcomes or self._watching or self._skipping or self._copying
        waits = self._held or self._meter or self._notices or answers.leftover or answers.withheld
        between = self._reported.sure and self._client.between and self._server.between
        return between and not under_way and not waits and not names.by_sql

    def _leave(self) -> None:
        """Go on from where the short lane has come to."""
        left = self.lane.leave() if self.lane is not None and (self.lane.engaged or self.lane.waiting) else None
        if left is None:
            return
        parsed, described, data, decision, portal, statement, number, began_ns = left
        self._reported.sure = False
        kind = frontend.QUERY if portal is None or statement is None else frontend.EXECUTE
        execute = Sent(kind, portal or b"", decision, number=number, began_ns=began_ns)
        if portal is None or statement is None:
            self._reported.went(frontend.query_text(data[HEADER:]))
            self._sent.append(execute)
            return
        if parsed:
            body = data[HEADER : 1 + int.from_bytes(data[1:HEADER], "big")]
            self._reported.went(frontend.parse(body).text)
            self._name(Sent(frontend.PARSE, statement, decision))
        self._name(Sent(frontend.BIND, portal, decision, statement))
        if described:
            self._queue(Sent(frontend.DESCRIBE))
        self._sent += (execute, Sent(frontend.SYNC))

    def look(self) -> Seen:
        """Return what the session does now."""
        if self.lane is not None:
            if self.lane.waiting:
                self._leave()
            if self.lane.last is not None and (self._last is None or self.lane.last[1] > self._last.number):
                decision, number, ended_ns = self.lane.last
                self._last = Sent(frontend.QUERY, decision=decision, number=number, ended_ns=ended_ns)
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
            named = self._names.named_by_sql(decision, now.us)
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
            portal, statement = kept(bound.portal), kept(bound.statement)
            decision = self._names.bound(statement, self._names.expected(frontend.PARSE, statement), now.us)
            self._name(Sent(kind, portal, waiting.with_values(decision, message), statement))
        elif kind == frontend.EXECUTE:
            return self._execute(message, now, done)
        elif kind == frontend.FUNCTION_CALL:
            return self._call(message, now, done)
        elif kind == frontend.CLOSE:
            sort, name = frontend.close(message.body)
            self._name(Sent(kind, kept(name), statement=sort))
        elif kind == frontend.DESCRIBE:
            frontend.close(message.body)
            self._queue(Sent(kind))
        elif kind == frontend.SYNC:
            self._sync()
        elif kind in (frontend.COPY_DONE, frontend.COPY_FAIL):
            if not self._copying:
                self._sent.append(Sent(kind))
            self._copying = False
        elif kind == frontend.TERMINATE:
            done.ended = True
        return message.frame

    def _call(self, message: Message, now: Moment, done: Actions) -> bytes:
        decision = self._judge.function(frontend.function_oid(message.body), now.us)
        sent = Sent(message.type, decision=waiting.refused(decision, waiting.BY_NAME) if decision.waits else decision)
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
        sent = Sent(message.type, decision=decision)
        self._begin("query", sent, now, done)
        return read if sent.refused is None else sent.refused.instead(message.frame)

    def _limited_query(self, text: bytes, decision: Decision, now: Moment, done: Actions) -> bytes:
        """Run a simple query as an extended one, so that its rows can be checked before it ends."""
        assert decision.verdict is not None
        limit = self._limit(decision.verdict, text, now)
        before = self._own(limit.before(), limit)
        meter = self._meter_of(decision, simple=True)
        for kind in (frontend.PARSE, frontend.BIND):
            self._name(Sent(kind, decision=waiting.unused(decision), own=True, limit=limit, meter=meter))
        self._queue(Sent(frontend.DESCRIBE, own=True, limit=limit, meter=meter))
        sent = Sent(frontend.EXECUTE, decision=decision, limit=limit, simple=True, meter=meter)
        self._begin("query", sent, now, done)
        if meter is not None:
            self._measure(meter, sent, done)
            return b"".join([*before, *limiting.as_one(text), FLUSH])
        behind = self._own([*limit.behind(), limiting.closing()], limit, sent)
        self._queue(Sent(frontend.SYNC, watched=True))
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

    def _own(self, frames: list[bytes], limit: Limit, limited: Sent | None = None) -> list[bytes]:
        """Send messages of the gateway's own."""
        if limited is None:
            frames = [*(frame(b"C", b"S" + name + b"\0") for name in self._answers.leftover), *frames]
            self._answers.leftover = []
        elif limit.verdict.approval:
            self._server.want(backend.DATA_ROW, backend.MESSAGE_BYTES_MAX)  # its check says what was counted in one
            self._reads_rows = True
        for each in frames:
            kind, body = each[0], each[HEADER:]
            if kind == frontend.EXECUTE:
                self._queue(Sent(kind, frontend.execute(body), own=True, limit=limit, limited=limited))
            elif kind == frontend.CLOSE:
                sort, name = frontend.close(body)
                self._name(Sent(kind, name, statement=sort, own=True, limit=limit))
            elif kind == frontend.PARSE:
                self._name(Sent(kind, frontend.parse(body).name, own=True, limit=limit))
            else:
                bound = frontend.bind(body)
                self._name(Sent(kind, bound.portal, NOT_KNOWN, bound.statement, own=True, limit=limit))
        return frames

    def _parse(self, message: Message, now: Moment, done: Actions) -> bytes:
        """Take a Parse: what may not run is not prepared either, so that no name of it remains."""
        parsed = frontend.parse(message.body)
        decision, read = self._decide(message, parsed.text, now)
        if decision.waits and not decision.handles:
            decision = decision._replace(exact=waiting.of_text(message.body))
        sent = Sent(message.type, kept(parsed.name), decision)
        if not decision.denied:
            sent.watched = decision.masked is not None
            self._name(sent)
            return read
        if not self._skipping:
            self._names.coming.append(sent)
        self._begin("parse", sent, now, done)
        self._skipping = True  # the server fails at it, and reads nothing behind it until a Sync
        assert sent.refused is not None
        return sent.refused.instead(message.frame)

    def _execute(self, message: Message, now: Moment, done: Actions) -> bytes:
        portal = kept(frontend.execute(message.body))
        decision = self._names.running(portal, now.us)
        if decision.waits:
            exact = self._names.expected(frontend.BIND, portal).exact
            if exact and not decision.handles and not self._skipping:
                return self._wait(message, message.frame, decision._replace(exact=exact), done)
            decision = waiting.refused(decision, waiting.BY_NAME)
        return self._run(message, decision, now, done)

    def _run(self, message: Message, decision: Decision, now: Moment, done: Actions) -> bytes:
        portal = kept(frontend.execute(message.body))
        decision = self._admitted(decision, now)
        sent = Sent(message.type, portal, decision)
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

    def _measure(self, meter: Meter, sent: Sent, done: Actions) -> None:
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
                self._queue(Sent(frontend.EXECUTE, own=True, limit=limit, limited=limited, meter=meter))
                done.to_server.append(frontend.execute_of(meter.portal))
            behind = [*limit.behind(), *([limiting.closing()] if meter.simple else [])]
            done.to_server += self._own(behind, limit, limited)
        if meter.simple:
            self._skipping = False
            sync = Sent(frontend.SYNC)
            self._queue(sync)
            sync.watched = True
            self._watching += 1
            done.to_server.append(limiting.SYNC)
        self._take(self._room.leave(), now, done)

    def _sync(self) -> None:
        if self._copying:
            # Whether the server still copies, or has failed and waits for just this Sync, cannot be known here: taken
            # for the other, what follows would run unseen.
            raise ProtocolViolation("a Sync in the midst of a COPY, whose end has to come first")
        self._skipping = False
        self._sent.append(Sent(frontend.SYNC))

    def _begin(self, way: Way, sent: Sent, now: Moment, done: Actions) -> None:
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

    def _queue(self, sent: Sent) -> None:
        if not self._skipping:
            if sent.own or sent.watched:
                sent.watched = True
                self._watching += 1
            self._sent.append(sent)

    def _pop(self) -> Sent:
        """Take up that what the server answers now is answered."""
        sent = self._sent.popleft()
        if sent.watched:
            sent.watched = False
            self._watching -= 1
        return sent

    def _name(self, sent: Sent) -> None:
        if not self._skipping:
            self._names.coming.append(sent)
        self._queue(sent)

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
                    instead = self._answers.to(self._head(), self._metered, piece)
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

    def _head(self) -> Sent | None:
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
            self._names.prepared.put(head.name, head.decision)
            self._named()
        elif kind == backend.BIND_COMPLETE:
            made = self._names.prepared.get(head.statement)
            bound = made if head.own else self._names.bound(head.statement, made, now.us)
            self._names.portals.put(head.name, waiting.bound(bound, made, head.decision))
            if self._counted:
                self._counted.made(head.name)
            self._named()
        elif kind == backend.CLOSE_COMPLETE:
            (self._names.prepared if head.statement == b"S" else self._names.portals).forget(head.name)
            self._named()
        elif kind in (backend.ROW_DESCRIPTION, backend.NO_DATA) and head.kind == frontend.DESCRIBE:
            self._pop()
        elif kind in (backend.COMMAND_COMPLETE, backend.EMPTY_QUERY, backend.SUSPENDED):
            self._completed(kind, head, message, now, done)

    def _named(self) -> None:
        self._names.coming.popleft()
        self._pop()

    def _completed(self, kind: int, head: Sent, message: Message, now: Moment, done: Actions) -> None:
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
            head.sqlstate = head.told(said)
            self._leave_copy()
            return
        if head.kind == frontend.SYNC:
            return  # what is deferred fails when the transaction is to end: ReadyForQuery follows all the same
        self._leave_copy()
        ran = True
        while self._sent and self._sent[0].kind != frontend.SYNC:
            sent = self._pop()
            if self._names.coming.first() is sent:
                self._names.coming.popleft()
            if sent.number and sent.limit is not None and sent.limit.stopped:
                sent.sqlstate = refusing.SQLSTATE
                self._end(sent, "denied", now)
            elif sent.number:
                sent.sqlstate = sent.told(said) if ran else None
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
                self._names.by_sql.ended(head.decision.handles)
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
            self._names.portals.clear()
            if self._counted:
                self._counted.transaction_ended(self._names.by_sql.lasts)
            if not self._sent:
                self._names.by_sql.transaction_ended()
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

    def _end(self, sent: Sent, outcome: Outcome, now: Moment, *, ran: bool = True) -> None:
        """Take up how a statement ended; whether that lasts says the end of its transaction."""
        actual = self._names.portals.get(sent.name) if sent.kind == frontend.EXECUTE else None
        self._outcomes.end(sent, outcome, now, failed=self.status == "E", actual=actual, ran=ran)

    def _settle(self, lasts: Outcome, done: Actions) -> None:
        """Write down what came of what has run, where `lasts` is what became of what succeeded."""
        if self._outcomes:
            done.records += self._outcomes.settle(lasts, self._now.us, self._transaction if self.status != "I" else 0)

    def lost(self, now: Moment) -> list[Record]:
        """Complete what has no answer when a connection has ended: what came of it nobody here knows."""
        self._leave()
        self._now = now
        done = Actions()
        for sent in self._sent:
            if sent.number:
                self._outcomes.never_answered(sent, now)
        self._settle("unknown", done)
        self._sent.clear()
        self._names.coming.clear()
        return done.records
