"""Assembly: parts, ordinals, beacons and what waits for them."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.wal.assembly.aside import ASIDES_MAX
from collectors.wal.assembly.held import Body, Held
from collectors.wal.assembly.testimony import BEACONS_MAX, FORGERIES_MAX
from collectors.wal.assembly.transaction import Assembler
from collectors.wal.beacons.messages import Unproven, Unread, Unsigned
from collectors.wal.database.slot import Memory, SlotState, examine, recall, remember, slot_name, went_back
from collectors.wal.decoding.pgoutput import LogicalMessage, ProtocolError
from collectors.wal.decoding.place import Place, Xids
from collectors.wal.decoding.plan import Masking, TableFacts
from collectors.wal.stream import parse_history
from pgwitness.core.config import Privacy
from pgwitness.core.events import Beacon, Ddl, DdlObject, Forgery, Row, Transaction
from pgwitness.core.privacy import tokenizer
from tests.collectors import wal_messages as write

TABLE = write.relation(1, "t", [("id", write.INT, True), ("a", write.TEXT, False)])


TOLD_MAX = 5


class Judge:
    """Takes `who:role` for a genuine beacon, `?who:role` for one without a proof, `forged` for a forgery; `drop:TAG`
    and `end:TAG` for DDL."""

    def __init__(self, expects: bool = True, lost: bool = False) -> None:
        self.unproven = Unproven()
        self.sizes_max = dict.fromkeys((b"b", b"d", b"unread"), 1000)
        self.expects = expects
        self.no_key = lost
        self.told = 0

    def lost(self, lsn: int) -> bool:
        return self.no_key

    def expects_beacons(self) -> bool:
        return self.expects

    def tells(self, reason: str, lsn: int) -> bool:
        self.told += 1
        return self.told <= TOLD_MAX

    def message(
        self, message: LogicalMessage, xid: int | None, committed_at_us: int = 0
    ) -> Beacon | Ddl | Forgery | Unread | Unsigned | None:
        if message.prefix == "unread":
            return Unread(message.prefix, "version '2' of its form is not known here")
        if message.prefix == "d":
            event, _, tag = message.content.decode().partition(":")
            who = Beacon(session_user="ann", role="ann", pid=1, backend_start_us=1, xid=xid or 0)
            made = DdlObject("table", "public.t", "public.t")
            if event == "drop":
                return Ddl(number=0, ordinal=0, tag=tag, beacon=who, dropped=[made], dropped_total=1)
            return Ddl(number=0, ordinal=0, tag=tag, beacon=who, objects=[made], objects_total=1)
        if message.prefix != "b":
            return None
        user, _, role = message.content.decode().partition(":")
        if not role or xid is None:
            return Forgery(reason="mac")
        if user.startswith("?"):
            return Unsigned(message.content, message.lsn, xid)
        return Beacon(session_user=user, role=role, pid=1, backend_start_us=1, xid=xid)

    def claimed(self, said: Unsigned) -> Beacon | None:
        user, _, role = said.content.decode().removeprefix("?").partition(":")
        return Beacon(session_user=user, role=role, pid=1, backend_start_us=1, xid=said.xid, authenticated=False)


class Output:
    """Keeps what comes, in order."""

    def __init__(self) -> None:
        self.parts: list[Transaction] = []
        self.done: list[int | None] = []
        self.nothings: list[int] = []
        self.asides: list[tuple[str, dict[str, object]]] = []

    def part(self, event: bytes, rows: int, done_lsn: int | None) -> None:
        self.parts.append(msgspec.json.decode(event, type=Transaction))
        self.done.append(done_lsn)
        assert rows == self.parts[-1].n_rows

    def nothing(self, done_lsn: int) -> None:
        self.nothings.append(done_lsn)

    def aside(self, reason: str, detail: dict[str, object]) -> None:
        self.asides.append((reason, detail))


def assembled(
    folder: Path,
    messages: list[bytes],
    *,
    expects: bool = True,
    memory: int = 1 << 20,
    spool: int = 1 << 30,
    unwanted: Container[str] = (),
) -> Output:
    """Feed messages to a fresh assembler."""
    output = Output()
    assembler = Assembler(
        Place("77", 3, "shop", ((1, 50), (2, 200))),
        Masking(Privacy(), tokenizer(b"k" * 32)),
        Judge(expects),
        lambda relation, _: TableFacts(("id",), wanted=relation.name not in unwanted),
        output,
        Held(folder, memory, spool),
        Xids((5 << 32) + 10),
        lambda: 42,
    )
    for message in messages:
        assembler.feed(message)
    return output


def test_a_flood_of_beacons_without_a_code_is_bounded(tmp_path: Path) -> None:
    """Anybody may write one that proves nothing; alone in a transaction it is a forgery, told as seldom as others."""
    alone = [[write.begin(lsn, 12), write.message("b", b"?ann:app"), write.commit(lsn)] for lsn in range(300, 400)]
    output = assembled(tmp_path, [message for transaction in alone for message in transaction])
    assert [[forgery.reason for forgery in part.forged] for part in output.parts] == [["unsigned"]] * TOLD_MAX
    assert len(output.nothings) == 100 - TOLD_MAX


def test_work_of_its_own_is_told_once_its_transaction_is_over(tmp_path: Path) -> None:
    """Also of one that holds nothing but the announcement; those around it, which hold nothing at all, are none."""
    told: list[tuple[int, int]] = []
    assembler = Assembler(
        Place("77", 3, "shop"), Masking(Privacy(), tokenizer(b"k" * 32)), Judge(), lambda *_: TableFacts(), Output(),
        Held(tmp_path, 1 << 20, 1 << 20), Xids(10), lambda: 42, own_work=lambda end, xid: told.append((end, xid)),
    )  # fmt: skip
    for lsn, announces in ((300, False), (400, True), (500, False)):
        assembler.feed(write.begin(lsn, lsn))
        if announces:
            assembler.announced()
        assert assembler.inside
        assembler.feed(write.message("other", b"x"))
        assembler.feed(write.commit(lsn))
    assert told == [(408, 400)]
    assert list(assembler.ddl_before) == [400]


def inserts(count: int, size: int = 10) -> list[bytes]:
    """Write so many inserts."""
    return [write.insert(1, [b"%d" % n, b"x" * size]) for n in range(count)]


def ordinals(parts: list[Transaction]) -> list[int]:
    """Give the ordinals of all rows."""
    return [row.ordinal for part in parts for row in msgspec.json.decode(part.rows, type=list[Row])]


def test_a_small_transaction_is_one_event_with_its_header(tmp_path: Path) -> None:
    """Rows, counts, beacon, position and the 64-bit xid stand in one event; the end LSN comes with it."""
    beacon = write.message("b", b"ann:app")
    output = assembled(
        tmp_path, [TABLE, write.begin(300, 12), *inserts(2), beacon, write.truncate(1), write.commit(300)]
    )
    (part,) = output.parts
    assert (part.system_id, part.timeline, part.database, part.lsn, part.xid) == ("77", 3, "shop", 300, (5 << 32) + 12)
    assert (part.part, part.last, part.n_rows, ordinals([part])) == (0, True, 3, [0, 1, 2])
    assert [(c.operation, c.rows) for c in part.counts] == [("i", 2), ("t", 1)]
    assert [(b.session_user, b.ordinal) for b in part.beacons] == [("ann", 0)]
    assert output.done == [308]


def test_a_relation_described_again_is_the_same_one(tmp_path: Path) -> None:
    """What the server repeats within a transaction splits no counts; what it says anew is a relation of its own."""
    wider = write.relation(1, "t", [("id", write.INT, True), ("a", write.TEXT, False), ("b", write.INT, False)])
    row = write.insert(1, [b"9", b"x", b"1"])
    output = assembled(
        tmp_path, [TABLE, write.begin(300, 12), *inserts(1), TABLE, *inserts(1), wider, row, write.commit(300)]
    )
    (part,) = output.parts
    assert [(c.operation, c.rows, c.relation) for c in part.counts] == [("i", 2, 0), ("i", 1, 1)]


def test_a_commit_before_a_promotion_keeps_its_timeline(tmp_path: Path) -> None:
    """The timeline of a transaction is that of its commit LSN, by the history."""
    messages = [TABLE]
    for lsn in (40, 50, 199, 200):
        messages += [write.begin(lsn, 12), *inserts(1), write.commit(lsn)]
    assert [part.timeline for part in assembled(tmp_path, messages).parts] == [1, 2, 2, 3]


def test_every_part_names_who_it_was_although_the_beacon_comes_last(tmp_path: Path) -> None:
    """Parts wait in memory, then on disk, and all carry the beacon; only the last says it is."""
    messages = [TABLE, write.begin(300, 12), *inserts(3500, 50), write.message("b", b"ann:app"), write.commit(300)]
    parts = assembled(tmp_path, messages, memory=100_000).parts
    assert [part.part for part in parts] == [0, 1, 2, 3]
    assert [part.last for part in parts] == [False, False, False, True]
    assert [part.first_ordinal for part in parts] == [0, 1000, 2000, 3000]
    assert all(part.beacons[0].session_user == "ann" for part in parts)
    assert ordinals(parts) == list(range(3500))


def test_a_full_spool_lets_the_parts_go_without_a_name(tmp_path: Path) -> None:
    """Evidence without a name is better than none: the bound holds and no row is lost."""
    messages = [TABLE, write.begin(300, 12), *inserts(5500, 50), write.message("b", b"ann:app"), write.commit(300)]
    parts = assembled(tmp_path, messages, memory=100_000, spool=200_000).parts
    assert ordinals(parts) == list(range(5500))
    assert [] in [part.beacons for part in parts]
    assert parts[-1].beacons[0].session_user == "ann"


def test_without_a_beacon_installed_nothing_waits(tmp_path: Path) -> None:
    """Where no beacon can come, parts go as soon as they are full."""
    output = assembled(tmp_path, [TABLE, write.begin(300, 12), *inserts(1500)], expects=False)
    assert [part.n_rows for part in output.parts] == [1000]


def test_a_change_of_role_is_told_with_the_rows_it_holds_for(tmp_path: Path) -> None:
    """A beacon speaks of the rows since the one before it; the same again says nothing."""
    said = [write.message("b", text) for text in (b"ann:app", b"ann:app", b"ann:boss")]
    messages = [TABLE, write.begin(300, 12)]
    for beacon in said:
        messages += [*inserts(2), beacon]
    (part,) = assembled(tmp_path, [*messages, write.commit(300)]).parts
    assert [(b.role, b.ordinal) for b in part.beacons] == [("app", 0), ("boss", 4)]


def test_floods_of_messages_are_bounded(tmp_path: Path) -> None:
    """Neither forgeries nor beacons without end make a record grow without end."""
    flood = [write.message("b", b"forged")] * 100 + [write.message("b", b"u:%d" % n) for n in range(500)]
    (part,) = assembled(tmp_path, [TABLE, write.begin(300, 12), *inserts(1), *flood, write.commit(300)]).parts
    assert len(part.forged) == FORGERIES_MAX
    assert len(part.beacons) == BEACONS_MAX


def test_every_part_repeats_the_forgeries_found_so_far(tmp_path: Path) -> None:
    """Like the rest of the header; readers count them, so a later one must not look like the first."""
    ann, forged = write.message("b", b"ann:app"), write.message("b", b"forged")
    messages = [TABLE, write.begin(300, 12), *inserts(1), ann, forged, *inserts(1_000), forged, write.commit(300)]
    parts = assembled(tmp_path, messages).parts
    assert [len(part.forged) for part in parts] == [1, 2]


def test_forgeries_are_told_without_rows_and_without_a_transaction(tmp_path: Path) -> None:
    """A forgery in an otherwise empty transaction, or in none, has its own event."""
    lonely = [write.begin(300, 12), write.message("b", b"forged"), write.commit(300)]
    parts = assembled(tmp_path, [*lonely, write.message("b", b"ann:app", 400, transactional=False)]).parts
    assert [(part.lsn, part.n_rows, len(part.forged), part.last) for part in parts] == [
        (300, 0, 1, True),
        (400, 0, 1, True),
    ]


def test_what_is_empty_moves_the_position_only(tmp_path: Path) -> None:
    """Transactions without rows and others' messages send nothing and let the LSN move on."""
    output = assembled(
        tmp_path, [write.begin(300, 12), write.commit(300), write.message("x", b"", 500, transactional=False)]
    )
    assert (output.parts, output.nothings) == ([], [308, 500])


