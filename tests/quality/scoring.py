"""How good a judge is: recall, precision, false alerts, time to detection, over the days after the warm-up.

An alert counts for an attack when it is about its victim and one of the attack's events lies within what the alert
speaks of, from its first to its last occurrence; so an alert that comes by chance in the same days counts for nothing.
Every other alert is a false one; repeats of the same alert are one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.quality.attacks import FIRST_DAY, Planted
from tests.quality.world import DAY_US, DAYS, at

LOUD = ("high", "critical")


@dataclass(frozen=True)
class Alarm:
    """What a detector said, whichever it is: of whom, about which time, when it was told, how severe, and why."""

    uid: str
    principal: str
    first_us: int
    last_us: int
    reported_us: int
    severity: str
    detector: str


@dataclass
class Score:
    """The figures of one detector over one or more seeds."""

    attacks: int = 0
    found: int = 0
    held_out: int = 0
    held_out_found: int = 0
    alarms_true: int = 0
    alarms_false: int = 0
    loud_false: int = 0
    principal_days: float = 0.0
    seconds: list[float] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)
    caught: Counter[str] = field(default_factory=Counter)
    false_by: Counter[str] = field(default_factory=Counter)

    @property
    def recall(self) -> float:
        """Return the share of attacks that raised an alert."""
        return self.found / self.attacks if self.attacks else 0.0

    @property
    def held_out_recall(self) -> float | None:
        """Return the same share of the attacks that nothing was tuned on; None when there were none."""
        return self.held_out_found / self.held_out if self.held_out else None

    @property
    def precision(self) -> float:
        """Return the share of alerts that were about an attack."""
        total = self.alarms_true + self.alarms_false
        return self.alarms_true / total if total else 1.0

    @property
    def false_a_day(self) -> float:
        """Return the false alerts of any severity per principal and day."""
        return self.alarms_false / self.principal_days if self.principal_days else 0.0

    @property
    def loud_a_day_1000(self) -> float:
        """Return the false alerts of severity high or critical per day and 1,000 principals."""
        return 1_000 * self.loud_false / self.principal_days if self.principal_days else 0.0

    @property
    def median_seconds(self) -> float | None:
        """Return the median time from an attack's first event to its first alert, of those that were found."""
        return sorted(self.seconds)[len(self.seconds) // 2] if self.seconds else None

    def add(self, planted: list[Planted], alarms: Iterable[Alarm], principals: int) -> None:
        """Count one seed's alarms."""
        self.principal_days += principals * (DAYS - FIRST_DAY)
        by_victim = {one.victim: one for one in planted}
        first_reported: dict[str, int] = {}
        true, false = set(), {}
        for alarm in alarms:
            one = by_victim.get(alarm.principal)
            if one is not None and _about(one, alarm):
                true.add(alarm.uid)
                first_reported[one.attack.id] = min(
                    alarm.reported_us, first_reported.get(one.attack.id, alarm.reported_us)
                )
            elif alarm.first_us >= at(FIRST_DAY, 0):
                false.setdefault(alarm.uid, alarm)
        for one in planted:
            seen = one.attack.id in first_reported
            if one.attack.held_out:
                self.held_out += 1
                self.held_out_found += seen
            else:
                self.attacks += 1
                self.found += seen
            if seen:
                self.caught[one.attack.id] += 1
                self.seconds.append(max(0, first_reported[one.attack.id] - min(one.times_us)) / 1e6)
            else:
                self.missed[one.attack.id] += 1
        self.alarms_true += len(true)
        for uid, alarm in false.items():
            if uid in true:
                continue
            self.alarms_false += 1
            self.loud_false += alarm.severity in LOUD
            self.false_by[f"{alarm.detector} {alarm.severity}"] += 1


def _about(one: Planted, alarm: Alarm) -> bool:
    times = sorted(one.times_us)
    place = bisect_left(times, alarm.first_us)
    return place < len(times) and times[place] <= alarm.last_us


def window_of(at_us: int, length_us: int) -> tuple[int, int]:
    """Return the first and last microsecond of the window of this length that a time lies in."""
    start = at_us // length_us * length_us
    return start, start + length_us - 1


__all__ = ["DAY_US", "Alarm", "Score", "window_of"]
