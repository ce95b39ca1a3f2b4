"""Ranks: how many ordinary windows of a group had a value at least as high, for each feature by itself.

A value between 0 and 1 becomes one of `STEPS` steps; of each step that occurred a weight is kept, a few dozen a
feature. What is old fades by the day, so that ranks follow how a group works now. A group that has seen little borrows
from its kind: p = (k + λP) / (n + λ), P being the rank in the pool of the kind. Bounded; state is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STEPS = 200
FADING_DAYS = 45.0
"""After how many days what was seen counts half."""
LAMBDA = 10.0
"""As many windows of one's own count as much as what the kind knows."""
WEIGHT_MIN = 0.05
"""What counts less than this is forgotten."""


class Counts:
    """How often each step of one value was seen."""

    __slots__ = ("n", "seen")

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}
        self.n = 0.0

    def learn(self, step: int) -> None:
        """Count a value."""
        self.seen[step] = self.seen.get(step, 0.0) + 1.0
        self.n += 1.0

    def at_least(self, step: int) -> float:
        """Return how many values were this high or higher."""
        return sum([weight for seen, weight in self.seen.items() if seen >= step])

    def reached_by(self, share: float) -> int:
        """Return the highest step that at least this share of the values reached; 0 when nothing was seen."""
        wanted, counted = share * self.n, 0.0
        for step in sorted(self.seen, reverse=True):
            counted += self.seen[step]
            if counted >= wanted:
                return step
        return 0

    def fade(self, share: float) -> None:
        """Let everything that was seen count for less."""
        self.seen = {step: weight * share for step, weight in self.seen.items() if weight * share >= WEIGHT_MIN}
        self.n = sum(self.seen.values())

    def state(self) -> list[Any]:
        """Return everything as JSON values: the sum, then steps and weights in turn, in the order of adding up."""
        return [self.n, *(value for pair in self.seen.items() for value in pair)]

    @classmethod
    def of(cls, state: Sequence[float], steps: int = STEPS) -> Counts:
        """Make it from `state()`. Raise `ValueError` when it has more than there are steps."""
        n, *pairs = state
        if len(pairs) > 2 * (steps + 1):
            raise ValueError(f"{len(pairs) // 2} steps, at most {steps + 1} are kept")
        counts = cls()
        counts.seen = {int(step): float(weight) for step, weight in zip(pairs[::2], pairs[1::2], strict=True)}
        counts.n = float(n)
        return counts


class Ranks:
    """The ordinary values of each feature of one population."""

    def __init__(self, features: Sequence[str]) -> None:
        self._of = {feature: Counts() for feature in features}
        self._day = -1

    @property
    def n(self) -> float:
        """Return how many windows were learned; old ones count for less."""
        return max(counts.n for counts in self._of.values())

    def learn(self, x: Mapping[str, float], day: int) -> None:
        """Take an ordinary window of this day in."""
        if day > self._day >= 0:
            share = 0.5 ** (min(day - self._day, 3_650) / FADING_DAYS)
            for counts in self._of.values():
                counts.fade(share)
        self._day = max(day, self._day)
        for feature, counts in self._of.items():
            counts.learn(step_of(x[feature]))

    def share(self, feature: str, value: float, kind: Ranks | None = None) -> float:
        """Return the share of ordinary windows, above 0, that had at least this value of a feature."""
        step = step_of(value)
        if not step:
            return 1.0
        counts = self._of[feature]
        if kind is None:
            return (counts.at_least(step) + 1.0) / (counts.n + 1.0)
        return (counts.at_least(step) + LAMBDA * kind.share(feature, value)) / (counts.n + LAMBDA)

    def reached_by(self, feature: str, share: float) -> float:
        """Return the value of a feature that this share of the windows reached."""
        return self._of[feature].reached_by(share) / STEPS

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return [self._day, [counts.state() for counts in self._of.values()]]

    def restore(self, state: list[Any]) -> None:
        """Take a state into fresh ranks of the same features. Raise `ValueError` when it is of others."""
        self._day, parts = state
        for feature, part in zip(self._of, parts, strict=True):
            self._of[feature] = Counts.of(part)


def step_of(value: float) -> int:
    """Return the step of a value between 0 and 1; what is above 0 is above step 0, too."""
    return min(STEPS, max(1, round(value * STEPS))) if value > 0.0 else 0
