"""What the judge says of one event: the verdict, and how the verdicts on one transaction's actions become one."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from detectors.alerts.alert import Alert
from detectors.behaviour.habits import Unusual


class Judgement(Struct, frozen=True):
    """What was found of one event. Callers do not change its lists, which are shared.

    `policies` are the ids that matched, staged ones too. `anomaly` is 0 to 1, None while the principal is still
    learned. `reasons` says in words what drove it. `alerts` are what goes to the topic now.
    """

    policies: list[str]
    anomaly: float | None
    reasons: list[dict[str, Any]]
    alerts: list[Alert]


class Incomplete(Exception):
    """What is due by the time of an event could not be emitted; `judgement` is what was found of the event itself."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__("due alerts could not be made")
        self.judgement = judgement


ORDINARY = Judgement([], 0.0, [], [])
UNKNOWN = Judgement([], None, [], [])


def recorded(unusual: Unusual) -> list[dict[str, Any]]:
    """Return the reasons as the lake keeps them: `new` marks what was new to policies."""
    new = {
        "client_addr": unusual.new_client_addr,
        "application": unusual.new_application,
        "relation": unusual.new_relation,
    }
    return [reason | {"new": True} if new.get(reason["feature"]) else reason for reason in unusual.reasons]


def join(judgements: list[Judgement]) -> Judgement:
    """Make one verdict of a transaction's actions: everything that matched, and the most unusual of them."""
    if len(judgements) == 1:
        return judgements[0]
    if all(judgement is ORDINARY for judgement in judgements):
        return ORDINARY
    scored = [judgement for judgement in judgements if judgement.anomaly is not None]
    worst = max(scored, key=lambda judgement: judgement.anomaly or 0.0) if scored else UNKNOWN
    return Judgement(
        list(dict.fromkeys(policy for judgement in judgements for policy in judgement.policies)),
        worst.anomaly,
        worst.reasons,
        [alert for judgement in judgements for alert in judgement.alerts],
    )
