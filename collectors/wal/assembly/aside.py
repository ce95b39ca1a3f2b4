"""What of a stream cannot be read: told with its place and why, with nothing of what stood there; pure.

A message stands in a frame of its own, so that nothing after it depends on its bytes: it is set aside and the stream
goes on. `message_unreadable` is one that is missing, `row_unreadable` a row of which only its operation is known, or
that is missing because its table was not described.
"""

from __future__ import annotations

from collections.abc import Callable

from pgwitness.core.events import format_lsn

ASIDES_MAX = 20
"""Messages of one transaction that are told one by one; the others are counted."""
_LSN = slice(-24, -16)
"""Where, before a message, its frame (XLogData) has the LSN."""


class Asides:
    """Counts what one stream sets aside, and gives it to `tell(reason, detail)`, bounded for each transaction."""

    def __init__(self, tell: Callable[[str, dict[str, object]], None]) -> None:
        self._tell = tell
        self._here = 0
        self.total = 0

    def note(self, reason: str, data: bytes, at: int, place: dict[str, object], **detail: object) -> None:
        """Tell of the message at `at`; `place` says in which transaction it stood, if in one."""
        self.total += 1
        self._here += 1
        if self._here <= ASIDES_MAX:
            lsn = int.from_bytes(data[at + _LSN.start : at + _LSN.stop], "big") if at >= -_LSN.start else 0
            kind = data[at : at + 1].decode("latin-1")
            self._tell(reason, {"lsn": format_lsn(lsn), "message": kind, "bytes": len(data) - at, **place, **detail})

    def end(self, place: Callable[[], dict[str, object]]) -> None:
        """End a transaction: tell how many more there were than were told."""
        if self._here > ASIDES_MAX:
            more = {"why": "more of the same transaction", "count": self._here - ASIDES_MAX}
            self._tell("message_unreadable", {**more, **place()})
        self._here = 0
