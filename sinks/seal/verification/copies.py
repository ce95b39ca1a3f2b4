"""A lake, or its seal, as whoever verifies it reads: a folder or a bucket, which may hold anything.

Reads have a bound, so that nobody fills the memory with a file that was made too long; links are seen, and not
followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder, Store
from sinks.seal import measuring

BYTES_MAX = 256 * 1024**2
"""More than any file of a log or snapshot has."""


class Copy(Store, Protocol):
    """What verifying takes of a place. `read` gives at most `BYTES_MAX` bytes."""

    def listed(self) -> Iterator[str]:
        """List every file; links are files here, and not followed."""

    def is_link(self, name: str) -> bool:
        """Say whether this is a link: what it leads to may change at any time."""

    def waits(self, name: str) -> bool:
        """Say whether this is a pipe or device, at which reading would wait for ever."""

    def trace(self, name: str) -> object:
        """Give what changes when somebody writes a file; None when there is none."""


def copy_of(place: Path | Store) -> Copy:
    """Give a folder, or a store, as it is verified."""
    if isinstance(place, Path):
        return FolderCopy(place, Files())
    if isinstance(place, Folder):
        return FolderCopy(place.path, Files())
    from sinks.lake.storage.objects import Objects
    from sinks.seal.verification.bucket import BucketCopy

    assert isinstance(place, Objects)
    return BucketCopy(place.path, place.settings, **place.options)


class FolderCopy(Folder):
    """A folder of a file system."""

    def read(self, name: str) -> bytes | None:
        """Give what a file holds, up to a bound; None when there is none."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(BYTES_MAX)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def listed(self) -> Iterator[str]:
        """List every file; links are files here, and not followed."""
        for at, folders, names in os.walk(self.path, onerror=_raise):
            inside = Path(at).relative_to(self.path)
            links = [name for name in folders if (Path(at) / name).is_symlink()]
            yield from (str(inside / name) for name in (*names, *links))

    def is_link(self, name: str) -> bool:
        """Say whether this is a link."""
        return (self.path / name).is_symlink()

    def waits(self, name: str) -> bool:
        """Say whether this is a pipe or device."""
        path = self.path / name
        return not path.is_symlink() and not measuring.is_file(path) and os.path.lexists(path)

    def has(self, name: str) -> bool:
        """Say whether there is a file, or a link, of this name."""
        return os.path.lexists(self.path / name)

    def trace(self, name: str) -> object:
        """Give length and time of a file."""
        try:
            known = (self.path / name).lstat()
        except OSError:
            return None
        return known.st_size, known.st_mtime_ns


def _raise(error: OSError) -> None:
    raise error
