"""The rhythm of principals: windows of time, each judged when it closes by the routine of its principal and its peers.

A window closes when its principal acts in a later one, or when the events of others show that its time is over: a few
each time, so that no event pays for all, and in an order that a replay repeats. Time is the events', never later than
when they were captured and at most a week earlier, so that a clock that is off cannot stop it. Windows in which next
to nothing happened are not put to the models, which keeps their cost per action low. A longer window that is out of
all proportion is told before it closes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from msgspec import Struct

from detectors.behaviour.evidence import Evidence, joined, told, weigh
from detectors.behaviour.features import features, words
from detectors.behaviour.habits import Unusual, short
from detectors.behaviour.populations import GATE, Population, Populations
from detectors.behaviour.routine import DAY_US, Routine
from detectors.behaviour.windows import COUNT_MAX, LENGTHS, Length, Window, moved_by
from pgwitness.config import Behaviour as Settings
from pgwitness.events import Event

LATE_US = 7 * DAY_US
CLOSED_AT_ONCE_MAX = 3
"""Windows of others that one event closes."""
ACTIONS_MIN = {"5m": 10, "1h": 4, "1d": 1}
ROWS_MIN, ERRORS_MIN = 200, 3
"""Windows with less of all these, and nothing new, are not put to the models."""
HOURLY = LENGTHS[1].name
PEERS_SAMPLE = 3
"""Of the shortest windows peers are told every fourth (a mask of bits); there are plenty."""
CREEP_WEIGHT = 0.95
ENSEMBLE_WEIGHT = 0.5
"""How much the ensemble's score counts beside other evidence; by itself it counts whole."""

SAMPLE = (
    "event_id",
    "kind",
    "occurred_at_us",
    "captured_at_us",
    "cluster",
    "instance",
    "database",
    "principal",
    "principal_kind",
    "on_behalf_of",
    "peer_group",
    "binding",
    "certainty",
    "assurance",
    "role",
    "effective_role",
    "application",
    "client_addr",
    "auth_method",
    "session_id",
    "statement",
)
"""The facts of an event that a window keeps of its most telling one; then operation, relation and rows."""
_sample = attrgetter(*SAMPLE)


class Finding(Struct, frozen=True):
    """A window that is out of the ordinary: whose, how long, how unusual on the common scale, and why."""

    who: str
    length: Length
    window: Window
    score: float
    reasons: list[dict[str, Any]]


