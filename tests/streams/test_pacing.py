"""When checkpoints come: in turns, and never for more than their share of the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.worker.pacing import SHARE, Pace

RAW, FIRST, SECOND = ("raw", 0), ("events", 0), ("events", 1)


def test_nothing_is_due_before_an_interval() -> None:
    """Partitions that were just taken over are as they were written down."""
    pace = Pace(10.0)
    assert pace.due(1e9) is None
    pace.begin([RAW, FIRST], 100.0)
    assert pace.due(109.9) is None
    assert pace.due(110.0) in (RAW, FIRST)


def test_partitions_take_turns() -> None:
    """What is due comes one after the other, each once in an interval."""
    pace = Pace(10.0)
    pace.begin([RAW, FIRST, SECOND], 0.0)
    turns = []
    while (partition := pace.due(10.0)) is not None:
        turns.append(partition)
        pace.took(partition, 10.0, 10.0)
    assert sorted(turns) == sorted([RAW, FIRST, SECOND])


def test_what_is_given_up_is_forgotten() -> None:
    """A partition that another worker has is never due here."""
    pace = Pace(10.0)
    pace.begin([RAW, FIRST], 0.0)
    pace.took(RAW, 10.0, 40.0)
    pace.begin([SECOND], 50.0)
    assert pace.interval_s == 10.0
    assert pace.due(60.0) == SECOND


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=6), st.floats(0.5, 30.0))
def test_checkpoints_take_their_share_at_most(seconds: list[float], interval_s: float) -> None:
    """However long checkpoints take, once each has been written they take a tenth of the time, or less."""
    pace = Pace(interval_s)
    costs = {("events", number): cost for number, cost in enumerate(seconds)}
    pace.begin(costs, 0.0)
    now = busy = 0.0
    spans: list[tuple[float, float]] = []
    for _ in range(40 * len(costs)):
        now = max(now, min(pace._due.values()))
        partition = pace.due(now)
        assert partition is not None
        ended = now + costs[partition]
        pace.took(partition, now, ended)
        spans.append((now, ended))
        now = ended
    settled = spans[2 * len(costs) :]
    busy = sum(ended - began for began, ended in settled[:-1])
    length = settled[-1][0] - settled[0][0]
    longest = max(seconds)
    assert busy <= SHARE * length + len(costs) * longest + 1e-6  # a round more or less may be in the stretch
