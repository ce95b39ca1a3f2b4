"""How often a session that writes lines in the server's form is told: at once, and then once in `AGAIN_US`."""

from __future__ import annotations

AGAIN_US = 60_000_000
SESSIONS_MAX = 1_000


class Imitations:
    """Counts lines by session; of too many sessions the oldest are forgotten, which only tells of them again."""

    def __init__(self) -> None:
        self.lines = 0
        """All such lines."""
        self._sessions: dict[str, tuple[int, int]] = {}

    def count(self, key: str, at_us: int) -> int:
        """Take a line at a time of the log; return how many are to be told now, 0 for none."""
        self.lines += 1
        since_us, lines = self._sessions.pop(key, (at_us - AGAIN_US, 0))
        lines += 1
        told = lines if at_us - since_us >= AGAIN_US else 0
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[key] = (at_us, 0) if told else (since_us, lines)
        return told

    def ends(self, key: str) -> None:
        """A session has ended."""
        self._sessions.pop(key, None)
