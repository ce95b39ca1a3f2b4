"""Thresholds and sequences: what several actions make together, by the time at which they happened.

Sigma's correlations `event_count`, `value_count`, `value_sum`, `temporal` and `temporal_ordered`
(https://sigmahq.io/docs/meta/correlations.html). Actions that come late are put where they belong; nothing reads a
clock, so the same actions in the same order give the same answers. The window always contains the action that is
being judged.

Memory is bounded over all policies: `ENTRIES_MAX` entries, shared equally; within a policy, the key that was inactive
the longest is evicted first. An entry is a time, a value cut to `VALUE_CHARS_MAX`, and an event id. State is JSON.
"""

from __future__ import annotations

import hashlib
import json
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Any

from detectors.actions import Action
from detectors.policy.absence import Absences, Waiting
from detectors.policy.plan import Plan
from detectors.policy.tracks import TrackEntry, count_up, sequence, sum_up
from detectors.wording import Seen
from pgwitness.core.undo import Undo

ENTRIES_MAX = 20_000
ABSENT_MAX = 20
"""Actions that are kept of a step that must be absent: the latest."""


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
        self._tracks: dict[str, OrderedDict[str, list[list[TrackEntry]]]] = {
            name: OrderedDict() for name in self._plans
        }
        self._sizes = dict.fromkeys(self._plans, 0)
        self._looks_back = [name for name, plan in self._plans.items() if plan.before]

    def is_due(self, cluster: str, now_us: int) -> bool:
        """Return whether something that waited is to be reported by a time in the records of a cluster."""
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
        """Take an action that met some conditions of a policy; return what is complete with it, if anything is."""
        plan = self._plans[policy]
        key = _key(plan, action)
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
            seen = sequence(plan, track, list(steps), action)
        elif plan.type == "value_sum":
            seen = sum_up(plan, track[0], action)
        else:
            seen = count_up(plan, track[0], action)
        self._sizes[policy] += sum(map(len, track)) - before
        if not any(track):
            del tracks[key]
        while self._sizes[policy] > self._limit:
            _, forgotten = tracks.popitem(last=False)
            self._sizes[policy] -= sum(map(len, forgotten))
        return seen

    def take_back(self, event_id: str, action: Action) -> None:
        """Forget an action that was seen as the event of this id before its outcome was known; `action` is it,
        settled."""
        for policy, plan in self._plans.items():
            key = _key(plan, action)
            track = self._tracks[policy].get(key)
            if track is None or not any(entry[2] == event_id for entries in track for entry in entries):
                continue
            kept = [list(entries) for entries in track]
            self._undo.add(partial(self._set, policy, key, kept))
            self._set(policy, key, [[entry for entry in entries if entry[2] != event_id] for entries in kept])

    def _without(
        self, plan: Plan, key: str, track: list[list[TrackEntry]], steps: list[int], action: Action
    ) -> Seen | None:
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
        seen = sequence(plan, track, happened, action, since_us) if happened else None
        if seen is None or not plan.after:
            return seen
        until_us = seen.last_us + plan.window_us
        if not any(seen.last_us <= entry[0] <= until_us for entry in track[-1]):
            self._absences.add(Waiting(plan.policy, key, seen.last_us, until_us, action, seen))
        return None

    def _set(self, policy: str, key: str, track: list[list[TrackEntry]]) -> None:
        """Put back what was known of a key; what was evicted for the event stays forgotten."""
        gone = self._tracks[policy].pop(key, [])
        self._sizes[policy] += sum(map(len, track)) - sum(map(len, gone))
        if any(track):
            self._tracks[policy][key] = track

    def snapshot(self) -> list[Any]:
        """Return the state as JSON values; order is part of it, because the longest inactive key is evicted first."""
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


def _key(plan: Plan, action: Action) -> str:
    """Name what the actions that a plan looks at together have in common: 12 bytes of BLAKE2b, in hex."""
    values = [getattr(action, attribute) for attribute in plan.by]
    text = json.dumps(values, default=str, sort_keys=True).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=12).hexdigest()
