"""The routine of one principal: when it works, how much it does in a window, and whether that creeps up.

Rates and volumes are river's exponentially weighted means of log1p and of its square, per length of window
(`detectors.behaviour.habits.Volume`). What an hour of the week counts comes from how often the principal was active
then, in the hours beside it and at the same time of other days. Creep is river's Page-Hinkley test over days: each a
little more than usual is nothing, each of a week is something. Bounded; state is JSON.
"""

from __future__ import annotations

from typing import Any

from detectors.behaviour.habits import Volume, size_of
from detectors.behaviour.learners import PageHinkley
from detectors.behaviour.windows import LENGTHS, Window

MEASURES = ("actions", "rows_read", "rows_written", "rows_deleted", "relations", "errors")
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
HOURS = 168
SUPPORT_ENOUGH = 2.0
"""From this much support on an hour is as familiar as can be; one earlier activity in the same hour is 1."""
HOURS_KNOWN_MIN = 24
"""Active hours before anything is said of when a principal works: three days of somebody's office hours."""
WINDOWS_MIN = {"1h": 20, "1d": 4}
"""Windows before a principal is measured by its own."""
FADING = {"1h": 0.04, "1d": 0.1}
TOP_FADING = 0.15
TOP_DEVIATION_MIN = 0.3
"""The least standard deviation of a day's highest, in log units: a third more or less is nothing."""
USUAL_EXCESS = 2.5
DAYS_MIN = 4
"""Days before a principal's highest are known."""
LIMIT = 8.0
"""Standard deviations are cut off here."""
CREEP_MIN_DAYS, CREEP_ALLOWED, CREEP_LIMIT, CREEP_DAY_MAX = 6, 0.5, 5.0, 4.0
"""Days before creep is reported; standard deviations a day that are let pass; their sum that is too much; a day's
most."""


_KEYS = {length.name: [(measure, f"{length.name}:{measure}") for measure in MEASURES] for length in LENGTHS}


