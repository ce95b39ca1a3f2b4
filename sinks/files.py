"""The few operations on files that the lake is made of, so that tests can make each of them fail.

Every one either did what it says or raises `OSError`; what is not synced may be gone after a crash.
"""

from __future__ import annotations

import os
from pathlib import Path


class Files:
    """The real file system."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it, durably; one that exists is fine."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        path.mkdir(exist_ok=True)
        self.sync_folder(path.parent)

    def create(self, path: Path, content: bytes) -> None:
        """Write a new file; durable only after `sync`."""
        with path.open("xb") as file:
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
