"""From pgoutput's messages to transactions as `raw` carries them: ordinals, parts, beacons; pure but for the spool.

A transaction is one event, or several parts when it has more than `ROWS_MAX` rows or `PART_BYTES_MAX` bytes. Parts
are cut by rows and bytes from the transaction's start alone, so a transaction that is sent again has the same parts.
Every part repeats the header; because that names who did it and the beacon follows the first statement's rows, parts
wait for the first verified beacon (`collectors.wal.assembly.held`) and stream out once it is there.

A message that cannot be read is set aside, told with its place and why, and the stream goes on: each stands in a frame
of its own, so nothing after it depends on its bytes. A row then is there without key and images; one of a table that
was not described is missing. Only what begins and ends transactions cannot be done without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec

from collectors.wal.assembly.aside import Asides
from collectors.wal.assembly.held import Body, Held
from collectors.wal.assembly.testimony import Judge, Testimony
from collectors.wal.assembly.unpublished import Accounts, Listed
from collectors.wal.beacons import ddl
from collectors.wal.beacons.messages import Said, Unsigned
from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.described import Described
from collectors.wal.decoding.pgoutput import Begin, Commit, LogicalMessage, Origin, ProtocolError, Truncate, Type
from collectors.wal.decoding.place import Place, Xids
from collectors.wal.decoding.plan import Masking, Plan, TableFacts
from pgwitness.core.codec import EVENTS_MAX
from pgwitness.core.events import Beacon, Ddl, Forgery, Silenced, Unpublished, format_lsn, qualified

ROWS_MAX = EVENTS_MAX
PART_BYTES_MAX = 192 * 1024
"""Bytes of rows and relations in a part; the header and the batch around it stay below a batch's limit with it."""

DDL_REMEMBERED_MAX = 4_096
"""Transactions with DDL that are remembered."""

_INSERT, _UPDATE, _DELETE, _BEGIN, _COMMIT, _MESSAGE = b"IUDBCM"
_OPERATIONS: dict[int, tuple[Callable[[Plan, bytes, int, int, int], bytes], bytes]] = {
    _INSERT: (Plan.insert, b"i"),
    _UPDATE: (Plan.update, b"u"),
    _DELETE: (Plan.delete, b"d"),
}


class Output(Protocol):
    """Where transactions go."""

    def part(self, event: bytes, rows: int, done_lsn: int | None) -> None:
        """Take one encoded part; `done_lsn` is set with the last one: the LSN to confirm once it is delivered."""

    def nothing(self, done_lsn: int) -> None:
        """Learn that there was nothing to send up to this LSN."""

    def aside(self, reason: str, detail: dict[str, object]) -> None:
        """Take note of evidence that cannot be read: a gap with its reason."""


