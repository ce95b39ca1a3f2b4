"""What stands beside the models in the same table, at the same budget: simple detectors on the same windows.

Each gives a score to a principal's window; a day of a principal is alarmed when one of its windows is above a threshold
that is set on the tuning seeds, so that the share of clean principal-days that are alarmed is the budget. They are
given credit for any alarm about the right principal at the right time: they have no reasons that could be wrong.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from river.anomaly import LODA, HalfSpaceTrees

from detectors.behaviour.ensemble import Score
from detectors.behaviour.features import FEATURES
from detectors.behaviour.populations import Population
from tests.quality.intrusions import Intrusion
from tests.quality.season import FIRST_US, WARM_DAYS
from tests.quality.world import DAY_US

HOUR_US = DAY_US // 24
KNOWN_MIN = 4
"""Days of its own before a principal has a z-score."""
SEED, CUTS = 1, 50


@dataclass
class Seen:
    """One closed window: whose and of which group, its length and end, what was seen, and what river says of it.

    `raw` has the scores of models of the whole group, whatever the partitions.
    """

    group: str
    length_us: int
    who: str
    last_us: int
    x: dict[str, float]
    raw: dict[str, float] = field(default_factory=dict)


@contextmanager
def recorded() -> Iterator[list[Seen]]:
    """Write down every window that is closed meanwhile, as it was before it was learned."""
    seen: list[Seen] = []
    take = Population.take

    def record(self: Population, who: str, x: dict[str, float], score: Score, now_us: int, refuse: bool) -> bool:
        seen.append(Seen("", self.length.us, who, now_us, x))
        return take(self, who, x, score, now_us, refuse)

    Population.take = record  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Population.take = take  # type: ignore[method-assign]


def score(seen: list[Seen], peers: dict[str, list[str]]) -> list[Seen]:
    """Let river's LODA and HalfSpaceTrees, one of each for a group and length, score windows before they learn them."""
    group_of = {name: group for group, names in peers.items() for name in names}
    models: dict[tuple[str, int], tuple[LODA, HalfSpaceTrees]] = {}
    seen.sort(key=lambda one: (one.last_us, one.who, one.length_us))
    for one in seen:
        one.group = group_of.get(one.who, "")
        known = models.get((one.group, one.length_us))
        if known is None:
            limits = dict.fromkeys(FEATURES, (0.0, 1.0))
            known = LODA(n_random_cuts=CUTS, seed=SEED), HalfSpaceTrees(window_size=50, limits=limits, seed=SEED)
            models[one.group, one.length_us] = known
        for name, model in zip(("loda", "trees"), known, strict=True):
            one.raw[name] = float(model.score_one(one.x))
            model.learn_one(one.x)
    return seen


Days = dict[tuple[str, int], float]
"""The highest score of each principal's days."""


def z_score(seen: list[Seen]) -> Days:
    """Score a principal's day by how far the rows it moved lie above the mean of its own days before."""
    days: Days = {}
    before: dict[str, list[float]] = defaultdict(list)
    for one in seen:
        if one.length_us != DAY_US:
            continue
        size = max(one.x["rows_read"], one.x["rows_written"], one.x["rows_deleted"])
        known = before[one.who]
        if len(known) >= KNOWN_MIN:
            mean = sum(known) / len(known)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in known) / len(known)) or 0.01
            days[one.who, _day(one)] = (size - mean) / deviation
        known.append(size)
    return days


def first_seen(seen: list[Seen]) -> Days:
    """Score a principal's day by how much in it was never seen of it before."""
    days: Days = {}
    for one in seen:
        if one.length_us == DAY_US:
            days[one.who, _day(one)] = one.x["new"] + one.x["elsewhere"]
    return days


def loda_raw(seen: list[Seen]) -> Days:
    """Score a principal's day by the highest score of river's LODA in its hours."""
    return _highest((one, one.raw["loda"]) for one in seen if one.length_us == HOUR_US)


def loda_ranked(seen: list[Seen]) -> Days:
    """The same of hours and days, as ranks in the group, paid for by the number of windows a day."""
    return _ranked(seen, "loda")


def trees_ranked(seen: list[Seen]) -> Days:
    """Likewise of river's HalfSpaceTrees."""
    return _ranked(seen, "trees")


BASELINES = {
    "z-score of rows a day": z_score,
    "first seen": first_seen,
    "LODA, raw": loda_raw,
    "LODA, ranked per group": loda_ranked,
    "HalfSpaceTrees, ranked per group": trees_ranked,
}


def _ranked(seen: list[Seen], name: str) -> Days:
    before: dict[tuple[str, int], list[float]] = defaultdict(list)
    scored: list[tuple[Seen, float]] = []
    for one in seen:
        raw, known = one.raw[name], before[one.group, one.length_us]
        place = bisect_left(known, raw)
        paid = 0.0
        if one.length_us == HOUR_US:
            days = len(before[one.group, DAY_US])
            paid = math.log10(max(1.0, len(known) / days) if days else 24.0)
        scored.append((one, -math.log10((len(known) - place + 1) / (len(known) + 1)) - paid))
        known.insert(place, raw)
    return _highest(iter(scored))


def _highest(scored: Iterator[tuple[Seen, float]]) -> Days:
    days: Days = {}
    for one, score in scored:
        key = one.who, _day(one)
        days[key] = max(days.get(key, -math.inf), score)
    return days


def _day(one: Seen) -> int:
    return (one.last_us - FIRST_US) // DAY_US


@dataclass
class Compared:
    """One baseline's scores of clean days and of attacks."""

    clean: list[float] = field(default_factory=list)
    attacks: list[tuple[int, str, float]] = field(default_factory=list)

    def add(self, seed: int, days: Days, planted: list[Intrusion]) -> None:
        """Take one seed in: an attack has the highest score of the days on which it acted."""
        touched: dict[tuple[str, int], list[Intrusion]] = defaultdict(list)
        for each in planted:
            for time_us in each.times_us:
                key = each.victim, (time_us - FIRST_US) // DAY_US
                if each not in touched[key]:
                    touched[key].append(each)
        self.clean += [score for key, score in days.items() if key[1] >= WARM_DAYS and key not in touched]
        best: dict[str, float] = {each.kind.id: -math.inf for each in planted if not each.kind.blind}
        for key, there in touched.items():
            for each in there:
                if each.kind.id in best:
                    best[each.kind.id] = max(best[each.kind.id], days.get(key, -math.inf))
        self.attacks += [(seed, kind, score) for kind, score in best.items()]

    def threshold(self, budget: float, principal_days: float) -> float:
        """Return the score above which so many clean principal-days are as the budget has."""
        ordered = sorted(self.clean, reverse=True)
        place = int(budget * principal_days)
        return ordered[place] if place < len(ordered) else -math.inf

    def recall(self, limit: float) -> float:
        """Return the share of attacks above a score."""
        return sum(score > limit for _, _, score in self.attacks) / len(self.attacks) if self.attacks else 0.0
