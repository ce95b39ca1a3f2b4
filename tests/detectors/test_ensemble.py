"""The ensemble of river's models, its calibration, and populations that learn: exact state, a gate, one scale."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.behaviour.calibration import BINS, TAIL, Calibration, scaled
from detectors.behaviour.ensemble import Ensemble, pack, unpack
from detectors.behaviour.populations import Population, Populations
from detectors.behaviour.windows import LENGTHS

STRANGE = 2.5
"""Powers of ten from which on a window is not learned here; an ordinary one stays below 2."""
NAMES = tuple(f"feature_{number:02d}" for number in range(12))


def point(random: Random) -> dict[str, float]:
    """Draw an ordinary window."""
    return {name: min(1.0, max(0.0, random.gauss(0.3, 0.05))) for name in NAMES}


def strange(value: float = 0.95) -> dict[str, float]:
    """Make a window that is far off in three features."""
    return dict.fromkeys(NAMES, 0.3) | dict.fromkeys(NAMES[:3], value)


def grown(n: int = 1_500, seed: int = 1) -> Ensemble:
    """Make an ensemble that has learned ordinary windows."""
    ensemble, random = Ensemble(NAMES, seed), Random(seed)
    for _ in range(n):
        ensemble.observe(point(random))
    return ensemble


def through_json(state: Any) -> Any:
    """Write a state as JSON and read it again, as a checkpoint does."""
    return msgspec.json.decode(msgspec.json.encode(state))


@pytest.mark.parametrize("before", [0, 1, 249, 250, 3_000])
def test_a_restored_ensemble_gives_identical_scores(before: int) -> None:
    """From any state on, a model that was written down and read scores thousands of windows as the one that stayed."""
    random = Random(before)
    stayed = Ensemble(NAMES, 5)
    for _ in range(before):
        stayed.observe(point(random))
    restored = Ensemble(NAMES, 5)
    restored.restore(through_json(stayed.state()))
    for number in range(2_500 if before == 3_000 else 600):
        x = strange() if number % 50 == 0 else point(random)
        assert restored.observe(x) == stayed.observe(x)
    assert restored.state() == stayed.state()


def test_the_same_anomaly_a_thousand_times_stays_one() -> None:
    """What is behind the gate is not learned, so repeating it teaches nothing."""
    ensemble = grown()
    first = ensemble.observe(strange()).score
    assert first > 0.9
    assert [ensemble.observe(strange()).score for _ in range(1_000)] == [first] * 1_000


def test_the_common_scale_counts_how_rare_a_window_is() -> None:
    """Of ordinary windows about one in a hundred scores above one half, and next to none above 0.9."""
    ensemble, random = grown(4_000), Random(99)
    scores = sorted(ensemble.score(point(random)).score for _ in range(4_000))
    assert 10 <= sum(score > 0.5 for score in scores) <= 120
    assert sum(score > 0.9 for score in scores) <= 8
    assert 0.0 <= scores[0] <= scores[-1] <= 1.0


def test_contributions_name_what_is_off() -> None:
    """The features that were moved are those that are said to drive the score."""
    named = grown().contributions(strange(), dict.fromkeys(NAMES, 0.3))
    assert {feature for feature, _ in named} <= set(NAMES[:3])
    assert named


def test_models_drawn_otherwise_are_refused() -> None:
    """A state of another seed is not read into trees that ask something else."""
    with pytest.raises(ValueError, match="drawn by another"):
        Ensemble(NAMES, 2).restore(through_json(grown(seed=1).state()))


def test_the_state_is_small() -> None:
    """A pair of models that has learned much is less than 40 KiB of JSON."""
    assert len(msgspec.json.encode(grown(3_000).state())) < 40 * 1024


@given(st.lists(st.sampled_from([0, 0, 0, 1, 7, 250]), max_size=2_000))
def test_masses_survive_packing(masses: list[int]) -> None:
    """Runs of zeros are written short and come back as they were."""
    assert unpack(pack(masses)) == masses


def test_a_packed_bomb_is_refused() -> None:
    """A short list that stands for a billion masses is not unpacked."""
    with pytest.raises(ValueError, match="more masses"):
        unpack([-(10**9)])


@given(
    st.lists(st.floats(0.0, 30.0), min_size=1, max_size=300), st.lists(st.floats(-5.0, 1e6), min_size=2, max_size=20)
)
def test_rarity_is_a_share_and_falls_with_the_score(seen: list[float], asked: list[float]) -> None:
    """Whatever was seen, the rarity of any score is above 0 and at most 1, and a higher score is never more common."""
    calibration = Calibration()
    for score in seen:
        calibration.learn(score)
    shares = [calibration.rarity(score) for score in sorted(asked)]
    assert all(0.0 < share <= 1.0 for share in shares)
    assert all(later <= sooner + 1e-9 for sooner, later in pairwise(shares))
    assert all(0.0 <= scaled(share) <= 1.0 for share in shares)


def test_beyond_what_was_seen_the_tail_goes_on() -> None:
    """Of exponential scores, one e-folding beyond the top tenth is about as rare as it is."""
    calibration, random = Calibration(), Random(4)
    for _ in range(20_000):
        calibration.learn(random.expovariate(1.0))
    there = -math.log(TAIL)
    assert calibration.rarity(there + 2.0) == pytest.approx(TAIL * math.exp(-2.0), rel=0.25)
    assert len(through_json(calibration.state())[1]) <= BINS


def features(population: Population, random: Random, value: float | None = None) -> dict[str, float]:
    """Draw a window as a population sees it."""
    x = {name: min(1.0, max(0.0, random.gauss(0.3, 0.05))) for name in population.ensemble.features}
    return x if value is None else x | dict.fromkeys(population.ensemble.features[:4], value)


def observed(population: Population, who: str, x: dict[str, float], now_us: int) -> tuple[float, bool]:
    """Score a window, then let the population take it, unless it is very strange; return score and whether it did."""
    found = population.strange(x, None)
    assert found.score is not None
    return found.decades, population.take(who, x, found.score, now_us, found.decades > STRANGE)


def watched(strangers: list[str], windows: int = 300) -> tuple[Population, list[float]]:
    """Let ten members work, then let some do something else again and again; return their scores."""
    population, random = Population(LENGTHS[0], 1, 7 * 86_400_000_000), Random(3)
    for number in range(600):
        observed(population, f"m{number % 10}", features(population, random), number * 60_000_000)
    scores = []
    for number in range(windows):
        who = f"m{number % 10}"
        value = 0.9 if who in strangers else None
        x = features(population, random, value)
        decades, _ = observed(population, who, x, (600 + number) * 60_000_000)
        if value is not None:
            scores.append(decades)
    return population, scores


def test_a_deployment_of_the_whole_group_is_adopted() -> None:
    """When most members change at once, what they do becomes ordinary."""
    _, scores = watched([f"m{number}" for number in range(10)])
    assert scores[0] > STRANGE
    assert max(scores[-50:]) < 2.0


def test_one_member_alone_moves_nothing_until_a_week_has_passed() -> None:
    """What only one of ten members does stays strange, however often; it is learned when nobody minded for long."""
    population, scores = watched(["m3"])
    assert min(scores) > STRANGE
    random = Random(7)
    later_us = 9 * 86_400_000_000
    observed(population, "m1", features(population, random), later_us)
    after, _ = observed(population, "m3", features(population, random, 0.9), later_us)
    assert after < scores[-1] - 0.5


def test_a_population_comes_back_exactly() -> None:
    """Restored, it scores and learns as if it had never been away."""
    population, _ = watched(["m3"], 100)
    other = Population(LENGTHS[0], 1, 7 * 86_400_000_000)
    other.restore(through_json(population.state()))
    one, two = Random(1), Random(1)
    for number in range(200):
        now_us = (2_000 + number) * 60_000_000
        x, y = features(population, one), features(other, two)
        assert observed(population, "m1", x, now_us)[1] == observed(other, "m1", y, now_us)[1]
    assert population.active(now_us) == other.active(now_us)


def test_names_of_groups_cannot_make_populations_without_end() -> None:
    """Beyond the bound groups share what there is per kind; a place is given away after a week of silence."""
    populations = Populations(3, 1, 10**15, LENGTHS)
    for number in range(200):
        populations.of(f"group-{number}", "agent", 1_000)
    assert len(populations) == 3 + 1
    for population in populations.of("group-0", "agent", 1_000).values():
        population.last_us = 1_000
    late = Populations.IDLE_US + 2_000
    assert populations.of("newcomers", "agent", late) is not populations.of(None, "agent", late)
    assert len(populations) == 3 + 1
