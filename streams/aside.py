"""What was set aside is missing evidence, and reported as a gap: the first few each by itself, a flood by its counts.

`Aside` is the bound: within `WINDOW_US` the first `EACH_MAX` are reported one by one, then only when their number has
doubled and when the window is over. So whoever writes a million broken records makes some thirty gaps, and each of the
million counts in one of them. Pure: the time is given, and the state goes into checkpoints.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

WINDOW_US = 60_000_000
EACH_MAX = 10
REASON = "record_set_aside"
"""The reason of the gap."""
WHY_CHARS_MAX = 300


class Problem(Struct, frozen=True):
    """Why a record was set aside, or an event of it (`index`). `cause` is the dead letter's word, `why` a sentence.

    `cluster` and `database` are what the record says of itself, None where nobody can read it.
    """

    cause: str
    why: str
    index: int | None = None
    cluster: str | None = None
    database: str | None = None


class Summary(Struct, frozen=True):
    """What is to be reported: how many `records` since the last time, and where they stand."""

    records: int
    first_offset: int
    last_offset: int

    def of(self, base: int) -> Summary:
        """Return it in offsets of the topic whose positions begin with `base`."""
        return Summary(self.records, max(0, self.first_offset - base), max(0, self.last_offset - base))


class Aside(Struct):
    """What was set aside of one partition, and how much of it was reported. `last` is what a flood is described by."""

    since_us: int = 0
    total: int = 0
    unreported: int = msgspec.field(default=0, name="untold")
    first_offset: int = 0
    last_offset: int = 0
    last: Problem | None = None

    def add(self, problem: Problem, offset: int, now_us: int) -> list[tuple[Problem, Summary]]:
        """Count one more; return what is to be reported now."""
        due = self.due(now_us)
        if self.total == 0:
            self.since_us = now_us
        if self.unreported == 0:
            self.first_offset = offset
        self.total += 1
        self.unreported += 1
        self.last_offset = offset
        self.last = problem
        if self.total <= EACH_MAX or self.unreported >= self.total // 2:
            due.append(self._report(problem))
        return due

    def due(self, now_us: int) -> list[tuple[Problem, Summary]]:
        """Return what is left to be reported of a window that is over; a clock that went back ends it, too."""
        if self.total == 0 or 0 <= now_us - self.since_us < WINDOW_US:
            return []
        left = self.rest()
        self.total = 0
        return left

    def rest(self) -> list[tuple[Problem, Summary]]:
        """Return what is left to be reported now, because nobody will remember it."""
        return [self._report(self.last)] if self.unreported and self.last is not None else []

    def _report(self, problem: Problem) -> tuple[Problem, Summary]:
        summary = Summary(self.unreported, self.first_offset, self.last_offset)
        self.unreported = 0
        return problem, summary


def detail(problem: Problem, summary: Summary, stage: str, topic: str, partition: int) -> dict[str, object]:
    """Return the detail of the gap; of several the last one's cause stands for all."""
    found: dict[str, object] = {
        "reason": REASON,
        "cause": problem.cause,
        "error": problem.why[:WHY_CHARS_MAX],
        "stage": stage,
        "topic": topic,
        "partition": partition,
        "offset": summary.last_offset,
        "records": summary.records,
    }
    if summary.records > 1:
        found["first_offset"] = summary.first_offset
    if problem.index is not None:
        found["event"] = problem.index
    return found


def unexpected(error: Exception) -> str:
    """Describe an error that nobody expected without its text, which may hold values: what it is, and where."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" in {place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}" if place is not None else ""
    return f"{type(error).__name__}{where}"
