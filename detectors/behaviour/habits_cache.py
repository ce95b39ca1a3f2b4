"""A bounded cache of habits: in number and in what they hold together; who was inactive the longest is evicted first.

A principal that is always from new places fills its own lists to their bounds; many such principals would fill the
memory though their number is bounded. So a cache counts the values that its habits hold.
"""

from __future__ import annotations

from collections import OrderedDict

from detectors.behaviour.habits import Habits

VALUES_EACH = 32
"""Values that a cache has place for, times the number of habits in it; one alone may hold ten times as many."""


class HabitsCache(OrderedDict[str, Habits]):
    """Habits by name, in the order of forgetting."""

    def __init__(self, habits_max: int) -> None:
        super().__init__()
        self._habits_max = max(1, habits_max)
        self._values_max = self._habits_max * VALUES_EACH
        self._weights: dict[str, int] = {}
        self.values_held = 0

    def enter(self, key: str, habits: Habits) -> None:
        """Return habits a place, as the last to leave."""
        self[key] = habits
        self.weigh(key, habits)
        if len(self) > self._habits_max:
            self._forget()

    def leave(self, key: str) -> Habits:
        """Take habits out."""
        self.values_held -= self._weights.pop(key)
        return self.pop(key)

    def learned(self, key: str, habits: Habits) -> None:
        """Let habits be evicted last that have taken in an observation; nearly always it held nothing new."""
        if habits.grown:
            self.weigh(key, habits)
        else:
            self.move_to_end(key)

    def weigh(self, key: str, habits: Habits) -> None:
        """Count again what habits hold that have learned; others may have to leave for it, never they themselves."""
        self.move_to_end(key)
        habits.grown = False
        weight = habits.weight
        self.values_held += weight - self._weights.get(key, 0)
        self._weights[key] = weight
        while self.values_held > self._values_max and len(self) > 1:
            self._forget()

    def _forget(self) -> None:
        self.leave(next(iter(self)))
