"""The rhythm of principals: their hours and days, each judged while it is open and when it closes.

A window closes when its principal acts in a later one, or when the events of others show that its time is over: a few
each time, so that no event pays for all, and in an order that a replay repeats. Time is the events', never later than
when they were captured and at most a week earlier, so that a clock that is off cannot stop it. An open hour, and the
day it lies in, is looked at when one of its counts, or of what is new in it, reaches what a tenth of the windows of its
group do, and again each time that it has grown by a quarter: so what is strange is reported by the event that makes it
so. How strange is a share of principal-days (`detectors.behaviour.scale`); a day that was reported is reported again
when it has become ten times as strange.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from detectors.behaviour.climate import Climate
from detectors.behaviour.features import FEATURES, GROWING, features, value_of
from detectors.behaviour.habits import Unusual, short
from detectors.behaviour.populations import Population, Populations, Strange
from detectors.behaviour.ranks import Ranks
from detectors.behaviour.routine import DAY_US, Routine
from detectors.behaviour.scale import Scale
from detectors.behaviour.unusual_window import UnusualWindow, reasons_of, sample_of
from detectors.behaviour.windows import COUNT_MAX, LENGTHS, Length, Window, moved_by
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.events import Event

LATE_US = 7 * DAY_US
CLOSED_AT_ONCE_MAX = 3
"""Windows of others that one event closes."""
HOUR, DAY = LENGTHS
REFUSED_AT = 0.02
"""A window as strange as this share of principal-days is not learned."""
REPORTED_AGAIN = 0.1
ASKED_AT, GROWN = 0.1, 1.25
"""An open window is looked at from a count on that this share of the group's windows reach, and each time it has grown
by so much."""
ASKED = ("actions", "rows_read", "rows_written", "rows_deleted", "errors")
KNOWN_MIN = {HOUR.name: 20, DAY.name: 5}
"""Ordinary windows of a group, or of its kind, before others are held against them, after the stream's first day."""
HOURS_A_DAY_MAX = 24.0
WARMING_UP_US = 5 * DAY_US
"""For so long what is found of a new group is half as strange, and only collected."""


