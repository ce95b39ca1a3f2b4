"""Where a lake's files are: a handful of operations, so that what runs on a disk can run on object storage.

Names are relative to the lake, with `/` between folders. Whatever is made is durable when the call returns. What the
chain needs of a store is `sinks.lake.log.on_store.Reads` and `Writes`; `Store` is all of it. `Folder` is a lake on a
disk, `sinks.lake.storage.objects.Objects` one in a bucket.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import IO, Protocol

from sinks.lake.log.on_store import Writes
from sinks.lake.rows.schema import TABLES
from sinks.lake.storage.files import PRIVATE, Files

ABANDONED_S = 86_400
"""How old what is being written may become: after a day whoever wrote it is gone."""


class Grows(Protocol):
    """A file that is being written."""

    def write(self, content: bytes) -> None:
        """Write more of it."""

    def finish(self) -> None:
        """Make it durable."""

    def abandon(self) -> None:
        """Remove what there is of it."""


class Store(Writes, Protocol):
    """What a lake takes of a store. Each operation either did what it says or raises `OSError`."""

    @property
    def path(self) -> PurePath:
        """Where it is, as the configuration says it."""

    @property
    def root(self) -> str:
        """What `views.sql` puts before names: nothing where DuckDB is started in the lake's folder."""

    def prepare(self) -> None:
        """Make it ready to be written to; it may be. Raise `Stop` when a lake cannot be there."""

    def sweep(self) -> None:
        """Remove what crashes have left half written; not before a lake of 0.1 is taken over, which needs it."""

    def put(self, name: str, content: bytes) -> None:
        """Write a file under a name that nobody else has; what a crash leaves of it is in no entry."""

    def begin(self, name: str) -> Grows:
        """Begin a file that is too large for memory, under a name that nobody else has."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading from any place. Raise `FileNotFoundError` when there is none."""

    def written_us(self, name: str) -> int | None:
        """Give when a file was written last (µs), None when there is none."""

    def has(self, name: str) -> bool:
        """Say whether there is a file of this name."""

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Give all files below a folder by their names, with when each was written (µs), in no order."""


def at(place: Path | Store) -> Store:
    """Give the store itself, or that of a folder."""
    return Folder(place, Files()) if isinstance(place, Path) else place


class Folder:
    """A lake in a folder of a file system that has hard links."""

    root = ""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self._durable: set[Path] = set()

    def prepare(self) -> None:
        """Make the lake's folders."""
        for folder in (PRIVATE, *TABLES):
            self._files.make_folder(self.path / folder)

    def sweep(self) -> None:
        """Remove what crashes have left half written; nobody misses it, and whoever did would write it again."""
        for path in (self.path / PRIVATE).iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    self._files.remove(path)

    def _make_folder(self, path: Path) -> None:
        """Make a folder of the lake. One that is there may be of somebody who died before its name was durable."""
        self._files.make_folder(path)
        inside = path.relative_to(self.path).parts
        for depth in range(1, len(inside) + 1):
            folder = self.path.joinpath(*inside[:depth])
            if folder not in self._durable:
                self._files.sync_folder(folder.parent)
                self._durable.add(folder)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file beside, and link it to its name: nobody sees half of it."""
        target = self.path / name
        if target.exists():
            self._make_folder(target.parent)
            self._files.sync_folder(target.parent)  # whoever made it may not have come that far
            return False
        self._make_folder(target.parent)
        self._files.make_folder(self.path / PRIVATE)
        staged = self.path / PRIVATE / f"{target.stem}-{uuid.uuid4().hex}"
        try:
            self._files.create(staged, content)
            self._files.sync(staged)
            try:
                self._files.link(staged, target)
            except FileExistsError:
                self._files.sync_folder(target.parent)
                return False
            self._files.sync_folder(target.parent)
        finally:
            with suppress(OSError):
                self._files.remove(staged)
        return True

    def put(self, name: str, content: bytes) -> None:
        """Write a file under a name that nobody else has; what a crash leaves of it is in no entry."""
        target = self.path / name
        self._make_folder(target.parent)
        self._files.create(target, content)
        self._files.sync(target)
        self._files.sync_folder(target.parent)

    def begin(self, name: str) -> Growing:
        """Begin a file that is too large for memory, under a name that nobody else has."""
        target = self.path / name
        self._make_folder(target.parent)
        return Growing(target, self._files)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file over whatever has its name: for what is the same whoever writes it, and for hints."""
        target = self.path / name
        self._make_folder(target.parent)
        self._files.make_folder(self.path / PRIVATE)
        staged = self.path / PRIVATE / f"{target.stem}-{uuid.uuid4().hex}"
        try:
            self._files.create(staged, content)
            self._files.sync(staged)
            self._files.rename(staged, target)
        except OSError:
            with suppress(OSError):
                self._files.remove(staged)
            raise
        self._files.sync_folder(target.parent)

    def move(self, source: Path, target: Path) -> None:
        """Bring a file that is durable already to its place; somebody else may be doing the same."""
        self._make_folder(target.parent)
        with suppress(FileNotFoundError):
            self._files.rename(source, target)
        self._files.sync_folder(target.parent)

    def read(self, name: str) -> bytes | None:
        """Give what a file holds, None when there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading from any place. Raise `FileNotFoundError` when there is none."""
        return (self.path / name).open("rb")

    def written_us(self, name: str) -> int | None:
        """Give when a file was written last, None when there is none."""
        try:
            return (self.path / name).stat().st_mtime_ns // 1_000
        except FileNotFoundError:
            return None

    def has(self, name: str) -> bool:
        """Say whether there is a file of this name."""
        return (self.path / name).exists()

    def names(self, folder: str) -> list[str]:
        """List what is in a folder, in order; nothing when there is none."""
        try:
            return sorted(one.name for one in (self.path / folder).iterdir())
        except FileNotFoundError:
            return []

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Give all files below a folder by their names, with when each was written (µs), in no order."""
        for path in (self.path / folder).rglob("*"):
            name = str(path.relative_to(self.path))
            written_us = self.written_us(name) if path.is_file() else None
            if written_us is not None:  # else it went at this moment
                yield name, written_us

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone is fine."""
        self._files.remove(self.path / name)


class Growing:
    """A file that is being written: `write` it, then `finish` it, or nobody ever asks for it."""

    def __init__(self, target: Path, files: Files) -> None:
        self._target = target
        self._files = files
        self._file = files.begin(target)

    def write(self, content: bytes) -> None:
        """Write more of it."""
        self._files.write(self._file, content)

    def finish(self) -> None:
        """Make it durable, with its name."""
        self._file.close()
        self._files.sync(self._target)
        self._files.sync_folder(self._target.parent)

    def abandon(self) -> None:
        """Give it up, as far as the operating system lets us: what is left of it is in no entry."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._files.remove(self._target)
