"""One scale and one budget: ranks, shares of principal-days, what is told by itself and what of a crowd."""

from __future__ import annotations

import msgspec
import pytest

from detectors.actions import Action
from detectors.alerts.alert import Alert
from detectors.alerts.budget import DAY_US, Budget, Standing
from detectors.alerts.crowds import MANY, MEMBERS_MAX, Crowds
from detectors.behaviour.ranks import LAMBDA, STEPS, Counts, Ranks, step_of
from detectors.behaviour.scale import Scale

NOW_US = 20_000 * DAY_US


def again(state: object) -> object:
    """A state as it comes out of a checkpoint."""
    return msgspec.json.decode(msgspec.json.encode(state))


def test_a_rank_is_the_share_of_windows_that_reach_a_value() -> None:
    """Of a group that has seen little it is borrowed from the kind, and comes back from a checkpoint as it was."""
    group, kind = Ranks(("rows", "errors")), Ranks(("rows", "errors"))
    for number in range(100):
        kind.learn({"rows": number / 100, "errors": 0.0}, 1)
    assert kind.share("rows", 0.9) == pytest.approx(11 / 101)
    assert kind.share("errors", 0.01) == pytest.approx(1 / 101)
    assert kind.share("errors", 0.0) == 1.0
    assert group.share("rows", 0.9, kind) == pytest.approx(11 / 101)
    for _ in range(90):
        group.learn({"rows": 0.95, "errors": 0.0}, 1)
    assert group.share("rows", 0.9, kind) == pytest.approx((90 + LAMBDA * 11 / 101) / (90 + LAMBDA))
    restored = Ranks(("rows", "errors"))
    restored.restore(again(group.state()))  # type: ignore[arg-type]
    assert restored.state() == group.state()
    assert 0.94 <= group.reached_by("rows", 0.1) <= 0.96
    with pytest.raises(ValueError, match="at most"):
        Counts.of([0.0] * (2 * STEPS + 5))


def test_what_is_old_fades_and_what_is_little_is_no_step_zero() -> None:
    """After many half-lives nothing is known any more; the smallest value is more than none."""
    ranks = Ranks(("rows",))
    for _ in range(50):
        ranks.learn({"rows": 0.5}, 1)
    ranks.learn({"rows": 0.1}, 3_000)
    assert ranks.n == pytest.approx(1.0)
    assert (step_of(0.0), step_of(1e-9), step_of(2.0)) == (0, 1, STEPS)


def test_the_scale_is_measured_and_has_no_end() -> None:
    """A share of principal-days, falling with the score beyond the highest that was seen; nominal while none are."""
    scale = Scale()
    assert scale.rate(2.0) == pytest.approx(0.01)
    for number in range(1_000):
        scale.learn(number / 250, number // 50)
    shares = [scale.rate(score) for score in (0.0, 1.0, 2.0, 3.0, 3.9, 5.0, 9.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[2] == pytest.approx(0.5, abs=0.05)
    assert 0 < shares[-1] < shares[-2] < 0.02
    assert scale.a_day == pytest.approx(50, abs=5)
    restored = Scale()
    restored.restore(again(scale.state()))  # type: ignore[arg-type]
    assert restored.rate(3.3) == pytest.approx(scale.rate(3.3))


def standing(share: float, peers: int = 5, *, warming_up: bool = False) -> Standing:
    """A finding among forty principals a day."""
    return Standing(share, peers, 40.0, warming_up)


def test_the_budget_moves_the_threshold() -> None:
    """What is spared tells a little more, what is owed less; the very strange is always told, a new group's never."""
    budget = Budget(0.05)
    assert budget.allows(standing(0.09), NOW_US)
    for _ in range(4):
        budget.spend(standing(0.01))
    assert not budget.allows(standing(0.04), NOW_US)
    assert budget.allows(standing(0.02), NOW_US)
    for _ in range(1_000):
        budget.spend(standing(0.01))
    assert budget.allows(standing(0.05 / 8), NOW_US + 1)
    assert not budget.allows(standing(0.0, warming_up=True), NOW_US)
    assert not budget.allows(standing(0.09), NOW_US + 3 * DAY_US)
    assert budget.allows(standing(0.09), NOW_US + 5 * DAY_US)
    restored = Budget(0.05)
    restored.restore(again(budget.snapshot()))  # type: ignore[arg-type]
    assert restored.snapshot() == budget.snapshot()


def finding(who: str, at_us: int = NOW_US) -> Alert:
    """What the models found of somebody of a group."""
    action = Action(kind="change", cluster="shop", principal=who, peer_group="web", occurred_at_us=at_us)
    return Alert(
        uid=f"uid-{who}-{at_us // DAY_US}",
        detector="behaviour",
        title="",
        message=f"{who} did much",
        description="",
        severity="low",
        runbook="",
        action=action,
        count=1,
        first_seen_us=at_us,
        last_seen_us=at_us,
        event_ids=[],
        anomaly=0.97,
    )


def test_a_crowd_is_one_alert_that_names_all() -> None:
    """From three on, if that is three times the expected, and again with each that joins; the next day begins anew."""
    crowds = Crowds(0.05)
    assert [crowds.join(finding(who), standing(0.01)) for who in ("a", "b", "b")] == [(False, None)] * 3
    assert crowds.join(finding("c"), standing(0.2)) == (False, None)
    assert crowds.join(finding("c"), Standing(0.01, 5, 40.0, True)) == (False, None)
    hidden, told = crowds.join(finding("c"), standing(0.01))
    assert told is not None
    assert (hidden, told.activity, told.count, told.detector) == (True, "create", 3, "behaviour_group")
    assert told.message.endswith("a, b, c")
    restored = Crowds(0.05)
    restored.restore(again(crowds.snapshot()))  # type: ignore[arg-type]
    assert restored.join(finding("c"), standing(0.01)) == (True, None)
    _, more = restored.join(finding("d"), standing(0.01))
    assert more is not None
    assert (more.uid, more.activity, [member["principal"] for member in more.members][-1]) == (told.uid, "update", "d")
    assert restored.join(finding("a", NOW_US + DAY_US), standing(0.01)) == (False, None)


def test_a_failover_is_one_alert_whatever_the_groups() -> None:
    """Three of three groups within an hour, for the same main reason; another reason is not theirs."""
    crowds = Crowds(0.05)
    found = []
    for number, feature in enumerate(("errors", "rows_read", "errors", "errors")):
        alert = finding(f"p{number}", NOW_US + number)
        alert.action.peer_group, alert.reasons = f"group-{number}", [{"feature": feature}]
        found.append(crowds.join(alert, standing(0.01)))
    assert found[:3] == [(False, None)] * 3
    told = found[3][1]
    assert told is not None
    assert told.message == "3 principals departed from their routine within an hour, all by errors: p0, p2, p3"


def test_few_of_many_are_no_crowd_and_many_are_bounded() -> None:
    """Four of a hundred are what chance gives; eight are a crowd in any group; names beyond the bound are not kept."""
    crowds = Crowds(0.05)
    told = [crowds.join(finding(f"p{number:03}"), standing(0.01, peers=100))[1] for number in range(2 * MEMBERS_MAX)]
    assert [alert is not None for alert in told[: MANY + 1]] == [False] * (MANY - 1) + [True, True]
    last = [alert for alert in told if alert is not None][-1]
    assert len(last.members) == MEMBERS_MAX
