"""How often something may be told in a second; what goes beyond is counted. Pure: the clock is an argument.

A flood of messages that anybody may write must be neither a way to fill a topic nor one to be overlooked: the first few
of each second are told one by one, the others in one sentence with their number.
"""

from __future__ import annotations

from collections import Counter

REST_EVERY_S = 10.0
"""How often the rest is told while a flood lasts."""


class Limit:
    """Allows `a_second` things a second; of the others it keeps how many there were, by a word, and from where on."""

    def __init__(self, a_second: int) -> None:
        self._a_second = a_second
        self._began = float("-inf")
        self._allowed = 0
        self._told = float("-inf")
        self._first_lsn = self._last_lsn = 0
        self._rest: Counter[str] = Counter()
        self.total = 0

    def allows(self, now: float, word: str, lsn: int = 0) -> bool:
        """Return whether one more may be told now, `now` in seconds; else count it under `word`."""
        if now - self._began >= 1.0:
            self._began, self._allowed = now, 0
        self._allowed += 1
        if self._allowed <= self._a_second:
            return True
        if not self._rest:
            self._first_lsn = lsn
        if lsn > self._last_lsn:
            self._last_lsn = lsn
        self._rest[word] += 1
        self.total += 1
        return False

    def rest(self, now: float) -> tuple[dict[str, int], int, int] | None:
        """Return what was counted since it was told last, with its first and last LSN; None while that is not due."""
        if not self._rest or now - self._told < REST_EVERY_S:
            return None
        found = dict(self._rest.most_common())
        self._rest.clear()
        self._told = now
        return found, self._first_lsn, self._last_lsn
