"""What is known of one principal (or peer group): which values it used, and how many rows it moves.

A few KiB each, bounded, plain JSON. `Known` learns values and keeps what is new apart until it has been new for a
while, so that an intruder does not become ordinary by coming twice. `Volume` is river's exponentially weighted mean
of log1p(rows) and of its square; log1p with a fixed limit, because one extreme value would ruin any scale for ever.
"""

from __future__ import annotations

import math
from typing import Any

from river.stats import EWMean

VALUES_MAX = 64
"""Distinct values kept of one kind; beyond, the rarest make room."""
PENDING_MAX = 16
"""New values that wait to be adopted."""
OPERATIONS_MAX = 12
VALUE_CHARS_MAX = 160
ROWS_MAX = 1e9
FADING = 0.05
DEVIATION_MIN = 0.5
"""The least standard deviation, in log units: rows within a factor of 1.6 are the same volume."""


class Known:
    """The values of one kind that were seen, each with its count."""

    __slots__ = ("counts", "distinct", "pending", "total")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.pending: dict[str, int] = {}
        self.total = 0
        self.distinct = 0

    def learn(self, value: str) -> None:
        """Count a value; when there are too many, the rarest quarter goes, by name among equals."""
        self.total += 1
        if value in self.counts:
            self.counts[value] += 1
            return
        if len(self.counts) >= VALUES_MAX:
            for rare in sorted(self.counts, key=lambda known: (self.counts[known], known))[: VALUES_MAX // 4]:
                del self.counts[rare]
        self.counts[value] = 1
        self.distinct += 1

    def hold(self, value: str, now_us: int, adopt_after_us: int) -> bool:
        """Keep a new value apart; true when it has been there for so long that it was adopted."""
        since = self.pending.get(value)
        if since is None:
            if len(self.pending) >= PENDING_MAX:
                del self.pending[next(iter(self.pending))]
            self.pending[value] = now_us
            return False
        if now_us - since < adopt_after_us:
            return False
        del self.pending[value]
        self.learn(value)
        return True

    def surprise(self) -> float:
        """Say how unexpected any new value is, 0 to 1: one minus Witten and Bell's chance of a novelty, T / (n + T).

        Who always came from one address surprises with a second; who comes from many does not (I. H. Witten and
        T. C. Bell, The zero-frequency problem, 1991).
        """
        return self.total / (self.total + self.distinct) if self.total else 0.0

    def rarity(self, value: str) -> float:
        """Say how rare a known value is: 0 from one in a hundred on, 1 at one in ten thousand."""
        share = self.counts.get(value, 0) / self.total if self.total else 1.0
        return min(1.0, max(0.0, (-math.log10(share) - 2.0) / 2.0)) if share > 0 else 1.0

    def state(self) -> list[Any]:
        """Give everything as JSON values."""
        return [self.total, self.distinct, self.counts, self.pending]

    @classmethod
    def of(cls, state: list[Any]) -> Known:
        """Make it from `state()`."""
        known = cls()
        known.total, known.distinct, known.counts, known.pending = state
        return known


class Volume:
    """How many rows an operation usually moves."""

    __slots__ = ("mean", "n", "square")

    def __init__(self) -> None:
        self.n = 0
        self.mean = EWMean(FADING)
        self.square = EWMean(FADING)

    def deviation(self, size: float) -> float:
        """Say how many standard deviations a size (log1p of rows) lies above the mean."""
        mean = self.mean.get()
        return float((size - mean) / max(DEVIATION_MIN, math.sqrt(max(0.0, self.square.get() - mean * mean))))

    def learn(self, size: float) -> None:
        """Take a size in."""
        self.n += 1
        self.mean.update(size)
        self.square.update(size * size)

    def state(self) -> list[Any]:
        """Give everything as JSON values."""
        return [self.n, self.mean.get(), self.square.get()]

    @classmethod
    def of(cls, state: list[Any]) -> Volume:
        """Make it from `state()`: an exponentially weighted mean that saw one value is that value, exactly."""
        volume = cls()
        volume.n = state[0]
        if volume.n:
            volume.mean.update(state[1])
            volume.square.update(state[2])
        return volume


class Habits:
    """Everything known of one principal."""

    __slots__ = ("addresses", "applications", "first_us", "n", "touches", "volumes")

    def __init__(self, first_us: int) -> None:
        self.n = 0
        self.first_us = first_us
        self.addresses = Known()
        self.applications = Known()
        self.touches = Known()
        self.volumes: dict[str, Volume] = {}

    def volume(self, operation: str) -> Volume | None:
        """Give the volume of one operation; None when there are too many already."""
        volume = self.volumes.get(operation)
        if volume is None and len(self.volumes) < OPERATIONS_MAX:
            volume = self.volumes[operation] = Volume()
        return volume

    def state(self) -> list[Any]:
        """Give everything as JSON values."""
        known = [self.addresses.state(), self.applications.state(), self.touches.state()]
        return [self.n, self.first_us, *known, {key: v.state() for key, v in self.volumes.items()}]

    @classmethod
    def of(cls, state: list[Any]) -> Habits:
        """Make it from `state()`."""
        habits = cls(state[1])
        habits.n = state[0]
        habits.addresses, habits.applications, habits.touches = (Known.of(part) for part in state[2:5])
        habits.volumes = {key: Volume.of(part) for key, part in state[5].items()}
        return habits


def size_of(rows: int) -> float:
    """Give the size of so many rows: log1p, between 0 and a fixed limit."""
    return math.log1p(min(max(rows, 0), ROWS_MAX))


def short(text: str) -> str:
    """Bound a value; what is longer keeps its beginning and its length, which tells nearly all apart."""
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}…{len(text)}"