class Assembler:
    """Takes the messages of one stream, one by one, and gives parts to its output.

    `facts` tells what the catalogue knows of a relation as of a commit LSN, `now_us` the collector's clock, `accounts`
    compares beacons with rows, `own_work` is told the end and id of a transaction in which pgwitness announced what it
    does, once that is over. `rows` counts the row changes by operation, `ddl` the messages of DDL; `ddl_before` are the
    transactions with DDL, or of pgwitness itself, that came last. After an error it must not be used again: the stream
    starts anew from what is confirmed.
    """

    def __init__(
        self,
        place: Place,
        masking: Masking,
        judge: Judge,
        facts: Callable[[pgoutput.Relation, int], TableFacts],
        output: Output,
        held: Held,
        xids: Xids,
        now_us: Callable[[], int],
        accounts: Accounts | None = None,
        own_work: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self.rows: Counter[str] = Counter()
        self.other_messages = 0
        self.incarnation = 0
        self.ddl = 0
        self.tables = Described(masking, facts)
        self._plans = self.tables.plans
        self.held = held
        self._place = place
        self._judge = judge
        self._testimony = Testimony(judge)
        self._sizes_max = judge.sizes_max
        self._output = output
        self._asides = Asides(output.aside)
        self._xids = xids
        self._now_us = now_us
        self._own_work = own_work
        self._accounts = accounts or Accounts(Listed)
        self._position = 0
        self.ddl_before: dict[int, None] = {}
        self._part_serial = 0
        self._begin: Begin | None = None
        self._head = (
            b'{"kind":"transaction","captured_at_us":%%d,"system_id":%b,"database":%b,"timeline":%%d,"lsn":%%d,"xid":%%d,'
            b'"committed_at_us":%%d,"n_rows":%%d'
            % (_json(place.system_id).replace(b"%", b"%%"), _json(place.database).replace(b"%", b"%%"))
        )
        self._origin_name: str | None = None
        self._xid = 0
        self._started = False
        self._start()

    @property
    def set_aside(self) -> int:
        """How many messages could not be read."""
        return self._asides.total

    @property
    def forged(self) -> int:
        """How many messages claimed to be ours and were not."""
        return self._testimony.total

    @property
    def commit_lsn(self) -> int:
        """The commit LSN of the transaction that has begun and not ended yet; 0 outside of one."""
        return self._begin.lsn if self._begin is not None else 0

    @property
    def xid(self) -> int:
        """The id, 64 bits, of the transaction that began last."""
        return self._xid

    @property
    def inside(self) -> bool:
        """Whether a transaction has begun and not ended yet."""
        return self._begin is not None

    def feed(self, data: bytes, at: int = 0) -> None:
        """Take one message that begins at `at`. Raise `ProtocolError` for a begin or commit that makes no sense."""
        kind = data[at] if len(data) > at else 0
        if kind in _OPERATIONS:
            self._change(data, at, kind)
        elif kind == _BEGIN:
            self._begins(pgoutput.begin(data, at))
        elif kind == _COMMIT:
            self._commit(pgoutput.commit(data, at))
        elif kind == _MESSAGE and (head := pgoutput.message_head(data, at)) is not None:
            self._message(data, at, head)
        else:
            self._start()
            try:
                message = pgoutput.logical_message(data, at) if kind == _MESSAGE else pgoutput.decode(data[at:])
            except ProtocolError as error:
                self._asides.note("message_unreadable", data, at, self._where(), why=str(error))
            else:
                self._rare(message, data, at)

    def settle(self, lsn: int) -> None:
        """Ask again for what was not certain of a table, between transactions; all up to `lsn` has been read."""
        if self._begin is None and self.tables.unsettled:
            self._position = max(self._position, lsn)
            for oid in list(self.tables.unsettled):
                self._describe(self._plans[oid].described)

    def announced(self) -> None:
        """Learn that pgwitness itself announced in this transaction what it does in it."""
        self._start()
        self._announced = True

    def _rare(self, message: pgoutput.Message, data: bytes, at: int) -> None:
        if isinstance(message, pgoutput.Relation):
            self._describe(message)
        elif isinstance(message, Type):
            self.tables.types[message.oid] = (message.schema, message.name)
        elif isinstance(message, Origin):
            self._origin_name = message.name
        elif isinstance(message, Truncate):
            self._truncate(message, data, at)

    def _describe(self, message: pgoutput.Relation) -> None:
        self._accounts.coming.described(message.oid, qualified(message.schema, message.name))
        lsn = self._begin.lsn if self._begin is not None else self._position
        why = self.tables.describe(message, lsn, self._xid)
        if why is not None:
            self._asides.note("message_unreadable", b"R", 0, self._where(), why=why, oid=message.oid)

    def _begins(self, message: Begin) -> None:
        if self._begin is not None:
            raise ProtocolError("a transaction begins inside another one")
        self._begin = message
        self._started = False
        self._xid = self._xids.widen(message.xid)

    def _start(self) -> None:
        """Make ready for what a transaction holds, with the first of it.

        One that holds nothing, or messages of others alone, costs nothing of this: anybody can write many of them.
        """
        if self._started:
            return
        self._started = True
        self._origin_name = None
        self._ordinal = 0
        self._parts = 0
        self._testimony.begin()
        self._covered = False
        self._announced = False
        self._unpublished: list[Unpublished] = []
        self._accounts.begin()
        self._commands = 0
        self._open()

    def _open(self) -> None:
        """Begin a part."""
        self._part_serial += 1
        self._part_plans: list[Plan] = []
        self._part_rows: list[bytes] = []
        self._part_ddl: list[Ddl] = []
        self._part_first = self._ordinal
        self._size = 0

    def _join(self, plan: Plan) -> None:
        """Make a relation known in the present part, or in a new one where its description has no room."""
        if self._size + plan.header_size > PART_BYTES_MAX and (self._part_rows or self._part_ddl):
            self._cut()
        plan.part = self._part_serial
        plan.renew()
        plan.index = len(self._part_plans)
        plan.inserts = plan.updates = plan.deletes = plan.truncates = 0
        self._part_plans.append(plan)
        self._size += plan.header_size

    def _change(self, data: bytes, at: int, kind: int) -> None:
        if not self._started:
            self._start()
        plan = self._plans.get(data[at + 1 : at + 5])
        if plan is None or self._begin is None:
            self._homeless(data, at, int.from_bytes(data[at + 1 : at + 5], "big"))
            return
        if not plan.wanted:
            return
        if len(self._part_rows) >= ROWS_MAX:
            self._cut()
        if plan.part != self._part_serial:
            self._join(plan)
        encode, letter = _OPERATIONS[kind]
        readable = True
        try:
            row = encode(plan, data, at + 5, self._ordinal, plan.index)
        except Exception as error:
            # Whatever is wrong with a row is its own affair.
            readable, row = False, plan.unreadable(self._ordinal, letter, plan.index)
            why = str(error) if isinstance(error, ProtocolError) else type(error).__name__
            named = {"relations": [plan.relation.name], "ordinal": self._ordinal}
            self._asides.note("row_unreadable", data, at, self._where(), why=why, **named)
        if self._size + len(row) > PART_BYTES_MAX and self._part_rows:
            self._cut()
            self._join(plan)
            place = (self._ordinal, plan.index)
            row = encode(plan, data, at + 5, *place) if readable else plan.unreadable(place[0], letter, place[1])
        self._part_rows.append(row)
        self._size += len(row) + 1
        self._ordinal += 1
        if kind == _INSERT:
            plan.inserts += 1
        elif kind == _UPDATE:
            plan.updates += 1
        else:
            plan.deletes += 1

    def _homeless(self, data: bytes, at: int, oid: int) -> None:
        why = "outside of a transaction" if self._begin is None else "of a relation that was not described"
        self._asides.note("row_unreadable", data, at, self._where(), why=f"a row {why}", oid=oid)

    def _where(self) -> dict[str, object]:
        """Say in which transaction the stream is."""
        begin = self._begin
        return {} if begin is None else {"commit_lsn": format_lsn(begin.lsn), "xid": self._xid}

    def _truncate(self, message: Truncate, data: bytes, at: int) -> None:
        for oid in message.oids:
            plan = self._plans.get(oid.to_bytes(4, "big"))
            if plan is None or self._begin is None:
                self._homeless(data, at, oid)
                continue
            if not plan.wanted:
                continue
            if len(self._part_rows) >= ROWS_MAX or self._size > PART_BYTES_MAX:
                self._cut()
            if plan.part != self._part_serial:
                self._join(plan)
            row = plan.truncate(self._ordinal, plan.index)
            plan.truncates += 1
            self._part_rows.append(row)
            self._size += len(row) + 1
            self._ordinal += 1

    def _message(self, data: bytes, at: int, head: tuple[bytes, int, int]) -> None:
        prefix, start, end = head
        inside = self._begin
        size_max = self._sizes_max.get(prefix)
        said = None
        flags, lsn = pgoutput.message_place(data, at)
        if size_max is not None:
            # Of what is too long for us one byte more is enough to see that it is.
            content = data[start:] if end - start <= size_max else data[start : start + size_max + 1]
            message = LogicalMessage(bool(flags & 1), lsn, prefix.decode(), content)
            xid = inside.xid if inside is not None and flags & 1 else None
            said = self._judge.message(message, xid, inside.committed_at_us if inside is not None else 0)
        if said is None:
            self.other_messages += 1
            if inside is None:
                self._output.nothing(lsn)
        else:
            self._start()
            self._said(said, lsn, data, at)

    def _said(self, said: Said, lsn: int, data: bytes, at: int) -> None:
        """Take what a message says."""
        inside = self._begin
        if isinstance(said, Unsigned):
            self._testimony.claims(said)
        elif isinstance(said, Beacon):
            self._accounts.spoke(said)
            if self._testimony.verified(said, self._ordinal):
                self._release()
        elif isinstance(said, Ddl):
            self._ddl(said)
        elif isinstance(said, Silenced):
            self._testimony.silences(said)
        elif isinstance(said, Forgery):
            if inside is not None:
                self._testimony.forgery(said)
            else:
                self._forged_outside(said, lsn)
        else:
            self._asides.note("message_unreadable", data, at, self._where(), why=said.why, prefix=said.prefix)

    def _ddl(self, said: Ddl) -> None:
        """Keep a command where it happened; what an event trigger told in two messages of one command becomes one."""
        self.ddl += 1
        if self._begin is not None:
            self._accounts.coming.ddl(said, self._begin.committed_at_us)
        before = self._part_ddl[-1] if self._part_ddl else None
        if before is not None and before.ordinal == self._ordinal and ddl.continues(before, said):
            self._part_ddl[-1] = ddl.joined(before, said)
            return
        said = msgspec.structs.replace(said, number=self._commands, ordinal=self._ordinal)
        self._commands += 1
        size = len(_json(said)) + 1
        if self._size + size > PART_BYTES_MAX and (self._part_rows or self._part_ddl):
            self._cut()
        self._part_ddl.append(said)
        self._size += size

    def _cut(self) -> None:
        """End the present part because something follows it: send it, or let it wait for the beacon."""
        body = self._body()
        self._open()
        if not self._testimony.beacons and (self.held or self._judge.expects_beacons()):
            if not self.held.add(body):
                self._release()
        else:
            self._send(body, None)

    def _release(self) -> None:
        if not self.held:
            return
        for body in self.held.drain():
            self._send(body, None)

    def _body(self) -> Body:
        if not self._part_plans and not self._part_ddl:
            return Body(self._part_first, 0, b"", b"", b"")
        counts = []
        seen = self.rows
        for plan in self._part_plans:
            index = plan.index
            self._covered = self._covered or plan.relation.beacon
            self._accounts.saw(plan.oid, plan.inserts, plan.updates, plan.deletes, plan.truncates)
            if plan.inserts:
                counts.append(b'[%d,"i",%d]' % (index, plan.inserts))
                seen["insert"] += plan.inserts
            if plan.updates:
                counts.append(b'[%d,"u",%d]' % (index, plan.updates))
                seen["update"] += plan.updates
            if plan.deletes:
                counts.append(b'[%d,"d",%d]' % (index, plan.deletes))
                seen["delete"] += plan.deletes
            if plan.truncates:
                counts.append(b'[%d,"t",%d]' % (index, plan.truncates))
                seen["truncate"] += plan.truncates
        return Body(
            self._part_first,
            len(self._part_rows),
            b",".join([plan.header for plan in self._part_plans]),
            b",".join(counts),
            b",".join(self._part_rows),
            _json(self._part_ddl) if self._part_ddl else b"",
        )

    def _commit(self, message: Commit) -> None:
        if self._begin is None:
            raise ProtocolError("a transaction ends that has not begun")
        if not self._started:
            self._begin = None
            self._position = message.end_lsn
            self._output.nothing(message.end_lsn)
            return
        self._asides.end(self._where)
        body = self._body()
        self._testimony.decide(self._begin.lsn, self._covered)
        self._unpublished = self._accounts.ends(self._begin.committed_at_us)
        if body.n_rows or body.ddl or self._testimony.forged or self._unpublished or self._testimony.silenced:
            self._release()
            self._send(body, message.end_lsn)
        else:
            self._output.nothing(message.end_lsn)
        self._begin = None
        self._position = message.end_lsn
        if self._commands or self._announced:
            self._changed()
        if self._announced:
            self._own_work(message.end_lsn, self._xid)

    def _changed(self) -> None:
        """Remember that this transaction changed the schema: what it left holds for those that come after it."""
        self.ddl_before[self._xid] = None
        if len(self.ddl_before) > DDL_REMEMBERED_MAX:
            del self.ddl_before[next(iter(self.ddl_before))]

    def _send(self, body: Body, done_lsn: int | None) -> None:
        begin = self._begin
        assert begin is not None
        made = [
            self._head
            % (
                self._now_us(),
                self._place.timeline_of(begin.lsn),
                begin.lsn,
                self._xid,
                begin.committed_at_us,
                body.n_rows,
            )
        ]
        if self._parts or done_lsn is None:
            made.append(
                b',"part":%d,"first_ordinal":%d,"last":%b'
                % (self._parts, body.first_ordinal, b"false" if done_lsn is None else b"true")
            )
        if self.incarnation:
            made.append(b',"incarnation":%d' % self.incarnation)
        if self._origin_name is not None:
            made.append(b',"origin":' + _json(self._origin_name))
        if self._testimony.beacons:
            made.append(b',"beacons":' + _json(self._testimony.beacons_of(body.first_ordinal)))
        if self._testimony.forged:
            # Like the rest of the header, forgeries stand in every part from where they were found on.
            made.append(b',"forged":' + _json(self._testimony.forged))
        if body.ddl:
            made.append(b',"ddl":' + body.ddl)
            if self._announced:
                made.append(b',"announced":true')
        if body.n_rows:
            made.append(
                b',"relations":[' + body.relations + b'],"counts":[' + body.counts + b'],"rows":[' + body.rows + b"]"
            )
        if done_lsn is not None and self._unpublished:
            made.append(b',"unpublished":' + _json(self._unpublished))
        if done_lsn is not None and self._testimony.silenced:
            made.append(b',"silenced":' + _json(self._testimony.silenced))
        made.append(b"}")
        self._parts += 1
        self._output.part(b"".join(made), body.n_rows, done_lsn)

    def _forged_outside(self, forgery: Forgery, lsn: int) -> None:
        """Send a forgery that belongs to no transaction as one without rows, at its own place in the WAL."""
        now = self._now_us()
        self._started = False
        self._start()
        self._xid = 0
        self._begin = Begin(lsn, now, 0)
        self._testimony.forgery(forgery)
        self._send(Body(0, 0, b"", b"", b""), lsn)
        self._begin = None


_json = msgspec.json.Encoder().encode
