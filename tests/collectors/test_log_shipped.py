"""Records of a shipper: what is taken out of them, and the places that events have in the topic."""

from __future__ import annotations

import itertools
import json
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.log.formats.record import Unreadable
from collectors.log.formats.splitting import CsvSplitter
from collectors.log.sources.shipped import PartitionState, Places, Position, Replay, Shipped, Unwrapper
from pgwitness.core.config import Log
from pgwitness.core.events import LogPlace

JSONLOG = {"timestamp": "2026-11-22 21:26:30.123 UTC", "pid": 41, "error_severity": "LOG", "message": "m"}


def unwrap(value: object, key: bytes | None = None, **more: object) -> tuple[str, str | None, bytes]:
    """Take the line out of a record."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    found = Unwrapper(Log(from_="kafka", topic="t", **more)).read(raw, key)  # type: ignore[arg-type]
    return found.source, found.host, found.data


def test_lines_come_out_of_every_wrapping() -> None:
    """Fluent Bit, Vector, the raw line, and jsonlog that was taken apart; with or without the line's end."""
    assert unwrap({"@timestamp": 1.5, "log": "a line"}, field="log")[2] == b"a line"
    assert unwrap({"message": "a line\n", "host": "db"}, field="message")[2] == b"a line"
    assert unwrap({"kubernetes": {"log": "é"}}, field="kubernetes.log")[2] == "é".encode()
    assert unwrap({"a.b": "dotted"}, field="a.b")[2] == b"dotted"
    assert unwrap(b"\xff raw\n")[2] == unwrap(b"\xff raw")[2] == b"\xff raw"
    assert json.loads(unwrap({**JSONLOG, "host": "db"}, field="log")[2]) == {**JSONLOG, "host": "db"}
    assert json.loads(unwrap({"log": JSONLOG}, field="log")[2]) == JSONLOG
    pretty = unwrap(json.dumps(JSONLOG, indent=2).encode(), field="log")[2]
    assert (pretty.count(b"\n"), json.loads(pretty)) == (0, JSONLOG)


@pytest.mark.parametrize("value", [b"no json", b"[1]", b"{}", b'{"log": 5}', b'{"log": null}', b"\xff", b"[" * 5_000])
def test_what_holds_no_line_is_unreadable(value: bytes) -> None:
    """A record without the field, or that is no JSON object."""
    with pytest.raises(Unreadable):
        unwrap(value, field="log")


@given(value=st.binary(max_size=200), key=st.none() | st.binary(max_size=20), field=st.sampled_from(["", "log", "a.b"]))
def test_unwrapping_is_total(value: bytes, key: bytes | None, field: str) -> None:
    """Any bytes give a line or `Unreadable`."""
    try:
        data = unwrap(value, key, field=field)[2]
        assert field or data + b"\n" == (value if value.endswith(b"\n") else value + b"\n")
    except Unreadable:
        return


def test_a_source_is_what_agrees_in_host_and_file() -> None:
    """The shipper's fields tell sources apart, in their absence the record's key; other fields do not."""
    one = unwrap({"message": "a", "host": "db1", "file": "x.csv", "offset": 1}, field="message")[0]
    assert unwrap({"message": "b", "host": "db1", "file": "x.csv", "offset": 2}, b"k", field="message")[0] == one
    assert unwrap({"message": "b", "host": "db2", "file": "x.csv"}, field="message")[0] != one
    assert unwrap({"message": "b", "host": "db1", "file": "y.csv"}, field="message")[0] != one
    assert unwrap({"message": "b"}, b"db1", field="message")[0] == unwrap(b"b", b"db1")[0]
    assert unwrap(b"b", b"db1")[0] != unwrap(b"b", None)[0]


def test_the_host_is_read_only_where_instances_are_named() -> None:
    """`instances` needs the host of every record, jsonlog lines included."""
    assert unwrap({**JSONLOG, "host": "db1"}, instances={"db1": "db1:5432"})[1] == "db1"
    assert unwrap({"log": "x", "k": {"pod": 7}}, field="log", instances={"7": "x"}, instance_field="k.pod")[1] == "7"
    assert unwrap({"log": "x", "host": "db1"}, field="log")[1] is None


class Told(NamedTuple):
    """What one message gave: its text and the place of it."""

    text: str
    place: LogPlace


