"""Watches `identities.yaml`: a change becomes a record in every raw partition this worker owns, in its order.

A file that cannot be used is logged once and counted, and becomes a record in one of those partitions (`refused`), so
that it is evidence and raises an alert; the last good one holds.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from pgwitness.core.codec import BatchBuilder
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Control, RawEvent, RawHeader, encode_event
from pgwitness.core.events import Identities as IdentitiesRecord
from pgwitness.core.topics import OURSELVES
from streams import metrics
from streams.identity.identities import Identities

log = structlog.get_logger("worker")

ERROR_CHARACTERS_MAX = 500


class Trouble(Struct, frozen=True):
    """Why the file cannot be used: `refused_sha256` is of what stands in it, None when it cannot even be read.

    `sha256` is of the last good content, which holds instead.
    """

    file: str
    error: str
    sha256: str
    refused_sha256: str | None = None


class IdentityFile:
    """The file, and the last usable content of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = Identities.parse("")
        self.trouble: Trouble | None = None
        """What was wrong with the file at the last look, None when nothing was."""
        self._stamp: tuple[int, int, int] | None = None

    def load(self) -> Identities:
        """Read the file at the start. Raise `ConfigurationError`: to start without names would be guessing."""
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
        """Return the content as it is now, or the last good one."""
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return self.last
            self._stamp = stamp
            content = self.path.read_bytes()
            self.last, self.trouble = self._read(content)
            if self.trouble is not None:
                raise ConfigurationError(self.trouble.error)
            log.info("identities_changed", file=str(self.path), sha256=self.last.sha256)
        except (OSError, ConfigurationError) as error:
            if self._stamp is not None or isinstance(error, ConfigurationError):
                metrics.IDENTITY_ERRORS.inc()
                log.error("identities_refused", error=str(error), instead="the last good file holds")
            if isinstance(error, OSError):
                self._stamp = None
                self.trouble = Trouble(str(self.path), str(error)[:ERROR_CHARACTERS_MAX], self.last.sha256)
        return self.last

    def _read(self, content: bytes) -> tuple[Identities, Trouble | None]:
        """Return what holds from now on, and what is wrong with the content."""
        try:
            return Identities.parse(content.decode(), str(self.path)), None
        except (UnicodeDecodeError, ConfigurationError) as error:
            sha256 = hashlib.sha256(content).hexdigest()
            why = str(error)[:ERROR_CHARACTERS_MAX]
            return self.last, Trouble(str(self.path), why, self.last.sha256, sha256)

    def _look(self) -> tuple[int, int, int]:
        status = self.path.stat()
        return (status.st_mtime_ns, status.st_size, status.st_ino)


def record(identities: Identities, producer: str, clock: Callable[[], float] = time.time) -> bytes:
    """Make the raw record that switches a partition's fold to these identities."""
    event = IdentitiesRecord(captured_at_us=_us(clock), sha256=identities.sha256, content=identities.content)
    return _payload(event, "", producer)


def refused(trouble: Trouble, producer: str, clock: Callable[[], float] = time.time) -> bytes:
    """Make the raw record that says that the file cannot be used; detail is the same from each worker that sees it."""
    detail: dict[str, object] = msgspec.to_builtins(trouble)
    return _payload(
        Control(captured_at_us=_us(clock), operation="identities_refused", detail=detail), OURSELVES, producer
    )


def mended(identities: Identities, producer: str, clock: Callable[[], float] = time.time) -> bytes:
    """Make the raw record that says that the file is again as it was before it could not be used."""
    detail: dict[str, object] = {"sha256": identities.sha256}
    return _payload(
        Control(captured_at_us=_us(clock), operation="identities_changed", detail=detail), OURSELVES, producer
    )


def _us(clock: Callable[[], float]) -> int:
    return int(clock() * 1_000_000)


def _payload(event: RawEvent, cluster: str, producer: str) -> bytes:
    builder = BatchBuilder(producer, msgspec.json.encode(RawHeader(cluster=cluster, source="worker")))
    builder.add(encode_event(event))
    payload = builder.cut()
    assert payload is not None
    return payload
