"""Whatever is altered in a sealed lake is found, and nothing in one that was not; `make alterations` tries more."""

from __future__ import annotations

import pytest

from tests.sinks.seal.alterations import ALTERATIONS, run
from tests.sinks.seal.altered_world import World
from tests.sinks.seal.material import checkpoint, verified

ROUNDS = 7


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make a lake with entries of every kind, sealed."""
    return World(tmp_path_factory.mktemp("altered"))


def test_nothing_is_found_in_an_untouched_lake(world: World) -> None:
    """Replaced files that are still there, retired ones that are gone, and holds are in order."""
    report = verified(world.lake, world.kept, checkpoint(world.older))
    assert report.findings == []
    assert report.notes[0].startswith("the remembered checkpoint is of entries 0 to ")
    assert report.chained_entries == 0


@pytest.mark.parametrize("first", range(ROUNDS))
def test_every_alteration_is_found(world: World, first: int) -> None:
    """Bits, rows, files, entries, chains, old copies, checkpoints, plants, links, snapshots, tiles."""
    start = first * len(ALTERATIONS)
    assert run(world, range(start, start + len(ALTERATIONS))) == []
