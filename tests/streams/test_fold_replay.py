"""The fold is deterministic: whatever is interrupted, sent again or cut anew, the events are the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pgwitness.core.events import Forgery, Identities, RawBatch, RawEvent, encode_event
from streams.fold.fold import Fold
from streams.identity.identities import Identities as Rules
from tests.streams.log_records import statement
from tests.streams.records import IDENTITIES, SECOND_US, batch, beacon, read, sample, tick, transaction
from tests.streams.test_log_join import setting

GRACE_US = 2 * SECOND_US
HELD_BYTES_MAX = 8_000
RENAMED = IDENTITIES.replace("billing-bot", "invoice-bot")


@dataclass
class Source:
    """A database and its collectors: makes records out of a list of choices."""

    records: list[RawBatch] = field(default_factory=list)
    sent: list[RawEvent] = field(default_factory=list)
    lsn: int = 10
    at_s: float = 0.0

    def make(self, choice: int, size: int) -> list[RawEvent]:
        """Turn a choice into raw events."""
        self.lsn += 1
        self.at_s += 0.3
        xid = self.lsn % 7
        match choice:
            case 0:
                return [transaction(self.lsn, at_s=self.at_s, n_rows=size, xid=xid)]
            case 1:
                who = beacon(user=f"p_{size}", pid=size)
                return [transaction(self.lsn, at_s=self.at_s, n_rows=size, beacons=[who], covered=True)]
            case 2:
                return [sample(xid, at_s=self.at_s, pid=size, application=f"bot-{size}")]
            case 3:
                return self.parts(size, xid)
            case 4:
                return [transaction(self.lsn, at_s=self.at_s, covered=True, forged=[Forgery("mac")] * (size % 3))]
            case 5:
                text = RENAMED if size % 2 else IDENTITIES
                return [
                    Identities(
                        captured_at_us=tick(self.at_s).captured_at_us, sha256=Rules.parse(text).sha256, content=text
                    )
                ]
            case 6:
                return self.sent[-size:]
            case 7:
                return [statement(self.lsn, at_s=self.at_s, xid=xid, pid=size, application=f"bot-{size}")]
            case 8:
                alone = statement(
                    self.lsn, at_s=self.at_s, pid=size, source="statement", alone=size < 3, duration_ms=400.0 * size,
                    statement=("INSERT INTO orders VALUES ($1)", "CALL p()")[size % 2],
                )  # fmt: skip
                return [alone, setting()] if size % 2 else [replace(alone, duration_ms=None), alone]
            case _:
                return [tick(self.at_s)]

    def parts(self, number: int, xid: int) -> list[RawEvent]:
        """A long transaction in parts of two rows."""
        return [
            transaction(self.lsn, at_s=self.at_s, xid=xid, part=part, first=2 * part, n_rows=2, last=part == number - 1)
            for part in range(number)
        ]


choices = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.booleans()), min_size=1, max_size=30)


def record(plan: list[tuple[int, int, bool]]) -> list[RawBatch]:
    """Make the records of a plan; the flag says where a batch is cut, also within a long transaction."""
    source = Source()
    pending: list[RawEvent] = []
    for choice, size, cut in plan:
        for event in source.make(choice, size):
            pending.append(event)
            source.sent.append(event)
            if cut:
                source.records.append(read(batch(*pending)))
                pending = []
    if pending:
        source.records.append(read(batch(*pending)))
    return source.records


def fresh() -> Fold:
    """A fold that knows nothing."""
    return Fold(0, Rules.parse(IDENTITIES), GRACE_US, HELD_BYTES_MAX)


def run(fold: Fold, records: list[RawBatch], start: int = 0) -> list[list[bytes]]:
    """Feed records as the worker does after a restart; gives the encoded events by record."""
    given = []
    for offset in range(start, len(records)):
        if offset < fold.next_offset:
            fold.rehydrate(offset, records[offset])
        else:
            given.append([encode_event(event) for event in fold.apply(offset, records[offset])])
    return given


@settings(max_examples=150, deadline=None)
@given(choices)
def test_the_same_records_give_the_same_events(plan: list[tuple[int, int, bool]]) -> None:
    """Two folds over the same records agree byte for byte, and so do their checkpoints."""
    records = record(plan)
    one, other = fresh(), fresh()
    assert run(one, records) == run(other, records)
    assert one.snapshot() == other.snapshot()


@settings(max_examples=300, deadline=None)
@given(choices, st.data())
def test_a_replay_from_any_checkpoint_gives_the_same_tail(
    plan: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    """Wherever a worker dies, its successor makes exactly the events that were to come, and the same state."""
    records = record(plan)
    crash = data.draw(st.integers(0, len(records)))
    whole = fresh()
    expected = run(whole, records)
    first = fresh()
    run(first, records[:crash])
    restored = Fold.restore(first.snapshot(), GRACE_US, HELD_BYTES_MAX)
    assert restored.resume_from <= crash
    assert run(restored, records, restored.resume_from) == expected[crash:]
    assert restored.snapshot() == whole.snapshot()
    assert restored.held_bytes == whole.held_bytes


@settings(max_examples=150, deadline=None)
@given(choices, st.integers(1, 20))
def test_every_row_passes_once_whatever_is_sent_again(plan: list[tuple[int, int, bool]], back: int) -> None:
    """A collector that starts again repeats what it sent: rows and findings come out once, in whatever batches."""
    records = record(plan)
    events = [event for sent in records for event in sent.events]
    again = [*records, read(batch(tick(0), *events[-back:], *events)), read(batch(tick(1_000)))]
    once = [*records, read(batch(tick(1_000)))]
    assert identities_of(run(fresh(), again)) == identities_of(run(fresh(), once))


def identities_of(given: list[list[bytes]]) -> list[str]:
    """The ids of rows and findings, sorted; equal ids twice would show."""
    ids = []
    for value in [value for values in given for value in values]:
        event = msgspec.json.decode(value)
        if event["kind"] == "change":
            ids += [f"{event['event_id']}-{row[0]}" for row in event["rows"]]
        elif event["kind"] == "statement" or event["operation"] in ("beacon_forged", "identity_conflict"):
            ids.append(event["event_id"])
    return sorted(ids)


@settings(max_examples=100, deadline=None)
@given(choices)
def test_positions_only_grow(plan: list[tuple[int, int, bool]]) -> None:
    """Every event has a place of its own, later than all before it."""
    fold = fresh()
    places = [event.at for offset, sent in enumerate(record(plan)) for event in fold.apply(offset, sent)]
    assert places == sorted(set(places))
