"""What the judge says of one event: the verdict, and how the verdicts on one transaction's actions become one."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from detectors.alerts.alert import Alert
from detectors.behaviour.habits import Unusual


class Verdict(Struct, frozen=True):
    """What was found of one event. Callers do not change its lists, which are shared.

    `policies` are the ids that matched, staged ones too. `anomaly` is 0 to 1, None while the principal is still
    learned. `reasons` says in words what drove it. `alerts` are what goes to the topic now.
    """

    policies: list[str]
    anomaly: float | None
    reasons: list[dict[str, Any]]
    alerts: list[Alert]


class Incomplete(Exception):
    """What is due by the time an event tells could not be told; `verdict` is what was found of the event itself."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__("what is due could not be told")
        self.verdict = verdict


ORDINARY = Verdict([], 0.0, [], [])
UNKNOWN = Verdict([], None, [], [])


def recorded(unusual: Unusual) -> list[dict[str, Any]]:
    """Give the reasons as the lake keeps them: `new` marks what policies were told is new."""
    new = {
        "client_addr": unusual.new_client_addr,
        "application": unusual.new_application,
        "relation": unusual.new_relation,
    }
    return [reason | {"new": True} if new.get(reason["feature"]) else reason for reason in unusual.reasons]


def join(verdicts: list[Verdict]) -> Verdict:
    """Make one verdict of a transaction's actions: everything that matched, and the most unusual of them."""
    if len(verdicts) == 1:
        return verdicts[0]
    if all(verdict is ORDINARY for verdict in verdicts):
        return ORDINARY
    scored = [verdict for verdict in verdicts if verdict.anomaly is not None]
    worst = max(scored, key=lambda verdict: verdict.anomaly or 0.0) if scored else UNKNOWN
    return Verdict(
        list(dict.fromkeys(policy for verdict in verdicts for policy in verdict.policies)),
        worst.anomaly,
        worst.reasons,
        [alert for verdict in verdicts for alert in verdict.alerts],
    )
