"""Lakes that version 0.1 wrote: read as they are, and taken over by the first worker of this version.

`lake-0.1.tar.xz` was written by 0.1: two partitions, three commits each, and a crash between the last commit and the
renames that publish its files.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import msgspec
import pytest

from pgwitness.core.errors import Stop
from sinks.lake import manifest
from sinks.lake.log import chain
from sinks.lake.log.chain import Begin
from sinks.lake.storage.files import Files
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake
from sinks.sql import query
from sinks.sql.catalogue import connect
from sinks.sql.evidence import Evidence
from tests.sinks.material import ORDINARY, Crash, Disk, change, entries, landed, other

EVENTS = 8
PUBLISHED = 7


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Unpack the lake."""
    with tarfile.open(Path(__file__).parent / "lake-0.1.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "lake"


def count(lake: Path) -> int:
    """Count what a query sees."""
    ((number,),) = query.ask(connect(lake), "SELECT count(*) FROM events").rows
    return int(number)


def next_name(lake: Path, partition: int) -> Path:
    """Name the entry that a worker of 0.1 would commit next."""
    last = manifest.gather(lake).ends.get(("events", partition))
    return lake / manifest.FOLDER / manifest.entry_name("events", partition, last[0].end if last else 0)


def test_an_old_lake_is_read_without_being_changed(old: Path) -> None:
    """Whoever may only read it sees what it has; what a crash left to be published comes with the worker."""
    before = sorted(old.rglob("*"))
    assert count(old) == PUBLISHED
    with Evidence(old, 0) as past:
        assert past.total() == PUBLISHED
        assert len(list(past)) == PUBLISHED
    assert sorted(old.rglob("*")) == before


def test_the_first_worker_takes_it_over_and_goes_on(old: Path) -> None:
    """Everything is there once, partitions resume where they were, and what lands next stands beside it."""
    lake = Lake(old)
    lake.prepare()
    (begin,) = entries(old)
    assert isinstance(begin, Begin)
    assert [(one.topic, one.partition, one.end) for one in begin.ranges] == [("events", 0, 3), ("events", 1, 3)]
    assert count(old) == EVENTS
    assert {chain.digest((old / file.path).read_bytes()) == file.sha256 for file in begin.files} == {True}
    one = lake.writer("events", 1)
    start, marks = one.resume()
    assert (start, sorted(marks)) == (3, [(1, 0)])
    one.append(3, [other(106), other(107)], [ORDINARY] * 2, 1)  # the first has landed already
    one.commit()
    assert count(old) == EVENTS + 1
    with Evidence(old, 0) as past:
        partitions = [one.partition for one in past]
    assert partitions == ["events-0"] * 4 + ["events-1"] * 5
    listing = Listing(old)
    listing.refresh()
    assert (listing.missing(), listing.strange(), listing.late()) == ([], [], [])


def test_an_old_worker_that_still_runs_loses_its_commit(old: Path) -> None:
    """The next name of each chain is taken, also of partitions that had landed nothing, by what it does not know."""
    names = [next_name(old, partition) for partition in range(4)]
    Lake(old).prepare([("events", partition) for partition in range(4)])
    for name in names:
        with pytest.raises(FileExistsError):
            os.link(old / "views.sql", name)
        assert msgspec.json.decode(name.read_bytes())["format"] == manifest.FENCE


def test_what_lands_before_the_fence_is_taken_over_too(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is read for good only once no chain can grow."""
    source = next_name(old, 0)
    create = Lake(old).store.create
    content = manifest.gather(old).ends["events", 0][1].replace(b'"start":2,"end":3', b'"start":3,"end":9')

    def slower(name: str, fence: bytes) -> bool:
        if name.endswith(source.name) and not source.exists():
            source.write_bytes(msgspec.json.encode(msgspec.json.decode(content) | {"files": []}))
        return create(name, fence)

    lake = Lake(old)
    monkeypatch.setattr(lake.store, "create", slower)
    lake.prepare()
    assert lake.writer("events", 0).resume()[0] == 9


def test_an_old_lake_whose_manifest_is_damaged_is_not_taken_over(old: Path) -> None:
    """What the entry held would be lost without a word."""
    (old / manifest.FOLDER / manifest.entry_name("events", 0, 1)).write_text("{")
    with pytest.raises(Stop, match="restore it from a copy"):
        Lake(old).prepare()
    assert entries(old) == []


@pytest.mark.parametrize("start", [0, 1])
def test_an_old_lake_that_lacks_an_entry_is_not_taken_over(old: Path, start: int) -> None:
    """What it held would be in no entry of the new log, and nobody would ever miss it."""
    (old / manifest.FOLDER / manifest.entry_name("events", 0, start)).unlink()
    with pytest.raises(Stop, match="is missing although the entry behind it is there"):
        Lake(old).prepare()
    assert entries(old) == []


def test_what_an_old_worker_lands_behind_our_back_is_told(old: Path) -> None:
    """A partition that nobody fenced: its rows are not read, and the doctor hears of it."""
    content = manifest.gather(old).ends["events", 0][1].replace(b'"partition":0', b'"partition":7')
    Lake(old).prepare()
    (old / manifest.FOLDER / manifest.entry_name("events", 7, 2)).write_bytes(content)
    listing = Listing(old)
    listing.refresh()
    assert listing.late() == ["events-7"]
    assert count(old) == EVENTS


def test_taking_over_is_finished_whenever_it_was_interrupted(old: Path) -> None:
    """A crash before any operation: the next worker comes to the same."""
    dry = Disk()
    copied = old.parent / "dry"
    _copy(old, copied)
    Lake(copied, files=dry).prepare()
    for step in range(1, dry.steps + 1):
        copied = old.parent / str(step)
        _copy(old, copied)
        with pytest.raises(Crash):
            Lake(copied, files=Disk({step: Crash()})).prepare()
        Lake(copied, files=Files()).prepare()
        assert len(landed(copied)) == EVENTS, step
        one = Lake(copied).writer("events", 0)
        assert one.resume()[0] == 3, step
        one.append(3, [change(200)], [ORDINARY], 0)
        one.commit()
        assert len(landed(copied)) == EVENTS + 1, step


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)
