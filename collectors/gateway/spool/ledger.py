"""Lines that wait to be on the spool, from the long and the short lane, in the order in which they happened."""

from __future__ import annotations

from collections.abc import Callable

from collectors.gateway.wire.native import Lane, Ledger, native


class Lines:
    """A ledger in Python."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._begun = 0

    def add(self, lines: bytes, begun: int) -> None:
        """Take whole lines; so many of them begin a statement."""
        self._lines.append(lines)
        self._begun += begun

    def take(self) -> tuple[bytes, int]:
        """Give all that was taken, and how many of it begin a statement; nothing is left."""
        lines, self._lines = b"".join(self._lines), []
        begun, self._begun = self._begun, 0
        return lines, begun

    def wire(self, on_hold: Callable[[], object], on_late: Callable[[], object]) -> None:
        """Tell nobody anything: there are no lanes."""

    def release(self) -> list[Lane]:
        """Give none."""
        return []


def ledger() -> Ledger:
    """Return an empty ledger, compiled where that can be."""
    compiled = native()
    return compiled.ledger() if compiled is not None else Lines()
