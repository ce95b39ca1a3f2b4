"""Pauses between tries grow, differ, and end."""

from __future__ import annotations

import pytest

from pgwitness.core.runtime.backoff import FIRST_S, pause_s


@pytest.mark.parametrize(("failures", "longest"), [(1, FIRST_S), (2, 2 * FIRST_S), (3, 4 * FIRST_S)])
def test_a_pause_doubles_with_each_failure(failures: int, longest: float) -> None:
    """After each failure in a row it is twice as long; at least half of that is certain, the rest left to chance."""
    pauses = {pause_s(failures, 60.0) for _ in range(100)}
    assert longest / 2 <= min(pauses) <= max(pauses) <= longest
    assert len(pauses) > 10


def test_a_pause_is_bounded_after_any_number_of_failures() -> None:
    """Whoever has tried a hundred thousand times waits no longer than the limit, and the sum does not overflow."""
    assert 15.0 <= pause_s(100_000, 30.0) <= 30.0
