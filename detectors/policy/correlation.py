"""Thresholds and sequences: what several actions make together, by the time at which they happened.

Sigma's correlations `event_count`, `value_count`, `value_sum`, `temporal` and `temporal_ordered`
(https://sigmahq.io/docs/meta/correlations.html). Actions that come late are put where they belong; nothing reads a
clock, so the same actions in the same order give the same answers. The window always contains the action that is
being judged.

Memory is bounded over all policies: `ENTRIES_MAX` entries, shared equally; within a policy, the key that was quiet the
longest is forgotten first. An entry is a time, a value cut to `VALUE_CHARS_MAX`, and an event id. State is JSON.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from detectors.actions import SCHEMA, Action
from detectors.policy.absence import Absences, Waiting
from detectors.policy.document import Document, Sequence
from detectors.wording import Seen
from pgwitness.core.undo import Undo
from pgwitness.core.units import Duration

ENTRIES_MAX = 20_000
COUNT_MAX = 1_000
"""The highest threshold of actions or values, and of a step."""
STEPS_MAX = 8
ABSENT_MAX = 20
"""Actions that are kept of a step that must be absent: the latest."""
WINDOW_US_MAX = 31 * 86_400_000_000
VALUE_CHARS_MAX = 80
EVENT_IDS_MAX = 20
BUCKETS = 20
"""A sum is kept in so many parts of its window: it is exact to a twentieth of it."""
SUM_MAX = 2**62

Entry = tuple[int, str | int, str]
"""Time, value (or sum), event id."""


class Plan(Struct, frozen=True):
    """What a policy asks of several actions, ready to be computed."""

    policy: str
    type: str
    window_us: int
    by: tuple[str, ...]
    counts: tuple[int, ...]
    field: str | None
    fingerprint: str
    absent: tuple[bool, ...] = ()
    """Which steps must not have happened; empty where all must."""

    @property
    def before(self) -> bool:
        """Whether it asks that something was not there before: it must have been looked at for so long."""
        return bool(self.absent) and self.absent[0]

    @property
    def after(self) -> bool:
        """Whether it asks that something does not come."""
        return bool(self.absent) and self.absent[-1]

    @classmethod
    def of(cls, document: Document) -> Plan | None:
        """Make the plan of a policy, None for one that looks at single actions. Raises `ValueError`."""
        threshold, sequence = document.threshold, document.sequence
        if threshold is not None and sequence is not None:
            raise ValueError("threshold and sequence: one of them")
        if threshold is not None:
            kind = "event_count"
            if threshold.distinct is not None and threshold.sum is not None:
                raise ValueError("threshold: distinct or sum, not both")
            named = threshold.distinct or threshold.sum
            if named is not None:
                kind = "value_count" if threshold.distinct is not None else "value_sum"
                if named not in SCHEMA:
                    raise ValueError(
                        f"threshold.{'distinct' if kind == 'value_count' else 'sum'}: {named!r} is no field"
                    )
                if kind == "value_sum" and SCHEMA[named].type != "int":
                    raise ValueError(f"threshold.sum: {named} is {SCHEMA[named].type}, not int")
            highest = SUM_MAX if kind == "value_sum" else COUNT_MAX
            one = (threshold.count,)
            return cls._made(document, "threshold", kind, threshold.window, threshold.by, one, highest, named)
        if sequence is None:
            return None
        if not 2 <= len(sequence.steps) <= STEPS_MAX:
            raise ValueError(f"sequence.steps: 2 to {STEPS_MAX}")
        if len({step.name for step in sequence.steps}) < len(sequence.steps):
            raise ValueError("sequence.steps: each with a name of its own")
        counts = tuple(step.count for step in sequence.steps)
        made = cls._made(document, "sequence", sequence.type, sequence.window, sequence.by, counts, COUNT_MAX, None)
        return made if not any(step.absent for step in sequence.steps) else replace(made, absent=_absent(sequence))

    @classmethod
    def _made(
        cls,
        document: Document,
        where: str,
        kind: str,
        window: str,
        by: list[str],
        counts: tuple[int, ...],
        highest: int,
        field: str | None,
    ) -> Plan:
        try:
            window_us = int(Duration.parse(window) * 1_000_000)
        except ValueError as error:
            raise ValueError(f"{where}.window: {error}") from None
        if not 0 < window_us <= WINDOW_US_MAX:
            raise ValueError(f"{where}.window: longer than nothing and at most 31 days")
        for path in by:
            if path not in SCHEMA:
                raise ValueError(f"{where}.by: {path!r} is no field of actions")
        if not {"principal.name", "role"} & set(by):
            raise ValueError(
                f"{where}.by: principal.name or role must be among them: principals are judged apart from each other, "
                "on several workers, and nothing counts over all of them"
            )
        least = 1 if where == "sequence" else 2
        if any(not least <= count <= highest for count in counts):
            raise ValueError(f"{where}: count is {least} to {highest}")
        meaning: list[Any] = [
            document.when,
            document.parameters,
            _asked(document),
        ]
        if document.zone != "UTC":
            meaning.append(document.zone)
        text = json.dumps([document.kinds, meaning], sort_keys=True, default=str)
        return cls(
            policy=document.id,
            type=kind,
            window_us=window_us,
            by=tuple(SCHEMA[path].attribute for path in by),
            counts=counts,
            field=SCHEMA[field].attribute if field else None,
            fingerprint=hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16],
        )


def _asked(document: Document) -> Any:
    """Give what is asked of several actions; a step that is not absent is written as it was before there were such."""
    asked = msgspec.to_builtins(document.threshold or document.sequence)
    for step in asked.get("steps", ()):
        if not step["absent"]:
            del step["absent"]
    return asked


def _absent(sequence: Sequence) -> tuple[bool, ...]:
    """Check the steps that must be absent. Raises `ValueError`."""
    absent = tuple(step.absent for step in sequence.steps)
    if all(absent):
        raise ValueError("sequence.steps: one that happens is needed beside those that are absent")
    if sequence.type != "temporal_ordered":
        raise ValueError("sequence.steps: absent says where in an order; with type temporal there is none")
    if any(step.absent and step.count != 1 for step in sequence.steps):
        raise ValueError("sequence.steps: of what is absent there is no count")
    if any(one and other for one, other in pairwise(absent)):
        raise ValueError("sequence.steps: two absent ones in a row; join their conditions by ||")
    return absent


class Correlations:
    """What the policies of one bundle have seen of several actions so far.

    `since_us`: from when on actions are seen. What was before is not known, so it is not said to have been absent.
    """

    def __init__(self, plans: Iterable[Plan], undo: Undo | None = None, since_us: int | None = None) -> None:
        self._undo = undo or Undo()
        self._absences = Absences(self._undo)
        self._since_us = since_us
        self._since: dict[str, int] = {}
        self._plans = {plan.policy: plan for plan in plans}
        self._limit = ENTRIES_MAX // max(1, len(self._plans))
        self._tracks: dict[str, OrderedDict[str, list[list[Entry]]]] = {name: OrderedDict() for name in self._plans}
        self._sizes = dict.fromkeys(self._plans, 0)
        self._looks_back = [name for name, plan in self._plans.items() if plan.before]

    def is_due(self, cluster: str, now_us: int) -> bool:
        """Say whether something that waited is to be told by a time in the records of a cluster."""
        return self._absences.is_due(cluster, now_us)

    def due(self, cluster: str, now_us: int) -> list[Waiting]:
        """Take what did not come within its window, by a time in the records of a cluster."""
        return self._absences.due(cluster, now_us)

    def begin(self, at_us: int) -> None:
        """Take the time at which an event was captured: what asks for absence before has looked from the first on."""
        if len(self._since) < len(self._looks_back):
            for name in self._looks_back:
                self._since.setdefault(name, at_us if self._since_us is None else self._since_us)

    def see(self, policy: str, steps: Iterable[int], action: Action) -> Seen | None:
        """Take an action that met some conditions of a policy; gives what is complete with it, if anything is."""
        plan = self._plans[policy]
        values = [getattr(action, attribute) for attribute in plan.by]
        text = json.dumps(values, default=str, sort_keys=True).encode("utf-8", "backslashreplace")
        key = hashlib.blake2b(text, digest_size=12).hexdigest()
        tracks = self._tracks[policy]
        track = tracks.get(key)
        if track is None:
            track = tracks[key] = [[] for _ in plan.counts]
        else:
            tracks.move_to_end(key)
        before = sum(map(len, track))
        kept = [list(entries) for entries in track]
        self._undo.add(lambda: self._set(policy, key, kept))
        if plan.absent:
            seen = self._without(plan, key, track, list(steps), action)
        elif plan.type.startswith("temporal"):
            seen = _sequence(plan, track, list(steps), action)
        elif plan.type == "value_sum":
            seen = _sum(plan, track[0], action)
        else:
            seen = _count(plan, track[0], action)
        self._sizes[policy] += sum(map(len, track)) - before
        if not any(track):
            del tracks[key]
        while self._sizes[policy] > self._limit:
            _, forgotten = tracks.popitem(last=False)
            self._sizes[policy] -= sum(map(len, forgotten))
        return seen

    def _without(self, plan: Plan, key: str, track: list[list[Entry]], steps: list[int], action: Action) -> Seen | None:
        """Take an action for a sequence in which something must be absent; what must not come is waited for."""
        at_us = action.occurred_at_us
        came = [step for step in steps if plan.absent[step]]
        for step in came:
            insort(track[step], (at_us, "", action.event_id))
            del track[step][: max(0, len(track[step]) - ABSENT_MAX)]
            if step == len(plan.absent) - 1:
                self._absences.came(plan.policy, key, at_us)
        happened = [step for step in steps if not plan.absent[step]]
        since_us = self._since.get(plan.policy, 0)
        seen = _sequence(plan, track, happened, action, since_us) if happened else None
        if seen is None or not plan.after:
            return seen
        until_us = seen.last_us + plan.window_us
        if not any(seen.last_us <= entry[0] <= until_us for entry in track[-1]):
            self._absences.add(Waiting(plan.policy, key, seen.last_us, until_us, action, seen))
        return None

    def _set(self, policy: str, key: str, track: list[list[Entry]]) -> None:
        """Put back what was known of a key; what had to make room for the event stays forgotten."""
        gone = self._tracks[policy].pop(key, [])
        self._sizes[policy] += sum(map(len, track)) - sum(map(len, gone))
        if any(track):
            self._tracks[policy][key] = track

    def snapshot(self) -> list[Any]:
        """Give the state as JSON values; order is part of it, because the quietest key is forgotten first."""
        state = []
        for name, tracks in self._tracks.items():
            entry: list[Any] = [name, self._plans[name].fingerprint, list(map(list, tracks.items()))]
            if self._plans[name].absent:
                entry += [self._absences.snapshot(name), self._since.get(name)]
            if tracks or any(entry[3:]):
                state.append(entry)
        return state

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state; what a policy that is gone or asks something else now had seen is forgotten."""
        self._absences = Absences(self._undo)
        self._since = {}
        for name in self._plans:
            self._tracks[name] = OrderedDict()
            self._sizes[name] = 0
        for name, fingerprint, tracks, *rest in state:
            plan = self._plans.get(name)
            if plan is None or plan.fingerprint != fingerprint:
                continue
            for key, track in tracks:
                self._tracks[name][key] = [[(int(t), v, str(i)) for t, v, i in entries] for entries in track]
                self._sizes[name] += sum(map(len, track))
            if rest:
                self._absences.restore(rest[0])
                if isinstance(rest[1], int):
                    self._since[name] = rest[1]


