"""Populations: the windows of one peer group and one length, which one ensemble learns.

Beside the ensemble a population knows what is typical of each feature (river's EWMean), for reasons in words, and the
routine of the group, which a member without one borrows. When river's ADWIN says that scores have risen, drift is
believed only if it is the group's: if the windows refused of late came from at least two members and a third of those
that were active. Then the next windows are learned whatever they score, as after a deployment. One member alone moves
nothing: what it does anew is learned when it has gone on for `adopt_after`. Bounded; state is JSON.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from detectors.behaviour.drift import Drift
from detectors.behaviour.ensemble import Ensemble
from detectors.behaviour.features import FEATURES
from detectors.behaviour.learners import EWMean
from detectors.behaviour.routine import DAY_US, Routine
from detectors.behaviour.windows import Length

MEMBERS_MAX = 128
REFUSED_MAX = 64
GATE = 0.75
"""Once in a thousand windows: from here on nothing is learned. A lower gate would cut so much of the ordinary tail
off that the scale shrinks with each window."""
TYPICAL_FADING = 0.01
ADOPTING = 100
"""Windows that are learned whatever they score, after a drift of the whole group."""
RECENT_US = DAY_US


class Seen(Struct, frozen=True):
    """What a population says of a window: the ensemble's score, whether it may be believed, whether it was learned."""

    score: float
    believed: bool
    learned: bool


class Population:
    """One group's windows of one length."""

    def __init__(self, length: Length, seed: int, adopt_us: int) -> None:
        self.ensemble = Ensemble(FEATURES, seed, length.trees, GATE)
        self.routine = Routine()
        self.last_us = 0
        self._adopt_us = adopt_us
        self._drift = Drift()
        self._adopting = 0
        self._members: OrderedDict[str, int] = OrderedDict()
        self._refused: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._typical = {feature: EWMean(TYPICAL_FADING) for feature in FEATURES}

    def observe(self, who: str, x: dict[str, float], now_us: int, strange: bool) -> Seen:
        """Score a window of a member, then learn it unless it is too strange, by itself or, `strange`, to others."""
        self.last_us = max(self.last_us, now_us)
        ensemble = self.ensemble
        believed = ensemble.seasoned
        score = ensemble.score(x)
        _touch(self._members, who, now_us, MEMBERS_MAX)
        if self._drift.update(score.score) and self._of_the_group(now_us):
            self._adopting = ADOPTING
        learned = not believed or (score.score < GATE and not strange) or self._adopt(who, now_us)
        if learned:
            ensemble.learn(x, score)
            for feature, mean in self._typical.items():
                mean.update(x[feature])
        return Seen(score.score, believed, learned)

    def contributions(self, x: dict[str, float]) -> list[tuple[str, float]]:
        """Say which features drive the score of a window, the most telling first."""
        return self.ensemble.contributions(x, {name: float(mean.get()) for name, mean in self._typical.items()})

    def _of_the_group(self, now_us: int) -> bool:
        recent = sum(1 for _, last_us in self._refused.values() if now_us - last_us <= RECENT_US)
        active = sum(1 for last_us in self._members.values() if now_us - last_us <= RECENT_US)
        return recent >= 2 and recent * 3 >= active

    def _adopt(self, who: str, now_us: int) -> bool:
        """Say whether a strange window is learned all the same; otherwise its member is remembered as refused."""
        if self._adopting:
            self._adopting -= 1
            return True
        first_us, last_us = self._refused.get(who, (now_us, now_us))
        if now_us - last_us > self._adopt_us:
            first_us = now_us
        _touch(self._refused, who, (first_us, now_us), REFUSED_MAX)
        return now_us - first_us >= self._adopt_us

    def state(self) -> list[Any]:
        """Give everything as JSON values."""
        typical = [mean.get() for mean in self._typical.values()] if self.ensemble.n else []
        return [
            self.ensemble.state(),
            self.routine.state(),
            self.last_us,
            self._drift.state(),
            self._adopting,
            list(self._members.items()),
            list(self._refused.items()),
            typical,
        ]

    def restore(self, state: list[Any]) -> None:
        """Take a state into a fresh population. Raises `ValueError` when it is of other models."""
        ensemble, routine, self.last_us, drift, self._adopting, members, refused, typical = state
        self.ensemble.restore(ensemble)
        self.routine = Routine.of(routine)
        self._drift = Drift.of(drift)
        self._members = OrderedDict((who, last_us) for who, last_us in members)
        self._refused = OrderedDict((who, (first_us, last_us)) for who, (first_us, last_us) in refused)
        for mean, value in zip(self._typical.values(), typical, strict=False):
            mean.update(value)


def _touch(room: OrderedDict[str, Any], who: str, value: Any, most: int) -> None:
    room[who] = value
    room.move_to_end(who)
    if len(room) > most:
        room.popitem(last=False)


class Populations:
    """The populations of all groups; at most `groups_max` groups have their own, the others share one per kind.

    A group's place is given away when nobody of it acted for a week. Names of groups come from the identities file,
    kinds are four, so who knocks cannot make populations.
    """

    IDLE_US = 7 * DAY_US

    def __init__(self, groups_max: int, seed: int, adopt_us: int, lengths: tuple[Length, ...]) -> None:
        self._groups_max = groups_max
        self._lengths = lengths
        self._make: Callable[[Length], Population] = lambda length: Population(length, seed, adopt_us)
        self._groups: OrderedDict[str, dict[str, Population]] = OrderedDict()

    def of(self, group: str | None, kind: str, now_us: int) -> dict[str, Population]:
        """Give the populations of a group, by the length's name."""
        name = f"group:{group}" if group else f"kind:{kind}"
        found = self._groups.get(name)
        if found is None and group and not self._room(now_us):
            name = f"kind:{kind}"
            found = self._groups.get(name)
        if found is None:
            found = self._groups[name] = {length.name: self._make(length) for length in self._lengths}
        self._groups.move_to_end(name)
        return found

    def _room(self, now_us: int) -> bool:
        own = [name for name in self._groups if name.startswith("group:")]
        if len(own) < self._groups_max:
            return True
        last_us = max(population.last_us for population in self._groups[own[0]].values())
        if now_us - last_us < self.IDLE_US:
            return False
        del self._groups[own[0]]
        return True

    def __len__(self) -> int:
        """Give the number of groups that have populations."""
        return len(self._groups)

    def state(self) -> list[Any]:
        """Give everything as JSON values."""
        return [[name, [population.state() for population in found.values()]] for name, found in self._groups.items()]

    def restore(self, state: list[Any]) -> None:
        """Take a state. A group whose models are of another make starts anew."""
        self._groups = OrderedDict()
        for name, parts in state:
            found = self._groups[name] = {length.name: self._make(length) for length in self._lengths}
            for length, part in zip(self._lengths, parts, strict=True):
                try:
                    found[length.name].restore(part)
                except ValueError:
                    found[length.name] = self._make(length)
