"""When a cluster's server began: what a session did before, no transaction after that can be.

A crash gives transaction ids again that were never written down: whoever was seen with one before it is not who commits
under it afterwards. The WAL collector reports each start before it sends anything that was committed after it. Times
are the server's own. Bounded.
"""

from __future__ import annotations

from pgwitness.core.events import Control, Gap

OPERATION = "server_started"
KEPT = 64
AHEAD_US_MAX = 86_400_000_000
"""How far ahead of the collector's clock the server's may be, so that no record makes all sessions old for ever."""


class Starts:
    """The last starts of a cluster's servers."""

    def __init__(self, at_us: list[int] | None = None) -> None:
        self.at_us = at_us or []

    def see(self, event: Gap | Control) -> None:
        """Take up a start, if an event reports one."""
        started_us = event.detail.get("started_us")
        if (
            not isinstance(event, Control)
            or event.operation != OPERATION
            or not isinstance(started_us, int)
            or started_us in self.at_us
        ):
            return
        if 0 < started_us <= event.captured_at_us + AHEAD_US_MAX:
            self.at_us = [*self.at_us, started_us][-KEPT:]

    def between(self, session_us: int | None, committed_us: int) -> bool:
        """Return whether the server restarted after a session did, and before a transaction ended."""
        return session_us is not None and any(session_us < at_us <= committed_us for at_us in self.at_us)
