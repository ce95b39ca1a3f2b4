"""When each principal was last seen, by the day, so that one who acts after a long absence is noticed.

Who was seen on one day only is kept apart: a flood of unknown principals cannot evict those who are known. Both
caches are bounded, and who was inactive the longest is evicted first. State is JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pgwitness.core.undo import Undo

DAY_US = 86_400_000_000
KNOWN_MAX = 20_000
NEW_MAX = 5_000
NAME_CHARS_MAX = 160


class Presence:
    """The last day of each principal."""

    def __init__(self, undo: Undo | None = None) -> None:
        self._undo = undo or Undo()
        self._known: dict[str, int] = {}
        self._new: dict[str, int] = {}

    def seen(self, principal: str, occurred_at_us: int) -> int:
        """Note that a principal acts; return for how many whole days it was inactive before, 0 when it is new or was
        not."""
        day = occurred_at_us // DAY_US
        if self._known.get(principal) == day:
            return 0
        name = principal[:NAME_CHARS_MAX]
        self._undo.add(self._as_it_was(name))
        last = self._known.pop(name, None)
        if last is None:
            first = self._new.get(name)
            if first is None:
                self._new[name] = day
                if len(self._new) > NEW_MAX:
                    del self._new[next(iter(self._new))]
                return 0
            if day <= first:
                return 0
            del self._new[name]
            last = first
        self._known[name] = max(day, last)
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]
        return max(0, day - last - 1)

    def _as_it_was(self, name: str) -> Callable[[], None]:
        """Return what makes a principal as inactive as it was, whatever it does now."""
        known, new = self._known.get(name), self._new.get(name)

        def back() -> None:
            for days, day in ((self._known, known), (self._new, new)):
                days.pop(name, None)
                if day is not None:
                    days[name] = day

        return back

    def seed(self, last_us: Mapping[str, int]) -> None:
        """Take when principals were last seen, as known from elsewhere."""
        for name, at_us in sorted(last_us.items(), key=lambda item: (item[1], item[0]))[-KNOWN_MAX:]:
            self._known[name[:NAME_CHARS_MAX]] = at_us // DAY_US

    def snapshot(self) -> list[Any]:
        """Return the state as JSON values; order is part of it."""
        return [list(map(list, days.items())) for days in (self._known, self._new)]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state."""
        self._known, self._new = ({str(name): int(day) for name, day in days} for days in state)
