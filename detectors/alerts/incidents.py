"""Incidents: findings of one principal that come within an hour of each other are one story.

The incident's uid is made of its subject and of its first finding, so a replay gives the same. A finding joins while
it lies within `GAP_US` of the incident's findings, and an incident lasts a day at most: what goes on for longer is a
new one. Bounded, deterministic; state is JSON.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

from detectors.behaviour.habits import short

GAP_US = 3_600_000_000
LENGTH_US_MAX = 24 * 3_600_000_000
INCIDENTS_MAX = 5_000


class Incidents:
    """The incidents that may still go on, by subject; the one that was inactive the longest is forgotten first."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[str, int, int]] = OrderedDict()

    def join(self, subject: str, at_us: int, *, begin: bool) -> str | None:
        """Return the incident that a finding of `subject` at `at_us` belongs to.

        None when there is none and `begin` says that this finding is not to begin one.
        """
        subject = short(subject)
        known = self._open.get(subject)
        if known is not None:
            uid, first_us, last_us = known
            lasts = max(last_us, at_us) - min(first_us, at_us) <= LENGTH_US_MAX
            if first_us - GAP_US <= at_us <= last_us + GAP_US and lasts:
                self._open[subject] = (uid, min(first_us, at_us), max(last_us, at_us))
                self._open.move_to_end(subject)
                return uid
        if not begin:
            return None
        uid = incident_uid(subject, at_us)
        self._open[subject] = (uid, at_us, at_us)
        self._open.move_to_end(subject)
        if len(self._open) > INCIDENTS_MAX:
            self._open.popitem(last=False)
        return uid

    def snapshot(self) -> list[Any]:
        """Return the state as JSON values."""
        return [[subject, *known] for subject, known in self._open.items()]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state."""
        self._open = OrderedDict((subject, (uid, first, last)) for subject, uid, first, last in state)


def incident_uid(subject: str, first_us: int) -> str:
    """Name an incident: 16 bytes of BLAKE2b over its subject and the time of its first finding, in hex."""
    text = f"incident\0{subject}\0{first_us}"
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
