"""`python -m tests.quality.deployed`: how good the models are as they are deployed, beside simple detectors.

At 0.05 and at 0.005 false alerts a principal and day: what the topic told by itself, of models, of policies and of
both, and baselines. Budgets and the baselines' thresholds are chosen on the tuning seeds, where the chosen kinds are
planted; what is reported are the held-out kinds on seeds that nobody looked at. `--keep FILE` writes each seed's result
as a line, and goes on from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from tests.quality import intrusions, season
from tests.quality.baselines import BASELINES, Compared, recorded, score
from tests.quality.intrusions import BLIND, CHOSEN_ON, HELD_OUT, REPORTED_SEEDS, TUNING_SEEDS
from tests.quality.topic import BOTH, POLICIES, Figures, peers_of, watch

POINTS = (0.05, 0.005)
"""False alerts a principal and day at which detectors are compared."""
DEFAULT = 0.05
BUDGETS = (0.001, 0.002, 0.0035, 0.005, 0.02, 0.03, 0.04, DEFAULT)
ASKED: dict[str, dict[str, Any]] = {
    "models": {},
    "models, any reason": {"any_reason": True},
    "policies": {"tellers": POLICIES},
    "both": {"tellers": BOTH},
    "models, with the digest": {"digest": True},
}
Key = tuple[int, str]
"""A seed and a kind of attack: what is drawn anew to see how sure a share is."""


def measure(seed: int) -> dict[str, Any]:
    """Run one seed in the deployed form; return what was found, and the scores of the baselines, as JSON values."""
    kinds = CHOSEN_ON if seed in TUNING_SEEDS else HELD_OUT
    world, lives = season.build(seed)
    season.live(world, lives)
    planted = intrusions.plant(world, lives, kinds + BLIND)
    peers = peers_of(world.events)
    with recorded() as seen:
        told = watch(world.events, budgets=BUDGETS)
    result: dict[str, Any] = {"seed": seed, "events": len(world.events)}
    result["times"] = {each.kind.id: each.times for each in planted}
    for budget, of_budget in zip(BUDGETS, told, strict=True):
        for name, asked in ASKED.items():
            figures = Figures()
            figures.add(seed, of_budget, planted, peers, **asked)
            result[f"{name} {budget}"] = written(figures)
    score(seen, peers)
    for name, baseline in BASELINES.items():
        compared = Compared()
        compared.add(seed, baseline(seen), planted)
        result[name] = asdict(compared)
    result["principals"] = sum(len(names) for names in peers.values())
    return result


def written(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON values."""
    by_seed = [[*key, *value] for key, value in figures.by_seed.items()]
    counted = {"found": dict(figures.found), "planted": dict(figures.planted)}
    return {**vars(figures), **counted, "by_seed": by_seed}


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
        joined.crossed += one["crossed"]
    return joined


class Row:
    """One detector at one operating point: which attacks it found on the reported seeds, and what it told besides."""

    def __init__(self, name: str, found: dict[Key, tuple[int, int]], false: float, also: str = "") -> None:
        self.name, self.found, self.false, self.also = name, found, false, also

    def recall(self, found: dict[Key, tuple[int, int]] | None = None) -> float:
        """Return the share of the attacks that was found."""
        counted = (found or self.found).values()
        planted = sum(of for _, of in counted)
        return sum(one for one, _ in counted) / planted if planted else 0.0


