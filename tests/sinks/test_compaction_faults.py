"""Compactors that die at any operation, beside workers and each other: work is repeated, never results."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgwitness.core.errors import Retry
from sinks.lake.log.chain import Replace
from sinks.lake.storage.files import Files
from tests.often import often
from tests.sinks.material import DAY_US, NOON_US, Crash, Disk, entries
from tests.sinks.test_compaction import SMALL, compactor, contents, fill, live
from tests.sinks.test_faults import snapshot_agrees

OVER_US = NOON_US + 60 * DAY_US
EVERY = often(4, 1)
"""Of how many operations one is tried: `make chaos` tries each."""


def check(path: Path, expected: dict[str, list[str]]) -> None:
    """Hold that every row is there once, that nothing that counts is missing, and that the snapshot agrees."""
    assert contents(path) == expected
    assert snapshot_agrees(path)
    for entry in entries(path):
        if isinstance(entry, Replace):
            assert not set(entry.removes) & {file.path for file in live(path)}


def compact(path: Path, disk: Files, now_us: int = OVER_US) -> None:
    """Be a compactor; its grace is short, so that it removes what it has replaced in the same run."""
    compactor(path, now_us, files=disk, grace_s=-1).run()


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Count the operations of a run without faults."""
    path = tmp_path_factory.mktemp("whole")
    fill(path, 6, days=2)
    disk = Disk()
    compact(path, disk)
    assert any("remove" in step for step in disk.done)
    return disk.steps


@pytest.mark.parametrize("first", range(3))
def test_a_crash_before_any_single_operation_changes_nothing_of_what_is_read(
    tmp_path: Path, steps: int, first: int
) -> None:
    """The next compactor does what is left to do."""
    assert steps > 60
    for step in range(1 + first, steps + 1, 3 * EVERY):
        path = tmp_path / str(step)
        fill(path, 6, days=2)
        expected = contents(path)
        disk = Disk({step: Crash()})
        with pytest.raises(Crash):
            compact(path, disk)
        disk.lose(random.Random(step))
        check(path, expected)
        compact(path, Files())
        check(path, expected)
        assert len(live(path)) == 3


@pytest.mark.parametrize("first", range(3))
def test_an_error_of_any_single_operation_is_tried_again(tmp_path: Path, steps: int, first: int) -> None:
    """By the same compactor, as the daemon does; a lost answer is recognised."""
    for step in range(1 + first, steps + 1, 3 * EVERY):
        path = tmp_path / str(step)
        fill(path, 6, days=2)
        expected = contents(path)
        one = compactor(path, OVER_US, files=Disk({step: OSError(errno.EIO, "broken")}), grace_s=-1)
        try:
            one.run()
        except Retry:
            check(path, expected)
            one.run()
        check(path, expected)
        assert len(live(path)) == 3


@settings(max_examples=often(6, 24), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crashes=st.lists(st.tuples(st.integers(1, 150), st.integers(0, 90), st.integers()), min_size=1, max_size=5))
def test_any_series_of_crashes_beside_a_worker_keeps_every_row(
    tmp_path_factory: pytest.TempPathFactory, crashes: list[tuple[int, int, int]]
) -> None:
    """Rows land in between, in days that are over and in others; compactors die again and again."""
    path = tmp_path_factory.mktemp("lake")
    for step, days, seed in crashes:
        fill(path, 5, days=1 + seed % 3)
        expected = contents(path)
        disk = Disk({step: Crash()})
        try:
            compact(path, disk, NOON_US + days * DAY_US)
        except Crash:
            disk.lose(random.Random(seed))
        check(path, expected)
    compact(path, Files())
    check(path, expected)


COMPACTOR = """
import sys
from pathlib import Path
from sinks.lake.compaction.compactor import Compactor
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from tests.sinks.test_compaction import SMALL
path, now_us = Path(sys.argv[1]), int(sys.argv[2])
while True:
    Compactor(path, Folder(path, Files()), sizes=SMALL, grace_s=-1, clock_us=lambda: now_us).run()
"""


def test_compactors_killed_beside_each_other_and_a_worker_keep_every_row(tmp_path: Path) -> None:
    """`kill -9` of two real processes on one lake, again and again, while rows land."""
    assert SMALL.landed_files < 8
    fill(tmp_path, 4)
    command = [sys.executable, "-c", COMPACTOR, str(tmp_path), str(NOON_US)]
    for turn in range(4):
        processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            wanted = sum(isinstance(entry, Replace) for entry in entries(tmp_path)) + 1 + turn
            deadline = time.monotonic() + 60
            while sum(isinstance(entry, Replace) for entry in entries(tmp_path)) < wanted:
                fill(tmp_path, 3)
                assert time.monotonic() < deadline
                assert all(process.poll() is None for process in processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    found = contents(tmp_path)
    assert all(len(rows) == len(set(rows)) for rows in found.values())
    compactor(tmp_path, grace_s=-1).run()
    check(tmp_path, found)
    commits = len(found["alerts"])
    assert len(found["events"]) == 4 * commits
    assert len(found["rows"]) == 3 * commits
