"""Appends checkpoints to a file that lies elsewhere: on another host, on a medium that only appends. A shell."""

from __future__ import annotations

import os
from pathlib import Path

from pgwitness.core.config import Anchor, Config
from pgwitness.core.errors import ConfigurationError, Retry
from sinks.seal.anchors.given import Given, notes

TAIL_BYTES = 1_000_000


def make_file(where: str, settings: Anchor, config: Config) -> File:
    """Make the anchor."""
    if settings.path is None:
        raise ConfigurationError(f"{where}.path: the file to append to")
    lake = config.lake.path
    if isinstance(lake, Path) and settings.path.resolve().is_relative_to(lake.resolve()):
        raise ConfigurationError(f"{where}.path lies in the lake: name a place that its writers do not reach")
    return File(settings.path)


class File:
    """A file of JSON lines. What a kill left of a line stays, and the next begins on a line of its own."""

    suffix = ""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, given: Given) -> bytes:
        """Append it, durably."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                size = os.fstat(descriptor).st_size
                torn = bool(size) and os.pread(descriptor, 1, size - 1) != b"\n"
                file.write(b"\n" * torn + given.line())
                os.fsync(descriptor)
        except OSError as error:
            raise Retry(f"{self._path}: {error.strerror or error}") from error
        return b""

    def newest(self) -> bytes | None:
        """Read the last whole line."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Retry(f"{self._path}: {error.strerror or error}") from error
        found = [note for line in lines if line.startswith(b"{") for note in notes(line)]
        return found[-1] if found else None
