"""The suite of the deployed form counts right: what was held out, what is about an attack, what is false."""

from __future__ import annotations

from typing import Any

from detectors.actions import Action
from detectors.alerts.budget import Standing
from detectors.alerts.reports import Report
from pgwitness.core.config import Config
from tests.quality import season
from tests.quality.deployed import BUDGETS, Row, chosen_budget, interval, written
from tests.quality.intrusions import BLIND, CHOSEN_ON, HELD_OUT, REPORTED_SEEDS, TUNING_SEEDS, plant
from tests.quality.topic import Fanned, Figures, Reported, about


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

    def told(uid: str, who: str, text: str, reason: str, **when: int) -> Reported:
        return Reported(uid, who, False, "low", start_us, end_us, text, frozenset({reason}), **when)

    right = told("a", one.victim, "select hr.salaries", "foreign", crowd_us=end_us + 60_000_000)
    right.crowd = "crowd"
    assert about(one, right)
    assert not about(one, told("b", one.victim, "select public.orders", "foreign"))
    assert not about(one, told("c", one.victim, "select hr.salaries", "idle"))
    assert not about(
        one, Reported("d", one.victim, False, "low", end_us + 1, end_us + 2, "hr.salaries", frozenset({"new"}))
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


def test_budgets_and_differences_are_of_the_tuning_seeds_and_paired() -> None:
    """The largest budget that kept within the false alerts on the tuning seeds; attacks are drawn in pairs."""

    def result(seed: int, false: dict[float, int]) -> dict[str, Any]:
        of_budget = {}
        for budget, number in false.items():
            figures = Figures(false=number, principal_days=100.0)
            of_budget[f"models {budget}"] = written(figures)
        return {"seed": seed, **of_budget}

    false = {budget: 0 if budget <= 0.005 else 5 if budget <= 0.03 else 9 for budget in BUDGETS}
    assert chosen_budget(0.05, [result(1, false), result(2, false)], "models") == 0.03
    assert chosen_budget(0.005, [result(1, false)], "both") == 0.005
    found = {(seed, kind): (int(kind == "a"), 1) for seed in (101, 102) for kind in "ab"}
    one, other = Row("one", found, 0.0), Row("other", dict.fromkeys(found, (0, 1)), 0.0)
    assert (one.recall(), other.recall()) == (0.5, 0.0)
    low, high = interval([one, other], lambda first, second: first - second)
    assert 0.0 == low < 0.5 < high == 1.0
    assert interval([one, one], lambda first, second: first - second) == (0.0, 0.0)


def test_each_budget_has_a_triage_of_its_own() -> None:
    """What a narrow budget lets wait a wide one tells by itself; nobody's own differs."""
    fan = Fanned(Config(), (0.001, 0.2))
    for number in range(3):
        at_us = season.at(9, number)
        action = Action(kind="statement", event_id=f"e{number}", occurred_at_us=at_us, cluster="shop", principal="jo")
        report = Report(
            detector="behaviour",
            key=f"p{number}",
            window_us=3_600_000_000,
            title="",
            message="",
            description="",
            severity="low",
            runbook="",
            anomaly=0.78,
            standing=Standing(0.22, 5, 40.0, False),
        )
        own = fan.report(action, report)
        assert own is not None
        assert own.digest is (number > 0)
    narrow, wide = fan.hear(0), fan.hear(1)
    assert [alert.digest for alert in narrow] == [True, True, True]
    assert [alert.digest for alert in wide] == [False, False, False]
    assert fan.hear(0) == fan.hear(1) == []
