"""The budget of behaviour: which of what the models find is reported by itself, and which waits for the digest.

`[triage] budget` is how many alerts a principal and day are wanted. It is refilled evenly, by the time in the records,
and a day's worth can be spared or owed: while much is spared, what is a little less strange is reported too; while it
is owed, only what is stranger. Nothing shuts the door: even after a bad day what is eight times as strange is reported.
When many of one group are strange on the same day, as after a release, the group is reported, once, with their names
(`detectors.alerts.crowds`), and the others compete for what is left. State is JSON.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

DAY_US = 86_400_000_000
OWED_DAYS_MAX = 3.0
SPARED_DAYS_MAX = 1.0


class Standing(Struct, frozen=True):
    """What a finding of a window is held against.

    `share` of principal-days are as strange; `peers` of its group and `principals` in all are active a day;
    `warming_up`: its group is so new that nothing of it is reported by itself; `alone` is the share whatever others did
    on that day.
    """

    share: float
    peers: int
    principals: float
    warming_up: bool
    alone: float | None = None


class Budget:
    """What is spared or owed, in days' worth of the budget."""

    def __init__(self, a_principal_and_day: float) -> None:
        self.rate = a_principal_and_day
        self._spared = SPARED_DAYS_MAX
        self._at_us = 0

    def allows(self, standing: Standing, at_us: int) -> bool:
        """Return whether a finding is strange enough to be reported by itself now."""
        if self._at_us and at_us > self._at_us:
            self._spared = min(SPARED_DAYS_MAX, self._spared + (at_us - self._at_us) / DAY_US)
        self._at_us = max(self._at_us, at_us)
        return not standing.warming_up and standing.share <= self.rate * 2.0**self._spared

    def spend(self, standing: Standing) -> None:
        """Pay for an alert."""
        a_day = max(1e-9, self.rate * standing.principals)
        self._spared = max(-OWED_DAYS_MAX, self._spared - 1.0 / a_day)

    def snapshot(self) -> list[Any]:
        """Return the state as JSON values."""
        return [self._spared, self._at_us]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state."""
        self._spared, self._at_us = state
