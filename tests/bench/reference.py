"""How fast this machine is, beside the one that the limits of `make bench` were set on.

Limits are rates; a machine half as fast meets none of them, whatever the program does. So the same few operations are
timed before anything is measured, all well defined and none of them ours, and compared with what they took there. The
ratio stands beside the results; it changes no limit and no verdict.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from river.anomaly import LODA, HalfSpaceTrees
from river.drift import ADWIN
from river.stats import EWMean

REFERENCE_US = {
    "HalfSpaceTrees 10x8, score and learn": 28.0,
    "LODA of 50 cuts, score and learn": 110.0,
    "ADWIN, update": 0.5,
    "EWMean, update": 0.2,
    "Ed25519, sign": 22.0,
    "Ed25519, verify": 70.0,
}
"""Microseconds of each there."""
ROUNDS = 7
_FEATURES = 10
_POINTS = 400


def measure() -> dict[str, object]:
    """Time each operation, the best of some rounds; `slowness` is the geometric mean of their ratios to there."""
    taken = {name: _best_us(*operation) for name, operation in _operations().items()}
    ratios = {name: taken[name] / there for name, there in REFERENCE_US.items()}
    slowness = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    return {"slowness": round(slowness, 2), "us": {name: round(us, 2) for name, us in taken.items()}}


def _operations() -> dict[str, tuple[Callable[[], object], int]]:
    rng = random.Random(1)
    points = [{f"f{n}": rng.random() for n in range(_FEATURES)} for _ in range(_POINTS)]
    trees, loda = HalfSpaceTrees(n_trees=10, height=8, seed=1), LODA(n_random_cuts=50, seed=1)
    adwin, mean = ADWIN(), EWMean()
    key = Ed25519PrivateKey.generate()
    text = bytes(200)
    signature, public = key.sign(text), key.public_key()

    def model(each: Any) -> Callable[[], object]:
        turn = iter(points * ROUNDS)

        def step() -> None:
            point = next(turn)
            each.score_one(point)
            each.learn_one(point)

        return step

    return {
        "HalfSpaceTrees 10x8, score and learn": (model(trees), _POINTS),
        "LODA of 50 cuts, score and learn": (model(loda), _POINTS),
        "ADWIN, update": (lambda: adwin.update(0.5), 20_000),
        "EWMean, update": (lambda: mean.update(0.5), 20_000),
        "Ed25519, sign": (lambda: key.sign(text), 1_000),
        "Ed25519, verify": (lambda: public.verify(signature, text), 1_000),
    }


def _best_us(operation: Callable[[], object], times: int) -> float:
    best = math.inf
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            operation()
        best = min(best, time.perf_counter() - began)
    return best / times * 1e6
