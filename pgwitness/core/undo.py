"""How the fold and the judge take back what half an event has done.

What decides whether evidence counts (watermarks, ids that were told, places in the log, what waits) and whether a
finding is told (its ledger, thresholds and sequences, how long somebody was quiet) writes down how to undo each change
while an event is taken; when the event fails these are undone, last first, and what it emitted is dropped. So the next
event, or the same one sent again as it should be, is taken as if the bad one had never come. What only helps to name
somebody (sessions, joins with the log, habits, windows of behaviour) is bounded and may keep what it has seen: it did
happen. What habits have not seen before stays new for them until it has been there for long, so it is told with the
next such event.
"""

from __future__ import annotations

from collections.abc import Callable


class Undo:
    """What one event changed, until it is done."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def begin(self) -> None:
        """Begin an event: what was done stays."""
        if self._steps:
            self._steps.clear()

    def add(self, step: Callable[[], object]) -> None:
        """Take down how to undo a change, before or after it is made."""
        self._steps.append(step)

    def back(self) -> None:
        """Undo what was done since `begin`."""
        while self._steps:
            self._steps.pop()()
