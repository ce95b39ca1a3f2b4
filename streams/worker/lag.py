"""Whether a partition is behind: what is read of it now has been in the broker for a second or more.

No clock but the worker's own is asked, so a producer whose clock is off changes nothing. A mark is set at the end of
the partition; when reading has not come to it after `LAG_S`, what is read lies that long. Pure: the time is given.
"""

from __future__ import annotations

LAG_S = 1.0


class Lag:
    """What is known of one partition; `late` is the answer."""

    def __init__(self) -> None:
        self.late = False
        self._mark: int | None = None
        self._since = 0.0

    def look(self, position: int, end: int, now: float) -> None:
        """Look at where reading is (the next offset) and where the partition ends, as far as that is known."""
        if position >= end:
            self.late, self._mark = False, None
            return
        if self._mark is not None:
            if now - self._since >= LAG_S:
                self.late = True
            elif position >= self._mark:
                self.late = False
        if self._mark is None or position >= self._mark:
            self._mark, self._since = end, now