@settings(max_examples=20)
@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=40), st.booleans())
def test_parts_are_the_same_whenever_the_beacon_comes(sizes: list[int], early: bool) -> None:
    """Where parts are cut depends on the rows alone, never on what waited; each stays below a batch's limit."""
    rows = [write.insert(1, [b"1", b"\x01" * min(size, 8000)]) for size in sizes]
    beacon = write.message("b", b"ann:app")
    order = [beacon, *rows] if early else [*rows, beacon]
    parts = assembled(Path("/nonexistent"), [TABLE, write.begin(300, 12), *order, write.commit(300)]).parts
    plain = assembled(
        Path("/nonexistent"), [TABLE, write.begin(300, 12), *rows, write.commit(300)], expects=False
    ).parts
    assert [(p.first_ordinal, p.n_rows, bytes(p.rows)) for p in parts] == [
        (p.first_ordinal, p.n_rows, bytes(p.rows)) for p in plain
    ]
    assert all(len(part.rows) < 256 * 1024 for part in parts)


@pytest.mark.parametrize("messages", [[write.commit(1)], [write.begin(1, 1), write.begin(2, 2)], [b"B\0"], [b"C"]])
def test_transactions_that_begin_or_end_out_of_order_are_refused(tmp_path: Path, messages: list[bytes]) -> None:
    """A stream out of order is a protocol error, not a wrong event."""
    with pytest.raises(ProtocolError):
        assembled(tmp_path, messages)


