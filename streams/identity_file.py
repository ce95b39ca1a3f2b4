"""Watches `identities.yaml`: a change becomes a record in every raw partition this worker owns, in its order.

A file that cannot be used is logged once and counted; the last good one holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from pgwitness.codec import BatchBuilder
from pgwitness.errors import ConfigurationError
from pgwitness.events import Identities as IdentitiesRecord
from pgwitness.events import RawHeader, encode_event
from streams import metrics
from streams.identity import Identities

log = structlog.get_logger("worker")


class IdentityFile:
    """The file, and the last usable content of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = Identities.parse("")
        self._stamp: tuple[int, int, int] | None = None

    def load(self) -> Identities:
        """Read the file at the start. Raises `ConfigurationError`: to start without names would be guessing."""
        try:
            stamp = self._look()
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{self.path}: cannot be read: {error}; `pgwitness init` writes one, identities.file names another"
            ) from error
        self.last = Identities.parse(text, str(self.path))
        self._stamp = stamp
        return self.last

    def poll(self) -> Identities:
        """Give the content as it is now, or the last good one."""
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return self.last
            self._stamp = stamp
            self.last = Identities.parse(self.path.read_text(encoding="utf-8"), str(self.path))
            log.info("identities_changed", file=str(self.path), sha256=self.last.sha256)
        except (OSError, UnicodeDecodeError, ConfigurationError) as error:
            if self._stamp is not None or isinstance(error, ConfigurationError):
                metrics.IDENTITY_ERRORS.inc()
                log.error("identities_refused", error=str(error), instead="the last good file holds")
            if isinstance(error, OSError):
                self._stamp = None
        return self.last

    def _look(self) -> tuple[int, int, int]:
        status = self.path.stat()
        return (status.st_mtime_ns, status.st_size, status.st_ino)


def record(identities: Identities, producer: str, clock: Callable[[], float] = time.time) -> bytes:
    """Make the raw record that switches a partition's fold to these identities."""
    builder = BatchBuilder(producer, msgspec.json.encode(RawHeader(cluster="", source="worker")))
    event = IdentitiesRecord(
        captured_at_us=int(clock() * 1_000_000), sha256=identities.sha256, content=identities.content
    )
    builder.add(encode_event(event))
    payload = builder.cut()
    assert payload is not None
    return payload
