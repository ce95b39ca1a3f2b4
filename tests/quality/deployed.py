"""`python -m tests.quality.deployed`: how good the models are as they are deployed, beside simple detectors.

Thresholds of the baselines are set on the tuning seeds, where the chosen kinds are planted; what is reported are the
held-out kinds on seeds that nobody looked at. `--keep FILE` writes each seed's result as a line, and goes on from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from detectors.policy.policies import Bundle
from tests.quality import intrusions, season
from tests.quality.baselines import BASELINES, Compared, recorded
from tests.quality.intrusions import BLIND, CHOSEN_ON, HELD_OUT, REPORTED_SEEDS, TUNING_SEEDS
from tests.quality.topic import Figures, peers_of, watch

BUDGET = 0.05
STRICT = 0.005


def measure(seed: int, *, policies: bool = True) -> dict[str, Any]:
    """Run one seed in the deployed form; gives what was found, and the scores of the baselines, as JSON values."""
    kinds = CHOSEN_ON if seed in TUNING_SEEDS else HELD_OUT
    world, lives = season.build(seed)
    season.live(world, lives)
    planted = intrusions.plant(world, lives, kinds + BLIND)
    peers = peers_of(world.events)
    with recorded() as seen:
        told = watch(world.events, bundle=None if policies else Bundle([]))
    result: dict[str, Any] = {"seed": seed, "events": len(world.events)}
    for name, asked in ASKED.items():
        figures = Figures()
        figures.add(seed, told, planted, peers, **asked)
        result[name] = written(figures)
    result["strict"] = sum(
        any(kind.id == each.kind.id for kind in kinds)
        and any(_medium(one.severity) and one.principal == each.victim for one in told)
        for each in planted
    )
    for name, baseline in BASELINES.items():
        compared = Compared()
        compared.add(seed, baseline(seen), planted)
        result[name] = asdict(compared)
    result["principals"] = sum(len(names) for names in peers.values())
    return result


def written(figures: Figures) -> dict[str, Any]:
    """Give figures as JSON values."""
    by_seed = [[*key, *value] for key, value in figures.by_seed.items()]
    counted = {"found": dict(figures.found), "planted": dict(figures.planted)}
    return {**vars(figures), **counted, "by_seed": by_seed}


ASKED: dict[str, dict[str, bool]] = {
    "told by itself": {},
    "told by itself, any reason": {"any_reason": True},
    "with the digest": {"digest": True},
    "with the digest and policies": {"digest": True, "models": False},
}


def _medium(severity: str) -> bool:
    return severity != "low"


def figures_of(results: list[dict[str, Any]], name: str) -> Figures:
    """Join what was found on several seeds."""
    joined = Figures()
    for result in results:
        one = result[name]
        for field in ("found", "planted"):
            getattr(joined, field).update(one[field])
        for seed, kind, found, of in one["by_seed"]:
            joined.by_seed[seed, kind] = (found, of)
        for field in ("chance", "chance_of", "false", "loud", "principal_days"):
            setattr(joined, field, getattr(joined, field) + one[field])
        joined.minutes += one["minutes"]
    return joined


def lines(results: list[dict[str, Any]]) -> list[str]:
    """Write the table: what the topic told, and the baselines at the same budget."""
    tuning = [result for result in results if result["seed"] in TUNING_SEEDS]
    reported = [result for result in results if result["seed"] in REPORTED_SEEDS]
    written = ["| detector | seeds | recall | middle 90 % | false / principal / day | by chance | median minutes |"]
    written.append("| --- | --- | --- | --- | --- | --- | --- |")
    for title, some, kinds in (("chosen on", tuning, CHOSEN_ON), ("held out", reported, HELD_OUT)):
        for name in ASKED:
            if not some:
                continue
            figures = figures_of(some, name)
            names = [kind.id for kind in kinds]
            low, high = figures.interval(names)
            took = figures.median_minutes
            written.append(
                f"| {name} ({title}) | {len(some)} | {figures.recall(names):.0%} | {low:.0%} to {high:.0%} "
                f"| {figures.false_a_day:.3f} | {figures.chance_rate:.1%} | {'-' if took is None else f'{took:.0f}'} |"
            )
    written += [_baseline(name, tuning, reported, budget) for name in BASELINES for budget in (BUDGET, STRICT)]
    if reported:
        blind = figures_of(reported, "with the digest")
        written.append(f"blind kinds: {blind.recall([kind.id for kind in BLIND]):.0%}")
        written.append(f"high and critical, policies' too, a day and 1,000 principals: {blind.loud_a_day_1000:.0f}")
        by_kind = figures_of(reported, "told by itself")
        written += [f"  {kind.id}: {by_kind.found[kind.id]} of {by_kind.planted[kind.id]}" for kind in HELD_OUT]
    return written


def _baseline(name: str, tuning: list[dict[str, Any]], reported: list[dict[str, Any]], budget: float) -> str:
    chosen, shown = Compared(), Compared()
    for some, into in ((tuning, chosen), (reported, shown)):
        for result in some:
            into.clean += result[name]["clean"]
            into.attacks += [tuple(attack) for attack in result[name]["attacks"]]
    days = season.DAYS - season.WARM_DAYS
    limit = chosen.threshold(budget, days * sum(result["principals"] for result in tuning))
    reported_days = days * sum(result["principals"] for result in reported)
    false = sum(score > limit for score in shown.clean) / reported_days if reported_days else 0.0
    low, high = _interval(shown, limit)
    return (
        f"| {name}, threshold for {budget} (held out) | {len(reported)} | {shown.recall(limit):.0%} "
        f"| {low:.0%} to {high:.0%} | {false:.3f} | | |"
    )


def _interval(shown: Compared, limit: float, rounds: int = 500) -> tuple[float, float]:
    random = Random("interval")
    seeds = sorted({seed for seed, _, _ in shown.attacks})
    kinds = sorted({kind for _, kind, _ in shown.attacks})
    scores = {(seed, kind): score for seed, kind, score in shown.attacks}
    shares = []
    for _ in range(rounds if seeds else 0):
        drawn_kinds = random.choices(kinds, k=len(kinds))
        pairs = [(seed, kind) for seed in random.choices(seeds, k=len(seeds)) for kind in drawn_kinds]
        there = [scores[pair] > limit for pair in pairs if pair in scores]
        shares.append(sum(there) / len(there) if there else 0.0)
    shares.sort()
    return (shares[len(shares) // 20], shares[-max(1, len(shares) // 20)]) if shares else (0.0, 0.0)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*", help="all tuning and reported seeds unless given")
    parser.add_argument("--keep", type=Path, help="a file of results, one seed a line")
    parser.add_argument("--models", action="store_true", help="without policies, in half of the time")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    if arguments.keep and arguments.keep.exists():
        results = [json.loads(line) for line in arguments.keep.read_text().splitlines()]
    for seed in arguments.seeds or (*TUNING_SEEDS, *REPORTED_SEEDS):
        if any(result["seed"] == seed for result in results):
            continue
        results.append(json.loads(json.dumps(measure(seed, policies=not arguments.models))))
        if arguments.keep:
            with arguments.keep.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
    print("\n".join(lines(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
