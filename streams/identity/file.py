"""Watches `identities.yaml`: a change becomes a record in every raw partition this worker owns, in its order.

A file that cannot be used is logged once and counted, and becomes a record in one of those partitions (`refused`), so
that it is evidence and raises an alert; the last good one holds.
"""

from __future__ import annotations

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
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile
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
        self._file = WatchedFile(
            path, self._read, initial=Identities.parse(""), changed=self._changed, refused=self._refused
        )
        self.load = self._file.load
        """Read the file at the start. Raise `ConfigurationError`: to start without names would be guessing."""
        self.poll = self._file.poll
        """Return the content as it is now, or the last good one."""

    @property
    def last(self) -> Identities:
        """The last good content."""
        return self._file.last

    @property
    def trouble(self) -> Trouble | None:
        """What was wrong with the file at the last look, None when nothing was."""
        refusal = self._file.refusal
        if refusal is None:
            return None
        return Trouble(str(self.path), refusal.error[:ERROR_CHARACTERS_MAX], self.last.sha256, refusal.sha256)

    def _read(self) -> Identities:
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{self.path}: cannot be read: {error}; `pgwitness init` writes one, identities.file names another"
            ) from error
        return Identities.parse(text, str(self.path))

    def _changed(self, identities: Identities) -> None:
        log.info("identities_changed", file=str(self.path), sha256=identities.sha256)

    def _refused(self, refusal: Refusal) -> None:
        metrics.IDENTITY_ERRORS.inc()
        log.error("identities_refused", error=refusal.error, instead="the last good file holds")


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
