"""What a file in a lake is: its SHA-256, bytes and rows, read without following links."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from sinks.lake.chain import File
from sinks.lake.store import Folder, Store


class Measured(Struct, frozen=True):
    """What was found of a file."""

    sha256: str
    bytes: int


def measure(path: Path) -> Measured | None:
    """Hash a file; None when there is none, or something else has its name. Raise `OSError` when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if path.is_symlink():
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        found = hashlib.file_digest(file, "sha256")
        return Measured(found.hexdigest(), file.tell())


def measure_in(store: Store, name: str) -> Measured | None:
    """Hash a file of a lake, wherever that is. As `measure` in a folder."""
    if isinstance(store, Folder):
        return measure(store.path / name)
    try:
        with store.open(name) as file:
            found = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type] # it reads into a buffer
            return Measured(found.hexdigest(), file.tell())
    except FileNotFoundError:
        return None


def rows(store: Store, name: str) -> int | None:
    """Read a Parquet file's number of rows from its end; None when it is none."""
    try:
        with store.open(name) as file:
            return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):
        return None


def differs(store: Store, file: File) -> str | None:
    """Say what of a file is not as its entry says, None when all is. Raise `OSError` when it cannot be read."""
    found = measure_in(store, file.path)
    if found is None:
        return "is missing"
    if found.bytes != file.bytes:
        return f"is altered: it has {found.bytes} bytes, its entry says {file.bytes}"
    if found.sha256 != file.sha256:
        return f"is altered: its SHA-256 is {found.sha256}, its entry says {file.sha256}"
    return None
