"""The ledger of findings: what repeats within its window is counted, not emitted again from the start.

The first occurrence creates an alert. Repeats update it: each of the first ten, then whenever the count doubles, so
that a flood of the same finding is a handful of records whose count says how many. When the window has passed and
`QUIET_US` went by without another occurrence, by the time in the records, the finding is due to be closed with its
final count. Occurrences that are suppressed are counted too, and emitted on a schedule of their own.

Bounded: of at most `FINDINGS_MAX` findings the counts are kept, and of the open ones facts of `KEPT_BYTES_MAX`; what
is evicted is closed early. A closed finding is opened again by its next occurrence. State is JSON.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from detectors.alerts.alert import EVENT_IDS_MAX

FINDINGS_MAX = 10_000
KEPT_BYTES_MAX = 2 * 1024 * 1024
REPORTED_EACH_MAX = 10
IDLE_US = 300_000_000
"""Five minutes: late events of a window that has passed are still counted before it is closed."""
NEVER_US = 1 << 62


class Occurrence:
    """One finding in its window so far.

    `suppressed_count` counts those occurrences that were suppressed, `taken_back` those that were undone after all,
    `emitted` says whether the topic has ever had it, `open` whether it has and does not know the end. `facts` is the
    last alert as it is kept for closing, None while there is nothing to close.
    """

    __slots__ = (
        "count",
        "due_us",
        "emitted",
        "event_ids",
        "facts",
        "first_us",
        "last_us",
        "makes_record",
        "open",
        "suppressed_count",
        "taken_back",
    )

    def __init__(self, first_us: int) -> None:
        self.count = 0
        self.suppressed_count = 0
        self.taken_back = 0
        self.first_us = first_us
        self.last_us = first_us
        self.event_ids: list[str] = []
        self.due_us = NEVER_US
        self.emitted = False
        self.open = False
        self.facts: bytes | None = None
        self.makes_record = False
        """Whether the last occurrence makes an alert record."""

    def copy(self) -> Occurrence:
        """Return one that does not change with this."""
        other = Occurrence(self.first_us)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        other.event_ids = list(self.event_ids)
        return other


class Ledger:
    """The findings whose windows may still be open; the one that was inactive the longest is forgotten first."""

    def __init__(self) -> None:
        self.due_us = NEVER_US
        """When the next finding may be due; `due` then says which are."""
        self._findings: OrderedDict[str, Occurrence] = OrderedDict()
        self._open: OrderedDict[str, None] = OrderedDict()
        self._bytes = 0
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        """Return the number of findings in memory."""
        return len(self._findings)

    def get(self, uid: str) -> Occurrence | None:
        """Return what is known of a finding."""
        return self._findings.get(uid)

    def record(
        self,
        uid: str,
        occurred_at_us: int,
        event_id: str,
        *,
        window_end_us: int = NEVER_US,
        captured_at_us: int = 0,
        suppressed: bool = False,
        settles: object = None,
    ) -> Occurrence:
        """Count an occurrence of a finding and give what is known of it now.

        One whose outcome it `settles` was counted when it was pending, and is emitted again.
        """
        found = self._findings.get(uid)
        if found is None:
            found = self._findings[uid] = Occurrence(occurred_at_us)
        else:
            self._findings.move_to_end(uid)
        if settles in found.event_ids:
            found.makes_record = True
            return found
        found.count += 1
        found.suppressed_count += suppressed
        found.first_us = min(found.first_us, occurred_at_us)
        found.last_us = max(found.last_us, occurred_at_us)
        found.due_us = max(window_end_us, captured_at_us) + IDLE_US
        number = found.suppressed_count if suppressed else found.count - found.suppressed_count
        found.makes_record = number <= REPORTED_EACH_MAX or number & (number - 1) == 0
        if event_id not in found.event_ids:
            if len(found.event_ids) >= EVENT_IDS_MAX:
                del found.event_ids[1]
            found.event_ids.append(event_id)
        return found

    def keeping(self, uid: str) -> Callable[[], None]:
        """Return what puts a finding back as it is now; what was evicted for it stays forgotten."""
        found = self._findings.get(uid)
        before = None if found is None else found.copy()

        def put_back() -> None:
            now = self._findings.pop(uid, None)
            if now is not None and uid in self._open:
                del self._open[uid]
                self._bytes -= len(now.facts or b"")
            if before is not None:
                self._findings[uid] = before
                if before.facts is not None:
                    self._open[uid] = None
                    self._bytes += len(before.facts)
                    self._push(uid, before)

        return put_back

    def keep(self, uid: str, facts: bytes) -> None:
        """Keep what is needed to close a finding that was just recorded and emitted."""
        found = self._findings[uid]
        self._bytes += len(facts) - len(found.facts or b"")
        if found.facts is None:
            self._push(uid, found)
        found.facts = facts
        self._open[uid] = None
        self._open.move_to_end(uid)

    def take_back(self, uid: str, event_id: str) -> Occurrence | None:
        """Count an occurrence as one that did not happen; None when the finding is not known any more."""
        found = self._findings.get(uid)
        if found is None:
            return None
        found.taken_back += 1
        if event_id in found.event_ids:
            found.event_ids.remove(event_id)
        return found

    def evict(self) -> list[tuple[str, Occurrence]]:
        """Close and forget what is over the bounds, the longest inactive first; return the findings to be emitted as
        closed."""
        closed = []
        while self._bytes > KEPT_BYTES_MAX:
            uid = next(iter(self._open))
            closed.append((uid, self._findings[uid]))
            self._close(uid)
        while len(self._findings) > FINDINGS_MAX:
            uid, found = next(iter(self._findings.items()))
            if uid in self._open:
                closed.append((uid, found))
                self._close(uid)
            del self._findings[uid]
        return closed

    def due(self, now_us: int) -> list[tuple[str, Occurrence]]:
        """Close the findings that have ended by `now_us`, in the order of their times."""
        closed = []
        while self._heap and self._heap[0][0] <= now_us:
            at_us, uid = heapq.heappop(self._heap)
            found = self._findings.get(uid)
            if found is None or found.facts is None:
                continue
            if found.due_us > at_us:
                heapq.heappush(self._heap, (found.due_us, uid))
                continue
            closed.append((uid, found))
            self._close(uid)
        self.due_us = self._heap[0][0] if self._heap else NEVER_US
        return closed

    def close(self, uid: str) -> None:
        """Take note that a finding was closed by a decision; it goes on being counted."""
        if uid in self._open:
            self._close(uid)

    def _close(self, uid: str) -> None:
        found = self._findings[uid]
        del self._open[uid]
        self._bytes -= len(found.facts or b"")
        # Whoever is given the finding still reads its facts; a new occurrence brings new ones.
        self._findings[uid] = counted = Occurrence(found.first_us)
        counted.count, counted.suppressed_count, counted.last_us = found.count, found.suppressed_count, found.last_us
        counted.taken_back = found.taken_back
        counted.event_ids, counted.emitted, counted.due_us = (
            found.event_ids[:1] + found.event_ids[1:][-1:],
            found.emitted,
            found.due_us,
        )

    def _push(self, uid: str, found: Occurrence) -> None:
        heapq.heappush(self._heap, (found.due_us, uid))
        if len(self._heap) > 2 * len(self._open) + 1_000:  # of findings that were closed early
            self._rebuild()
            heapq.heappush(self._heap, (found.due_us, uid))
        self.due_us = self._heap[0][0]

    def _rebuild(self) -> None:
        self._heap = [(self._findings[uid].due_us, uid) for uid in self._open]
        heapq.heapify(self._heap)
        self.due_us = self._heap[0][0] if self._heap else NEVER_US

    def snapshot(self) -> list[Any]:
        """Return the state as JSON values."""
        places = {uid: place for place, uid in enumerate(self._open)}
        return [
            [
                uid,
                f.count,
                f.first_us,
                f.last_us,
                f.event_ids,
                f.suppressed_count,
                f.emitted,
                f.open,
                f.due_us,
                None if f.facts is None else [places[uid], f.facts.decode()],
                *([f.taken_back] if f.taken_back else []),
            ]
            for uid, f in self._findings.items()
        ]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state; one of the first release has counts only."""
        self._findings = OrderedDict()
        opened: list[tuple[int, str]] = []
        self._bytes = 0
        for uid, count, first_us, last_us, event_ids, *more in state:
            found = self._findings[uid] = Occurrence(first_us)
            found.count, found.last_us, found.event_ids = count, last_us, list(event_ids)
            if more:
                found.suppressed_count, found.emitted, found.open, found.due_us, facts, *rest = more
                found.taken_back = rest[0] if rest else 0
                if facts is not None:
                    opened.append((facts[0], uid))
                    found.facts = facts[1].encode()
                    self._bytes += len(found.facts)
        self._open = OrderedDict((uid, None) for _, uid in sorted(opened))
        self._rebuild()
