"""What a collector sends again after a crash is told once, also over a restart of the worker."""

from __future__ import annotations

from pgwitness.core.events import Gap, QueryStats, RawBatch, RawEvent, RawHeader, Session
from streams.fold.cluster import RECENT_MAX
from streams.fold.fold import Fold
from streams.identity.identities import Identities

AT_US = 1_790_000_000_000_000
GAP = Gap(captured_at_us=AT_US, reason="slot_lost", occurred_at_us=AT_US)
STATS = QueryStats(
    captured_at_us=AT_US, window_start_us=AT_US - 1_000_000, window_end_us=AT_US, database="shop", role="app",
    query_id=7, statement="SELECT $1", calls=3, rows=3, total_ms=1.0,
)  # fmt: skip
SESSION = Session(captured_at_us=AT_US, operation="connect", occurred_at_us=AT_US, pid=9, backend_start_us=AT_US)


def batch(*events: RawEvent) -> RawBatch:
    """Make a batch of one collector."""
    return RawBatch(1, "test/1", RawHeader("main", "any", "db:5432"), list(events))


def fresh() -> Fold:
    """Make a fold that has seen nothing."""
    return Fold(0, Identities.parse("rules: []"), 0)


def test_an_event_that_comes_again_is_emitted_once() -> None:
    """A gap, a window of statistics and a session that come twice give one event each."""
    fold = fresh()
    assert len(fold.apply(0, batch(GAP, STATS, SESSION))) == 3
    assert fold.apply(1, batch(GAP, STATS, SESSION)) == []
    assert fold.dropped == 3


def test_what_was_emitted_is_remembered_in_the_checkpoint() -> None:
    """A fold that was restored knows what the one before it had told."""
    before = fresh()
    before.apply(0, batch(GAP, STATS))
    after = Fold.restore(before.snapshot(), 0)
    assert after.apply(1, batch(GAP, STATS)) == []


def test_another_event_of_the_same_kind_is_emitted() -> None:
    """The next window and a later gap are no repetition."""
    fold = fresh()
    fold.apply(0, batch(GAP, STATS))
    later = AT_US + 1_000_000
    gap = Gap(captured_at_us=later, reason="slot_lost", occurred_at_us=later)
    assert len(fold.apply(1, batch(gap))) == 1


def test_the_memory_of_what_was_emitted_is_bounded() -> None:
    """Ids are forgotten oldest first."""
    fold = fresh()
    for number in range(RECENT_MAX + 10):
        fold.apply(number, batch(Gap(captured_at_us=AT_US + number, reason="slot_lost")))
    assert len(fold._clusters["main"].recent) == RECENT_MAX
