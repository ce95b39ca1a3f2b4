"""What is not believed of an event in the topic `events`: positions and times that cannot be.

Whoever can write there can write anything, so this is no proof of origin. It keeps one record from silencing what comes
after it: a position beyond the end of `raw` would make all before it known, a time to come would end every window.
"""

from __future__ import annotations

from collections.abc import Callable

from pgwitness.core.events import Event
from streams.kafka.notes import APPROVALS, FEEDBACK

AHEAD_US_MAX = 86_400_000_000
"""How far ahead of the worker's clock a collector's may be."""
LATE_US_MAX = 366 * 86_400_000_000
"""How far ahead of the collector's clock the server's may be: its own time is evidence, however wrong."""
INDEX_MAX = 1 << 31
Holds = Callable[[int, int], bool]


class Sanity:
    """Asks whether an event can be; `holds` says whether a partition has reached a position (`streams.kafka.ends`)."""

    def __init__(self, lanes: int, raw_partitions: Callable[[], int], holds: Holds) -> None:
        self._lanes = lanes
        self._raw_partitions = raw_partitions
        self._holds = holds

    def of(self, lane: int, event: Event, now_us: int) -> str | None:
        """Return why an event of a lane cannot be, None when it can."""
        at = event.at
        if not 0 <= lane < self._lanes:
            return f"there is no lane {lane}"
        if not 0 <= at.partition < self._raw_partitions():
            return f"raw has no partition {at.partition}"
        if not 0 <= at.index < INDEX_MAX or at.offset < 0 or not self._holds(at.partition, at.offset):
            return f"partition {at.partition} of raw has not reached {at.offset}"
        return self.time(event, now_us)

    def time(self, event: Event, now_us: int) -> str | None:
        """Return why an event's times cannot be, None when they can."""
        if event.captured_at_us > now_us + AHEAD_US_MAX:
            return "it was captured more than a day from now"
        if event.occurred_at_us > event.captured_at_us + LATE_US_MAX:
            return "it occurred more than a year after it was captured"
        return None

    def in_feedback(self, offset: int) -> bool:
        """Return whether the topic `feedback` has a record at an offset."""
        return offset >= 0 and self._holds(FEEDBACK, offset)

    def in_approvals(self, offset: int) -> bool:
        """Return whether the topic `approvals` has a record at an offset."""
        return offset >= 0 and self._holds(APPROVALS, offset)
