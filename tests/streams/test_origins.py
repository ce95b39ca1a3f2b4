"""Positions only grow: topics that are made again or lose their end go on behind what was read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.origins import READ_AGAIN, RECREATED, TRUNCATED, Extent, Origin, find


@pytest.mark.parametrize("known", [None, Origin(None, 0), Origin("a", 0)])
def test_the_same_topic_is_read_on(known: Origin | None) -> None:
    """Whether its id was known before or not: where it was read to is where reading goes on."""
    found = find(known, 70, Extent("a", 10, 90))
    assert (found.origin, found.start, found.lost) == (Origin("a", 0), 70, None)


def test_what_retention_took_is_not_another_topic() -> None:
    """A topic that begins behind what was read has lost records, which the positions show; it is the same."""
    found = find(Origin("a", 5), 70, Extent("a", 80, 90))
    assert (found.origin, found.start, found.lost) == (Origin("a", 5), 65, None)


def test_positions_go_on_in_a_recreated_topic() -> None:
    """Also when it is longer than the old one was."""
    for end in (3, 500):
        found = find(Origin("a", 0), 70, Extent("b", 0, end))
        assert (found.origin, found.start, found.lost) == (Origin("b", 70), 0, RECREATED)
    again = find(found.origin, 75, Extent("b", 0, 500))
    assert (again.origin, again.start, again.lost) == (Origin("b", 70), 5, None)


def test_a_topic_that_lost_its_end_is_read_again_from_shortly_before() -> None:
    """Which of its last records are new nobody knows; what is read twice the fold knows by itself."""
    found = find(Origin("a", 0), 5_000, Extent("a", 0, 4_000))
    assert (found.start, found.lost) == (4_000 - READ_AGAIN, TRUNCATED)
    assert found.origin.base + found.start == 5_000


def test_without_ids_the_end_shows_it() -> None:
    """A broker that gives no ids: a topic that is shorter than what was read is another one, or lost its end."""
    assert find(Origin(None, 0), 70, Extent(None, 0, 3)).lost == TRUNCATED
    assert find(Origin(None, 0), 2, Extent(None, 0, 3)).lost is None


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000), st.sampled_from(["a", "b", None]))
def test_positions_never_go_back(base: int, read: int, end: int, topic_id: str | None) -> None:
    """Whatever the broker says, the next position is the one that is expected, and stays so when asked again."""
    found = find(Origin("a", base), base + read, Extent(topic_id, 0, end))
    assert found.origin.base + found.start == base + read
    again = find(found.origin, base + read, Extent(topic_id, 0, max(end, found.start)))
    assert (again.origin, again.start, again.lost) == (found.origin, found.start, None)
