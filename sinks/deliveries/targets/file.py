"""Appends alerts to a file. A shell."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from pgwitness.core.config import Delivery
from pgwitness.core.contracts.alert_target import NotTaken
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.runtime.disk import advice
from sinks.deliveries import render
from sinks.deliveries.routing import Item


def make_file(where: str, settings: Delivery) -> File:
    """Make the target."""
    if settings.path is None:
        raise ConfigurationError(f"{where}.path: the file to write to")
    return File(settings.path)


class File:
    """Appends JSON lines; a file that was moved away or removed is recreated under its name.

    What a full disk took of a line is cut off again; behind what a killed daemon left of one, the next starts on a line
    of its own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    async def send(self, item: Item) -> None:
        """Append it and wait until it is on the disk."""
        try:
            await asyncio.to_thread(self._append, render.line(item))
        except OSError as error:
            await self.close()
            raise NotTaken(f"{self._path}: {error.strerror or error}: {advice(error)}") from error

    def _append(self, line: bytes) -> None:
        if self._descriptor is not None and not self._current(self._descriptor):
            os.close(self._descriptor)
            self._descriptor = None
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            if self._ends_within_a_line():
                line = b"\n" + line
        before = os.fstat(self._descriptor).st_size
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):  # what is no ordinary file has no end to cut
                if os.fstat(self._descriptor).st_size == before + written:
                    os.ftruncate(self._descriptor, before)
            raise

    def _ends_within_a_line(self) -> bool:
        if not self._path.is_file():
            return False
        try:
            with self._path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:  # it is empty, or not ours to read
            return False

    def _current(self, descriptor: int) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(descriptor)
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    async def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
