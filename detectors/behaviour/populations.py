"""Populations: the windows of one peer group and one length: what is ordinary among them, and how strange one is.

A window's strangeness is in powers of ten: half of it how rare it is as a whole (river's LODA, one of the pair in
`detectors.behaviour.ensemble`), half of it the ranks of its three rarest features (`detectors.behaviour.ranks`), each
no rarer than it is among all on that day (`detectors.behaviour.climate`). What a group knows is joined with what all of
its kind know, so that a new group is judged from its first hours. Beside that a population has the routine of the
group, which a member without one borrows.

What is too strange is not learned, so that an attack cannot become ordinary by repeating itself. When windows of
several members are refused within a day, it is the group that has changed, as by a release: the next windows are
learned whatever they are. One member alone moves nothing; what was refused is learned when `adopt_after` has passed.
Bounded; state is JSON.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from detectors.behaviour.climate import RARE_FROM
from detectors.behaviour.ensemble import Ensemble, Score
from detectors.behaviour.features import FEATURES
from detectors.behaviour.ranks import Ranks
from detectors.behaviour.routine import DAY_US, Routine
from detectors.behaviour.windows import Length

MEMBERS_MAX = 128
REFUSED_MAX = 64
WAITING_MAX = 64
"""Refused windows that wait to be learned; of more, the oldest are forgotten."""
CROWD_MIN = 3
"""Members whose refused windows within a day are a change of the group, if they are a third of those active."""
ADOPTING = 100
"""Windows that are learned whatever they are, after a change of the group."""
RARE_FEATURES = 3
USUAL = 0.5
"""What a feature that compares with one's own routine is when all is as usual."""
OPEN_MIN = 2.0
"""Powers of ten by its rarest features from which on an open window is looked at as a whole, which costs more."""


class Strange(Struct, frozen=True):
    """How strange a window is, in powers of ten, and its rarest features with theirs, the rarest first.

    `alone` is how strange it is whatever others did on that day; `extreme` are the features that count for others too.
    """

    decades: float
    rarest: list[tuple[str, float]]
    alone: float
    extreme: list[str]
    score: Score | None = None


