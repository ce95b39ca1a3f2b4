"""A partition is behind when what is read of it has lain in the broker for long, by the worker's own clock alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.worker.lag import LAG_S, Lag


def test_a_backlog_is_late_once_its_end_is_not_reached_in_time() -> None:
    """At the start nobody knows how old records are; after `LAG_S` those that are read are that old at least."""
    lag = Lag()
    lag.look(0, 1_000, 10.0)
    assert not lag.late
    lag.look(100, 1_000, 10.0 + LAG_S / 2)
    assert not lag.late
    lag.look(200, 1_000, 10.0 + LAG_S)
    assert lag.late
    lag.look(900, 5_000, 20.0)
    assert lag.late


def test_who_has_caught_up_is_not_late() -> None:
    """At the end nothing waits; and a mark that is reached in time shows that what is read is fresh."""
    lag = Lag()
    lag.look(0, 1_000, 0.0)
    lag.look(500, 1_000, 2 * LAG_S)
    lag.look(1_000, 1_000, 3 * LAG_S)
    assert not lag.late
    lag.look(0, 1_000, 0.0)
    lag.look(500, 1_000, 2 * LAG_S)
    lag.look(1_000, 1_010, 3 * LAG_S)
    assert lag.late
    lag.look(1_010, 1_020, 3 * LAG_S + 0.1)
    assert not lag.late


def test_a_pause_of_the_worker_alone_makes_nothing_late() -> None:
    """Who was at the end and was not asked for an hour has no mark that it missed."""
    lag = Lag()
    lag.look(10, 10, 0.0)
    lag.look(10, 50, 3_600.0)
    assert not lag.late
    lag.look(50, 60, 3_600.1)
    assert not lag.late


@given(st.lists(st.tuples(st.floats(0.001, 0.3), st.integers(0, 50), st.integers(0, 50)), max_size=80))
def test_only_what_has_waited_is_late(steps: list[tuple[float, int, int]]) -> None:
    """Whenever it says so, the record that is read next was there a second ago or longer, or one was just read."""
    lag = Lag()
    now, position, end = 0.0, 0, 0
    ends: list[tuple[float, int]] = []
    waited = False
    for pause_s, written, read in steps:
        now += pause_s
        end += written
        before, position = position, min(end, position + read)
        ends.append((now, end))
        lag.look(position, end, now)
        was_there = max((known for at, known in ends if at <= now - LAG_S), default=0)
        waited = (waited and position < end) or before < was_there
        if lag.late:
            assert waited
