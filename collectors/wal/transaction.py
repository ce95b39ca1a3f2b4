"""From pgoutput's messages to transactions as `raw` carries them: ordinals, parts, beacons; pure but for the spool.

A transaction is one event, or several parts when it has more than `ROWS_MAX` rows or `PART_BYTES_MAX` bytes. Parts
are cut by rows and bytes from the transaction's start alone, so a transaction that is sent again has the same parts.
Every part repeats the header; because that names who did it and the beacon follows the first statement's rows, parts
wait for the first verified beacon (`collectors.wal.held`) and stream out once it is there.

A message that cannot be read is set aside, told with its place and why, and the stream goes on: each stands in a frame
of its own, so nothing after it depends on its bytes. A row then is there without key and images; one of a table that
was not described is missing. Only what begins and ends transactions cannot be done without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from collectors.beacon.mac import same_session
from collectors.wal import ddl, pgoutput
from collectors.wal.aside import Asides
from collectors.wal.held import Body, Held
from collectors.wal.messages import Said, Unproven, Unsigned
from collectors.wal.pgoutput import Begin, Commit, LogicalMessage, Origin, ProtocolError, Truncate, Type
from collectors.wal.plan import Masking, Plan, TableFacts
from collectors.wal.registry import Belongs
from collectors.wal.unpublished import Accounts, Listed
from pgwitness.core.codec import EVENTS_MAX
from pgwitness.core.events import Beacon, Ddl, Forgery, Silenced, Unpublished, format_lsn, qualified

ROWS_MAX = EVENTS_MAX
PART_BYTES_MAX = 192 * 1024
"""Bytes of rows and relations in a part; the header and the batch around it stay below a batch's limit with it."""
BEACONS_MAX = 64
"""Beacons kept for one part; more says nothing new."""
CLAIMS_MAX = 4
"""Unproven beacons of one transaction that are looked at; they are either alike, or somebody's invention."""
FORGERIES_MAX = 20
"""Forgeries written down for one transaction; a flood of them must not be a way to fill the topic."""

DDL_REMEMBERED_MAX = 4_096
"""Transactions with DDL that are remembered."""

_INSERT, _UPDATE, _DELETE, _BEGIN, _COMMIT, _MESSAGE = b"IUDBCM"
_OPERATIONS: dict[int, tuple[Callable[[Plan, bytes, int, int, int], bytes], bytes]] = {
    _INSERT: (Plan.insert, b"i"),
    _UPDATE: (Plan.update, b"u"),
    _DELETE: (Plan.delete, b"d"),
}


class Judge(Protocol):
    """What the shell knows of logical messages: which prefixes are ours, and whether a message is genuine."""

    def expects_beacons(self) -> bool:
        """Return whether a beacon is installed, so that waiting for it makes sense."""

    def lost(self, lsn: int) -> bool:
        """Return whether the database may have had no key at a place of the WAL, so that nothing could be proven."""

    unproven: Unproven
    sizes_max: Mapping[bytes, int]
    """How much of a message is looked at, by the prefixes that are ours."""

    def claimed(self, said: Unsigned) -> Beacon | None:
        """Read a beacon without a proof; None for what is not of the form of one."""

    def tells(self, reason: str, lsn: int) -> bool:
        """Return whether a forgery may be told by itself now; else it is counted under its reason."""

    def message(self, message: LogicalMessage, xid: int | None, committed_at_us: int = 0) -> Said | None:
        """Judge a message of the transaction `xid` (32 bits; none outside of one); None when it is not ours."""


class Output(Protocol):
    """Where transactions go."""

    def part(self, event: bytes, rows: int, done_lsn: int | None) -> None:
        """Take one encoded part; `done_lsn` is set with the last one: the LSN to confirm once it is delivered."""

    def nothing(self, done_lsn: int) -> None:
        """Learn that there was nothing to send up to this LSN."""

    def aside(self, reason: str, detail: dict[str, object]) -> None:
        """Take note of evidence that cannot be read: a gap with its reason."""


class Place(msgspec.Struct, frozen=True):
    """Where the stream comes from. `history` lists `(timeline, end LSN)` of past timelines, oldest first."""

    system_id: str
    timeline: int
    database: str
    history: tuple[tuple[int, int], ...] = ()

    def timeline_of(self, lsn: int) -> int:
        """Return the timeline on which a record at `lsn` was written."""
        return next((timeline for timeline, end in self.history if lsn < end), self.timeline)


