"""Sends signed checkpoints to the anchors, every so often and also when nothing came, and asks what they have.

An anchor that does not answer stops no seal: it is tried again in the next round, and a metric counts. Stamps are kept
in the seal beside the checkpoint that they are of, as `anchors/SIZE-TIME.NAME.tsr`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec
import structlog
from msgspec import Struct

from pgwitness.core.errors import ConfigurationError, Retry
from sinks.lake.log.chain import UNREADABLE
from sinks.lake.storage.store import Folder, Store
from sinks.seal.anchors import Named
from sinks.seal.anchors.given import Given
from sinks.seal.metrics import ANCHORED_AT, NOT_ANCHORED
from sinks.seal.place import ANCHORS

MICROSECONDS = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
log = structlog.get_logger()


class Last(Struct, frozen=True):
    """What an anchor was given last, as the sealer remembers it."""

    size: int
    at_us: int


class Anchoring:
    """The anchors of one sealer. Not for several threads."""

    def __init__(
        self, anchors: Sequence[Named], seal: Store, memory: Folder, every_s: float, clock_us: Callable[[], int]
    ) -> None:
        for one in anchors:
            if not _NAME.fullmatch(one.name):
                raise ConfigurationError(f"seal.anchors.{one.name}: a name has letters, digits, - and _ only")
        self._anchors = anchors
        self._seal = seal
        self._memory = memory
        self._every_us = int(every_s * MICROSECONDS)
        self._clock_us = clock_us

    def known(self) -> list[tuple[str, bytes]]:
        """Give the newest checkpoint of each anchor that can be read. Raise `Retry` when one does not answer."""
        found = []
        for one in self._anchors:
            try:
                note = one.target.newest()
            except Retry as error:
                raise Retry(f"the anchor {one.name} could not be read ({error}): nothing is signed before") from error
            if note is not None:
                found.append((one.name, note))
        return found

    def round(self, lake: str, size: int, note: bytes) -> list[str]:
        """Give the checkpoint to each anchor whose time has come; gives what went wrong, a sentence each."""
        now_us = self._clock_us()
        given = Given(lake, size, note, now_us)
        return [why for one in self._anchors if self._due(one, now_us) and (why := self._put(one, given))]

    def _due(self, one: Named, now_us: int) -> bool:
        content = self._memory.read(_remembered(one))
        try:
            last = msgspec.json.decode(content, type=Last) if content is not None else None
        except UNREADABLE:
            last = None
        return last is None or not 0 <= now_us - last.at_us < self._every_us  # a clock may have been set back

    def _put(self, one: Named, given: Given) -> str | None:
        try:
            answer = one.target.put(given)
        except Retry as error:
            NOT_ANCHORED.labels(one.name).inc()
            log.warning("not_anchored", anchor=one.name, why=str(error))
            return f"the anchor {one.name} did not take the checkpoint ({error}): the next round tries again"
        if one.target.suffix:
            stem = f"{ANCHORS}/{given.size:012d}-{given.at_us}"
            self._seal.create(f"{stem}.checkpoint", given.note)
            self._seal.create(f"{stem}.{one.name}.{one.target.suffix}", answer)
        self._memory.replace(_remembered(one), msgspec.json.encode(Last(given.size, given.at_us)))
        ANCHORED_AT.labels(one.name).set(given.at_us / MICROSECONDS)
        return None


def _remembered(one: Named) -> str:
    return f"anchors/{one.name}.json"