def _count(plan: Plan, entries: list[Entry], action: Action) -> Seen | None:
    """Count actions, or different values, in a window around this action."""
    at_us = action.occurred_at_us
    if plan.field is None:
        fresh: list[Entry] = [(at_us, "", action.event_id)]
    else:
        value = getattr(action, plan.field)
        values = value if isinstance(value, list | tuple) else [value]
        fresh = [(at_us, text, action.event_id) for text in dict.fromkeys(map(_short, values))]
        known = {entry[1]: entry for entry in entries}
        for entry in fresh:
            if earlier := known.get(entry[1]):
                entries.remove(earlier)
    for entry in fresh[:COUNT_MAX]:
        insort(entries, entry)
    del entries[: max(0, len(entries) - 2 * plan.counts[0])]
    best = _fullest(entries, plan.window_us, at_us)
    if len(best) < plan.counts[0]:
        return None
    values = tuple(str(entry[1]) for entry in best) if plan.field else ()
    return Seen(len(best), best[0][0], best[-1][0], _ids(best), values)


def _fullest(entries: list[Entry], window_us: int, at_us: int) -> list[Entry]:
    """Give the entries of the fullest window that contains a time; nearly always that is the one that ends with it."""
    low = bisect_left(entries, at_us - window_us, key=_time)
    last = bisect_right(entries, at_us, key=_time)
    high = bisect_right(entries, at_us + window_us, key=_time)
    best = (low, last)
    for start in range(low, last) if high > last else ():
        end = bisect_right(entries, entries[start][0] + window_us, last, high, key=_time)
        best = max(best, (start, end), key=lambda window: window[1] - window[0])
    return entries[best[0] : best[1]]