def interval(rows: list[Row], value: Callable[..., float], rounds: int = 400) -> tuple[float, float]:
    """Return the middle 90 % of a value of rows when seeds and kinds are drawn anew, the same for all of them."""
    random = Random("interval")
    seeds = sorted({seed for seed, _ in rows[0].found})
    kinds = sorted({kind for _, kind in rows[0].found})
    values = []
    for _ in range(rounds):
        drawn_kinds = random.choices(kinds, k=len(kinds))
        drawn = [(seed, kind) for seed in random.choices(seeds, k=len(seeds)) for kind in drawn_kinds]
        shares = []
        for row in rows:
            there = [row.found[key] for key in drawn if key in row.found]
            shares.append(sum(one for one, _ in there) / max(1, sum(of for _, of in there)))
        values.append(value(*shares))
    values.sort()
    return values[rounds // 20], values[-rounds // 20]


def rows_at(point: float, tuning: list[dict[str, Any]], reported: list[dict[str, Any]]) -> list[Row]:
    """Return the rows of one operating point, every budget and threshold chosen on the tuning seeds."""
    visible = {kind.id for kind in CHOSEN_ON + HELD_OUT}
    rows = []
    for name in ASKED:
        budget = chosen_budget(point, tuning, name) if name != "policies" else DEFAULT
        figures = figures_of(reported, f"{name} {budget}")
        took = figures.median_minutes
        also = f"{figures.chance_rate:.1%} | {'-' if took is None else f'{took:.0f}'} | "
        also += "-" if figures.median_crossed is None else f"{figures.median_crossed:.1f}"
        found = {key: value for key, value in figures.by_seed.items() if key[1] in visible}
        rows.append(Row(f"{name}, budget {budget}", found, figures.false_a_day, also))
    return rows + [_baseline(name, tuning, reported, point) for name in BASELINES]


def chosen_budget(point: float, tuning: list[dict[str, Any]], name: str) -> float:
    """Return the largest budget that keeps within so many false alerts a principal and day on the tuning seeds."""
    if not tuning:
        return point if point in BUDGETS else BUDGETS[0]
    name = name if "digest" not in name and name != "both" else "models"
    kept = [budget for budget in BUDGETS if figures_of(tuning, f"{name} {budget}").false_a_day <= point]
    return max(kept, default=BUDGETS[0])


def lines(results: list[dict[str, Any]]) -> list[str]:
    """Write the tables: what the topic told, and the baselines, at each operating point."""
    tuning = [result for result in results if result["seed"] in TUNING_SEEDS]
    reported = [result for result in results if result["seed"] in REPORTED_SEEDS]
    written = []
    for title, some in (("held out", reported), ("chosen on", tuning)):
        for point in POINTS if some else ():
            rows = rows_at(point, tuning, some)
            written.append(f"\n{title}, {len(some)} seeds, for {point} false alerts a principal and day\n")
            written.append(
                "| detector | recall | middle 90 % | false / principal / day | by chance | median minutes "
                "| from the event that told |"
            )
            written.append("| --- | --- | --- | --- | --- | --- | --- |")
            for row in rows:
                low, high = interval([row], lambda share: share)
                also = row.also or "| |"
                written.append(
                    f"| {row.name} | {row.recall():.0%} | {low:.0%} to {high:.0%} | {row.false:.3f} | {also} |"
                )
            for other in rows[len(ASKED) :]:
                low, high = interval([rows[0], other], lambda one, two: one - two)
                apart = rows[0].recall() - other.recall()
                written.append(f"models less {other.name}: {apart:+.0%} ({low:+.0%} to {high:+.0%})")
    if tuning:
        written += ["", *_of_kinds(tuning, "chosen on")]
    if reported:
        written += ["", *_of_kinds(reported, "held out")]
    return written


def _of_kinds(some: list[dict[str, Any]], title: str) -> list[str]:
    figures, digest = figures_of(some, f"models {DEFAULT}"), figures_of(some, f"models, with the digest {DEFAULT}")
    both = figures_of(some, f"both {DEFAULT}")
    written = [f"{title}, by kind, with the default budget: by itself, with the digest, of"]
    written += [f"  {kind}: {figures.found[kind]}, {digest.found[kind]}, {of}" for kind, of in figures.planted.items()]
    sizes: dict[str, list[bool]] = {}
    for result in some:
        by_kind = {kind: found > 0 for _, kind, found, _ in result[f"models {DEFAULT}"]["by_seed"]}
        for kind, times in result["times"].items():
            if kind not in {one.id for one in BLIND}:
                size = "below 2" if times < 2 else "2 to 4" if times < 4 else "above 4"
                sizes.setdefault(size, []).append(by_kind[kind])
    written += [f"  {size} times the ordinary: {sum(found)} of {len(found)}" for size, found in sorted(sizes.items())]
    written.append(f"high and critical, policies' too, a day and 1,000 principals: {both.loud_a_day_1000:.0f}")
    return written


def _baseline(name: str, tuning: list[dict[str, Any]], reported: list[dict[str, Any]], budget: float) -> Row:
    chosen, shown = Compared(), Compared()
    for some, into in ((tuning, chosen), (reported, shown)):
        for result in some:
            into.clean += result[name]["clean"]
            into.attacks += [tuple(attack) for attack in result[name]["attacks"]]
    days = season.DAYS - season.WARM_DAYS
    limit = chosen.threshold(budget, days * sum(result["principals"] for result in tuning))
    reported_days = days * sum(result["principals"] for result in reported)
    false = sum(score > limit for score in shown.clean) / reported_days if reported_days else 0.0
    return Row(name, {(seed, kind): (int(score > limit), 1) for seed, kind, score in shown.attacks}, false)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*", help="all tuning and reported seeds unless given")
    parser.add_argument("--keep", type=Path, help="a file of results, one seed a line")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    if arguments.keep and arguments.keep.exists():
        results = [json.loads(line) for line in arguments.keep.read_text().splitlines()]
    for seed in arguments.seeds or (*TUNING_SEEDS, *REPORTED_SEEDS):
        if any(result["seed"] == seed for result in results):
            continue
        results.append(json.loads(json.dumps(measure(seed))))
        if arguments.keep:
            with arguments.keep.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
    print("\n".join(lines(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
