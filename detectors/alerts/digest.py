"""Digests: what only the behaviour models find strange is collected, and reported once a window instead of one by one.

One digest per cluster, peer group and window of time: how many findings of whom, the strangest first. It is due when
its window has passed, by the time in the records. Bounded; a group that is evicted is reported early. State is JSON.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
from msgspec.structs import replace

from detectors.alerts.alert import EVENT_IDS_MAX, Alert, alert_uid, finding_key
from detectors.alerts.ledger import IDLE_US, NEVER_US

GROUPS_MAX = 200
MEMBERS_MAX = 50
"""Findings of a digest that are listed; of more, the strangest."""
SHOWN_MAX = 20

Member = dict[str, Any]


class _Group:
    """The findings of one cluster, peer group and window so far."""

    __slots__ = ("best", "event_ids", "findings", "first_us", "last_us", "members", "start_us")

    def __init__(self, start_us: int, first_us: int) -> None:
        self.start_us = start_us
        self.first_us = first_us
        self.last_us = first_us
        self.findings = 0
        self.members: dict[str, Member] = {}
        self.event_ids: list[str] = []
        self.best: tuple[float, bytes] = (-1.0, b"")


class Digests:
    """The digests of the windows that are not over yet, oldest first."""

    def __init__(self, interval_us: int) -> None:
        self._interval_us = max(1, interval_us)
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        self.due_us = NEVER_US

    def collect(self, alert: Alert) -> list[Alert]:
        """Take a finding in; return the digest that was evicted, if any."""
        action = alert.action
        start_us = action.occurred_at_us // self._interval_us * self._interval_us
        key = f"{action.cluster}\0{action.peer_group}\0{start_us}"
        group = self._groups.get(key)
        early: list[Alert] = []
        if group is None:
            if len(self._groups) >= GROUPS_MAX:
                oldest = next(iter(self._groups))
                early.append(self._digest(oldest, action.captured_at_us))
            group = self._groups[key] = _Group(start_us, alert.first_seen_us)
            self.due_us = min(self.due_us, self._due_us(group))
        group.findings += alert.uid not in group.members
        group.first_us = min(group.first_us, alert.first_seen_us)
        group.last_us = max(group.last_us, alert.last_seen_us)
        if len(group.event_ids) < EVENT_IDS_MAX and action.event_id not in group.event_ids:
            group.event_ids.append(action.event_id)
        score = alert.anomaly or 0.0
        group.members[alert.uid] = {
            "uid": alert.uid,
            "principal": action.principal or None,
            "role": action.role or None,
            "anomaly": score,
            "count": alert.count,
            "words": alert.message,
        }
        if len(group.members) > MEMBERS_MAX:
            del group.members[min(group.members, key=lambda uid: (group.members[uid]["anomaly"], uid))]
        if score > group.best[0]:
            group.best = (score, alert.kept())
        return early

    def due(self, now_us: int) -> list[Alert]:
        """Return the digests whose window has passed by `now_us`."""
        over = [key for key, group in self._groups.items() if self._due_us(group) <= now_us]
        return [self._digest(key, now_us) for key in over]

    def _due_us(self, group: _Group) -> int:
        return group.start_us + self._interval_us + IDLE_US

    def _digest(self, key: str, now_us: int) -> Alert:
        group = self._groups.pop(key)
        self.due_us = min((self._due_us(other) for other in self._groups.values()), default=NEVER_US)
        best = msgspec.json.decode(group.best[1], type=Alert)
        action = best.action
        members = sorted(group.members.values(), key=lambda member: (-member["anomaly"], member["uid"]))[:SHOWN_MAX]
        people = len({(member["principal"], member["role"]) for member in group.members.values()})
        group_name = f"of peer group {action.peer_group}" if action.peer_group else "without a peer group"
        # Each partition of events has a judge of its own: the first event distinguishes their digests.
        named = f"{action.cluster}\0{action.peer_group}\0{group.event_ids[0]}"
        return replace(
            best,
            uid=alert_uid("digest", named, group.start_us),
            detector="digest",
            finding_key=finding_key("digest", f"{action.cluster}\0{action.peer_group}"),
            title="Unusual behaviour, nothing forbidden",
            message=(
                f"{_number(group.findings, 'finding')} of {_number(people, 'principal')} {group_name} "
                f"in {action.cluster}; "
                f"the strangest: {best.message}"
            ),
            description="What only the behaviour models found strange, collected; nobody was woken for it.",
            runbook=(
                "Read the members, strangest first. Resolve what is ordinary as false-positive, so that it is learned; "
                "promote a principal whose habits should alarm on their own."
            ),
            severity="low",
            digest=False,
            incident=None,
            activity="create",
            count=group.findings,
            first_seen_us=group.first_us,
            last_seen_us=group.last_us,
            event_ids=group.event_ids,
            members=members,
            emitted_us=now_us,
        )

    def snapshot(self) -> list[Any]:
        """Return the state as JSON values."""
        return [
            [key, g.start_us, g.first_us, g.last_us, g.findings, g.members, g.event_ids, g.best[0], g.best[1].decode()]
            for key, g in self._groups.items()
        ]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state."""
        self._groups = OrderedDict()
        for key, start_us, first_us, last_us, findings, members, event_ids, score, best in state:
            group = self._groups[key] = _Group(start_us, first_us)
            group.last_us, group.findings, group.members = last_us, findings, dict(members)
            group.event_ids, group.best = list(event_ids), (score, best.encode())
        self.due_us = min((self._due_us(group) for group in self._groups.values()), default=NEVER_US)


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
