"""Where a stream comes from, and which of a server's transactions its 32-bit ids mean."""

from __future__ import annotations

import msgspec


def wide(xid: int, near: int) -> int:
    """Return the 64 bits of an id that lies within 2^31 of another one."""
    return near + (xid - near + 0x80000000) % 0x100000000 - 0x80000000


class Place(msgspec.Struct, frozen=True):
    """Where the stream comes from. `history` lists `(timeline, end LSN)` of past timelines, oldest first."""

    system_id: str
    timeline: int
    database: str
    history: tuple[tuple[int, int], ...] = ()

    def timeline_of(self, lsn: int) -> int:
        """Return the timeline on which a record at `lsn` was written."""
        return next((timeline for timeline, end in self.history if lsn < end), self.timeline)


class Xids:
    """Widens 32-bit transaction ids to 64 bits: the one nearest to the newest known is meant."""

    def __init__(self, known: int) -> None:
        self._known = known

    def widen(self, xid: int) -> int:
        """Return the 64-bit id; ids seen may lie up to 2^31 behind or ahead of the newest known."""
        wide = (self._known & ~0xFFFFFFFF) | xid
        if wide > self._known + 0x80000000 and wide >= 1 << 32:
            wide -= 1 << 32
        elif wide < self._known - 0x80000000:
            wide += 1 << 32
        self._known = max(self._known, wide)
        return wide
