"""Runs judges over the same days and scores them: policies alone, models alone, both, and two simple baselines.

Seeds for tuning and seeds for reporting are apart. The baselines watch the rows a principal moves in an hour; their
thresholds are set on the tuning seeds so that they raise as many false alerts as are allowed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator

from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.events import Event
from pgwitness.core.units import Duration
from tests.quality import chores
from tests.quality.attacks import FIRST_DAY, Planted, plant
from tests.quality.heldout import HELD_OUT
from tests.quality.scoring import Alarm, Score, window_of
from tests.quality.world import CLUSTER, DAYS, World, at, build, live

TUNING_SEEDS = (1, 2, 3, 4, 5)
REPORTED_SEEDS = (101, 102, 103, 104, 105)
HOUR_US = 3_600_000_000
FALSE_A_DAY = 0.1
"""False alerts of any severity that are allowed per principal and day."""
SETTINGS = Settings(warmup=Duration(86_400.0))


def make(seed: int, scale: float) -> tuple[World, list[Planted]]:
    """Make the days of one seed, attacks among them."""
    world = build(seed, scale)
    live(world)
    chores.work(world)
    planted = plant(world)
    return world, planted + plant(world, HELD_OUT, frozenset(one.victim for one in planted))


def judges() -> dict[str, Callable[[], Judge]]:
    """Return the judges that are compared."""
    labels = {CLUSTER: {"env": "prod"}}
    bundle, none = Bundle.packaged(), Bundle([])
    return {
        "policies": lambda: Judge(bundle, labels=labels, behaviour=None),
        "models": lambda: Judge(none, labels=labels, behaviour=Behaviour(SETTINGS)),
        "both": lambda: Judge(bundle, labels=labels, behaviour=Behaviour(SETTINGS)),
    }


def alarms(judge: Judge, events: list[Event]) -> Iterator[Alarm]:
    """Judge events; return what was alerted."""
    for event in events:
        for alert in judge.judge(event).alerts:
            if alert.staged or alert.activity == "close" or alert.detector == "digest":
                # A digest and an end tell again what was told when it was found.
                continue
            name = alert.detector if alert.policy else "behaviour " + _features(alert.reasons)
            yield Alarm(
                alert.uid,
                alert.action.principal,
                alert.first_seen_us,
                alert.last_seen_us,
                event.captured_at_us,
                alert.severity,
                name,
            )


def _features(reasons: list[dict[str, object]]) -> str:
    return str(reasons[0]["feature"]) if reasons else ""


def hourly(events: list[Event]) -> dict[tuple[str, int], float]:
    """Return the size (log1p) of the rows each principal moved in each hour in which it did anything."""
    rows: dict[tuple[str, int], int] = defaultdict(int)
    for event in events:
        if event.principal is not None and event.kind in ("change", "statement", "query_stats"):
            moved = event.n_rows if event.kind == "change" else event.row_count or 0
            rows[event.principal, event.occurred_at_us // HOUR_US] += moved
    return {key: math.log1p(count) for key, count in rows.items()}


def global_threshold(events: list[Event]) -> Iterator[tuple[str, int, float]]:
    """Score each hour of a principal by the rows moved."""
    for (principal, hour), size in hourly(events).items():
        yield principal, hour, size


def z_score(events: list[Event]) -> Iterator[tuple[str, int, float]]:
    """Score each hour of a principal by the deviation from its own mean in the days of warm-up."""
    sizes = hourly(events)
    before: dict[str, list[float]] = defaultdict(list)
    for (principal, hour), size in sizes.items():
        if hour * HOUR_US < at(FIRST_DAY, 0):
            before[principal].append(size)
    for (principal, hour), size in sizes.items():
        known = before[principal] or [0.0]
        mean = sum(known) / len(known)
        deviation = math.sqrt(sum((one - mean) ** 2 for one in known) / len(known)) or 1.0
        yield principal, hour, (size - mean) / deviation


BASELINES = {"global threshold": global_threshold, "z-score": z_score}


def threshold(baseline: Callable[[list[Event]], Iterator[tuple[str, int, float]]], scale: float) -> float:
    """Set a baseline's threshold on the tuning seeds: as many false alerts as are allowed."""
    scores, days = [], 0
    for seed in TUNING_SEEDS[:2]:
        world, planted = make(seed, scale)
        victims = {one.victim for one in planted}
        days += (len(world.principals) - len(victims)) * (DAYS - FIRST_DAY)
        first = at(FIRST_DAY, 0) // HOUR_US
        scores += [s for who, hour, s in baseline(world.events) if hour >= first and who not in victims]
    scores.sort(reverse=True)
    return scores[min(len(scores) - 1, int(FALSE_A_DAY * days))]


def baseline_alarms(
    baseline: Callable[[list[Event]], Iterator[tuple[str, int, float]]], limit: float, events: list[Event]
) -> Iterator[Alarm]:
    """Alert each hour whose score is above the limit, when it is over."""
    for principal, hour, score in baseline(events):
        if score > limit:
            first_us, last_us = window_of(hour * HOUR_US, HOUR_US)
            yield Alarm(f"{principal} {hour}", principal, first_us, last_us, last_us, "low", "baseline")


def run(
    seeds: tuple[int, ...], scale: float = 1.0, names: tuple[str, ...] = (), baselines: bool = True
) -> dict[str, Score]:
    """Run everything over the seeds; return a score by the detector's name."""
    made = {name: how for name, how in judges().items() if not names or name in names}
    limits = {name: threshold(baseline, scale) for name, baseline in BASELINES.items()} if baselines else {}
    scores = {name: Score() for name in [*made, *limits]}
    for seed in seeds:
        world, planted = make(seed, scale)
        for name, how in made.items():
            scores[name].add(planted, alarms(how(), world.events), len(world.principals))
        for name, limit in limits.items():
            found = baseline_alarms(BASELINES[name], limit, world.events)
            scores[name].add(planted, found, len(world.principals))
    return scores
