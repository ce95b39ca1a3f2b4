"""Manifest entries: what is in the lake, and from where on to read.

There is one chain of entries for each partition of the topic `events`. An entry is the file
`events/_manifest/TOPIC-PARTITION-START.json`, named by the first offset it covers, so that of two writers only one can
continue the chain; it carries the hash of its predecessor's bytes. Pure, but for reading entries.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from pgwitness.core.errors import Stop
from pgwitness.core.events import Position

FORMAT = "pgwitness-manifest/1"
OFFSET_DIGITS = 20

HighWater = dict[tuple[int, int], Position]
"""By lane and raw partition: the position of the last event that landed."""


class File(Struct, frozen=True):
    """One Parquet file: its table, path in the lake, rows, bytes and hash; `staged` is what it was written as."""

    table: str
    path: str
    staged: str
    rows: int
    bytes: int
    sha256: str


class Predecessor(Struct, frozen=True):
    """The entry before, by the offset in its name and the SHA-256 of its bytes."""

    start: int
    sha256: str


class Entry(Struct, frozen=True):
    """One commit: offsets `start` to `end` (exclusive) of a partition are in `files`, once.

    `high_water` is `[[lane, raw partition, offset, index], …]`. `committed_at_us` is the writer's clock.
    """

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


class Published(Struct, frozen=True):
    """An entry of `rows` or `alerts`: the same commit, with that table's files only, and the hash of the entry."""

    format: str
    entry: str
    entry_sha256: str
    files: list[File]


_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Struct) -> bytes:
    """Write an entry, one line, ending in a line feed."""
    return msgspec.json.encode(entry) + b"\n"


def digest(content: bytes) -> str:
    """Hash what a file holds (SHA-256, hex)."""
    return hashlib.sha256(content).hexdigest()


def chain(topic: str, partition: int) -> str:
    """Name the chain of a partition; every file of it begins with that and a dash."""
    return f"{topic}-{partition}"


def entry_name(topic: str, partition: int, start: int) -> str:
    """Name the entry that begins at `start`."""
    return f"{chain(topic, partition)}-{start:0{OFFSET_DIGITS}}.json"


def start_of(name: str, topic: str, partition: int) -> int | None:
    """Read the start offset from a name of this partition's chain; None when it is of another."""
    prefix = chain(topic, partition) + "-"
    digits = name[len(prefix) : len(prefix) + OFFSET_DIGITS]
    if not name.startswith(prefix) or len(digits) != OFFSET_DIGITS or not digits.isdecimal():
        return None
    return int(digits) if name[len(prefix) + OFFSET_DIGITS :][:1] in (".", "-") else None


def high_water(entry: Entry) -> HighWater:
    """Give an entry's high-water marks by lane and raw partition."""
    return {(lane, raw): Position(raw, offset, index) for lane, raw, offset, index in entry.high_water}


def last(folder: Path, topic: str, partition: int) -> tuple[Entry, bytes] | None:
    """Read the last entry of a chain and its bytes; of the others only the names are looked at.

    Raises `Stop` when it cannot be read as an entry: going on would begin a second chain.
    """
    newest: tuple[int, str] | None = None
    try:
        with os.scandir(folder) as names:
            for found in names:
                start = start_of(found.name, topic, partition)
                if start is not None and (newest is None or start > newest[0]):
                    newest = (start, found.name)
    except FileNotFoundError:
        return None
    if newest is None:
        return None
    return read(folder / newest[1])


def ends(folder: Path, topic: str) -> list[Entry]:
    """Read the last entry of each partition's chain of a topic. Raises `Stop` like `last`."""
    partitions: set[int] = set()
    prefix = f"{topic}-"
    try:
        with os.scandir(folder) as names:
            for found in names:
                number = found.name[len(prefix) :].partition("-")[0]
                if found.name.startswith(prefix) and number.isdecimal():
                    partitions.add(int(number))
    except FileNotFoundError:
        return []
    return [entry[0] for number in sorted(partitions) if (entry := last(folder, topic, number)) is not None]


def read(path: Path) -> tuple[Entry, bytes]:
    """Read one entry and its bytes. Raises `Stop` when it is damaged or of a newer format."""
    content = path.read_bytes()
    try:
        entry = _decoder.decode(content)
    except msgspec.DecodeError as error:
        raise Stop(
            f"{path}: not a manifest entry ({error}); restore it from a copy of the lake, then start again"
        ) from error
    if entry.format != FORMAT:
        raise Stop(f"{path}: format {entry.format!r}, this program knows {FORMAT!r}; update pgwitness on this host")
    return entry, content
