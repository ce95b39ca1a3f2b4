"""A log that was put back from an older copy, or cut off: nothing is taken away by it, and it is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pgwitness.core.errors import NotInOrder
from sinks.lake.compaction.retention import Terms
from sinks.lake.log import chain, snapshots
from sinks.lake.views.listing import Listing
from sinks.seal import place
from sinks.seal.place import sealed_to
from tests.sinks.material import DAY_US, NOON_US
from tests.sinks.seal.material import KEY, sealer
from tests.sinks.test_compaction import age, compactor, contents, fill
from tests.sinks.test_retention import DAY_S, retainer

LATER_US = NOON_US + 30 * DAY_US
AT_ONCE = Terms(dict.fromkeys(("events", "rows", "alerts"), DAY_S))


def parquet(path: Path) -> set[str]:
    """Name the data files that lie in a lake."""
    return {str(file.relative_to(path)) for file in path.glob("*/*=*/*.parquet")}


def cut(path: Path, end: int, *, snapshots_too: bool = False) -> None:
    """Take the entries from `end` on out of the log, and if wanted what else remembers them."""
    number = end
    while (entry := path / chain.entry_name(number)).exists():
        entry.unlink()
        number += 1
    if snapshots_too:
        shutil.rmtree(path / snapshots.FOLDER)
        (path / snapshots.HEAD).unlink()


def refused(path: Path, said: str, **more: object) -> None:
    """Neither compactor nor retainer does anything, and both say why."""
    there = parquet(path)
    with pytest.raises(NotInOrder, match=said):
        compactor(path, LATER_US, grace_s=0.0, orphans=True, **more).run()
    with pytest.raises(NotInOrder, match=said):
        retainer(path, LATER_US, AT_ONCE, grace_s=0.0, **more).run()
    with pytest.raises(NotInOrder, match=said):
        compactor(path, LATER_US, **more).planned()
    with pytest.raises(NotInOrder, match=said):
        retainer(path, LATER_US, AT_ONCE, **more).due()
    assert parquet(path) == there


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Name a lake that has a folder of its own: what the sealer remembers lies beside it."""
    return tmp_path / "lake"


def test_snapshots_that_know_more_than_the_log_end_all_upkeep(lake: Path) -> None:
    """What landed behind the end of the older log is in no entry now, and may be all that there is of it."""
    fill(lake, 6, landed_us=LATER_US)
    age(lake, 20)
    cut(lake, 4)
    refused(lake, "the log ends with entry 3, and _snapshots/tail-000000000006.json knows of entry 6")


def test_a_log_that_is_gone_is_no_lake_of_before(lake: Path) -> None:
    """Starting a worker would begin another one."""
    fill(lake, 2, landed_us=LATER_US)
    cut(lake, 0)
    refused(lake, "there is no entry of the log, and _snapshots/tail-000000000002.json knows of entry 2")


def test_a_seal_that_knows_more_than_the_log_ends_all_upkeep(lake: Path) -> None:
    """Also when nothing else remembers."""
    fill(lake, 6, landed_us=LATER_US)
    sealer(lake).round()
    age(lake, 20)
    cut(lake, 4, snapshots_too=True)
    seal = lake / place.FOLDER
    refused(lake, "the log ends with entry 3, and the seal knows of entry 6", sealed=lambda: sealed_to(seal))
    with pytest.raises(NotInOrder, match=r"000/006\.json is missing, although it was sealed"):
        sealed_to(seal, KEY.public(), Listing(lake).store)


def test_a_log_that_went_on_otherwise_is_not_the_one_that_was_sealed(lake: Path) -> None:
    """Its numbers are as high as those of the seal; what it takes out no checkpoint covers."""
    fill(lake, 6, landed_us=LATER_US)
    sealer(lake).round()
    cut(lake, 4, snapshots_too=True)
    fill(lake, 6, landed_us=LATER_US + 1)
    store = Listing(lake).store
    with pytest.raises(NotInOrder, match="is not the entry that was sealed"):
        sealed_to(lake / place.FOLDER, KEY.public(), store)
    refused(lake, "is not the entry", sealed=lambda: sealed_to(lake / place.FOLDER, KEY.public(), store))


def test_a_lake_that_grows_is_the_one_that_was_sealed(lake: Path) -> None:
    """At every size of the log."""
    for size in range(1, 6):
        fill(lake, 1)
        sealer(lake).round()
        assert sealed_to(lake / place.FOLDER, KEY.public(), Listing(lake).store) == size


def test_a_worker_on_a_log_that_was_longer_says_so_and_goes_on(lake: Path) -> None:
    """Cut off, and with other entries under the same numbers; what is in order it says nothing of."""
    fill(lake, 6)
    with capture_logs() as said:
        fill(lake, 1)
    assert [one for one in said if one["event"] == "log_went_back"] == []
    backup = lake.with_name("backup")
    shutil.copytree(lake / chain.FOLDER, backup)
    fill(lake, 2)
    shutil.rmtree(lake / chain.FOLDER)
    shutil.copytree(backup, lake / chain.FOLDER)
    with capture_logs() as said:
        fill(lake, 1)
    (told,) = (one for one in said if one["event"] == "log_went_back")
    assert (told["ends_with"], told["had"], told["log_level"]) == (7, 9, "error")
    assert len(contents(lake)["events"]) > 0
    with capture_logs() as said:
        fill(lake, 1)
    assert [(one["ends_with"], one["had"]) for one in said if one["event"] == "log_went_back"] == [(8, 9)]
    tail = lake / snapshots.tail_name(9)
    tail.write_bytes(tail.read_bytes().replace(b'"sha256":"', b'"sha256":"0', 1))
    with capture_logs() as said:
        fill(lake, 1)
    assert [(one["ends_with"], one["had"]) for one in said if one["event"] == "log_went_back"] == [(9, 9)]


def test_a_log_that_was_put_back_and_forgotten_by_all_costs_no_file(lake: Path) -> None:
    """Nobody knows of the newer entries any more; then the files alone do, and the older log gives them back."""
    fill(lake, 6, landed_us=NOON_US)
    kept = lake.with_name("kept")
    shutil.copytree(lake / chain.FOLDER, kept)
    before = contents(lake)
    cut(lake, 3, snapshots_too=True)
    age(lake, 20)
    assert compactor(lake, LATER_US, grace_s=0.0).run().orphans == 12
    retainer(lake, LATER_US, Terms(), grace_s=0.0).run()
    for folder in (chain.FOLDER, snapshots.FOLDER):
        shutil.rmtree(lake / folder)
    shutil.copytree(kept, lake / chain.FOLDER)
    assert contents(lake) == before
