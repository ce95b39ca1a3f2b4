"""Tracks: what was seen of several actions for one key, and whether a threshold or sequence is complete in it.

Pure functions of a plan and the entries of its key; each takes an action in and returns what is complete with it.
Actions that come late are put where they belong. The window always contains the action that is being judged.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right, insort

from detectors.actions import Action
from detectors.policy.plan import COUNT_MAX, SUM_MAX, Plan
from detectors.wording import Seen

VALUE_CHARS_MAX = 80
EVENT_IDS_MAX = 20
BUCKETS = 20
"""A sum is kept in so many parts of its window: it is exact to a twentieth of it."""

TrackEntry = tuple[int, str | int, str]
"""Time, value (or sum), event id."""


def count_up(plan: Plan, entries: list[TrackEntry], action: Action) -> Seen | None:
    """Count actions, or different values, in a window around this action."""
    at_us = action.occurred_at_us
    if plan.field is None:
        fresh: list[TrackEntry] = [(at_us, "", action.event_id)]
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


def _fullest(entries: list[TrackEntry], window_us: int, at_us: int) -> list[TrackEntry]:
    """Return the entries of the fullest window that contains a time; nearly always that is the one that ends with
    it."""
    low = bisect_left(entries, at_us - window_us, key=_time)
    last = bisect_right(entries, at_us, key=_time)
    high = bisect_right(entries, at_us + window_us, key=_time)
    best = (low, last)
    for start in range(low, last) if high > last else ():
        end = bisect_right(entries, entries[start][0] + window_us, last, high, key=_time)
        best = max(best, (start, end), key=lambda window: window[1] - window[0])
    return entries[best[0] : best[1]]


def sum_up(plan: Plan, entries: list[TrackEntry], action: Action) -> Seen | None:
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


def sequence(
    plan: Plan, track: list[list[TrackEntry]], steps: list[int], action: Action, since_us: int = 0
) -> Seen | None:
    """Put the action where it belongs; when all steps are there within the window, restart."""
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


def _ordered(plan: Plan, track: list[list[TrackEntry]], end_us: int) -> list[TrackEntry] | None:
    """Choose for each step, from the last to the first, the latest actions that are before those of the next."""
    chosen: list[TrackEntry] = []
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


def _clear(plan: Plan, track: list[list[TrackEntry]], chosen: list[TrackEntry], since_us: int) -> bool:
    """Return whether nothing stands where a step is absent: before the first, or between two that happened."""
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


def _together(plan: Plan, track: list[list[TrackEntry]], end_us: int) -> list[TrackEntry] | None:
    chosen: list[TrackEntry] = []
    for entries, needed in zip(track, plan.counts, strict=True):
        fitting = [entry for entry in entries if end_us - plan.window_us <= entry[0] <= end_us][-needed:]
        if len(fitting) < needed:
            return None
        chosen += fitting
    return sorted(chosen)


def _time(entry: TrackEntry) -> int:
    return entry[0]


def _ids(entries: list[TrackEntry]) -> tuple[str, ...]:
    """Return the events behind entries, the first and the latest of them when there are many."""
    ids = list(dict.fromkeys(entry[2] for entry in entries))
    return tuple(ids if len(ids) <= EVENT_IDS_MAX else [ids[0], *ids[1 - EVENT_IDS_MAX :]])


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}…{len(text)}"
