"""Calibration: how rare a model's raw score is, on one scale for all models.

Models speak different languages: HalfSpaceTrees gives 0 to 1, LODA a mean negative log-likelihood. What they have in
common is how often a score that high was seen among ordinary windows. River's streaming histogram keeps that
distribution; beyond its top tenth, where there are few samples, an exponential tail with the mean excess goes on
(peaks over threshold), so that what was never seen still has an order. The common scale is logarithmic:
`SCALE_DECADES` powers of ten make 1, so 0.5 is once in a hundred windows and 0.9 once in four thousand.
"""

from __future__ import annotations

import math
from typing import Any

from detectors.behaviour.learners import Bin, Histogram

BINS = 64
SCALE_DECADES = 4.0
TAIL = 0.1
"""The share of scores that the exponential tail is fitted to."""
EXCESS_MIN = 1e-6
"""The least mean excess: a model whose scores were all equal is surprised by any other, but not infinitely."""


class Calibration:
    """The distribution of one model's scores of ordinary windows."""

    def __init__(self) -> None:
        self._seen = Histogram(max_bins=BINS)
        self._tail: tuple[float, float] | None = None

    @property
    def n(self) -> int:
        """Return how many scores were learned."""
        return int(self._seen.n)

    def learn(self, score: float) -> None:
        """Take the score of an ordinary window in."""
        self._seen.update(score)
        self._tail = None

    def rarity(self, score: float) -> float:
        """Return the share of ordinary windows, above 0 and at most 1, whose score is at least this high."""
        if not self._seen.n:
            return 1.0
        if self._tail is None:
            self._tail = self._fit()
        start, excess = self._tail
        if score > start:
            return max(1e-300, TAIL * math.exp(-min(600.0, (score - start) / excess)))
        below: float = self._seen.cdf(score)
        return min(1.0, max(TAIL, 1.0 - below))

    def _fit(self) -> tuple[float, float]:
        """Find the score that a tenth exceeds, and by how much they do on average."""
        wanted = TAIL * self._seen.n
        counted = total = 0.0
        start = self._seen.data[-1].right
        for part in reversed(self._seen.data):
            start = part.left
            counted += part.count
            total += part.count * (part.left + part.right) / 2
            if counted >= wanted:
                break
        return start, max(EXCESS_MIN, total / counted - start)

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return histogram_state(self._seen)

    @classmethod
    def of(cls, state: list[Any]) -> Calibration:
        """Make it from `state()`."""
        calibration = cls()
        fill_histogram(calibration._seen, state)
        return calibration


def scaled(rarity: float) -> float:
    """Put a share of windows on the common scale: 0 for all of them, 1 for one in ten to the `SCALE_DECADES`."""
    return min(1.0, max(0.0, -math.log10(max(rarity, 1e-300)) / SCALE_DECADES))


def histogram_state(histogram: Histogram) -> list[Any]:
    """Return a river histogram as JSON values: how many values, and left, right and count of each bin."""
    return [histogram.n, [[part.left, part.right, part.count] for part in histogram.data]]


def fill_histogram(histogram: Histogram, state: list[Any]) -> None:
    """Put a state into a fresh river histogram. Raise `ValueError` when it has more bins than that keeps."""
    n, parts = state
    if len(parts) > histogram.max_bins:
        raise ValueError(f"a histogram of {len(parts)} bins, at most {histogram.max_bins} are kept")
    histogram.n = n
    histogram.data[:] = [Bin(left, right, count) for left, right, count in parts]
