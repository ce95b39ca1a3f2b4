"""FailAfterWrite: the process dies at any operation, the disk forgets what was not synced; then another goes on."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgwitness.core.events import Event, Position
from sinks.lake.log import chain, snapshots
from sinks.lake.log.chain import State
from sinks.lake.log.on_store import open_state
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake
from tests.often import often
from tests.sinks.material import DAY_US, NOON_US, ORDINARY, Crash, Disk, Finding, Judgement, change, landed, lands

RECORDS = 8
SPREAD_US = 3_000


def topic() -> list[tuple[int, list[Event], list[Judgement]]]:
    """Make the records of a topic: lanes, several transactions each, days that change within a record, an alert."""
    records = []
    number = 0
    for offset in range(RECORDS):
        lane = offset % 3
        events = []
        for _ in range(1 + offset % 4):
            number += 1
            day_us = DAY_US if number % 5 == 0 else 0
            events.append(change(number, captured_at_us=NOON_US + day_us + number, at=Position(number % 2, number, 0)))
        verdicts = [ORDINARY] * (len(events) - 1) + [Judgement(alerts=[Finding(f"alert-{offset}", {"count": 1})])]
        records.append((lane, events, verdicts))
    return records


TOPIC = topic()
EXPECTED = sorted(event.xid - 1_000 for _, events, _ in TOPIC for event in events if event.xid)


def run(path: Path, disk: Disk, commit_every: int) -> None:
    """Be a worker: resume where the lake says, go on to the topic's end."""
    writer = Lake(path, files=disk).writer("events", 0)
    start, _ = writer.resume()
    for offset in range(start, RECORDS):
        lane, events, verdicts = TOPIC[offset]
        writer.append(offset, events, verdicts, lane)
        if offset % commit_every == commit_every - 1:
            writer.commit()
    writer.commit()


def check(path: Path) -> None:
    """Hold that everything landed once, that the chain is whole, and that each of its files is what it says."""
    assert sorted(row["xid"] - 1_000 for row in landed(path)) == EXPECTED
    assert sorted(row["event_id"] for row in landed(path, "rows")) == sorted(row["event_id"] for row in landed(path))
    assert sorted(row["uid"] for row in landed(path, "alerts")) == sorted(f"alert-{n}" for n in range(RECORDS))
    end = 0
    for entry in lands(path):
        (one,) = entry.ranges
        assert one.start == end
        end = one.end
        for file in entry.files:
            assert chain.digest((path / file.path).read_bytes()) == file.sha256
    assert end == RECORDS
    assert snapshot_agrees(path)


def snapshot_agrees(path: Path) -> bool:
    """Say whether the snapshot that is pointed to says what the entries do up to its number, to the byte."""
    store = Folder(path, Files())
    state = open_state(store)
    folded = State()
    for number in range(state.number + 1):
        content = store.read(chain.entry_name(number))
        assert content is not None
        chain.apply(folded, chain.decode(content, number), chain.digest(content))
        snapshots.rebase(folded)
    return snapshots.encode_tail(folded) == store.read(snapshots.tail_name(state.number))


def check_readable(path: Path) -> None:
    """Hold that what readers see after a crash is whole, and nothing twice."""
    if not path.exists():
        return
    listing = Listing(path)
    listing.refresh()
    assert listing.missing() == []
    seen = [row["event_id"] for row in landed(path)]
    assert len(seen) == len(set(seen))


def operations() -> int:
    """Count the operations of a run without faults."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk()
        run(Path(folder), disk, 3)
        return disk.steps


def test_a_crash_before_any_single_operation_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Before every fsync, after staging, around the manifest's link, between renames: the next worker completes it."""
    steps = operations()
    assert steps > 80
    for step in range(1, steps + 1, often(3, 1)):  # three and a commit's operations have no common measure
        path = tmp_path / str(step)
        disk = Disk({step: Crash()})
        with pytest.raises(Crash):
            run(path, disk, 3)
        disk.lose(random.Random(step))
        check_readable(path)
        run(path, Disk(), 3)
        check(path)


def test_the_faults_are_where_they_matter(tmp_path: Path) -> None:
    """The operations that the other tests fail at include each step of a commit, in the order that makes it safe."""
    disk = Disk()
    writer = Lake(tmp_path, files=disk).writer("events", 0)
    writer.resume()
    lane, events, verdicts = TOPIC[0]
    writer.append(0, events, verdicts, lane)
    del disk.done[:]
    writer.commit()
    steps = [step for step, _ in itertools.groupby(disk.done)]
    linked = steps.index("link")
    made = [step for step in steps[:linked] if step != "sync "]
    assert made == ["create .parquet", "sync .parquet"] * 3 + ["create ", "sync "][:1]
    assert steps[linked - 1 : linked + 2] == ["sync ", "link", "sync "]


@settings(max_examples=often(12, 40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    crashes=st.lists(st.tuples(st.integers(1, 120), st.integers(1, 5), st.integers()), min_size=1, max_size=6),
    last=st.integers(1, 5),
)
def test_any_series_of_crashes_ends_with_everything_once(
    tmp_path_factory: pytest.TempPathFactory, crashes: list[tuple[int, int, int]], last: int
) -> None:
    """Workers that die again and again, each cutting its commits elsewhere, land every event exactly once."""
    path = tmp_path_factory.mktemp("lake")
    for step, commit_every, seed in crashes:
        disk = Disk({step: Crash()})
        try:
            run(path, disk, commit_every)
        except Crash:
            disk.lose(random.Random(seed))
        check_readable(path)
    run(path, Disk(), last)
    check(path)


LANDER = """
import sys
from pathlib import Path
from sinks.lake.writer import Lake
from tests.often import often
from tests.sinks.material import ORDINARY, change
writer = Lake(Path(sys.argv[1])).writer("events", 0)
start, _ = writer.resume()
for offset in range(start, 300):
    writer.append(offset, [change(offset * 3 + n + 1) for n in range(3)], [ORDINARY] * 3, 0)
    if offset % 3 == 2:
        writer.commit()
"""


def test_processes_killed_in_the_middle_of_their_work_land_everything_once(tmp_path: Path) -> None:
    """`kill -9` of a real process that commits as fast as it can, again and again; the last one comes to the end."""
    path = tmp_path / "lake"
    entries = path / "_log"
    for _ in range(often(4, 10)):
        with subprocess.Popen([sys.executable, "-c", LANDER, str(path)]) as process:
            wanted = len(list(entries.glob("*/*/*.json"))) + 5
            deadline = time.monotonic() + 60
            while process.poll() is None and len(list(entries.glob("*/*/*.json"))) < wanted:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            assert process.poll() is None, "the process ended before it could be killed"
            process.kill()
    subprocess.run([sys.executable, "-c", LANDER, str(path)], check=True, timeout=60)
    xids = sorted(row["xid"] for row in landed(path))
    assert xids == [1_000 + number for number in range(1, 901)]
