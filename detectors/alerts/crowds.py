"""Crowds: when many are strange at once it is one alert that names them all.

Members of one peer group on one day, as after a release, or principals of any group within one hour and for the same
main reason, as after a failover. The first strange ones may have been reported before the crowd was seen to be one. The
alert comes when there are enough, and again with each that joins; a member is then not reported by itself.
Bounded; state is JSON.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from msgspec.structs import replace

from detectors.alerts.alert import Alert, alert_uid, finding_key
from detectors.alerts.budget import Standing

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
CROWDS_MAX = 200
MEMBERS_MAX = 50
"""Members that an alert names; of more only the number goes on."""
MANY, LEAST, TIMES = 8, 3, 3.0
"""A crowd is so many members, or at least so many if they are so many times the expected."""

Member = dict[str, Any]


class _Crowd:
    """The strange members of one group on one day, or of an hour for one reason."""

    __slots__ = ("emitted", "members", "number")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.number = 0
        self.emitted = False


class Crowds:
    """Who was strange with whom; the oldest are forgotten. `rate` is the budget, a principal and day."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._crowds: OrderedDict[str, _Crowd] = OrderedDict()

    def join(self, alert: Alert, standing: Standing) -> tuple[bool, Alert | None]:
        """Take a finding in; says whether it is one of a crowd, and return the crowd's alert when there is news."""
        action = alert.action
        share = standing.share if standing.alone is None else standing.alone
        if standing.warming_up or share > self._rate:
            return False, None
        hidden, emitted = False, None
        if action.peer_group:
            key = f"group\0{action.cluster}\0{action.peer_group}\0{action.occurred_at_us // DAY_US}"
            summary = f"members of peer group {action.peer_group} departed from their routine on one day"
            hidden, emitted = self._join(key, alert, self._rate * standing.peers, summary)
        if not hidden and alert.reasons:
            reason = alert.reasons[0]["feature"]
            key = f"cause\0{action.cluster}\0{reason}\0{action.occurred_at_us // HOUR_US}"
            summary = f"principals departed from their routine within an hour, all by {reason}"
            hidden, emitted = self._join(key, alert, self._rate * standing.principals / 24, summary)
        return hidden, emitted

    def _join(self, key: str, alert: Alert, expected: float, summary: str) -> tuple[bool, Alert | None]:
        crowd = self._crowds.get(key)
        if crowd is None:
            crowd = self._crowds[key] = _Crowd()
            if len(self._crowds) > CROWDS_MAX:
                self._crowds.popitem(last=False)
        name = alert.action.principal
        is_news = name not in crowd.members and len(crowd.members) < MEMBERS_MAX
        crowd.number += is_news
        if is_news or name in crowd.members:
            crowd.members[name] = {
                "uid": alert.uid,
                "principal": name or None,
                "role": alert.action.role or None,
                "anomaly": alert.anomaly or 0.0,
                "count": alert.count,
                "words": alert.message,
            }
        if crowd.number < MANY and not (crowd.number >= LEAST and crowd.number >= TIMES * expected):
            return False, None
        if crowd.emitted and not is_news:
            return True, None
        first, crowd.emitted = not crowd.emitted, True
        return True, _alert(alert, key, crowd, summary, first=first)

    def snapshot(self) -> list[Any]:
        """Return the state as JSON values."""
        return [[key, crowd.members, crowd.number, crowd.emitted] for key, crowd in self._crowds.items()]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state."""
        self._crowds = OrderedDict()
        for key, members, number, emitted in state:
            crowd = self._crowds[key] = _Crowd()
            crowd.members, crowd.number, crowd.emitted = dict(members), number, emitted


def _alert(alert: Alert, key: str, crowd: _Crowd, summary: str, *, first: bool) -> Alert:
    """Write the alert of a crowd; `alert` is that of the latest who joined."""
    members = sorted(crowd.members.values(), key=lambda one: (-one["anomaly"], one["uid"]))
    names = ", ".join(str(member["principal"] or member["role"]) for member in members)
    # Each partition of events has a judge of its own: the first member distinguishes their alerts.
    first_member = f"{key}\0{next(iter(crowd.members))}"
    return replace(
        alert,
        uid=alert_uid("behaviour_group", first_member, 0),
        detector="behaviour_group",
        finding_key=finding_key("behaviour_group", key.rpartition("\0")[0]),
        title="Unusual activity of many",
        message=f"{crowd.number} {summary}: {names}",
        description=(
            "So many are seldom strange at once by chance: a release, a migration, a failover. "
            "What each did is in the evidence."
        ),
        runbook=(
            "Look for what they have in common, and ask its owner. If there is nothing, read each member: "
            "an attacker may hide in a crowd, and one that differs from the others is the one to look at."
        ),
        severity="low",
        digest=False,
        suppressed_by=None,
        incident=None,
        activity="create" if first else "update",
        count=crowd.number,
        members=members,
    )