class Rhythm:
    """The open windows and routines of the principals of one stream.

    `is_known` says whether a principal is known by its habits. Only those have routines of their own, and half of the
    room for open windows is theirs alone, so that a flood of names cannot push them out.
    """

    def __init__(self, settings: Settings, is_known: Callable[[str], bool]) -> None:
        self._is_known = is_known
        self._most = max(1, settings.principals_max // 4)
        self._alert_at = settings.alert_at
        self._adopt_us = int(settings.adopt_after * 1_000_000)
        self.populations = Populations(settings.groups_max, settings.seed, self._adopt_us, LENGTHS)
        self._open: dict[str, OrderedDict[str, Window]] = {length.name: OrderedDict() for length in LENGTHS}
        self._shortest = self._open[LENGTHS[0].name]
        self._routines: OrderedDict[str, Routine] = OrderedDict()
        self._routines_max = max(1, settings.principals_max)
        self._due_us = 0
        self._now_us = 0

    def count(
        self,
        key: str,
        event: Event,
        operation: str,
        relation: str | None,
        rows: int,
        statement: str | None,
        unusual: Unusual | None,
    ) -> list[Finding]:
        """Count one action of the principal `key`; gives what was found of windows that closed, anybody's.

        `unusual` is what the habits found of it, None when nothing. The list is empty nearly always.
        """
        now_us = event.occurred_at_us
        captured_us = event.captured_at_us
        if now_us > captured_us:
            now_us = captured_us
        elif now_us < captured_us - LATE_US:
            now_us = captured_us - LATE_US
        found: list[Finding] = []
        if now_us >= self._due_us:
            self._sweep(now_us, found)
        window = self._shortest.get(key)
        if window is None or now_us >= window.end_us:
            if window is not None:
                self._close(key, 0, found)
            if len(self._shortest) * 2 >= self._most and not self._is_known(key):
                return found
            window = self._begin(key, 0, now_us)
            window.kind = event.principal_kind + "\0" + short(event.peer_group or "")
        window.last_us = now_us
        window.add(operation, relation, rows, statement, event)
        if unusual is not None:
            rows_read = rows if moved_by(operation) == "rows_read" else 0
            window.note(unusual, f"{operation} {relation}", statement, rows_read, event.event_id)
        if rows > window.sample_rows or not window.sample:
            window.sample_rows = min(rows, COUNT_MAX)
            window.sample = [short(fact) if type(fact) is str else fact for fact in _sample(event)]
            window.sample += [short(operation), None if relation is None else short(relation), window.sample_rows]
            window.keep(event.event_id)
        return found

    def unfamiliar(self, key: str, at_us: int) -> float:
        """Say how unusual it is that a principal is active now, 0 to 1; 0 for whom nothing is known."""
        routine = self._routines.get(key)
        return 0.0 if routine is None else routine.unfamiliar(at_us)

    def has_done(self, key: str, operation: str, rows: int) -> bool:
        """Say whether a principal has moved as many rows before, within five minutes on its usual days."""
        routine = self._routines.get(key)
        return routine is not None and routine.covers(LENGTHS[0].name, moved_by(operation), rows)

    def _begin(self, key: str, index: int, now_us: int) -> Window:
        length = LENGTHS[index]
        room = self._open[length.name]
        window = room[key] = Window((now_us // length.us + 1) * length.us, now_us)
        if len(room) > self._most:
            # Too many at a time: the one that was opened first is let go, uncounted.
            room.popitem(last=False)
        if window.end_us < self._due_us or not self._due_us:
            self._due_us = window.end_us
        return window

    def _sweep(self, now_us: int, found: list[Finding]) -> None:
        """Close a few windows whose time is over."""
        closed = 0
        due_us = 2**63
        for index, length in enumerate(LENGTHS):
            room = self._open[length.name]
            while room:
                key = next(iter(room))
                end_us = room[key].end_us
                if end_us > now_us or closed >= CLOSED_AT_ONCE_MAX:
                    due_us = min(due_us, end_us)
                    break
                self._close(key, index, found)
                closed += 1
        self._due_us = due_us

    def _close(self, key: str, index: int, found: list[Finding]) -> None:
        length = LENGTHS[index]
        window = self._open[length.name].pop(key)
        finding = self._judge(key, length, window)
        if finding is not None and not window.told:
            found.append(finding)
            window.told = True
        if index + 1 == len(LENGTHS):
            return
        longer = LENGTHS[index + 1]
        room = self._open[longer.name]
        above = room.get(key)
        if above is not None and window.first_us >= above.end_us:
            self._close(key, index + 1, found)
            above = None
        if above is None:
            above = self._begin(key, index + 1, window.first_us)
        above.pour(window)
        if not above.told and (early := self._early(key, longer, above)) is not None:
            above.told = True
            found.append(early)

    def _whose(self, key: str, window: Window) -> tuple[Routine, dict[str, Population], bool]:
        """Give a principal's routine, its populations, and whether it has peers in them."""
        kind, _, group = window.kind.partition("\0")
        populations = self.populations.of(group or None, kind, window.last_us)
        routine = self._routines.get(key)
        if routine is None:
            routine = Routine()
            if not self._is_known(key):
                return routine, populations, bool(group)
            self._routines[key] = routine
            if len(self._routines) > self._routines_max:
                self._routines.popitem(last=False)
        else:
            self._routines.move_to_end(key)
        return routine, populations, bool(group)

    def _judge(self, key: str, length: Length, window: Window) -> Finding | None:
        """Judge a window that has closed, then learn from it."""
        routine, populations, has_peers = self._whose(key, window)
        population = populations[length.name]
        settled = routine.settled(length.name)
        evidence = weigh(length, window, routine, populations[HOURLY].routine)
        score = joined(evidence)
        seen = None
        rows = window.rows_read + window.rows_written + window.rows_deleted
        if window.actions >= ACTIONS_MIN[length.name] or rows >= ROWS_MIN or window.errors >= ERRORS_MIN or window.new:
            x = features(window, length, routine if settled else population.routine)
            seen = population.observe(key, x, window.last_us, score >= GATE)
            if seen.believed and (settled or has_peers):
                score = max(seen.score, 1.0 - (1.0 - score) * (1.0 - ENSEMBLE_WEIGHT * seen.score))
                if score >= self._alert_at:
                    evidence += _contributions(population, x, window, length, seen.score)
        if length is LENGTHS[-1] and (crept := routine.creep(window)) is not None:
            text = f"{words(crept, window, length)}, after days of a little more each"
            evidence.insert(0, Evidence(f"creep_{crept}", CREEP_WEIGHT, text))
            score = max(score, CREEP_WEIGHT)
        if seen.learned if seen is not None else score < GATE:
            routine.learn(length.name, window)
            if length is not LENGTHS[0] or not window.end_us // length.us & PEERS_SAMPLE:
                population.routine.learn(length.name, window)
        elif routine.refused(window.last_us, self._adopt_us):
            routine.learn(length.name, window)
        if length is LENGTHS[-1]:
            routine.end_of_day(window.last_us)
        return Finding(key, length, window, round(score, 4), told(evidence)) if score >= self._alert_at else None

    def _early(self, key: str, length: Length, window: Window) -> Finding | None:
        """Judge a window that is still open by what can only grow."""
        routine, populations, _ = self._whose(key, window)
        evidence = weigh(length, window, routine, populations[HOURLY].routine)
        score = joined(evidence)
        return Finding(key, length, window, round(score, 4), told(evidence)) if score >= self._alert_at else None

    def state(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return {
            "open": [[[key, w.state()] for key, w in room.items()] for room in self._open.values()],
            "routines": [[key, routine.state()] for key, routine in self._routines.items()],
            "populations": self.populations.state(),
            "due_us": self._due_us,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take a state."""
        for length, room in zip(LENGTHS, state["open"], strict=True):
            self._open[length.name] = OrderedDict((key, Window.of(part)) for key, part in room)
        self._shortest = self._open[LENGTHS[0].name]
        self._routines = OrderedDict((key, Routine.of(part)) for key, part in state["routines"])
        self.populations.restore(state["populations"])
        self._due_us = state["due_us"]


def _contributions(
    population: Population, x: dict[str, float], window: Window, length: Length, score: float
) -> list[Evidence]:
    """Say in words what drives the ensemble's score of a window."""
    parts = [
        Evidence(feature, min(1.0, part), words(feature, window, length))
        for feature, part in population.contributions(x)
    ]
    return parts or [Evidence("mixture", score, f"nothing alone, but all of it together {length.words} long")]
