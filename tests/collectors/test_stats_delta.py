"""Differences between readings of pg_stat_statements, with values."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from collectors.stats.delta import Counter, Delta, Entry, Key, Snapshot, compare

A, B = Key(10, 5, 111, True), Key(10, 5, 222, True)


def snapshot(at: int, entries: dict[Key, Counter], **changes: int | str) -> Snapshot:
    """A reading at a time."""
    given_: dict[str, int | str] = {"system_id": "1", "started_us": 1, "reset_us": 5, "dealloc": 0}
    given_.update(changes)
    return Snapshot(
        taken_at_us=at,
        system_id=str(given_["system_id"]),
        started_us=int(given_["started_us"]),
        reset_us=int(given_["reset_us"]),
        dealloc=int(given_["dealloc"]),
        entries=[Entry(key, counter) for key, counter in entries.items()],
    )


def test_the_first_reading_counts_nothing_and_says_so() -> None:
    """What was counted before anybody looked belongs to no window."""
    found = compare(None, snapshot(100, {A: Counter(7, 7, 1.0)}))
    assert found.deltas == []
    assert [loss.reason for loss in found.losses] == ["stats_begun"]


def test_growth_is_the_delta() -> None:
    """Calls, rows and time of a window are differences; what did not run is not there."""
    before = snapshot(100, {A: Counter(7, 70, 1.0, 20), B: Counter(1, 1, 1.0, 20)})
    after = snapshot(200, {A: Counter(9, 95, 1.5, 20), B: Counter(1, 1, 1.0, 20)})
    found = compare(before, after)
    assert found.deltas == [Delta(A, 100, 2, 25, 0.5)]
    assert found.losses == []


def test_a_new_entry_counts_in_full() -> None:
    """One that began after the last reading is exact, one without a date or with an older one is approximate."""
    before = snapshot(100, {})
    for since, start, approximate in ((150, 150, False), (None, 100, True), (50, 100, True)):
        found = compare(before, snapshot(200, {A: Counter(3, 3, 1.0, since)}))
        assert found.deltas == [Delta(A, start, 3, 3, 1.0, approximate)]


def test_an_entry_thrown_out_and_back_counts_from_its_new_beginning() -> None:
    """Another `stats_since` tells it even when the counters went up; what it had counted in between is a loss."""
    before = snapshot(100, {A: Counter(2, 2, 1.0, 20)})
    found = compare(before, snapshot(200, {A: Counter(5, 5, 3.0, 150)}, dealloc=1))
    assert found.deltas == [Delta(A, 150, 5, 5, 3.0)]
    assert [(loss.reason, loss.detail["statements"]) for loss in found.losses] == [("stats_evicted", 1)]


def test_without_dates_counters_that_went_down_mean_a_new_entry() -> None:
    """Before PostgreSQL 17 this is all there is, and the delta is approximate."""
    before = snapshot(100, {A: Counter(9, 9, 1.0)})
    found = compare(before, snapshot(200, {A: Counter(5, 5, 3.0)}))
    assert found.deltas == [Delta(A, 100, 5, 5, 3.0, approximate=True)]
    assert [loss.reason for loss in found.losses] == ["stats_entries_removed"]


def test_without_dates_an_eviction_makes_growth_approximate() -> None:
    """An entry that left and came back with more calls cannot be told from one that grew."""
    before = snapshot(100, {A: Counter(1, 1, 1.0)})
    found = compare(before, snapshot(200, {A: Counter(5, 5, 3.0)}, dealloc=1))
    assert found.deltas == [Delta(A, 100, 4, 4, 2.0, approximate=True)]
    assert [loss.reason for loss in found.losses] == ["stats_evicted"]


def test_a_reset_is_a_loss_and_counting_goes_on() -> None:
    """After a reset every counter is a delta from the reset on, and the time before it is named as lost."""
    before = snapshot(100, {A: Counter(9, 9, 1.0)})
    found = compare(before, snapshot(200, {A: Counter(2, 2, 1.0)}, reset_us=150, started_us=140))
    assert found.deltas == [Delta(A, 150, 2, 2, 1.0)]
    (loss,) = found.losses
    assert loss.reason == "stats_reset"
    assert (loss.detail["since_us"], loss.detail["until_us"], loss.detail["restarted"]) == (100, 150, True)


def test_vanished_entries_are_a_loss() -> None:
    """An entry that went without an eviction was removed by somebody."""
    found = compare(snapshot(100, {A: Counter(9, 9, 1.0)}), snapshot(200, {}))
    assert [(loss.reason, loss.detail["statements"]) for loss in found.losses] == [("stats_entries_removed", 1)]


def test_another_server_is_not_compared() -> None:
    """Behind the same address another cluster answers: its numbers are no differences to ours."""
    found = compare(snapshot(100, {A: Counter(1, 1, 1.0)}), snapshot(200, {A: Counter(9, 9, 9.0)}, system_id="2"))
    assert found.deltas == []
    assert [loss.reason for loss in found.losses] == ["stats_other_server"]


readings = st.lists(st.dictionaries(st.sampled_from([A, B]), st.integers(0, 50)), min_size=2, max_size=8)


@given(readings)
def test_with_dates_every_call_is_counted_once(growth: list[dict[Key, int]]) -> None:
    """Over any number of readings the deltas of an entry that is never thrown out sum up to its counter."""
    totals: dict[Key, int] = {}
    born: dict[Key, int] = {}
    readings_: list[Snapshot] = [snapshot(0, {})]
    for at, step in enumerate(growth, start=1):
        for key, calls in step.items():
            born.setdefault(key, at * 100 - 50)
            totals[key] = totals.get(key, 0) + calls
        readings_.append(snapshot(at * 100, {key: Counter(n, n, float(n), born[key]) for key, n in totals.items()}))
    counted: dict[Key, int] = {}
    for before, after in itertools.pairwise(readings_):
        found = compare(before, after)
        assert found.losses == []
        for delta in found.deltas:
            assert not delta.approximate
            counted[delta.key] = counted.get(delta.key, 0) + delta.calls
    assert counted == {key: n for key, n in totals.items() if n}
