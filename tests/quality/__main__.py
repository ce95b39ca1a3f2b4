"""`make quality`: how good policies and models are, as a table and as JSON.

Run on seeds that were not used for tuning, unless `--tuning` asks for those. Exits 1 when a target is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.quality import shuttle
from tests.quality.attacks import ATTACKS
from tests.quality.heldout import HELD_OUT
from tests.quality.scoring import Score
from tests.quality.suite import FALSE_A_DAY, REPORTED_SEEDS, TUNING_SEEDS, run

RECALL_MIN, LOUD_MAX, SHUTTLE_MIN = 0.95, 5.0, 0.97


def main() -> int:
    """Measure, print, and say by the exit code whether the targets are met."""
    parser = argparse.ArgumentParser(prog="make quality", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the company; 1 is 86 principals")
    parser.add_argument("--seeds", type=int, help="how many of the seeds, all unless given")
    parser.add_argument("--tuning", action="store_true", help="the seeds that models were tuned on")
    parser.add_argument("--json", action="store_true", help="one object on stdout instead of tables")
    arguments = parser.parse_args()
    seeds = (TUNING_SEEDS if arguments.tuning else REPORTED_SEEDS)[: arguments.seeds]
    started = time.process_time()
    scores = run(seeds, arguments.scale)
    outside = shuttle.run()
    figures: dict[str, Any] = {
        "seeds": list(seeds),
        "scale": arguments.scale,
        "attacks": len(ATTACKS),
        "held_out": len(HELD_OUT),
        "detectors": {name: figures_of(score) for name, score in scores.items()},
        "shuttle": outside,
        "checks": checks(scores["both"], outside),
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show(Console(), figures)
    return 0 if all(check["holds"] for check in figures["checks"]) else 1


def figures_of(score: Score) -> dict[str, Any]:
    """Return the figures of one detector as JSON values."""
    return {
        "recall": round(score.recall, 4),
        "held_out_recall": None if score.held_out_recall is None else round(score.held_out_recall, 4),
        "precision": round(score.precision, 4),
        "false_per_principal_day": round(score.false_a_day, 4),
        "loud_false_per_day_1000": round(score.loud_a_day_1000, 2),
        "median_seconds": None if score.median_seconds is None else round(score.median_seconds, 1),
        "attacks": score.attacks,
        "found": score.found,
        "missed": dict(sorted(score.missed.items())),
        "held_out": {each.id: score.caught[each.id] for each in HELD_OUT} if score.held_out else {},
        "false_by": dict(score.false_by.most_common()),
    }


def checks(both: Score, outside: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the targets against what was measured."""
    wanted = [
        ("recall of both, without the kinds that are held out", both.recall, ">=", RECALL_MIN),
        ("high or critical false alerts a day per 1,000 principals", both.loud_a_day_1000, "<=", LOUD_MAX),
        ("false alerts per principal and day", both.false_a_day, "<=", FALSE_A_DAY),
        ("Shuttle, ROC-AUC of the ensemble", outside["ensemble"], ">=", SHUTTLE_MIN),
    ]
    return [
        {
            "what": what,
            "value": round(value, 4),
            "limit": f"{sign} {limit}",
            "holds": value >= limit if sign == ">=" else value <= limit,
        }
        for what, value, sign, limit in wanted
    ]


def show(console: Console, figures: dict[str, Any]) -> None:
    """Print the figures as tables."""
    seeds = ", ".join(map(str, figures["seeds"]))
    title = f"seeds {seeds}; {figures['attacks']} attacks each, and {figures['held_out']} of held-out kinds"
    sheet = Table(title=title)
    sheet.add_column("detector")
    columns = (
        "recall",
        "of held-out kinds",
        "precision",
        "false / principal / day",
        "loud false / day / 1,000",
        "median time to detection",
    )
    for column in columns:
        sheet.add_column(column, justify="right")
    for name, one in figures["detectors"].items():
        took = "-" if one["median_seconds"] is None else f"{one['median_seconds'] / 60:,.1f} min"
        sheet.add_row(
            name,
            f"{one['recall']:.1%}",
            "-" if one["held_out_recall"] is None else f"{one['held_out_recall']:.1%}",
            f"{one['precision']:.1%}",
            f"{one['false_per_principal_day']:.3f}",
            f"{one['loud_false_per_day_1000']:.1f}",
            took,
        )
    console.print(sheet)
    both = figures["detectors"]["both"]
    missed = ", ".join(f"{name} ({count})" for name, count in both["missed"].items()) or "none"
    console.print(f"missed by both: {missed}")
    runs = len(figures["seeds"])
    for name, count in both["held_out"].items():
        console.print(f"  held out: {name}: found {count} of {runs}")
    for name, count in both["false_by"].items():
        console.print(f"  false: {name}: {count}")
    outside = figures["shuttle"]
    console.print(
        f"Shuttle, {outside['rows']:,} rows, {outside['anomalies']:,} anomalies, ROC-AUC: half-space trees "
        f"{outside['trees']:.3f}, LODA {outside['loda']:.3f}, ensemble {outside['ensemble']:.3f}"
    )
    for check in figures["checks"]:
        console.print(f"{'holds' if check['holds'] else 'FAILS'}: {check['what']} {check['value']} {check['limit']}")
    console.print(f"{figures['cpu_seconds']:.0f} s of processor time")


if __name__ == "__main__":
    sys.exit(main())
