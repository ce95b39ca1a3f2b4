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
from typing import Any

import msgspec
from msgspec import Struct

from detectors.actions import SCHEMA, Action
from detectors.policy.document import Document
from detectors.wording import Seen
from pgwitness.undo import Undo
from pgwitness.units import Duration

ENTRIES_MAX = 20_000
COUNT_MAX = 1_000
"""The highest threshold of actions or values, and of a step."""
STEPS_MAX = 8
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
        return cls._made(document, "sequence", sequence.type, sequence.window, sequence.by, counts, COUNT_MAX, None)

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
        meaning = [document.when, document.parameters, msgspec.to_builtins(document.threshold or document.sequence)]
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


class Correlations:
    """What the policies of one bundle have seen of several actions so far."""

    def __init__(self, plans: Iterable[Plan], undo: Undo | None = None) -> None:
        self._undo = undo or Undo()
        self._plans = {plan.policy: plan for plan in plans}
        self._limit = ENTRIES_MAX // max(1, len(self._plans))
        self._tracks: dict[str, OrderedDict[str, list[list[Entry]]]] = {name: OrderedDict() for name in self._plans}
        self._sizes = dict.fromkeys(self._plans, 0)

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
        if plan.type.startswith("temporal"):
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

    def _set(self, policy: str, key: str, track: list[list[Entry]]) -> None:
        """Put back what was known of a key; what had to make room for the event stays forgotten."""
        gone = self._tracks[policy].pop(key, [])
        self._sizes[policy] += sum(map(len, track)) - sum(map(len, gone))
        if any(track):
            self._tracks[policy][key] = track

    def snapshot(self) -> list[Any]:
        """Give the state as JSON values; order is part of it, because the quietest key is forgotten first."""
        return [
            [name, self._plans[name].fingerprint, list(map(list, tracks.items()))]
            for name, tracks in self._tracks.items()
            if tracks
        ]

    def restore(self, state: list[Any]) -> None:
        """Take a snapshot's state; what a policy that is gone or asks something else now had seen is forgotten."""
        for name in self._plans:
            self._tracks[name] = OrderedDict()
            self._sizes[name] = 0
        for name, fingerprint, tracks in state:
            plan = self._plans.get(name)
            if plan is None or plan.fingerprint != fingerprint:
                continue
            for key, track in tracks:
                self._tracks[name][key] = [[(int(t), v, str(i)) for t, v, i in entries] for entries in track]
                self._sizes[name] += sum(map(len, track))


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


def _sequence(plan: Plan, track: list[list[Entry]], steps: list[int], action: Action) -> Seen | None:
    """Put the action where it belongs; when all steps are there within the window, start anew."""
    at_us = action.occurred_at_us
    for step in steps:
        insort(track[step], (at_us, "", action.event_id))
        del track[step][: max(0, len(track[step]) - 2 * plan.counts[step])]
    ends = sorted({entry[0] for entries in track for entry in entries if at_us <= entry[0] <= at_us + plan.window_us})
    for end_us in ends:
        chosen = (_ordered if plan.type == "temporal_ordered" else _together)(plan, track, end_us)
        if chosen is not None and any(entry[2] == action.event_id for entry in chosen):
            for entries in track:
                entries.clear()
            return Seen(len(chosen), chosen[0][0], chosen[-1][0], _ids(chosen))
    return None


def _ordered(plan: Plan, track: list[list[Entry]], end_us: int) -> list[Entry] | None:
    """Choose for each step, from the last to the first, the latest actions that are before those of the next."""
    chosen: list[Entry] = []
    until_us = end_us
    for entries, needed in zip(reversed(track), reversed(plan.counts), strict=True):
        taken = {entry[2] for entry in chosen}
        fitting = [entry for entry in entries if entry[0] <= until_us and entry[2] not in taken][-needed:]
        if len(fitting) < needed or end_us - fitting[0][0] > plan.window_us:
            return None
        chosen = fitting + chosen
        until_us = fitting[0][0]
    return chosen


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
