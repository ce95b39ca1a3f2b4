"""The one scale of behaviour: how many principal-days in a hundred get as strange as this.

Each day the highest score of each principal is counted. The share of those days that reached a score is what an alert
says and what the budget is held against: it is measured, whatever the score's own idea of its rarity. Beyond the top
tenth an exponential tail goes on, and while few days are known the score's own idea (ten to the minus score) counts
as `PRIOR` days. Old days fade. Bounded; state is JSON.
"""

from __future__ import annotations

import math
from typing import Any

from detectors.behaviour.ranks import FADING_DAYS, Counts

STEPS_A_DECADE = 20
DECADES_MAX = 12.0
TAIL = 0.1
"""The share of days that the exponential tail is fitted to."""
EXCESS_MIN = 0.05
PRIOR = 20.0


class Scale:
    """The highest scores of principals' days."""

    def __init__(self) -> None:
        self._days = Counts()
        self._day = -1
        self._today = 0
        self._a_day = 1.0
        self._tail: tuple[float, float] | None = None

    @property
    def n(self) -> float:
        """Return how many principal-days are known; old ones count for less."""
        return self._days.n

    @property
    def a_day(self) -> float:
        """Return about how many principals are active a day."""
        return self._a_day

    def learn(self, score: float, day: int) -> None:
        """Take the highest score of a principal's day in."""
        if day > self._day:
            self._a_day = max(1.0, self._a_day + 0.3 * (self._today - self._a_day))
            self._today = 0
        self._today += 1
        if day > self._day >= 0:
            self._days.fade(0.5 ** (min(day - self._day, 3_650) / FADING_DAYS))
        self._day = max(day, self._day)
        self._days.learn(_step(score))
        self._tail = None

    def rate(self, score: float) -> float:
        """Return the share of principal-days, above 0 and at most 1, that reach this score."""
        nominal: float = min(1.0, 10.0**-score)
        if not self._days.n:
            return nominal
        if self._tail is None:
            self._tail = self._fit()
        start, excess = self._tail
        if score > start:
            measured = TAIL * math.exp(-min(60.0, (score - start) / excess))
        else:
            measured = max(TAIL, self._days.at_least(_step(score)) / self._days.n)
        return (self._days.n * measured + PRIOR * nominal) / (self._days.n + PRIOR)

    def _fit(self) -> tuple[float, float]:
        """Find the score that a tenth exceeds, and by how much they do on average."""
        start = self._days.reached_by(TAIL)
        above = [(step, weight) for step, weight in self._days.seen.items() if step > start]
        total = sum(weight for _, weight in above)
        mean = sum((step - start) * weight for step, weight in above) / total if total else 0.0
        return start / STEPS_A_DECADE, max(EXCESS_MIN, mean / STEPS_A_DECADE)

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return [self._day, self._today, self._a_day, self._days.state()]

    def restore(self, state: list[Any]) -> None:
        """Take a state."""
        self._day, self._today, self._a_day, days = state
        self._days = Counts.of(days, int(DECADES_MAX * STEPS_A_DECADE))
        self._tail = None


def _step(score: float) -> int:
    return round(min(DECADES_MAX, max(0.0, score)) * STEPS_A_DECADE)
