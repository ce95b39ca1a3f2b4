"""What a file in a lake is: its SHA-256, bytes and rows, read without following links."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from sinks.lake.log.chain import File
from sinks.lake.storage.store import Folder, Store


class Measured(Struct, frozen=True):
    """What was found of a file."""

    sha256: str
    bytes: int


def measure(path: Path) -> Measured | None:
    """Hash a file; None when there is none, or something else has its name. Raise `OSError` when it cannot be read."""
    try:
        # What is no file, such as a pipe, must not keep whoever opens it waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        if not is_file(path):
            return None
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        found = hashlib.file_digest(file, "sha256")
        return Measured(found.hexdigest(), file.tell())


def is_file(path: Path) -> bool:
    """Say whether this is a file, and not a link, a pipe, or a device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def size(path: Path) -> int | None:
    """Give how many bytes a file has; None when it is none."""
    return path.lstat().st_size if is_file(path) else None


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


def size_in(store: Store, name: str) -> int | None:
    """Give how many bytes a file of a lake has; None when it is none."""
    if isinstance(store, Folder):
        return size(store.path / name)
    try:
        with store.open(name) as file:
            return file.seek(0, io.SEEK_END)
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
    known = size(store.path / file.path) if isinstance(store, Folder) else file.bytes
    if known is not None and known != file.bytes:  # so that nobody waits for what is made too long
        return f"has {known} bytes, its entry says {file.bytes}"
    found = measure_in(store, file.path)
    if found is None:
        return "is missing"
    if found.bytes != file.bytes:
        return f"has {found.bytes} bytes, its entry says {file.bytes}"
    if found.sha256 != file.sha256:
        return f"has the SHA-256 {found.sha256}, its entry says {file.sha256}"
    return None
