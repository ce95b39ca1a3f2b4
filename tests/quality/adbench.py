"""`python -m tests.quality.adbench FOLDER`: the ensemble on six sets of ADBench, beside river's own two models.

FOLDER has `16_http.npz` and so on, as they lie in `adbench/datasets/Classical` of https://github.com/Minqi824/ADBench
(S. Han and others, ADBench: Anomaly Detection Benchmark, 2022). Of each set at most `--rows` rows, in three orders
drawn from a seed; each row is scored before it is learned, by all of them after the same scaling: the smallest and the
largest value of a feature that were seen so far are 0 and 1. What is reported is the mean area under the ROC curve.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from detectors.behaviour.ensemble import Ensemble
from tests.quality.shuttle import roc_auc

SETS = ("16_http", "32_shuttle", "23_mammography", "38_thyroid", "31_satimage-2", "10_cover")
ROWS_MAX = 10_000
SHUFFLES = 3
LOSS_MAX = 0.01
"""By how much the ensemble may be below the better of the two on any set."""

Row = dict[str, float]
Model = Callable[[Row], float]
"""Scores a row, then learns it."""


def drawn(path: Path, seed: int, rows: int) -> tuple[list[list[float]], list[bool]]:
    """Return at most so many rows of a set, and which are anomalies, in an order of this seed."""
    with np.load(path) as data:
        values, labels = data["X"], data["y"]
    order = list(range(len(labels)))
    Random(f"{path.stem} {seed}").shuffle(order)
    order = order[:rows]
    return values[order].tolist(), [bool(label) for label in labels[order]]


def scaled(rows: list[list[float]]) -> Iterator[Row]:
    """Put each feature between 0 and 1 by the least and the greatest value so far."""
    low, high = list(rows[0]), list(rows[0])
    for row in rows:
        low = [min(pair) for pair in zip(low, row, strict=True)]
        high = [max(pair) for pair in zip(high, row, strict=True)]
        yield {
            f"f{place}": (value - low[place]) / ((high[place] - low[place]) or 1.0) for place, value in enumerate(row)
        }


def models(features: list[str], seed: int) -> dict[str, Model]:
    """Make what is compared."""
    from river.anomaly import LODA, HalfSpaceTrees  # with SciPy, which takes a second and nothing else here needs

    trees = HalfSpaceTrees(limits=dict.fromkeys(features, (0.0, 1.0)), seed=seed)
    loda = LODA(seed=seed)
    ensemble = Ensemble(features, seed)

    def of(model: Any) -> Model:
        def score(x: Row) -> float:
            found = float(model.score_one(x))
            model.learn_one(x)
            return found

        return score

    return {"half-space trees": of(trees), "LODA": of(loda), "ensemble": lambda x: ensemble.observe(x).score}


def measure(path: Path, rows_max: int = ROWS_MAX) -> dict[str, float]:
    """Return the mean area under the ROC curve of each model on one set."""
    areas: dict[str, list[float]] = {}
    for seed in range(1, SHUFFLES + 1):
        rows, labels = drawn(path, seed, rows_max)
        compared = models([f"f{place}" for place in range(len(rows[0]))], seed)
        scores: dict[str, list[float]] = {name: [] for name in compared}
        for x in scaled(rows):
            for name, model in compared.items():
                scores[name].append(model(x))
        for name, found in scores.items():
            areas.setdefault(name, []).append(roc_auc(found, labels))
    return {name: sum(found) / len(found) for name, found in areas.items()}


def main() -> int:
    """Measure and print; 1 when the ensemble is not as good as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the .npz files are")
    parser.add_argument("--rows", type=int, default=ROWS_MAX, help="the most rows of a set")
    arguments = parser.parse_args()
    folder = arguments.folder
    found = {}
    for name in SETS:
        path = folder / f"{name}.npz"
        if not path.exists():
            print(f"{name}: skipped, {path} is not there")
            continue
        found[name] = measure(path, arguments.rows)
        print(f"{name}: " + ", ".join(f"{model} {area:.3f}" for model, area in found[name].items()), flush=True)
    if not found:
        return 1
    means = {model: sum(areas[model] for areas in found.values()) / len(found) for model in next(iter(found.values()))}
    print("mean: " + ", ".join(f"{model} {area:.3f}" for model, area in means.items()))
    losses = [max(areas["half-space trees"], areas["LODA"]) - areas["ensemble"] for areas in found.values()]
    holds = means["ensemble"] > max(means["half-space trees"], means["LODA"]) and max(losses) <= LOSS_MAX
    print(f"{'holds' if holds else 'FAILS'}: the most below the better of the two on a set is {max(losses):.3f}")
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