class Routine:
    """Hours, rates and creep of one principal, or of a peer group."""

    __slots__ = ("creeps", "hours", "hours_known", "last_day", "peaks", "rates", "refused_us", "tops", "windows")

    def __init__(self) -> None:
        self.hours = bytearray(HOURS)
        self.hours_known = 0
        self.windows = {length.name: 0 for length in LENGTHS}
        self.rates: dict[str, Volume] = {}
        self.peaks: dict[str, float] = {}
        self.tops: dict[str, Volume] = {}
        self.creeps: dict[str, PageHinkley] = {}
        self.last_day = -1
        self.refused_us = -1

    def unfamiliar(self, at_us: int) -> float:
        """Return how unusual it is that the principal is active at this hour of the week: 0 to 1, 0 while not known."""
        if self.hours_known < HOURS_KNOWN_MIN:
            return 0.0
        hour, day = hour_of_week(at_us) % 24, hour_of_week(at_us) // 24
        support = 0.0
        for other in range(7):
            weight = 1.0 if other == day else 0.5 if (other < 5) == (day < 5) else 0.15
            base = other * 24
            seen = self.hours[base + hour] + 0.5 * (
                self.hours[base + (hour + 1) % 24] + self.hours[base + (hour - 1) % 24]
            )
            support += weight * min(seen, 4.0)
        return max(0.0, 1.0 - support / SUPPORT_ENOUGH)

    def deviation(self, length: str, measure: str, value: float) -> float:
        """Return how many standard deviations a value lies off the principal's own; 0 while it is not known."""
        if self.windows[length] < WINDOWS_MIN[length]:
            return 0.0
        rate = self.rates.get(f"{length}:{measure}")
        size = size_of(int(value))
        off = rate.deviation(size) if rate is not None else size / 0.5
        return max(-LIMIT, min(LIMIT, off))

    def excess(self, length: str, measure: str, value: int) -> float:
        """Return by how many standard deviations a value exceeds the highest of the principal's usual days.

        What a principal does once a day, such as a nightly batch, is its routine; means over all windows would call it
        strange each night. 0 while fewer than `DAYS_MIN` days are known.
        """
        if self.windows["1d"] < DAYS_MIN:
            return 0.0
        top = self.tops.get(f"{length}:{measure}")
        size = size_of(value)
        return top.deviation(size, TOP_DEVIATION_MIN) if top is not None else size / TOP_DEVIATION_MIN

    def covers(self, length: str, measure: str, value: int) -> bool:
        """Return whether a value is within what the principal's usual days reach; no while those are not known."""
        return self.windows["1d"] >= DAYS_MIN and self.excess(length, measure, value) < USUAL_EXCESS

    def settled(self, length: str) -> bool:
        """Return whether it knows enough windows of a length to be measured by."""
        return self.windows[length] >= WINDOWS_MIN[length]

    def refused(self, now_us: int, adopt_us: int) -> bool:
        """Remember that a window was too strange to learn; true when such windows have come for so long as to adopt."""
        if self.refused_us < 0:
            self.refused_us = now_us
        if now_us - self.refused_us < adopt_us:
            return False
        self.refused_us = now_us
        return True

    def idle_days(self, at_us: int) -> int:
        """Return for how many days the principal did nothing before this one."""
        return max(0, at_us // DAY_US - self.last_day - 1) if self.last_day >= 0 else 0

    def learn(self, length: str, window: Window) -> None:
        """Take an ordinary window in."""
        self.windows[length] += 1
        rates, peaks = self.rates, self.peaks
        for measure, key in _KEYS[length]:
            value = measured(window, measure)
            rate = rates.get(key)
            if rate is None:
                if not value:
                    continue
                rate = rates[key] = Volume(FADING[length])
                if self.windows[length] > 1:
                    rate.learn(0.0)
            size = size_of(value)
            if length == "1d":
                rate.follow(size, TOP_DEVIATION_MIN)
            else:
                rate.learn(size)
            if size > peaks.get(key, 0.0):
                peaks[key] = size
        if length == "1h":
            hour = hour_of_week(window.first_us)
            self.hours[hour] = min(255, self.hours[hour] + 1)
            self.hours_known += 1

    def end_of_day(self, at_us: int) -> None:
        """Take the highest of this day's ordinary windows in, and remember the day."""
        self.last_day = max(self.last_day, at_us // DAY_US)
        for key in self.rates:
            top = self.tops.get(key)
            if top is None:
                top = self.tops[key] = Volume(TOP_FADING)
            top.follow(self.peaks.get(key, 0.0), TOP_DEVIATION_MIN)
        self.peaks.clear()

    def creep(self, window: Window) -> float:
        """Take a day in; return how far its measures have crept up over days: 0 to 1, the limit."""
        worst = 0.0
        for measure in ("rows_read", "actions", "rows_written", "rows_deleted", "relations"):
            rate = self.rates.get(f"1d:{measure}")
            if rate is None or self.windows["1d"] < WINDOWS_MIN["1d"]:
                continue
            off = rate.deviation(size_of(measured(window, measure)), TOP_DEVIATION_MIN)
            test = self.creeps.get(measure)
            if test is None:
                test = self.creeps[measure] = _test()
            test.update(max(-CREEP_DAY_MAX, min(CREEP_DAY_MAX, off)))
            if test._x_mean.n >= CREEP_MIN_DAYS - WINDOWS_MIN["1d"]:
                worst = max(worst, float(test._sum_increase - test._min_increase))
        return min(1.0, max(0.0, worst / (2 * CREEP_LIMIT)))

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return [
            list(self.hours) if self.hours_known else [],
            self.hours_known,
            list(self.windows.values()),
            {key: rate.state() for key, rate in self.rates.items()},
            self.peaks,
            {key: top.state() for key, top in self.tops.items()},
            {key: _test_state(test) for key, test in self.creeps.items()},
            self.last_day,
            self.refused_us,
        ]

    @classmethod
    def of_older(cls, state: list[Any]) -> Routine:
        """Make it from a state that knew windows of five minutes, too."""
        hours, known, windows, *sized, creeps, last_day, refused_us = state
        kept = [{key: part for key, part in one.items() if key[:2] in FADING} for one in sized]
        return cls.of([hours, known, windows[-len(LENGTHS) :], *kept, creeps, last_day, refused_us])

    @classmethod
    def of(cls, state: list[Any]) -> Routine:
        """Make it from `state()`."""
        routine = cls()
        hours, routine.hours_known, windows, rates, peaks, tops, creeps, routine.last_day, routine.refused_us = state
        if hours:
            if len(hours) != HOURS:
                raise ValueError(f"a week of {len(hours)} hours")
            routine.hours = bytearray(hours)
        routine.windows = {length.name: n for length, n in zip(LENGTHS, windows, strict=True)}
        routine.rates = {key: Volume.of(part, FADING[key[:2]]) for key, part in rates.items()}
        routine.peaks = peaks
        routine.tops = {key: Volume.of(part, TOP_FADING) for key, part in tops.items()}
        routine.creeps = {key: _test_of(part) for key, part in creeps.items()}
        return routine


def measured(window: Window, measure: str) -> int:
    """Return one measure of a window."""
    if measure == "relations":
        return len(window.relations)
    value: int = getattr(window, measure)
    return value


def hour_of_week(at_us: int) -> int:
    """Return the hour of the week, UTC; Monday's first is 0. 1970 began on a Thursday."""
    return (at_us // HOUR_US + 72) % HOURS


def _test() -> PageHinkley:
    return PageHinkley(
        min_instances=CREEP_MIN_DAYS - WINDOWS_MIN["1d"], delta=CREEP_ALLOWED, threshold=CREEP_LIMIT, mode="up"
    )


_TEST = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")


def _test_state(test: PageHinkley) -> list[Any]:
    sums = [None if getattr(test, name) == float("inf") else getattr(test, name) for name in _TEST]
    return [*sums, test._x_mean.n, test._x_mean._mean, test.drift_detected]


def _test_of(state: list[Any]) -> PageHinkley:
    *sums, n, mean, detected = state
    test = _test()
    for name, value in zip(_TEST, sums, strict=True):
        setattr(test, name, float("inf") if value is None else value)
    test._x_mean.n, test._x_mean._mean = n, mean
    test._drift_detected = detected
    return test
