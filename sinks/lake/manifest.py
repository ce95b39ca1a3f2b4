"""The manifest of lakes that version 0.1 wrote: read, and fenced so that nobody adds to it any more.

It had one chain of entries for each partition of the topic `events`, files in `events/_manifest` that were named
`TOPIC-PARTITION-START.json` by the first offset they cover. `gather` reads all of it; `sinks.lake.adoption` makes
entry 0 of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from sinks.lake.log import chain

FORMAT = "pgwitness-manifest/1"
FENCE = "pgwitness-manifest/2"
"""The format of the entry that ends a chain: a program that knows the first only stops there, and says why."""
FOLDER = "events/_manifest"
STAGING = "_staging"
OFFSET_DIGITS = 20
_NAME = re.compile(r"(.+)-(\d+)-(\d{20})\.json")


class File(Struct, frozen=True):
    """One Parquet file; `staged` is what it was written as, under `_staging`, until its entry was there."""

    table: str
    path: str
    staged: str = ""
    rows: int = 0
    bytes: int = 0
    sha256: str = ""


class Predecessor(Struct, frozen=True):
    """The entry before, by the offset in its name and the SHA-256 of its bytes."""

    start: int
    sha256: str


class Entry(Struct, frozen=True):
    """One commit: offsets `start` to `end` (exclusive) of a partition are in `files`, once."""

    format: str
    topic: str
    partition: int
    start: int
    end: int
    high_water: list[tuple[int, int, int, int]]
    files: list[File]
    predecessor: Predecessor | None
    schema_version: int
    committed_at_us: int


class Gathered(Struct):
    """All of a manifest: files with the version of their columns, the last entry of each chain, and what is none."""

    files: list[tuple[File, int]]
    ends: dict[tuple[str, int], tuple[Entry, bytes]]
    fenced: set[tuple[str, int]]
    damaged: list[str]
    gaps: list[str] = []
    """Entries that others name as the one before them, and that are not there."""


_decoder = msgspec.json.Decoder(Entry)


def entry_name(topic: str, partition: int, start: int) -> str:
    """Name the entry that begins at `start`."""
    return f"{topic}-{partition}-{start:0{OFFSET_DIGITS}}.json"


def there(lake: Path) -> bool:
    """Say whether a lake has a manifest with entries."""
    return any(True for _ in _names(lake))


def gather(lake: Path) -> Gathered:
    """Read all entries. What is no entry, or names files in a place that is not its own, is `damaged`."""
    found = Gathered([], {}, set(), [])
    starts: set[tuple[str, int, int]] = set()
    for name in sorted(_names(lake)):
        content = (lake / FOLDER / name).read_bytes()
        matched = _NAME.fullmatch(name)
        try:
            entry = _decoder.decode(content)
        except chain.UNREADABLE:
            found.damaged.append(name)
            continue
        source = (entry.topic, entry.partition)
        if entry.format == FENCE:
            found.fenced.add(source)
            continue
        stem = name.removesuffix(".json")
        own = [file for file in entry.files if _is_own(file, stem)]
        if entry.format != FORMAT or matched is None or len(own) != len(entry.files):
            found.damaged.append(name)
        found.files += [(file, entry.schema_version) for file in own]
        starts.add((*source, entry.start))
        before = entry.predecessor
        if before is not None and (*source, before.start) not in starts:
            found.gaps.append(entry_name(*source, before.start))
        last = found.ends.get(source)
        if last is None or entry.start > last[0].start:
            found.ends[source] = (entry, content)
    return found


def fence(last: tuple[Entry, bytes] | None, source: tuple[str, int]) -> tuple[str, bytes]:
    """Give name and content of the entry that ends a chain behind its last entry."""
    topic, partition = source
    end = last[0].end if last else 0
    entry = Entry(
        format=FENCE,
        topic=topic,
        partition=partition,
        start=end,
        end=end,
        high_water=last[0].high_water if last else [],
        files=[],
        predecessor=Predecessor(last[0].start, chain.digest(last[1])) if last else None,
        schema_version=last[0].schema_version if last else 0,
        committed_at_us=last[0].committed_at_us if last else 0,
    )
    return f"{FOLDER}/{entry_name(topic, partition, end)}", msgspec.json.encode(entry) + b"\n"


def is_there(lake: Path, file: File) -> bool:
    """Say whether a file is published, or at least staged."""
    return (lake / file.path).exists() or bool(file.staged and (lake / STAGING / file.staged).exists())


def _names(lake: Path) -> Iterator[str]:
    try:
        yield from (one.name for one in (lake / FOLDER).iterdir() if one.name.endswith(".json"))
    except (FileNotFoundError, NotADirectoryError):
        return


def _is_own(file: File, stem: str) -> bool:
    """Whether a file has the place that its entry gives it: no entry can bring in what lies elsewhere."""
    return chain.is_own(_as_file(file, 0)) and file.path.rpartition("/")[2] == f"{stem}.parquet"


def _as_file(file: File, schema_version: int) -> chain.File:
    return chain.File(file.table, file.path, file.rows, file.bytes, file.sha256, schema_version)


def as_files(gathered: Gathered) -> list[chain.File]:
    """Give the files as entries of the chain have them."""
    return [_as_file(file, version) for file, version in gathered.files]