class Population:
    """One group's windows of one length."""

    def __init__(self, length: Length, seed: int, adopt_us: int) -> None:
        self.length = length
        self.ensemble = Ensemble(FEATURES, seed, length.trees)
        self.ranks = Ranks(FEATURES)
        self.routine = Routine()
        self.first_us = self.last_us = 0
        self._adopt_us = adopt_us
        self._adopting = 0
        self._members: OrderedDict[str, int] = OrderedDict()
        self._refused: OrderedDict[str, int] = OrderedDict()
        self._waiting: deque[tuple[int, list[float]]] = deque(maxlen=WAITING_MAX)

    def strange(
        self,
        x: dict[str, float],
        kind: Ranks | None,
        among: Sequence[str] = FEATURES,
        most: Callable[[str], float] | None = None,
    ) -> Strange:
        """Return how strange a window is; with less than all features it is one that is still open.

        `most` gives the powers of ten that a feature can count for on this day.
        """
        decades = [
            (-math.log10(self.ranks.share(feature, x[feature], kind)), feature)
            for feature in among
            # What is at or below one's own mean is not asked for: nothing is strange about little.
            if x[feature] > (USUAL if feature.startswith("own_") else 0.0)
        ]
        decades.sort(reverse=True)
        alone = 0.5 * sum([one for one, _ in decades[:RARE_FEATURES]])
        extreme = [feature for one, feature in decades if one >= RARE_FROM]
        if most is not None:
            decades = sorted(((min(one, most(feature)), feature) for one, feature in decades), reverse=True)
        rarest = [(feature, one) for one, feature in decades[:RARE_FEATURES]]
        parts = 0.5 * sum([one for _, one in rarest])
        score = self.ensemble.score(x) if among is FEATURES else None
        whole = None
        if score is not None or alone >= OPEN_MIN:
            whole = self.ensemble.loda_decades(x, None if score is None else score.loda)
        if whole is not None:
            parts, alone = 0.5 * (parts + whole), 0.5 * (alone + whole)
        elif score is None and alone < OPEN_MIN:
            parts, alone = 0.5 * parts, 0.5 * alone
        return Strange(parts, rarest, alone, extreme, score)

    def active(self, now_us: int) -> int:
        """Return how many members were active of late."""
        return sum(1 for last_us in self._members.values() if now_us - last_us <= DAY_US)

    def take(self, who: str, x: dict[str, float], score: Score, now_us: int, refuse: bool) -> bool:
        """Learn a window of a member, unless it is to be refused and no reason to learn it all the same; say which."""
        self.first_us = self.first_us or now_us
        self.last_us = max(self.last_us, now_us)
        _touch(self._members, who, now_us, MEMBERS_MAX)
        while self._waiting and self._waiting[0][0] <= now_us:
            waited = dict(zip(FEATURES, self._waiting.popleft()[1], strict=True))
            self._learn(waited, self.ensemble.score(waited), now_us)
        if refuse and not self._adopts(who, now_us):
            self._waiting.append((now_us + self._adopt_us, [round(x[feature], 4) for feature in FEATURES]))
            return False
        self._learn(x, score, now_us)
        return True

    def _learn(self, x: dict[str, float], score: Score, now_us: int) -> None:
        self.ensemble.learn(x, score)
        self.ranks.learn(x, now_us // DAY_US)

    def _adopts(self, who: str, now_us: int) -> bool:
        _touch(self._refused, who, now_us, REFUSED_MAX)
        refused = sum(1 for last_us in self._refused.values() if now_us - last_us <= DAY_US)
        if refused >= CROWD_MIN and refused * 3 >= self.active(now_us):
            self._adopting = ADOPTING
        if self._adopting:
            self._adopting -= 1
            return True
        return False

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return [
            self.ensemble.state(),
            self.ranks.state(),
            self.routine.state(),
            self.first_us,
            self.last_us,
            self._adopting,
            list(self._members.items()),
            list(self._refused.items()),
            list(self._waiting),
        ]

    def restore(self, state: list[Any]) -> None:
        """Take a state into a fresh population. Raise `ValueError` when it is of other models."""
        ensemble, ranks, routine, self.first_us, self.last_us, self._adopting, members, refused, waiting = state
        self.ensemble.restore(ensemble)
        self.ranks.restore(ranks)
        self.routine = Routine.of(routine)
        self._members = OrderedDict((who, last_us) for who, last_us in members)
        self._refused = OrderedDict((who, last_us) for who, last_us in refused)
        self._waiting.extend((due_us, values) for due_us, values in waiting)


def _touch(members: OrderedDict[str, int], who: str, value: int, most: int) -> None:
    members[who] = value
    members.move_to_end(who)
    if len(members) > most:
        members.popitem(last=False)


class Populations:
    """The populations of all groups; at most `groups_max` groups have their own, the others share one per kind.

    A group's place is given away when nobody of it acted for a week. Names of groups come from the identities file,
    kinds are four, so who knocks cannot make populations. Of each kind there are the ranks of all its groups, too.
    """

    IDLE_US = 7 * DAY_US

    def __init__(self, groups_max: int, seed: int, adopt_us: int, lengths: tuple[Length, ...]) -> None:
        self._groups_max = groups_max
        self._lengths = lengths
        self._make: Callable[[Length], Population] = lambda length: Population(length, seed, adopt_us)
        self._groups: OrderedDict[str, dict[str, Population]] = OrderedDict()
        self._kinds: dict[str, dict[str, Ranks]] = {}

    def of(self, group: str | None, kind: str, now_us: int) -> dict[str, Population]:
        """Return the populations of a group, by the length's name."""
        name = f"group:{group}" if group else f"kind:{kind}"
        found = self._groups.get(name)
        if found is None and group and not self._has_place(now_us):
            name = f"kind:{kind}"
            found = self._groups.get(name)
        if found is None:
            found = self._groups[name] = {length.name: self._make(length) for length in self._lengths}
        self._groups.move_to_end(name)
        return found

    def kind(self, kind: str) -> dict[str, Ranks]:
        """Return the ranks of all principals of a kind, by the length's name."""
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = {length.name: Ranks(FEATURES) for length in self._lengths}
        return found

    def _has_place(self, now_us: int) -> bool:
        own = [name for name in self._groups if name.startswith("group:")]
        if len(own) < self._groups_max:
            return True
        last_us = max(population.last_us for population in self._groups[own[0]].values())
        if now_us - last_us < self.IDLE_US:
            return False
        del self._groups[own[0]]
        return True

    def __len__(self) -> int:
        """Return the number of groups that have populations."""
        return len(self._groups)

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        groups = [[name, [one.state() for one in found.values()]] for name, found in self._groups.items()]
        return [groups, [[kind, [one.state() for one in found.values()]] for kind, found in self._kinds.items()]]

    def restore(self, state: list[Any]) -> None:
        """Take a state. A group whose models are of another make is restarted."""
        groups, kinds = state
        self._groups, self._kinds = OrderedDict(), {}
        for name, parts in groups:
            found = self._groups[name] = {length.name: self._make(length) for length in self._lengths}
            for length, part in zip(self._lengths, parts, strict=True):
                try:
                    found[length.name].restore(part)
                except ValueError:
                    found[length.name] = self._make(length)
        for kind, parts in kinds:
            for length, part in zip(self._lengths, parts, strict=True):
                self.kind(kind)[length.name].restore(part)