class Machine:
    """Puts records together to csv messages, and gives each an event, as the collector does.

    With `gather` the records of one source that come one behind the other are used together.
    """

    def __init__(self, state: PartitionState, *, gather: bool = False) -> None:
        self.gather = gather
        self.gathered: tuple[str, bytes] | None = None
        self.next = state.resume
        self.replay = Replay(state)
        self.sources: dict[str, tuple[CsvSplitter, Places]] = {}
        self.used: dict[str, int] = {}
        self.told: list[Told] = []

    def take(self, offset: int, source: str, data: bytes) -> None:
        """Take one record."""
        self.next = offset + 1
        rest = self.replay.rest(offset, Shipped(source, None, data))
        if rest is None:
            return
        skip, data = rest
        if source not in self.sources:
            self.sources[source] = CsvSplitter(lambda _: True), Places(self.replay.start(source))
            self.used[source] = 0
        if self.gathered is not None and self.gathered[0] != source:
            self.use()
        self.sources[source][1].feed(offset, skip, len(data) + 1)
        self.gathered = (source, (self.gathered[1] if self.gathered is not None else b"") + data + b"\n")
        if not self.gather:
            self.use()

    def use(self) -> None:
        """Use what was gathered."""
        if self.gathered is None:
            return
        (source, data), self.gathered = self.gathered, None
        splitter, places = self.sources[source]
        places.at(self.used[source])
        for piece in splitter.feed(data):
            offset, index = places.at(self.used[source])
            self.used[source] += piece.length
            if piece.data:
                places.gave(1)
                self.told.append(Told(piece.data.decode(), LogPlace(source, offset, index)))

    def state(self) -> PartitionState | None:
        """What would be stored now; None while repeats are read."""
        self.use()
        if self.next < self.replay.until:
            return None
        found = [
            places.position(source, self.used[source])
            for source, (splitter, places) in self.sources.items()
            if splitter.waiting
        ]
        return msgspec.json.decode(msgspec.json.encode(PartitionState(0, self.next, found)), type=PartitionState)


messages = st.lists(st.sampled_from(["a", 'b"1\n2"', '"x\n\ny"', '"q ""\n"" r"', "c,d"]), min_size=1, max_size=6)
cuts = st.lists(st.integers(0, 40), max_size=6)


@settings(max_examples=300)
@given(
    written=st.lists(messages, min_size=1, max_size=3),
    grouped=st.lists(st.integers(1, 3), min_size=30, max_size=30),
    order=st.randoms(use_true_random=False),
    stops=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=4),
)
def test_each_message_once_at_one_place(
    written: list[list[str]], grouped: list[int], order: object, stops: list[tuple[int, int]]
) -> None:
    """Sources mixed anyhow, records used singly or together, crashes anywhere: each message, always at one place."""
    sizes = itertools.cycle(grouped)
    shipped: list[list[tuple[str, bytes]]] = []
    for number, texts in enumerate(written):
        lines = "\n".join(texts).split("\n")
        records = []
        while lines:
            size = next(sizes)
            records.append((f"s{number}", "\n".join(lines[:size]).encode()))
            lines = lines[size:]
        shipped.append(records)
    topic: list[tuple[str, bytes]] = []
    while any(shipped):
        topic.append(order.choice([records for records in shipped if records]).pop(0))  # type: ignore[attr-defined]
    whole = Machine(PartitionState(0, 0))
    for offset, (source, data) in enumerate(topic):
        whole.take(offset, source, data)
    assert sorted(told.text for told in whole.told) == sorted(text for texts in written for text in texts)

    told: set[Told] = set()
    stored = PartitionState(0, 0)
    for run, since in [*stops, (len(topic), 0)]:
        machine = Machine(stored, gather=True)
        begin = machine.next
        for offset in range(begin, min(len(topic), begin + run) if run < len(topic) else len(topic)):
            machine.take(offset, *topic[offset])
            if since and offset % since == 0:
                stored = machine.state() or stored
        machine.use()
        told |= set(machine.told)
    assert told == set(whole.told)
    for source in {one.place.log for one in whole.told}:
        places = [(one.place.offset, one.place.index) for one in whole.told if one.place.log == source]
        assert places == sorted(set(places))


def test_a_position_stands_within_a_record() -> None:
    """Two messages in a record, the second without its end: it is read again from there, and counted on."""
    machine = Machine(PartitionState(0, 0))
    machine.take(0, "s", b'a\n"b')
    state = machine.state()
    assert state == PartitionState(0, 1, [Position("s", 0, 2, 1)])
    again = Machine(state)
    assert again.next == 0
    again.take(0, "s", b'a\n"b')
    again.take(1, "s", b'c"')
    assert again.told == [Told('"b\nc"', LogPlace("s", 0, 1))]


def test_places_are_given_in_a_block_of_many_records() -> None:
    """What was gathered is used at once: each message has its own record's place, also behind one that waited."""
    places = Places(Position("s", 4, 3, 2))
    places.feed(4, 3, 5)
    assert places.at(0) == (4, 2)
    places.gave(1)
    for offset in (5, 7):
        places.feed(offset, 0, 10)
    assert places.position("s", 0) == Position("s", 4, 3, 3)
    assert places.position("s", 9) == Position("s", 5, 4, 0)
    assert places.at(4) == (4, 3)
    assert places.at(5) == (5, 0)
    assert places.at(16) == (7, 0)
    assert places.position("s", 16) == Position("s", 7, 1, 0)
