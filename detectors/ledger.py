"""The ledger of findings: what repeats within its window is counted, not told again from the start.

The first occurrence creates an alert. Repeats update it: each of the first ten, then whenever the count doubles, so
that a flood of the same finding is a handful of records whose count tells how many. Bounded; state is JSON.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from detectors.alert import EVENT_IDS_MAX

FINDINGS_MAX = 20_000
TOLD_EACH_MAX = 10


class Occurrence:
    """One finding in its window so far."""

    __slots__ = ("count", "event_ids", "first_us", "last_us")

    def __init__(self, first_us: int) -> None:
        self.count = 0
        self.first_us = first_us
        self.last_us = first_us
        self.event_ids: list[str] = []

    @property
    def worth_telling(self) -> bool:
        """Whether this count makes an alert record."""
        return self.count <= TOLD_EACH_MAX or self.count & (self.count - 1) == 0


class Ledger:
    """The findings whose windows may still be open; the one that was quiet the longest is forgotten first."""

    def __init__(self) -> None:
        self._findings: OrderedDict[str, Occurrence] = OrderedDict()

    def __len__(self) -> int:
        """Give the number of findings in memory."""
        return len(self._findings)

    def record(self, uid: str, occurred_at_us: int, event_id: str) -> Occurrence:
        """Count an occurrence of a finding and give what is known of it now."""
        found = self._findings.get(uid)
        if found is None:
            found = self._findings[uid] = Occurrence(occurred_at_us)
            if len(self._findings) > FINDINGS_MAX:
                self._findings.popitem(last=False)
        else:
            self._findings.move_to_end(uid)
        found.count += 1
        found.first_us = min(found.first_us, occurred_at_us)
        found.last_us = max(found.last_us, occurred_at_us)
        if event_id not in found.event_ids:
            if len(found.event_ids) >= EVENT_IDS_MAX:
                del found.event_ids[1]
            found.event_ids.append(event_id)
        return found

    def snapshot(self) -> list[Any]:
        """Give the state as JSON values."""
        return [[uid, f.count, f.first_us, f.last_us, f.event_ids] for uid, f in self._findings.items()]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state."""
        self._findings = OrderedDict()
        for uid, count, first_us, last_us, event_ids in state:
            found = self._findings[uid] = Occurrence(first_us)
            found.count, found.last_us, found.event_ids = count, last_us, list(event_ids)
