"""The climate: what others did on the same day is less strange, chance is no climate, and nobody is their own."""

from __future__ import annotations

import math

import msgspec
import pytest

from detectors.behaviour.climate import DAY_US, REMEMBERED_MAX, Climate

NOW_US = 20_000 * DAY_US


def test_what_others_showed_within_a_day_counts_for_its_share() -> None:
    """The first is as strange as it is; with three of ten before it, a feature is as rare as three in ten."""
    climate = Climate()
    for number in range(3):
        assert climate.most("d", NOW_US, 10.0, 1.0)("errors") == (
            math.inf if number == 0 else pytest.approx(math.log10(10 / (number - 0.03)))
        )
        climate.note(f"m{number}", ["errors"], NOW_US)
    of = climate.most("d", NOW_US, 10.0, 1.0)
    assert of("errors") == pytest.approx(math.log10(10 / 2.97))
    assert of("rows_read") == math.inf
    assert climate.most("m0", NOW_US, 10.0, 1.0)("errors") == pytest.approx(math.log10(10 / 1.97))
    assert climate.most("d", NOW_US + DAY_US + 1, 10.0, 1.0)("errors") == math.inf


def test_as_many_as_chance_gives_are_no_climate() -> None:
    """Of a thousand principals and ten hours each some thirty are rare by chance: one more counts for hardly less."""
    climate = Climate()
    for number in range(31):
        climate.note(f"m{number}", ["actions"], NOW_US)
        assert (climate.most("d", NOW_US, 1_000.0, 10.0)("actions") == math.inf) is (number < 30)
    assert climate.most("d", NOW_US, 1_000.0, 10.0)("actions") == pytest.approx(3.0)


def test_it_is_bounded_and_comes_back_from_a_checkpoint() -> None:
    """Of one feature so many are remembered, the latest."""
    climate = Climate()
    for number in range(1_000):
        climate.note(f"m{number}", ["new", "foreign"], NOW_US + number)
    state = msgspec.json.decode(msgspec.json.encode(climate.state()))
    assert [len(shown) for _, shown in state] == [REMEMBERED_MAX] * 2
    restored = Climate()
    restored.restore(state)
    assert restored.state() == climate.state()
    assert restored.most("d", NOW_US + 999, 10.0, 1.0)("new") == 0.0