@pytest.mark.parametrize(
    "broken",
    [
        b"", b"?", b"R\0", b"Y", b"O\0", b"M\0", b"T\0\0\0\1\0\0\0\0\x09", b"S", write.truncate(9),
        write.insert(9, [b"1"]), b"I\0\0", write.message("unread", b"x"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_read_is_set_aside(tmp_path: Path, broken: bytes) -> None:
    """It is told with its place, nothing of its content, and all that comes after it is there."""
    messages = [TABLE, write.begin(300, 12), *inserts(1), broken, *inserts(1), write.commit(300)]
    output = assembled(tmp_path, messages)
    ((reason, detail),) = output.asides
    assert reason in ("message_unreadable", "row_unreadable")
    assert (detail["commit_lsn"], detail["xid"]) == ("0/12C", (5 << 32) + 12)
    assert ordinals(output.parts) == [0, 1]
    assert output.done == [308]


@pytest.mark.parametrize(
    ("broken", "operation"),
    [
        (b"I\0\0\0\1", "i"), (write.insert(1, [b"secret"]), "i"), (write.insert(1, [b"1", b"secret"])[:-1], "i"),
        (write.update(1, [b"1", b"2"])[:9], "u"), (write.delete(1, [b"1", None], b"X"), "d"),
        (write.insert(1, [b"1", b"secret"]) + b"x", "i"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_there_without_its_values(tmp_path: Path, broken: bytes, operation: str) -> None:
    """It counts and keeps its place in the transaction; a gap says which it is and not what stood in it."""
    messages = [TABLE, write.begin(300, 12), *inserts(1), broken, *inserts(1), write.commit(300)]
    output = assembled(tmp_path, messages)
    (part,) = output.parts
    rows = msgspec.json.decode(part.rows)
    assert rows[1] == [1, operation, 0, None, None, None, None]
    assert [row[0] for row in rows] == [0, 1, 2]
    assert sum(count.rows for count in part.counts) == 3
    ((reason, detail),) = output.asides
    assert (reason, detail["relations"], detail["ordinal"]) == ("row_unreadable", ["public.t"], 1)
    assert "secret" not in str(detail)


def test_floods_of_what_cannot_be_read_are_bounded(tmp_path: Path) -> None:
    """The first of a transaction are told one by one, the others by their number."""
    messages = [TABLE, write.begin(300, 12), *[b"?"] * 1_000, *inserts(1), write.commit(300)]
    asides = assembled(tmp_path, messages).asides
    assert len(asides) == ASIDES_MAX + 1
    assert asides[-1][1]["count"] == 1_000 - ASIDES_MAX


def test_rows_that_nobody_asked_for_are_left_out(tmp_path: Path) -> None:
    """Of a table that is not wanted neither rows nor its description are sent."""
    other = write.relation(2, "other", [("id", write.INT, True)])
    messages = [TABLE, other, write.begin(300, 12), *inserts(1), write.insert(2, [b"1"]), write.truncate(2, 1)]
    (part,) = assembled(tmp_path, [*messages, write.commit(300)], unwanted={"other"}).parts
    assert ([r.name for r in part.relations], ordinals([part])) == (["public.t"], [0, 1])


def test_a_part_has_room_for_descriptions(tmp_path: Path) -> None:
    """Many wide tables in one transaction make more parts, each below a batch's limit."""
    wide = [
        write.relation(n, f"wide{n}", [(f"{'x' * 55}{column}", write.INT, column == 0) for column in range(1_200)])
        for n in range(2, 8)
    ]
    row = [write.insert(n, [None] * 1_200) for n in range(2, 8)]
    output = assembled(tmp_path, [*wide, write.begin(300, 12), *row, write.commit(300)])
    assert ordinals(output.parts) == list(range(6))
    assert all(len(msgspec.json.encode(part)) < 300 * 1024 for part in output.parts)


def test_xids_are_widened_to_the_nearest() -> None:
    """Over the wrap of 32 bits the epoch goes with the id, both ways, and never below zero."""
    xids = Xids((7 << 32) - 5)
    assert xids.widen(2) == (7 << 32) + 2
    assert xids.widen(0xFFFFFFF0) == (6 << 32) + 0xFFFFFFF0
    assert Xids(10).widen(0xFFFFFFF0) == 0xFFFFFFF0


def test_held_parts_come_back_in_order_from_memory_and_disk(tmp_path: Path) -> None:
    """What was spilled and what was not are given back as they came, and nothing stays."""
    held = Held(tmp_path, 300, 10_000)
    parts = [Body(n, 1, b"r" * 20, b"c", b"x" * 50) for n in range(9)]
    assert all(held.add(part) for part in parts)
    assert held.on_disk > 0
    assert held.in_memory <= 300
    assert list(held.drain()) == parts
    assert not held
    assert list(held.drain()) == []


def test_the_timeline_history_is_read() -> None:
    """A history file gives past timelines and where they ended."""
    assert parse_history(b"1\t0/3000000\tno recovery target specified\n\n2\t1/A0\tx\n") == (
        (1, 0x3000000),
        (2, 0x1000000A0),
    )


def test_slot_names_are_valid_and_distinct() -> None:
    """Names that a slot may not have are made valid without meeting one another."""
    assert slot_name("pgwitness", "shop") == "pgwitness_shop"
    made = {slot_name("pgwitness", name) for name in ("Shop", "shop!", "shop?", "x" * 80, "x" * 81)}
    assert len(made) == 5
    assert all(len(name) <= 63 and name.isascii() for name in made)


FOUND = SlotState(
    plugin="pgoutput", database="shop", active_pid=None, confirmed=90, lag=0, behind=0, wal_status="reserved",
    safe_wal_size=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "found", "reasons", "make"),
    [
        (Memory(), None, [], True),
        (Memory(), FOUND, [], False),
        (Memory(system_id="77", timeline=3, slot="s", confirmed=95), FOUND, [], False),
        (Memory(system_id="77", timeline=3, slot="s", confirmed=80), FOUND, ["slot_moved"], False),
        (Memory(system_id="77", timeline=3, slot="s", confirmed=80), None, ["slot_lost"], True),
        (Memory(system_id="76", timeline=3, slot="s", confirmed=80), FOUND, ["new_system"], False),
        (Memory(system_id="77", timeline=2, slot="s", confirmed=95), FOUND, ["new_timeline"], False),
        (
            Memory(system_id="77", timeline=3, slot="s", confirmed=90),
            msgspec.structs.replace(FOUND, wal_status="lost"),
            ["slot_invalidated"],
            True,
        ),
    ],
)
def test_gaps_follow_from_what_is_remembered(
    memory: Memory, found: SlotState | None, reasons: list[str], make: bool
) -> None:
    """Each way of losing the slot's place is one gap with its reason, and what never was is none."""
    gaps, must_make = examine(memory, Place("77", 3, "shop", ((2, 100),)), "s", found, 1)
    assert ([gap.reason for gap in gaps], must_make) == (reasons, make)


def test_a_timeline_that_left_confirmed_wal_behind_has_diverged() -> None:
    """Only when WAL was confirmed beyond the switch did the old timeline have what the new one has not."""
    place = Place("77", 3, "shop", ((2, 100),))
    diverged = [
        examine(Memory(system_id="77", timeline=2, slot="s", confirmed=lsn), place, "s", FOUND, 1)[0][0].detail[
            "diverged"
        ]
        for lsn in (100, 101)
    ]
    assert diverged == [False, True]


def test_a_server_that_stands_before_what_was_read_was_put_back() -> None:
    """Only on the same timeline of the same system; a standby's end, which is not known, says nothing."""
    place = Place("77", 3, "shop", ((2, 100),))
    memory = Memory(system_id="77", timeline=3, slot="s", confirmed=90)
    gap = went_back(memory, place, "s", 89, 5)
    assert gap is not None
    assert (gap.reason, gap.detail["confirmed"], gap.detail["server_end"]) == ("position_went_back", "0/5A", "0/59")
    assert went_back(memory, place, "s", 90, 5) is None
    assert went_back(memory, place, "s", None, 5) is None
    assert went_back(memory, place, "another", 1, 5) is None
    assert went_back(Memory(system_id="77", timeline=2, slot="s", confirmed=90), place, "s", 1, 5) is None
    assert went_back(Memory(system_id="76", timeline=3, slot="s", confirmed=90), place, "s", 1, 5) is None


def test_memory_survives(tmp_path: Path) -> None:
    """What is remembered is recalled, gaps and all; without a file there is nothing."""
    path = tmp_path / "a" / "b.json"
    assert recall(path) == Memory()
    gaps, _ = examine(Memory(system_id="1", slot="s"), Place("1", 1, "d"), "s", None, 5)
    memory = Memory(system_id="1", timeline=2, slot="s", confirmed=9, gaps=gaps)
    remember(path, memory)
    assert recall(path) == memory


def commands(parts: list[Transaction]) -> list[tuple[int, int, str]]:
    """Give number, ordinal and tag of all commands."""
    return [(command.number, command.ordinal, command.tag) for part in parts for command in part.ddl]


def test_ddl_stands_where_it_happened(tmp_path: Path) -> None:
    """Commands keep their place between the rows; the two messages of one command become one."""
    messages = [TABLE, write.begin(300, 12), *inserts(2)]
    messages += [write.message("d", b"drop:ALTER TABLE"), write.message("d", b"end:ALTER TABLE")]
    messages += [*inserts(1), write.message("d", b"end:CREATE VIEW"), write.commit(300)]
    output = assembled(tmp_path, messages)
    assert commands(output.parts) == [(0, 2, "ALTER TABLE"), (1, 3, "CREATE VIEW")]
    (part,) = output.parts
    assert (part.ddl[0].dropped_total, part.ddl[0].objects_total, part.n_rows) == (1, 1, 3)


def test_ddl_alone_is_a_transaction(tmp_path: Path) -> None:
    """A transaction without rows is sent for its commands, and its position moves."""
    output = assembled(tmp_path, [write.begin(300, 12), write.message("d", b"end:CREATE VIEW"), write.commit(300)])
    assert commands(output.parts) == [(0, 0, "CREATE VIEW")]
    assert (output.parts[0].n_rows, output.done) == (0, [308])


def test_many_commands_are_cut_into_parts(tmp_path: Path) -> None:
    """A migration of a thousand commands stays within the limits of a batch and loses none."""
    big = [write.message("d", b"end:" + b"X" * 1000) for _ in range(600)]
    parts = assembled(tmp_path, [TABLE, write.begin(300, 12), *inserts(1), *big, write.commit(300)]).parts
    assert [number for number, _, _ in commands(parts)] == list(range(600))
    assert len(parts) > 1
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(len(msgspec.json.encode(part)) < 256 * 1024 for part in parts)