class Rhythm:
    """The open windows and routines of the principals of one stream.

    `is_known` says whether a principal is known by its habits. Only those have routines of their own, and half of the
    cache of open windows is theirs alone, so that a flood of unknown principals cannot evict them.
    """

    def __init__(self, settings: Settings, is_known: Callable[[str], bool]) -> None:
        self._is_known = is_known
        self._most = max(1, settings.principals_max // 4)
        self._found_at = max(0.0, 1.0 - settings.alert_at)
        self._adopt_us = int(settings.adopt_after * 1_000_000)
        self.populations = Populations(settings.groups_max, settings.seed, self._adopt_us, LENGTHS)
        self.scale = Scale()
        self.climate = Climate()
        self._hours: OrderedDict[str, Window] = OrderedDict()
        self._days: OrderedDict[str, Window] = OrderedDict()
        self._routines: OrderedDict[str, Routine] = OrderedDict()
        self._routines_max = max(1, settings.principals_max)
        self._due_us = 0
        self._first_us = 0

    def count(
        self,
        key: str,
        event: Event,
        operation: str,
        relation: str | None,
        rows: int,
        statement: str | None,
        unusual: Unusual | None,
    ) -> list[UnusualWindow]:
        """Count one action of the principal `key`; return what was found of it, and of windows that closed, anybody's.

        `unusual` is what the habits found of it, None when nothing. The list is empty nearly always.
        """
        now_us = event.occurred_at_us
        captured_us = event.captured_at_us
        if now_us > captured_us:
            now_us = captured_us
        elif now_us < captured_us - LATE_US:
            now_us = captured_us - LATE_US
        found: list[UnusualWindow] = []
        if now_us >= self._due_us:
            self._first_us = self._first_us or now_us
            self._sweep(now_us, found)
        window = self._hours.get(key)
        if window is None or now_us >= window.end_us:
            if window is not None:
                self._close_hour(key, found)
            if len(self._hours) * 2 >= self._most and not self._is_known(key):
                return found
            window = self._begin(key, event, now_us, found)
        window.last_us = now_us
        grown = window.add(operation, relation, rows, statement, event)
        if unusual is not None:
            rows_read = rows if moved_by(operation) == "rows_read" else 0
            window.note(unusual, f"{operation} {relation}", statement, rows_read, event.event_id)
            grown = grown or len(window.new) + len(window.foreign) + window.elsewhere >= window.ask_new
        if rows > window.sample_rows or not window.sample:
            window.sample_rows = min(rows, COUNT_MAX)
            window.sample = [short(fact) if type(fact) is str else fact for fact in sample_of(event)]
            window.sample += [short(operation), None if relation is None else short(relation), window.sample_rows]
            window.keep(event.event_id)
        if grown:
            window.keep(event.event_id)
            self._ask(key, window, found)
        return found

    def unfamiliar(self, key: str, at_us: int) -> float:
        """Return how unusual it is that a principal is active now, 0 to 1; 0 for whom nothing is known."""
        routine = self._routines.get(key)
        return 0.0 if routine is None else routine.unfamiliar(at_us)

    def has_done(self, key: str, operation: str, rows: int) -> bool:
        """Return whether a principal has moved as many rows before, within an hour on its usual days."""
        routine = self._routines.get(key)
        return routine is not None and routine.covers(HOUR.name, moved_by(operation), rows)

    def _begin(self, key: str, event: Event, now_us: int, found: list[UnusualWindow]) -> Window:
        """Open an hour, and the day that it lies in."""
        day = self._days.get(key)
        if day is not None and now_us >= day.end_us:
            self._close_day(key, found)
            day = None
        kind = event.principal_kind + "\0" + short(event.peer_group or "")
        if day is None:
            day = self._open(self._days, key, DAY, now_us)
            day.kind = kind
        window = self._open(self._hours, key, HOUR, now_us)
        window.kind = kind
        _, populations, kinds = self._baselines(key, window)
        ranks = populations[HOUR.name].ranks
        if not self._knows(HOUR, ranks, kinds, now_us):
            return window
        window.ask_new = 1
        window.ask, window.ask_read, window.ask_written, window.ask_deleted, window.ask_errors = (
            max(1, value_of(name, HOUR, ranks.reached_by(name, ASKED_AT))) for name in ASKED
        )
        return window

    def _knows(self, length: Length, ranks: Ranks, kinds: dict[str, Ranks], now_us: int) -> bool:
        known = max(ranks.n, kinds[length.name].n)
        return known >= KNOWN_MIN[length.name] and now_us - self._first_us >= DAY_US

    def _open(self, windows: OrderedDict[str, Window], key: str, length: Length, now_us: int) -> Window:
        window = windows[key] = Window((now_us // length.us + 1) * length.us, now_us)
        if len(windows) > self._most:
            # Too many at a time: the one that was opened first is let go, uncounted.
            windows.popitem(last=False)
        if window.end_us < self._due_us or not self._due_us:
            self._due_us = window.end_us
        return window

    def _sweep(self, now_us: int, found: list[UnusualWindow]) -> None:
        """Close a few windows whose time is over."""
        closed = 0
        due_us = 2**63
        for windows, close in ((self._hours, self._close_hour), (self._days, self._close_day)):
            while windows:
                key = next(iter(windows))
                end_us = windows[key].end_us
                if end_us > now_us or closed >= CLOSED_AT_ONCE_MAX:
                    due_us = min(due_us, end_us)
                    break
                close(key, found)
                closed += 1
        self._due_us = due_us

    def _close_hour(self, key: str, found: list[UnusualWindow]) -> None:
        window = self._hours.pop(key)
        day = self._days.get(key)
        if day is None:
            # Its day was evicted, or has been closed by a clock that is ahead.
            day = self._open(self._days, key, DAY, window.first_us)
            day.kind = window.kind
        self._judge(key, HOUR, window, day, found)
        day.pour(window)

    def _close_day(self, key: str, found: list[UnusualWindow]) -> None:
        if key in self._hours:
            self._close_hour(key, found)
        day = self._days.pop(key)
        self._judge(key, DAY, day, day, found)
        self.scale.learn(day.best, day.end_us // DAY_US)

    def _baselines(self, key: str, window: Window) -> tuple[Routine, dict[str, Population], dict[str, Ranks]]:
        """Return a principal's routine, the populations of its group and the ranks of its kind."""
        kind, _, group = window.kind.partition("\0")
        populations = self.populations.of(group or None, kind, window.last_us)
        routine = self._routines.get(key)
        if routine is None:
            routine = Routine()
            if not self._is_known(key):
                return routine, populations, self.populations.kind(kind)
            self._routines[key] = routine
            if len(self._routines) > self._routines_max:
                self._routines.popitem(last=False)
        else:
            self._routines.move_to_end(key)
        return routine, populations, self.populations.kind(kind)

    def _judge(self, key: str, length: Length, window: Window, day: Window, found: list[UnusualWindow]) -> None:
        """Judge a window that has closed, then learn from it."""
        routine, populations, kinds = self._baselines(key, window)
        population = populations[length.name]
        measured_by = routine if routine.settled(length.name) else population.routine
        crept = routine.creep(window) if length is DAY else 0.0
        x = features(window, length, measured_by, crept)
        strange = self._strange(key, window, length, x, populations, kinds, FEATURES)
        rate = self._rate(strange, length, populations, day)
        self._report(key, length, window, day, strange, rate, populations, kinds, found)
        assert strange.score is not None
        if population.take(key, x, strange.score, window.last_us, rate <= REFUSED_AT):
            kinds[length.name].learn(x, window.last_us // DAY_US)
            routine.learn(length.name, window)
            population.routine.learn(length.name, window)
        elif routine.refused(window.last_us, self._adopt_us):
            routine.learn(length.name, window)
        if length is DAY:
            routine.end_of_day(window.last_us)

    def _ask(self, key: str, window: Window, found: list[UnusualWindow]) -> None:
        """Look at an hour that is still open, and at the day as it is by now."""
        for place, value in (
            ("ask", window.actions),
            ("ask_read", window.rows_read),
            ("ask_written", window.rows_written),
            ("ask_deleted", window.rows_deleted),
            ("ask_errors", window.errors),
            ("ask_new", len(window.new) + len(window.foreign) + window.elsewhere),
        ):
            if value >= getattr(window, place):
                setattr(window, place, max(value + 1, _next(value)))
        day = self._days.get(key)
        if day is None:
            return
        routine, populations, kinds = self._baselines(key, window)
        for length, one in ((HOUR, window), (DAY, day.with_poured(window))):
            population = populations[length.name]
            x = features(one, length, routine if routine.settled(length.name) else population.routine)
            strange = self._strange(key, window, length, x, populations, kinds, GROWING)
            rate = self._rate(strange, length, populations, day)
            self._report(key, length, one, day, strange, rate, populations, kinds, found)

    def _strange(
        self,
        key: str,
        window: Window,
        length: Length,
        x: dict[str, float],
        populations: dict[str, Population],
        kinds: dict[str, Ranks],
        among: Sequence[str],
    ) -> Strange:
        """Return how strange a window is by what its group knows, and by what others did within the last day."""
        hours = _hours_a_day(populations)
        most = self.climate.most(key, window.last_us, self.scale.a_day, hours)
        strange = populations[length.name].strange(x, kinds[length.name], among, most)
        if length is HOUR and strange.extreme:
            self.climate.note(key, strange.extreme, window.last_us)
        return strange

    def _rate(self, strange: Strange, length: Length, populations: dict[str, Population], day: Window) -> float:
        """Return the share of principal-days that are as strange as a window, and remember its day's highest score."""
        score = strange.decades - _paid(length, populations)
        day.best = max(day.best, score)
        return self.scale.rate(score)

    def _report(
        self,
        key: str,
        length: Length,
        window: Window,
        day: Window,
        strange: Strange,
        rate: float,
        populations: dict[str, Population],
        kinds: dict[str, Ranks],
        found: list[UnusualWindow],
    ) -> None:
        """Find a window out of the ordinary, if it is and has not been reported as such."""
        population = populations[DAY.name]
        warming_up = window.last_us - (populations[HOUR.name].first_us or window.last_us) < WARMING_UP_US
        alone = self.scale.rate(strange.alone - _paid(length, populations))
        if warming_up:
            rate, alone = min(1.0, 2.0 * rate), min(1.0, 2.0 * alone)
        if min(rate, alone) > self._found_at or rate > day.reported * REPORTED_AGAIN or not window.sample:
            return
        if not self._knows(length, populations[length.name].ranks, kinds, window.last_us):
            return
        day.reported = rate
        principals = self.scale.a_day
        reasons = reasons_of(strange, window, length, populations[length.name].ranks.n)
        peers = population.active(window.last_us)
        score, alone = round(1.0 - rate, 6), round(1.0 - alone, 6)
        found.append(UnusualWindow(key, length, window, score, reasons, peers, principals, warming_up, alone))

    def state(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "open": [[[key, w.state()] for key, w in windows.items()] for windows in (self._hours, self._days)],
            "routines": [[key, routine.state()] for key, routine in self._routines.items()],
            "populations": self.populations.state(),
            "scale": self.scale.state(),
            "climate": self.climate.state(),
            "due_us": self._due_us,
            "first_us": self._first_us,
        }

    def adopt(self, routines: list[Any]) -> None:
        """Take the routines of an older model's state; groups and the scale are relearned."""
        self._routines = OrderedDict((key, Routine.of_older(part)) for key, part in routines)

    def restore(self, state: dict[str, Any]) -> None:
        """Take a state."""
        hours, days = state["open"]
        self._hours = OrderedDict((key, Window.of(part)) for key, part in hours)
        self._days = OrderedDict((key, Window.of(part)) for key, part in days)
        self._routines = OrderedDict((key, Routine.of(part)) for key, part in state["routines"])
        self.populations.restore(state["populations"])
        self.scale.restore(state["scale"])
        self.climate.restore(state.get("climate", []))
        self._due_us = state["due_us"]
        self._first_us = state["first_us"]


def _hours_a_day(populations: dict[str, Population]) -> float:
    """Return in how many hours a principal of a group is active on one of its days."""
    hours, days = populations[HOUR.name].ranks.n, populations[DAY.name].ranks.n
    return min(HOURS_A_DAY_MAX, max(1.0, hours / days if days else HOURS_A_DAY_MAX))


def _paid(length: Length, populations: dict[str, Population]) -> float:
    """Return the powers of ten that a window pays for how many of its length a day has."""
    return math.log10(_hours_a_day(populations)) if length is HOUR else 0.0


def _next(value: float) -> int:
    return min(COUNT_MAX, max(1, math.ceil(value * GROWN)))
