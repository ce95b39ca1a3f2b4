"""Where a lake's files lie, and what their names say: days, months, and the buckets of a month. Pure.

A file of a day lies in `TABLE/dt=YYYY-MM-DD`, and its day of capture stands nowhere else. A file of a month, which only
compaction makes, lies in `TABLE/month=YYYY-MM` and has the day in a column `dt`. Those of `events` are split by a hash
of the principal: `bucket-03-of-08-….parquet` has those whose hash gives 3 modulo 8, so that who asks for one principal
opens few files. A hash, and not the range of names that stand in it: entries name their files for ever.
"""

from __future__ import annotations

import hashlib
import re
from enum import IntEnum

BUCKETS_MAX = 64
"""Numbers of buckets are powers of two up to this one, so that a list of files for each of so many serves all."""
BUCKET_NAME = "bucket-([0-9]{2})-of-([0-9]{2})-[^/]*"
KIND_NAME = "kind-([a-z_]+)-[^/]*"

DAY = r"dt=(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
MONTH = r"month=(?P<month>[0-9]{4}-[0-9]{2})"
_PLACE = re.compile(rf"(?P<table>[a-z]+)/(?:{DAY}|{MONTH})/[A-Za-z0-9_.-]+\.parquet")
_BUCKET = re.compile(rf"/{BUCKET_NAME}$")
_KIND = re.compile(rf"[/-]{KIND_NAME}$")
_MERGED, _DAY = "merged-", "day-"


class Level(IntEnum):
    """How far a file has been compacted: as it landed, sorted with others, a whole day, a month."""

    LANDED = 0
    MERGED = 1
    DAY = 2
    MONTH = 3


def table_of(path: str) -> str | None:
    """Give the table in whose place a file lies; None when it is no place of a lake."""
    found = _PLACE.fullmatch(path)
    return found["table"] if found else None


def days_of(path: str) -> tuple[str, str]:
    """Give the first and the last UTC day of capture that may stand in a file (of a month always a 31st)."""
    folder = path.split("/")[1]
    if is_month(path):
        month = folder.removeprefix("month=")
        return f"{month}-01", f"{month}-31"
    return folder.removeprefix("dt="), folder.removeprefix("dt=")


def is_month(path: str) -> bool:
    """Say whether a file is of a month, with the days in a column."""
    return path.split("/")[1].startswith("month=")


def is_last(day: str) -> bool:
    """Say whether a day stands for the end of its month (`days_of`), or is its 31st."""
    return day.endswith("-31")


def level_of(path: str) -> Level:
    """Give how far a file has been compacted."""
    if is_month(path):
        return Level.MONTH
    name = path.split("/")[2]
    return Level.MERGED if name.startswith(_MERGED) else Level.DAY if name.startswith(_DAY) else Level.LANDED


def day_path(table: str, day: str, level: Level, unique: str) -> str:
    """Name a compacted file of a day."""
    return f"{table}/dt={day}/{_MERGED if level == Level.MERGED else _DAY}{unique}.parquet"


def month_path(table: str, month: str, bucket: tuple[int, int] | None, unique: str, kind: str | None = None) -> str:
    """Name a file of a month (`YYYY-MM`), and of a bucket if it is of one: its number, and how many there are.

    With a kind it has the events of that one alone.
    """
    name = f"bucket-{bucket[0]:02d}-of-{bucket[1]:02d}-" if bucket else "part-"
    return f"{table}/month={month}/{name}{f'kind-{kind}-' if kind else ''}{unique}.parquet"


def bucket_in(path: str) -> tuple[int, int] | None:
    """Give the bucket that a file's name says, and how many there are; None when it may hold any principal."""
    found = _BUCKET.search(path) if is_month(path) else None
    return (int(found[1]), int(found[2])) if found and int(found[1]) < int(found[2]) else None


def kind_in(path: str) -> str | None:
    """Give the kind of event that a file has alone; None when it may have any."""
    found = _KIND.search(path) if is_month(path) and path.startswith("events/") else None
    return found[1] if found else None


def bucket_of(principal: str | None, buckets: int) -> int:
    """Give a principal's bucket: the lower half of its MD5 modulo the number of buckets; nobody is in the first.

    DuckDB has the same as `md5_number_lower(principal) % buckets`.
    """
    if principal is None:
        return 0
    digest = hashlib.md5(principal.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") % buckets


def may_hold(named: tuple[int, int] | None, bucket: int) -> bool:
    """Say whether a file whose name says this (`bucket_in`) may hold principals of a bucket of `BUCKETS_MAX`."""
    return named is None or bucket % named[1] == named[0]