class Xids:
    """Widens 32-bit transaction ids to 64 bits: the one nearest to the newest known is meant."""

    def __init__(self, known: int) -> None:
        self._known = known

    def widen(self, xid: int) -> int:
        """Return the 64-bit id; ids seen may lie up to 2^31 behind or ahead of the newest known."""
        wide = (self._known & ~0xFFFFFFFF) | xid
        if wide > self._known + 0x80000000 and wide >= 1 << 32:
            wide -= 1 << 32
        elif wide < self._known - 0x80000000:
            wide += 1 << 32
        self._known = max(self._known, wide)
        return wide


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
        self.forged = 0
        self.incarnation = 0
        self.ddl = 0
        self.plans: dict[bytes, Plan] = {}
        self.described: dict[bytes, int] = {}
        """The greatest id of those transactions in which each of them was described."""
        self.held = held
        self._place = place
        self._masking = masking
        self._judge = judge
        self._sizes_max = judge.sizes_max
        self._facts = facts
        self._output = output
        self._asides = Asides(output.aside)
        self._xids = xids
        self._now_us = now_us
        self._own_work = own_work
        self._types: dict[int, tuple[str, str]] = {}
        self._accounts = accounts or Accounts(Listed)
        self._unsettled: set[bytes] = set()
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
        if self._begin is None and self._unsettled:
            self._position = max(self._position, lsn)
            for oid in list(self._unsettled):
                self._describe(self.plans[oid].described)

    def announced(self) -> None:
        """Learn that pgwitness itself announced in this transaction what it does in it."""
        self._start()
        self._announced = True

    def refresh(self, belongs: Callable[[pgoutput.Relation], Belongs]) -> None:
        """Take over which tables carry a beacon from here on, and which are asked for."""
        for oid, plan in self.plans.items():
            found = belongs(plan.described)
            plan.set_beacon(found.beacon, found.wanted)
            if not found.settled:
                self._unsettled.add(oid)

    def forget(self, oids: list[bytes]) -> None:
        """Let go of tables that nothing comes of any more, and of the types that no other has; between transactions."""
        for oid in oids:
            self.plans.pop(oid, None)
            self.described.pop(oid, None)
            self._unsettled.discard(oid)
        used = {column.type_oid for plan in self.plans.values() for column in plan.described.columns}
        self._types = {oid: name for oid, name in self._types.items() if oid in used}

    def _rare(self, message: pgoutput.Message, data: bytes, at: int) -> None:
        if isinstance(message, pgoutput.Relation):
            self._describe(message)
        elif isinstance(message, Type):
            self._types[message.oid] = (message.schema, message.name)
        elif isinstance(message, Origin):
            self._origin_name = message.name
        elif isinstance(message, Truncate):
            self._truncate(message, data, at)

    def _describe(self, message: pgoutput.Relation) -> None:
        oid = message.oid.to_bytes(4, "big")
        self._accounts.coming.described(message.oid, qualified(message.schema, message.name))
        facts = self._facts(message, self._begin.lsn if self._begin is not None else self._position)
        known = self.plans.get(oid)
        self.described[oid] = max(self._xid, self.described.get(oid, 0))
        if known is None or not known.still(message, facts):
            try:
                self.plans[oid] = Plan(message, facts, self._masking, self._types)
            except Exception as error:
                # Its rows have no home then, and each of them is set aside.
                self.plans.pop(oid, None)
                self.described.pop(oid, None)
                why = f"a description that cannot be taken: {type(error).__name__}"
                self._asides.note("message_unreadable", b"R", 0, self._where(), why=why, oid=message.oid)
                return
        if facts.settled:
            self._unsettled.discard(oid)
        else:
            self._unsettled.add(oid)

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
        self._beacons: list[Beacon] = []
        self._beacon_at = 0
        self._forged: list[Forgery] = []
        self._forgeries = 0
        self._claims: list[Unsigned] = []
        self._covered = False
        self._silenced: list[Silenced] = []
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
        plan = self.plans.get(data[at + 1 : at + 5])
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
            plan = self.plans.get(oid.to_bytes(4, "big"))
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
            if len(self._claims) < CLAIMS_MAX and all(said.content != other.content for other in self._claims):
                self._claims.append(said)
        elif isinstance(said, Beacon):
            self._verified(said)
        elif isinstance(said, Ddl):
            self._ddl(said)
        elif isinstance(said, Silenced):
            if len(self._silenced) < FORGERIES_MAX:
                self._silenced.append(said)
        elif isinstance(said, Forgery):
            self.forged += 1
            if inside is not None:
                self._forgeries += 1
                if self._forgeries <= FORGERIES_MAX:
                    self._forged.append(said)
            else:
                self._forged_outside(said, lsn)
        else:
            self._asides.note("message_unreadable", data, at, self._where(), why=said.why, prefix=said.prefix)

    def _verified(self, said: Beacon) -> None:
        """Note a beacon: it speaks of the rows since the one before it, because it follows its statement's rows."""
        self._accounts.spoke(said)
        if not self._beacons:
            self._beacons.append(said)
            self._release()
        elif len(self._beacons) < BEACONS_MAX:
            beacon = msgspec.structs.replace(said, ordinal=self._beacon_at)
            if not same_session(self._beacons[-1], beacon):
                self._beacons.append(beacon)
        self._beacon_at = self._ordinal

    def _claimed(self, lsn: int) -> None:
        """Decide what unproven beacons are worth, now that the transaction ends.

        One speaks where a table with a beacon was written and nothing proven speaks. One that contradicts what is
        proven, or that stands alone while the database had its key, was not written by the beacon.
        """
        if not self._claims:
            return
        speaks = not self._beacons and self._covered
        lost = not self._beacons and self._judge.lost(lsn)
        who = {(said.session_user, said.pid, said.backend_start_us) for said in self._beacons}
        for claim in self._claims:
            # Nobody has to read what nobody needs: anybody can write many of them.
            said = self._judge.claimed(claim) if speaks or lost or who else None
            if said is not None and (speaks or lost):
                self._judge.unproven.note(claim.lsn, claim.xid, said)
                if speaks and said not in self._beacons:
                    self._beacons.append(said)
            elif said is None or (said.session_user, said.pid, said.backend_start_us) not in who:
                self._invented(claim, lsn)

    def _invented(self, claim: Unsigned, lsn: int) -> None:
        """Tell of an unproven beacon that the database did not write."""
        self.forged += 1
        if len(self._forged) >= FORGERIES_MAX or not self._judge.tells("unsigned", lsn):
            return
        said = self._judge.claimed(claim)
        claims: dict[str, str | int | None] = {}
        if said is not None:
            claims = {"session_user": said.session_user, "pid": said.pid}
        self._forged.append(Forgery(reason="unsigned" if said is not None else "malformed", claims=claims))

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
        if not self._beacons and (self.held or self._judge.expects_beacons()):
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
        self._claimed(self._begin.lsn)
        self._unpublished = self._accounts.ends(self._begin.committed_at_us)
        if body.n_rows or body.ddl or self._forged or self._unpublished or self._silenced:
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
        if self._beacons:
            made.append(b',"beacons":' + _json(self._beacons_of(body.first_ordinal)))
        if self._forged:
            # Like the rest of the header, forgeries stand in every part from where they were found on.
            made.append(b',"forged":' + _json(self._forged))
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
        if done_lsn is not None and self._silenced:
            made.append(b',"silenced":' + _json(self._silenced))
        made.append(b"}")
        self._parts += 1
        self._output.part(b"".join(made), body.n_rows, done_lsn)

    def _beacons_of(self, first_ordinal: int) -> list[Beacon]:
        """Return the beacons that speak of a part, the first and from the one in force on, and forget the others."""
        if len(self._beacons) > 2:
            in_force = max(n for n, beacon in enumerate(self._beacons) if n == 0 or beacon.ordinal <= first_ordinal)
            self._beacons = self._beacons[:1] + self._beacons[max(1, in_force) :]
        return self._beacons

    def _forged_outside(self, forgery: Forgery, lsn: int) -> None:
        """Send a forgery that belongs to no transaction as one without rows, at its own place in the WAL."""
        now = self._now_us()
        self._started = False
        self._start()
        self._xid = 0
        self._begin = Begin(lsn, now, 0)
        self._forged = [forgery]
        self._send(Body(0, 0, b"", b"", b""), lsn)
        self._begin = None


_json = msgspec.json.Encoder().encode
