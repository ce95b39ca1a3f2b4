"""When each partition's state is to be written: one after the other, and never for more than a share of the time.

A checkpoint stops the stream for as long as it takes to write the state down, and a judge that knows many principals
has much to write. So partitions take turns, each has its own pause, and the interval grows until checkpoints take at
most `SHARE` of the worker's time: what is replayed after a crash grows with it, and nothing else. Pure: the time is
given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

SHARE = 0.1


class Pace:
    """The times of the checkpoints of the partitions that are owned; `interval_s` is the least between two of one."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._due: dict[tuple[str, int], float] = {}
        self._took: dict[tuple[str, int], float] = {}

    def begin(self, partitions: Iterable[tuple[str, int]], now: float) -> None:
        """Begin with other partitions; nothing is due before an interval has passed."""
        self._due = dict.fromkeys(partitions, now + self._interval_s)
        self._took = {}

    def due(
        self, now: float, ready: Callable[[tuple[str, int]], bool] = lambda partition: True
    ) -> tuple[str, int] | None:
        """Return the partition whose turn it is of those that are ready, None when it is nobody's."""
        waiting = [partition for partition, due in self._due.items() if due <= now and ready(partition)]
        return min(waiting, key=self._due.__getitem__, default=None)

    def took(self, partition: tuple[str, int], began: float, ended: float) -> None:
        """Take note of how long a checkpoint took, and decide when the next one of that partition comes."""
        self._took[partition] = ended - began
        self._due[partition] = began + self.interval_s

    @property
    def interval_s(self) -> float:
        """How long after a checkpoint began the next one of the same partition comes, by what the last ones took."""
        return max(self._interval_s, sum(self._took.values()) / SHARE)
