"""What was read from the server and waits until its log was read past that moment, a bounded time.

Snapshots of posture and readings of the statistics know what, the log knows who; it is read at intervals, so they come
first. How far the log of each instance was read is known by the server's clock, from its lines, and by the collector's,
which says from time to time that it has read all there was: so an idle log holds nothing up.

Pure, of bounded memory: what finds no room goes on at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec.structs import replace

from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.statements import HeldReading

HELD_MAX = 2_000
CHARS_MAX = 4 * 1024 * 1024
"""Characters of statements that wait."""
INSTANCES_MAX = 100
ANNOUNCED_US = 1_500_000
"""How long the collector may keep a statement that was announced, until its duration comes."""
WRITTEN_US = 1_000_000
"""How long after a session has sent a line the server's log may not have it."""
PATIENCE_US = 3_000_000
"""How much longer than the grace period readings wait: the log is read at intervals."""


class LogWait:
    """Readings that wait, of one cluster, in their order."""

    def __init__(self) -> None:
        self._held: deque[HeldReading] = deque()
        self._chars = 0
        self._lines: dict[str | None, int] = {}
        self._looks: dict[str | None, int] = {}

    def line(self, instance: str | None, at_us: int) -> None:
        """A line of an instance's log was read; the server wrote it at a moment by its clock."""
        _raise(self._lines, instance, at_us - ANNOUNCED_US)

    def looked(self, instance: str | None, at_us: int) -> None:
        """Everything that an instance's log had at a moment by the collector's clock was read."""
        _raise(self._looks, instance, at_us - WRITTEN_US)

    def hold(self, held: HeldReading) -> bool:
        """Let a reading wait; False when there is no room."""
        if len(self._held) >= HELD_MAX or self._chars + held.chars > CHARS_MAX:
            return False
        self._held.append(held)
        self._chars += held.chars
        return True

    def due(self, now_us: int) -> Iterator[HeldReading]:
        """Return what need not wait any longer, in its order: the log was read past it, or its time is over."""
        while self._held:
            first = self._held[0]
            if not self.is_read(first) and now_us < first.due_us:
                return
            self._chars -= first.chars
            yield self._held.popleft()

    def shorten(self, now_us: int) -> None:
        """Let nothing wait longer than one that comes now."""
        due_us = now_us + PATIENCE_US
        self._held = deque(held if held.due_us <= due_us else replace(held, due_us=due_us) for held in self._held)

    @property
    def waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self._held)

    def is_read(self, held: HeldReading) -> bool:
        """Return whether the log was read past a reading."""
        end_us, captured_us = held.raw.window_end_us or 0, held.raw.captured_at_us
        return self._lines.get(held.instance, 0) > end_us or self._looks.get(held.instance, 0) > captured_us

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.readings = list(self._held)
        state.log_lines = list(self._lines.items())
        state.log_looks = list(self._looks.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._held = deque(state.readings)
        self._chars = sum(held.chars for held in self._held)
        self._lines, self._looks = dict(state.log_lines), dict(state.log_looks)


def _raise(reached: dict[str | None, int], instance: str | None, at_us: int) -> None:
    before = reached.pop(instance, 0)
    evict_oldest(reached, INSTANCES_MAX)
    reached[instance] = max(before, at_us)
