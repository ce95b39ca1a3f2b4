"""Which files are to become which: a plan by the live files and the clock. Pure.

What landed is put together as it comes, 32 files at a time; what that gave, eight files of a size at a time, so that
each is eight times as large as those it was made of. A day that is over becomes one file, a month that is over a few.
So a row is written again once for each of these steps and not once for each file that comes: what is late takes along
only what is not much larger than itself (`_along`), and files of full size stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sinks.lake.log import layout
from sinks.lake.log.chain import File
from sinks.lake.log.layout import BUCKETS_MAX, Level
from sinks.lake.rows.schema import SCHEMA_VERSION

SCHEMA_VERSION_MIN = 3
"""Files of version 0.1 keep their place: their names say in which order their rows were judged."""
IN_BUCKETS = {"events"}
"""Tables whose months are split by principal."""
MIB = 1024**2


@dataclass(frozen=True)
class Sizes:
    """What a plan goes by: numbers of files, rows and bytes, and how long after its end something counts as over."""

    landed_files: int = 32
    tier_files: int = 8
    tier_bytes: int = 16 * 1024
    inputs_max: int = 128
    sorted_rows_max: int = 200_000
    """Rows that are sorted in memory."""
    sorted_bytes_max: int = 16 * MIB
    """Bytes of what is sorted in memory, as they are in files: there they are some ten times as many."""
    full_bytes: int = 128 * MIB
    """From this size on a file stays as it is until its month is over."""
    file_bytes: int = 256 * MIB
    """What a file grows to."""
    month_bytes_max: int = 31 * 256 * MIB
    """A month of more than this is left in days: their files have full size already."""
    day_over_s: int = 2 * 3_600
    month_over_s: int = 2 * 86_400
    apart: tuple[str, ...] = ()
    """Kinds of events that are not kept as long as others: a month has files of their own for them."""


@dataclass(frozen=True)
class Job:
    """Files of a table that become one, or several where that would be too large.

    `level` is what they become, `place` the day (`YYYY-MM-DD`) or month (`YYYY-MM`) of it, `buckets` the number of
    buckets, 0 where there are none. Events of the kinds `apart` come into files of their own.
    """

    table: str
    inputs: tuple[File, ...]
    level: Level
    place: str
    buckets: int = 0
    apart: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows that are written again."""
        return sum(file.rows for file in self.inputs)


def plan(live: Iterable[File], held: Callable[[File], bool], now_us: int, sizes: Sizes | None = None) -> list[Job]:
    """List what can be done now; no file is in two jobs. When it is done there may be more."""
    sizes = sizes or Sizes()
    months: dict[tuple[str, str], list[File]] = {}
    for file in live:
        if SCHEMA_VERSION_MIN <= file.schema_version <= SCHEMA_VERSION and not held(file):
            months.setdefault((file.table, file.days[0][:7]), []).append(file)
    jobs: list[Job] = []
    for (table, month), files in sorted(months.items()):
        files.sort(key=lambda file: file.path)
        days = _days(table, files, now_us, sizes)
        if not days and _over(month, now_us, sizes):
            days = _month(table, month, files, sizes)
        jobs += days
    return jobs


def is_small(file: File, sizes: Sizes | None = None) -> bool:
    """Say whether a file is one that compaction would take."""
    return file.schema_version >= SCHEMA_VERSION_MIN and file.bytes < (sizes or Sizes()).full_bytes


def _days(table: str, files: list[File], now_us: int, sizes: Sizes) -> list[Job]:
    days: dict[str, list[File]] = {}
    for file in files:
        if not layout.is_month(file.path):
            days.setdefault(file.days[0], []).append(file)
    jobs: list[Job] = []
    for day, several in sorted(days.items()):
        jobs += _day(table, day, several, _over(day, now_us, sizes), sizes)
    return jobs


def _day(table: str, day: str, files: list[File], over: bool, sizes: Sizes) -> list[Job]:
    landed = [file for file in files if layout.level_of(file.path) == Level.LANDED]
    small = [file for file in files if file.bytes < sizes.full_bytes and file not in landed]
    if over and _fits(landed, sizes) and len(landed) + len(small) <= sizes.inputs_max:
        return _whole_day(table, day, landed, small)
    jobs = [Job(table, tuple(group), Level.MERGED, day) for group in _sortable(landed, over, sizes)]
    merged = [file for file in small if over or layout.level_of(file.path) == Level.MERGED]
    return jobs or [Job(table, tuple(group), Level.MERGED, day) for group in _tiers(merged, over, sizes)]


