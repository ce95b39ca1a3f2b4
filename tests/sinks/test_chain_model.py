"""The protocol of the chain against a model of the world: all interleavings of the small, many of the large."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pgwitness.core.errors import Stop
from tests.sinks.chain_world import (
    Breaks,
    Chooser,
    Program,
    World,
    compactor,
    holder,
    random_world,
    retainer,
    run,
    worker,
)

RUNS = int(os.environ.get("CHAIN_MODEL_RUNS", "700"))

SMALL: dict[str, Callable[[World], list[Program]]] = {
    "two workers, one partition": lambda world: [worker(world, [0], 1), worker(world, [0], 1)],
    "two workers, one shared of two": lambda world: [worker(world, [0, 1], 1), worker(world, [1], 1)],
    "two workers, two commits each": lambda world: [worker(world, [0], 2), worker(world, [0], 2)],
    "worker, compactor, retainer": lambda world: [worker(world, [0], 1), compactor(world), retainer(world)],
    "two compactors": lambda world: [compactor(world), compactor(world)],
    "compactor and retainer": lambda world: [compactor(world), retainer(world)],
    "retainer and hold": lambda world: [retainer(world), holder(world)],
    "retainer and hold of a principal": lambda world: [retainer(world), holder(world, "p", "tok")],
    "compactor and hold of a principal": lambda world: [compactor(world), holder(world, "p", "tok")],
}


def verdict(world: World, act: Callable[[], None]) -> str | None:
    """Say what is wrong, be it that a writer finds a chain that nobody can go on with."""
    try:
        act()
    except Stop as error:
        return str(error)
    return world.verdict()


def explore(programs: Callable[[World], list[Program]], breaks: Breaks, faults: int) -> tuple[int, str | None]:
    """Run all interleavings; gives how many there were, and what was wrong with the first that was."""
    prefix: list[int] | None = []
    runs = 0
    while prefix is not None:
        runs += 1
        filled = World(lambda count: 0, Breaks.NOTHING, 0)
        run(filled, [worker(filled, [2], 2)])
        choose = Chooser(prefix)
        world = World(choose, breaks, faults)
        world.store, world.data = filled.store, filled.data
        world.avoid(filled)

        def act(world: World = world) -> None:
            run(world, programs(world), coarse=True)
            world.arrive()

        wrong = verdict(world, act)
        if wrong is not None:
            return runs, wrong
        prefix = choose.following()
    return runs, None


@pytest.mark.parametrize("case", SMALL)
def test_every_interleaving_of_a_few_writers_lands_everything_once(case: str) -> None:
    """With one write that is lost, comes late, or is done and not answered, at any moment; what is read is one turn."""
    runs, wrong = explore(SMALL[case], Breaks.NOTHING, faults=0 if "worker," in case else 1)
    assert wrong is None
    assert runs > 100


def test_many_writers_that_crash_and_are_not_answered_land_everything_once() -> None:
    """Two workers and a third that takes over, compactors, a retainer and a hold, at random."""
    for seed in range(RUNS):
        worlds: list[World] = []
        try:
            worlds.append(random_world(seed, Breaks.NOTHING))
        except Stop as error:
            pytest.fail(f"seed {seed}: {error}")
        assert worlds[0].verdict() is None, seed


@pytest.mark.parametrize("breaks", [one for one in Breaks if one is not Breaks.NOTHING])
def test_a_protocol_that_is_wrong_is_found(breaks: Breaks) -> None:
    """Each way of doing it wrong shows, so that the model can fail."""
    for seed in range(RUNS):
        try:
            wrong = random_world(seed, breaks).verdict()
        except Stop as error:
            wrong = str(error)
        if wrong is not None:
            return
    pytest.fail(f"{RUNS} worlds in which {breaks.value}, and nothing was found")
