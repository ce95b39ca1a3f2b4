"""Watches the policies: a change is compiled and its tests are run before any judge may use it.

What cannot be used is logged once, counted and reported (`take_refusal`); the last good policies hold. A folder is read
only when it has stood still from one look to the next, so that half a deployment is not taken for a whole one.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from detectors.policy.calendars import FILES
from detectors.policy.policies import Bundle
from pgwitness.core.codec import BatchBuilder
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Control, RawHeader, encode_event
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile
from pgwitness.core.topics import OURSELVES
from streams import metrics

log = structlog.get_logger("worker")

NAMED_MAX = 50
"""Policies named in the event of a change, of each sort."""
ERROR_CHARS_MAX = 1_000


class PolicyFile:
    """The file or folder, and the last usable bundle of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._refusal: str | None = None
        self._files = WatchedFile(
            path,
            lambda: usable(path),
            initial=Bundle([]),
            files=lambda: _files(path),
            settle=True,
            changed=self._changed,
            refused=self._refused,
        )
        self.load = self._files.load
        """Read the policies at the start. Raise `ConfigurationError` when they, or their tests, are not in order."""
        self.poll = self._files.poll
        """Return the policies as they are now, or the last good ones."""

    @property
    def last(self) -> Bundle:
        """The last good policies."""
        return self._files.last

    def take_refusal(self) -> str | None:
        """Return why the present files cannot be used, once."""
        refusal, self._refusal = self._refusal, None
        return refusal

    def _changed(self, bundle: Bundle) -> None:
        log.info("policies_read", path=str(self.path), sha256=bundle.sha256)

    def _refused(self, refusal: Refusal) -> None:
        metrics.POLICY_ERRORS.inc()
        self._refusal = refusal.error[:ERROR_CHARS_MAX]
        log.error("policies_refused", error=refusal.error, instead="the last good policies hold")


def _files(path: Path) -> list[Path]:
    """List what decides: the files of a folder, or the one file and the calendars beside it."""
    if path.is_dir():
        return sorted(path.rglob("*.y*ml"))
    return [path, *(file for name in FILES if (file := path.parent / name).exists())]


def usable(path: Path) -> Bundle:
    """Load policies and run their tests. Raise `ConfigurationError` that names what is not in order."""
    bundle = Bundle.load(path)
    if failures := bundle.run_tests():
        first = failures[0]
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        where = bundle.policies[first.policy].place
        raise ConfigurationError(
            f"{where}: test {first.test!r} {first.problem}{more}; `pgwitness policy test` shows all"
        )
    return bundle


def difference(before: Bundle, after: Bundle) -> dict[str, object]:
    """Return what changes from one bundle to another, by the policies' ids."""
    old, new = before.policies, after.policies
    altered = [name for name in sorted(old.keys() & new.keys()) if old[name].document != new[name].document]
    return {
        "sha256": after.sha256,
        "before_sha256": before.sha256,
        "added": sorted(new.keys() - old.keys())[:NAMED_MAX],
        "removed": sorted(old.keys() - new.keys())[:NAMED_MAX],
        "altered": altered[:NAMED_MAX],
    }


def record(operation: str, detail: dict[str, object], producer: str, clock: Callable[[], float] = time.time) -> bytes:
    """Make the raw record that says what happened to the policies of this worker."""
    builder = BatchBuilder(producer, msgspec.json.encode(RawHeader(cluster=OURSELVES, source="worker")))
    at_us = int(clock() * 1_000_000)
    event = Control(captured_at_us=at_us, operation=operation, detail={"host": socket.gethostname(), **detail})
    builder.add(encode_event(event))
    payload = builder.cut()
    assert payload is not None
    return payload
