"""The ensemble: river's HalfSpaceTrees and LODA of one population, calibrated to one scale, learning behind a gate.

A window is scored before it is learned. Each model's score becomes the share of ordinary windows that score as high
(`detectors.behaviour.calibration`); the geometric mean of both is calibrated once more. What lies above the gate is not
learned, so an anomaly that repeats itself stays one. Features are named once, in a fixed order, each between 0 and 1.

The state is JSON: masses of the trees and bins of the histograms. Thresholds and projections are not in it, because
river draws them from the seed; their fingerprint is, and a state with another one is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from detectors.behaviour.calibration import Calibration, fill_histogram, histogram_state, scaled
from detectors.behaviour.learners import LODA, HalfSpaceTrees

TREES, HEIGHT = 10, 8
CUTS, BINS = 30, 10
REASONS_MAX = 3
PART_MIN = 0.05
"""The least part in a score that is named."""
DECADES_MAX = 8.0
SCORES_MIN = 20
"""Ordinary scores that a model needs before what it says counts."""


class Score(Struct, frozen=True):
    """What the ensemble says of one window: `score` on the common scale, the models' mean `joint`, their raw scores."""

    score: float
    joint: float
    trees: float
    loda: float


class Ensemble:
    """One pair of models. `window` is how many observations make a generation of the trees.

    `gate` is the score (common scale) from which on nothing is learned once the pair is seasoned: until then there is
    too little to compare with, everything is learned, and a caller should believe no score.
    """

    def __init__(self, features: Sequence[str], seed: int, window: int = 250, gate: float = 0.75) -> None:
        self.features = tuple(features)
        self.gate = gate
        self._window = window
        self._seed = seed
        self._trees = HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=window, seed=seed)
        self._loda = LODA(n_bins=BINS, n_random_cuts=CUTS, seed=seed)
        self._of_trees = Calibration()
        self._of_loda = Calibration()
        self._of_both = Calibration()
        self.n = 0

    @property
    def seasoned(self) -> bool:
        """Whether there are enough ordinary scores to compare with."""
        return self._of_both.n >= self._window

    def score(self, x: Mapping[str, float]) -> Score:
        """Score a window; nothing is learned."""
        trees = float(self._trees.score_one(x))
        loda = float(self._loda.score_one(x))
        parts = [
            scaled(calibration.rarity(raw))
            for calibration, raw in ((self._of_trees, trees), (self._of_loda, loda))
            if calibration.n >= SCORES_MIN
        ]
        joint = sum(parts) / len(parts) if parts else 0.0
        # Two models seldom agree by chance: how rare their mean is, is a question of its own.
        score = scaled(self._of_both.rarity(joint)) if self.seasoned else joint
        return Score(score, joint, trees, loda)

    def loda_decades(self, x: Mapping[str, float], raw: float | None = None) -> float | None:
        """Return how rare a window is by LODA alone, in powers of ten; None while it has seen too little."""
        if self._of_loda.n < SCORES_MIN:
            return None
        rarity = self._of_loda.rarity(float(self._loda.score_one(x)) if raw is None else raw)
        # A tail that was fitted to a few scores says too much.
        most = DECADES_MAX if self._of_loda.n >= self._window else math.log10(self._of_loda.n + 1)
        return min(most, max(0.0, -math.log10(rarity)))

    def learn(self, x: Mapping[str, float], score: Score) -> None:
        """Take a window in, whatever its score; the caller asks the gate."""
        if self._of_trees.n >= SCORES_MIN:
            self._of_both.learn(score.joint)
        # The first generation of trees has nothing to say, and its zeros would spoil the scale.
        if self.n >= self._window:
            self._of_trees.learn(score.trees)
        if self.n >= SCORES_MIN:
            self._of_loda.learn(score.loda)
        self._trees.learn_one(x)
        self._loda.learn_one(x)
        self.n += 1

    def observe(self, x: Mapping[str, float]) -> Score:
        """Score, then learn what is not too strange."""
        score = self.score(x)
        if not self.seasoned or score.score < self.gate:
            self.learn(x, score)
        return score

    def contributions(self, x: Mapping[str, float], typical: Mapping[str, float]) -> list[tuple[str, float]]:
        """Return which features drive a window's score, the most significant first.

        A feature's part is by how much the models' mean falls when the feature alone has its typical value.
        """
        whole = self._open(x)
        parts = []
        for feature in self.features:
            if x[feature] == typical[feature]:
                continue
            fall = whole - self._open({**x, feature: typical[feature]})
            if fall >= PART_MIN:
                parts.append((feature, fall))
        parts.sort(key=lambda part: (-part[1], part[0]))
        return parts[:REASONS_MAX]

    def _open(self, x: Mapping[str, float]) -> float:
        score = self.score(x)
        # Beyond the end of the scale everything is 1; the raw scores still distinguish more from less.
        return score.joint + score.loda / 20 + score.trees / 10

    def state(self) -> dict[str, Any]:
        """Return everything that was learned as JSON values."""
        nodes = [node for tree in self._trees._tree_nodes for node in tree]
        return {
            "drawn": self._drawn(),
            "n": self.n,
            "first": self._trees._first_window,
            "counter": self._trees.counter,
            "latest": pack([node.l_mass for node in nodes]),
            "reference": pack([node.r_mass for node in nodes]),
            "histograms": [histogram_state(histogram) for histogram in self._loda.histograms_],
            "trees": self._of_trees.state(),
            "loda": self._of_loda.state(),
            "both": self._of_both.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state into a fresh ensemble. Raise `ValueError` when trees or projections are drawn otherwise."""
        if state["n"]:
            # Both draw what they need with the first observation; what it teaches is overwritten below.
            first = dict.fromkeys(self.features, 0.0)
            self._trees.learn_one(first)
            self._loda.learn_one(first)
        if self._drawn() != state["drawn"]:
            raise ValueError("the models were drawn by another river, seed or list of features")
        self.n = state["n"]
        self._trees._first_window = state["first"]
        self._trees.counter = state["counter"]
        nodes = [node for tree in self._trees._tree_nodes for node in tree]
        latest, reference = unpack(state["latest"]), unpack(state["reference"])
        for node, left, right in zip(nodes, latest, reference, strict=True):
            node.l_mass, node.r_mass = left, right
        for histogram, part in zip(self._loda.histograms_, state["histograms"], strict=True):
            fill_histogram(histogram, part)
        self._of_trees = Calibration.of(state["trees"])
        self._of_loda = Calibration.of(state["loda"])
        self._of_both = Calibration.of(state["both"])

    def _drawn(self) -> str:
        """Return the fingerprint of everything that is drawn from the seed and not kept."""
        drawn = hashlib.sha256(repr((self.features, self._window, self._seed)).encode())
        for tree in self._trees._tree_nodes:
            drawn.update(repr([(node.feature, node.threshold) for node in tree if hasattr(node, "feature")]).encode())
        drawn.update(repr(self._loda.projections_).encode())
        return drawn.hexdigest()


def pack(masses: Sequence[int]) -> list[int]:
    """Write counts, most of them 0, as a list in which -n stands for n zeros."""
    packed: list[int] = []
    for mass in masses:
        if mass:
            packed.append(mass)
        elif packed and packed[-1] < 0:
            packed[-1] -= 1
        else:
            packed.append(-1)
    return packed


def unpack(packed: Sequence[int]) -> list[int]:
    """Read what `pack` wrote. Raise `ValueError` when it stands for more than any tree has."""
    if sum(1 if mass > 0 else -mass for mass in packed) > TREES * 2 ** (HEIGHT + 1):
        raise ValueError("more masses than the trees have nodes")
    masses: list[int] = []
    for mass in packed:
        masses.extend([mass] if mass > 0 else [0] * -mass)
    return masses
