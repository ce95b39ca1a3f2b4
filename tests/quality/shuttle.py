"""River's own Shuttle set as an outside check: the ensemble that judges windows, on data nobody here made.

The first 10,000 rows, each scored before it is learned. Readings are signed and reach into the thousands while most
lie within a hundred, so they are log-scaled with fixed limits as windows are: asinh instead of log1p, for the sign.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from river.datasets import Shuttle

from detectors.behaviour.ensemble import Ensemble

ROWS = 10_000
READING_MAX = 20_000.0
LINEAR_TO = 25.0
"""Readings up to about this are scaled evenly, larger ones by their logarithm."""
SEED = 42


def run(rows: int = ROWS, seed: int = SEED) -> dict[str, Any]:
    """Score the set; return the areas under the ROC curve of each model and of the ensemble."""
    names = [f"f{number}" for number in range(1, 10)]
    ensemble = Ensemble(names, seed)
    scores, labels = [], []
    for x, label in itertools.islice(Shuttle(), rows):
        scores.append(ensemble.observe({name: scaled(x[name]) for name in names}))
        labels.append(bool(label))
    return {
        "rows": len(labels),
        "anomalies": sum(labels),
        "trees": roc_auc([s.trees for s in scores], labels),
        "loda": roc_auc([s.loda for s in scores], labels),
        "ensemble": roc_auc([s.score for s in scores], labels),
    }


def scaled(reading: float) -> float:
    """Put a reading between 0 and 1."""
    limit = math.asinh(READING_MAX / LINEAR_TO)
    return 0.5 + 0.5 * min(1.0, max(-1.0, math.asinh(reading / LINEAR_TO) / limit))


def roc_auc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Return the chance that an anomaly scores higher than an ordinary row; equal scores count half."""
    ordered = sorted(scores)
    ranks = sum(
        (bisect_left(ordered, score) + bisect_right(ordered, score) + 1) / 2
        for score, label in zip(scores, labels, strict=True)
        if label
    )
    anomalies = sum(labels)
    return (ranks - anomalies * (anomalies + 1) / 2) / (anomalies * (len(labels) - anomalies))
