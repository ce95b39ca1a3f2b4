"""The plan of compaction: no row is written again too often, and a year leaves few files."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.lake.compaction.plan import IN_BUCKETS, Job, Sizes, plan
from sinks.lake.log import layout
from sinks.lake.log.chain import File
from sinks.lake.log.layout import Level
from sinks.lake.rows.schema import DAY_US, SCHEMA_VERSION
from tests.sinks.material import NOON_US

BYTES_A_ROW = {"events": 40, "rows": 45, "alerts": 300}


class Year:
    """A lake without files: what would be live, and how often each row was written again."""

    def __init__(self, sizes: Sizes | None = None) -> None:
        self.live: dict[str, File] = {}
        self.sizes = sizes or Sizes()
        self.written = Counter[str]()
        self.landed = Counter[str]()
        self._number = 0

    def put(self, table: str, path: str, rows: int, size: int) -> None:
        """Bring a file in."""
        self.live[path] = File(table, path, rows, max(size, 1), "", SCHEMA_VERSION)

    def land(self, table: str, day: str, rows: int) -> None:
        """Land rows."""
        self._number += 1
        self.landed[table] += rows
        self.put(table, f"{table}/dt={day}/{self._number:x}.parquet", rows, rows * BYTES_A_ROW[table] + 2_000)

    def compact(self, now_us: int) -> None:
        """Do everything that a plan says, until it says nothing."""
        while jobs := plan(self.live.values(), lambda file: False, now_us, self.sizes):
            for job in jobs:
                self._do(job)

    def _do(self, job: Job) -> None:
        for file in job.inputs:
            del self.live[file.path]
        self.written[job.table] += job.rows
        total = sum(file.bytes for file in job.inputs)
        parts = max(1, job.buckets or -(-total // self.sizes.file_bytes))
        for part in range(parts):
            self._number += 1
            unique = f"{self._number:x}"
            if job.level == Level.MONTH:
                bucket = (part, job.buckets) if job.buckets else None
                path = layout.month_path(job.table, job.place, bucket, unique)
            else:
                path = layout.day_path(job.table, job.place, job.level, unique)
            self.put(job.table, path, job.rows // parts, total // parts)


def day_of(at_us: int) -> str:
    """Give the UTC day."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat()


def live_most(rows_per_s: int, days: int, commits: Callable[[int], int], every: int) -> tuple[int, Year]:
    """Let a worker land for so many days beside a compactor; give the most files that ever counted after a round."""
    year = Year()
    most = 0
    for day in range(days):
        commits_a_day = commits(day)
        for commit in range(commits_a_day):
            at_us = NOON_US - NOON_US % DAY_US + day * DAY_US + commit * DAY_US // commits_a_day
            rows = rows_per_s * 86_400 // commits_a_day
            for table, share in (("events", 1.0), ("rows", 0.7)):
                year.land(table, day_of(at_us), int(rows * share))
            if commit % 7 == 0:
                year.land("alerts", day_of(at_us), 1)
            if commit % every == every - 1:
                year.compact(at_us)
                most = max(most, len(year.live))
    return most, year


def test_a_year_of_small_commits_leaves_less_than_500_files() -> None:
    """At 20 rows a second, in its last month a commit a minute, after any round; each row is written a few times."""
    most, year = live_most(20, 366, lambda day: 12 if day < 350 else 1_440, 60)
    assert most < 500
    assert all(year.written[table] < 6 * year.landed[table] for table in ("events", "rows"))


def test_a_busy_day_is_written_again_few_times() -> None:
    """A thousand times as much: files of full size stay as they are."""
    _, year = live_most(20_000, 2, lambda day: 1_440, 30)
    full = [file for file in year.live.values() if file.bytes >= year.sizes.full_bytes]
    assert sum(file.bytes for file in full) > 0.9 * sum(file.bytes for file in year.live.values())
    assert all(year.written[table] < 6 * year.landed[table] for table in ("events", "rows"))


@settings(max_examples=40, deadline=None)
@given(st.integers(), st.integers(1, 120), st.integers(1, 90))
def test_a_plan_comes_to_an_end_and_takes_each_file_once(seed: int, commits: int, days: int) -> None:
    """Whatever comes when, also long after its day; no file is in two jobs."""
    chance = random.Random(seed)
    sizes = Sizes(
        landed_files=4,
        tier_files=3,
        sorted_rows_max=5_000,
        file_bytes=300_000,
        full_bytes=150_000,
        inputs_max=chance.choice([4, 128]),
        month_bytes_max=chance.choice([1_000_000, 10**9]),
    )
    year = Year(sizes)
    now_us = NOON_US
    for _ in range(commits):
        now_us += chance.randrange(days * DAY_US // commits + 1)
        late_us = chance.choice([0, 0, 0, DAY_US, 40 * DAY_US])
        year.land(chance.choice(["events", "rows", "alerts"]), day_of(now_us - late_us), chance.randrange(1, 2_000))
        if chance.random() < 0.2:
            jobs = plan(year.live.values(), lambda file: False, now_us, year.sizes)
            inputs = [file.path for job in jobs for file in job.inputs]
            assert len(inputs) == len(set(inputs))
            assert all(len(job.inputs) > 1 or job.level == Level.MERGED for job in jobs)
            assert all({file.table for file in job.inputs} == {job.table} for job in jobs)
            assert all((job.buckets > 0) == (job.level == Level.MONTH and job.table in IN_BUCKETS) for job in jobs)
            year.compact(now_us)
    year.compact(now_us + 400 * DAY_US)
    assert not plan(year.live.values(), lambda file: False, now_us + 400 * DAY_US, year.sizes)


def test_what_is_held_or_of_an_older_version_is_in_no_job() -> None:
    """Held files stay, and those whose order stands in their names."""
    year = Year()
    for number in range(50):
        year.land("events", "2026-09-22", 10)
        year.put("events", f"events/dt=2026-09-22/pgwitness.events-0-{number:020d}.parquet", 10, 1_000)
        year.live.popitem()
    files = [
        File("events", f"events/dt=2026-09-22/pgwitness.events-0-{number:020d}.parquet", 10, 1_000, "", 2)
        for number in range(50)
    ]
    later = NOON_US + 90 * DAY_US
    assert plan(files, lambda file: False, later) == []
    assert plan(year.live.values(), lambda file: True, later) == []
    assert plan(year.live.values(), lambda file: False, later) != []