def _sum(plan: Plan, entries: list[Entry], action: Action) -> Seen | None:
    """Add a field up over the window that ends with this action, by parts of it."""
    assert plan.field is not None
    part_us = max(1, plan.window_us // BUCKETS)
    at_us = action.occurred_at_us // part_us * part_us
    amount = min(max(0, int(getattr(action, plan.field))), SUM_MAX)
    for place, (start_us, total, event_id) in enumerate(entries):
        if start_us == at_us:
            entries[place] = (start_us, min(SUM_MAX, int(total) + amount), event_id)
            break
    else:
        insort(entries, (at_us, amount, action.event_id))
        del entries[: max(0, len(entries) - 2 * BUCKETS)]
    within = [entry for entry in entries if at_us - plan.window_us < entry[0] <= at_us]
    total = sum(int(entry[1]) for entry in within)
    if total < plan.counts[0]:
        return None
    return Seen(total, within[0][0], action.occurred_at_us, _ids([*within, (at_us, 0, action.event_id)]))


def _sequence(plan: Plan, track: list[list[Entry]], steps: list[int], action: Action, since_us: int = 0) -> Seen | None:
    """Put the action where it belongs; when all steps are there within the window, start anew."""
    at_us = action.occurred_at_us
    for step in steps:
        insort(track[step], (at_us, "", action.event_id))
        del track[step][: max(0, len(track[step]) - 2 * plan.counts[step])]
    ends = sorted({entry[0] for entries in track for entry in entries if at_us <= entry[0] <= at_us + plan.window_us})
    for end_us in ends:
        chosen = (_ordered if plan.type == "temporal_ordered" else _together)(plan, track, end_us)
        if chosen is not None and plan.absent and not _clear(plan, track, chosen, since_us):
            chosen = None
        if chosen is not None and any(entry[2] == action.event_id for entry in chosen):
            for step, entries in enumerate(track):
                if not (plan.absent and plan.absent[step]):  # what was there stays: it answers for more than one
                    entries.clear()
            return Seen(len(chosen), chosen[0][0], chosen[-1][0], _ids(chosen))
    return None


def _ordered(plan: Plan, track: list[list[Entry]], end_us: int) -> list[Entry] | None:
    """Choose for each step, from the last to the first, the latest actions that are before those of the next."""
    chosen: list[Entry] = []
    until_us = end_us
    happens = [step for step in range(len(track)) if not (plan.absent and plan.absent[step])]
    for entries, needed in ((track[step], plan.counts[step]) for step in reversed(happens)):
        taken = {entry[2] for entry in chosen}
        fitting = [entry for entry in entries if entry[0] <= until_us and entry[2] not in taken][-needed:]
        if len(fitting) < needed or end_us - fitting[0][0] > plan.window_us:
            return None
        chosen = fitting + chosen
        until_us = fitting[0][0]
    return chosen


def _clear(plan: Plan, track: list[list[Entry]], chosen: list[Entry], since_us: int) -> bool:
    """Say whether nothing stands where a step is absent: before the first, or between two that happened."""
    first_us, end_us = chosen[0][0] - plan.window_us, chosen[-1][0]
    if plan.before and first_us < since_us:
        return False  # nobody has looked for so long
    place = 0
    for step, absent in enumerate(plan.absent):
        if not absent:
            place += plan.counts[step]
            continue
        begin_us = chosen[place - 1][0] if place else first_us
        until_us = chosen[place][0] if place < len(chosen) else end_us
        taken = {entry[2] for entry in chosen}
        if place < len(chosen) and any(
            begin_us <= entry[0] <= until_us and entry[2] not in taken for entry in track[step]
        ):
            return False
    return True


def _together(plan: Plan, track: list[list[Entry]], end_us: int) -> list[Entry] | None:
    chosen: list[Entry] = []
    for entries, needed in zip(track, plan.counts, strict=True):
        fitting = [entry for entry in entries if end_us - plan.window_us <= entry[0] <= end_us][-needed:]
        if len(fitting) < needed:
            return None
        chosen += fitting
    return sorted(chosen)


def _time(entry: Entry) -> int:
    return entry[0]


def _ids(entries: list[Entry]) -> tuple[str, ...]:
    """Give the events behind entries, the first and the latest of them when there are many."""
    ids = list(dict.fromkeys(entry[2] for entry in entries))
    return tuple(ids if len(ids) <= EVENT_IDS_MAX else [ids[0], *ids[1 - EVENT_IDS_MAX :]])


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}…{len(text)}"