def _whole_day(table: str, day: str, landed: list[File], small: list[File]) -> list[Job]:
    """Put a day that is over together; what is there as a day already is taken along if little is written again."""
    new = [*landed, *(file for file in small if layout.level_of(file.path) == Level.MERGED)]
    inputs = [*new, *_along(new, [file for file in small if layout.level_of(file.path) == Level.DAY])]
    return [Job(table, tuple(inputs), Level.DAY, day)] if len(inputs) > 1 else []


def _sortable(landed: list[File], over: bool, sizes: Sizes) -> list[list[File]]:
    """Group what landed so that each group can be sorted in memory; while the day goes on, only enough of it."""
    if not over and len(landed) < sizes.landed_files and _fits(landed, sizes):
        return []
    groups: list[list[File]] = [[]]
    for file in landed:
        if groups[-1] and (not _fits([*groups[-1], file], sizes) or len(groups[-1]) >= sizes.inputs_max):
            groups.append([])
        groups[-1].append(file)
    return [group for group in groups if over or len(group) > 1 or not _fits(group, sizes)]


def _fits(landed: Sequence[File], sizes: Sizes) -> bool:
    """Say whether files can be sorted in memory together."""
    return (
        sum(file.rows for file in landed) <= sizes.sorted_rows_max
        and sum(file.bytes for file in landed) <= sizes.sorted_bytes_max
    )


def _tiers(merged: list[File], over: bool, sizes: Sizes) -> list[list[File]]:
    """Group files of about one size; of a day that is over, so many at once as can be merged."""
    tiers: dict[int, list[File]] = {}
    for file in merged:
        tier = 0 if over else int(math.log(max(file.bytes / sizes.tier_bytes, 1), sizes.tier_files))
        tiers.setdefault(tier, []).append(file)
    return [
        sorted(several, key=lambda file: (file.bytes, file.path))[: sizes.inputs_max]
        for several in tiers.values()
        if len(several) >= sizes.tier_files
    ]


def _month(table: str, month: str, files: list[File], sizes: Sizes) -> list[Job]:
    days = [file for file in files if not layout.is_month(file.path)][: sizes.inputs_max]
    if not days or sum(file.bytes for file in days) > sizes.month_bytes_max:
        return []
    landed = [file for file in days if layout.level_of(file.path) == Level.LANDED]
    if not _fits(landed, sizes):
        return [Job(table, (file,), Level.MERGED, file.days[0]) for file in landed]
    months = [
        file
        for file in files
        if layout.is_month(file.path) and file.bytes < sizes.full_bytes and layout.kind_in(file.path) is None
    ]
    inputs = [*days, *_along(days, months)][: sizes.inputs_max]
    apart = sizes.apart if table in IN_BUCKETS else ()
    if len(inputs) < 2 and not apart:
        return []
    wanted = sum(file.bytes for file in inputs) / (sizes.file_bytes * 3 / 4)
    buckets = min(BUCKETS_MAX, 2 ** max(0, math.ceil(math.log2(wanted)))) if table in IN_BUCKETS else 0
    return [Job(table, tuple(inputs), Level.MONTH, month, buckets, apart)]


def _along(new: Sequence[File], old: list[File]) -> list[File]:
    """Choose which larger files come along: the smallest first, none of more than twice what there is by then.

    So whenever a file is written again, it becomes part of one that is half as large again.
    """
    taken: list[File] = []
    total = sum(file.bytes for file in new)
    if not new:
        return taken
    for file in sorted(old, key=lambda file: (file.bytes, file.path)):
        if file.bytes > 2 * total:
            break
        taken.append(file)
        total += file.bytes
    return taken


def _over(place: str, now_us: int, sizes: Sizes) -> bool:
    """Say whether a day or a month has been over for long enough that little of it still lands."""
    if len(place) == len("YYYY-MM"):
        year, month = int(place[:4]), int(place[5:])
        if not 1 <= month <= 12:
            return False
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC) if year < 9999 else None
        return end is not None and now_us / 1e6 >= end.timestamp() + sizes.month_over_s
    try:
        begin = datetime.strptime(place, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return now_us / 1e6 >= begin.timestamp() + 86_400 + sizes.day_over_s
