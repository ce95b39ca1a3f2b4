"""The few operations on files that the lake is made of, so that tests can make each of them fail.

Every one either did what it says or raises `OSError`; what is not synced may be gone after a crash.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

OWN_FOLDER, SHARED_FOLDER = 0o700, 0o750
OWN_FILE, SHARED_FILE = 0o600, 0o640
PRIVATE = "_staging"
ROWS = "rows"


class Files:
    """The real file system. What it makes is closed to others, whatever the process's umask is."""

    group: int | None = None
    """Whose members may read, besides the owner; none: nobody."""
    rows_group: int | None = None
    """Whose members may enter the folder of row images."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it, durably; one that exists is fine."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        path.mkdir(mode=OWN_FOLDER, exist_ok=True)
        group = self._enters(path)
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(SHARED_FOLDER)
        self.sync_folder(path.parent)

    def _enters(self, path: Path) -> int | None:
        """Give the group that may enter a folder: of row images its own, of what is being written none."""
        if PRIVATE in path.parts:
            return None
        return self.rows_group if ROWS in path.parts[-2:] else self.group

    def create(self, path: Path, content: bytes) -> None:
        """Write a new file; durable only after `sync`."""
        with self.begin(path) as file:
            self.write(file, content)

    def begin(self, path: Path) -> IO[bytes]:
        """Make a new file, to be written bit by bit (`write`); durable only after it is closed and `sync`."""
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWN_FILE), "wb")
        if self.group is not None:
            os.fchown(file.fileno(), -1, self.group)
            os.fchmod(file.fileno(), SHARED_FILE)
        return file

    def write(self, file: IO[bytes], content: bytes) -> None:
        """Write more of a file that has begun."""
        file.write(content)

    def sync(self, path: Path) -> None:
        """Make a file's content durable."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        self.sync(path)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; raises `FileExistsError` when that is taken: of two callers, one wins."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file, over another if there is one."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone is fine."""
        path.unlink(missing_ok=True)


def shared_with(group: int | None, rows_group: int | None) -> Files:
    """Give the real file system, with groups that may read what is made on it."""
    files = Files()
    files.group, files.rows_group = group, rows_group
    return files
