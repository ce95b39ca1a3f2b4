"""The suite of the deployed form counts right: what was held out, what is about an attack, what is false."""

from __future__ import annotations

from tests.quality import season
from tests.quality.intrusions import BLIND, CHOSEN_ON, HELD_OUT, REPORTED_SEEDS, TUNING_SEEDS, plant
from tests.quality.topic import Figures, Told, about


def test_kinds_and_seeds_that_are_reported_are_held_out() -> None:
    """Twenty kinds and more in two halves, no seed in both lists; each befalls somebody else in days that count."""
    assert not set(TUNING_SEEDS) & set(REPORTED_SEEDS)
    assert len(REPORTED_SEEDS) >= 10
    assert not {kind.id for kind in CHOSEN_ON} & {kind.id for kind in HELD_OUT}
    assert len(CHOSEN_ON) + len(HELD_OUT) >= 20
    world, lives = season.build(101)
    planted = plant(world, lives, HELD_OUT + BLIND)
    assert len(planted) >= len(HELD_OUT)
    assert len({one.victim for one in planted}) == len(planted)
    assert all(season.at(season.WARM_DAYS, 0) <= one.times_us[0] for one in planted)
    assert all(one.times_us[-1] < season.at(season.DAYS, 0) for one in planted)


def test_only_what_is_right_finds_an_attack() -> None:
    """Whom, when, which relation and which reason; a crowd that names the victim is not false, another finding is."""
    world, lives = season.build(101)
    planted = plant(world, lives, CHOSEN_ON)
    one = next(each for each in planted if each.kind.id == "salaries")
    start_us, end_us = one.times_us[0], one.times_us[-1]

    def told(uid: str, who: str, text: str, reason: str, **when: int) -> Told:
        return Told(uid, who, False, "low", start_us, end_us, text, frozenset({reason}), **when)

    right = told("a", one.victim, "select hr.salaries", "foreign", crowd_us=end_us + 60_000_000)
    right.crowd = "crowd"
    assert about(one, right)
    assert not about(one, told("b", one.victim, "select public.orders", "foreign"))
    assert not about(one, told("c", one.victim, "select hr.salaries", "idle"))
    assert not about(
        one, Told("d", one.victim, False, "low", end_us + 1, end_us + 2, "hr.salaries", frozenset({"new"}))
    )
    crowd = told("crowd", "", "", "", alone_us=end_us)
    other = told("e", "nobody", "", "rows_read", alone_us=end_us)
    digest = told("f", "nobody", "", "rows_read", digest_us=end_us)
    peers = {group: [life.who.name for life in lives.values() if life.who.group == group] for group in season.SIZES}
    figures = Figures()
    figures.add(101, [right, crowd, other, digest], planted, peers)
    assert (figures.found["salaries"], figures.false, figures.loud) == (1, 1, 0)
    assert figures.recall([kind.id for kind in CHOSEN_ON]) == 1 / len(planted)
    assert figures.median_minutes == (end_us + 60_000_000 - start_us) / 60e6
