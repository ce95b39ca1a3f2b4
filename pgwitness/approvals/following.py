"""A ledger that follows the topic: what holds of requests now, for a process that is asked again and again.

A thread reads; whoever asks waits until all that there was has been read once. When the broker goes away, questions are
answered by that in words, and when it comes back, the topic is read from its beginning.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from pgwitness.approvals.ledger import Ledger, Trust
from pgwitness.approvals.topic import ApprovalsTopic
from pgwitness.core.config import Config
from pgwitness.core.errors import NotInOrder, PgwitnessError, Unreachable

WAIT_S: Final = 10.0
AGAIN_S: Final = 2.0
T = TypeVar("T")
log = structlog.get_logger("approvals")


class Following:
    """What holds of all requests; several threads may ask. `trust` says whose records are believed."""

    def __init__(self, config: Config) -> None:
        self.trust = Trust.of(config)
        self._config = config
        self._ledger = Ledger(self.trust)
        self._changed = threading.Condition()
        self._ready, self._failed = False, ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self, question: Callable[[Ledger], T]) -> T:
        """Ask the ledger. Raise `Unreachable` while the topic cannot be read, `NotInOrder` where nobody is believed."""
        if not self.trust.gateways:
            raise NotInOrder(
                "approvals.gateways of the configuration lists no gateway's key, so no request is believed"
            )
        with self._changed:
            self._begin()
            self._changed.wait_for(lambda: self._ready or self._failed, WAIT_S)
            if not self._ready:
                raise Unreachable(self._failed or "the topic of approvals is being read; ask again in a moment")
            return question(self._ledger)

    def append(self, request: str, value: bytes) -> None:
        """Write a record, and wait until it was read again. Raise `Unreachable` when the broker may not have it."""
        topic = ApprovalsTopic(self._config)
        try:
            topic.append(request, value)
        finally:
            topic.close()
        with self._changed:
            known = self._ledger.requests.get(request)
            before = len(known.decisions) if known is not None else 0
            self._changed.wait_for(lambda: self._decisions(request) > before, AGAIN_S)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(WAIT_S)

    def _decisions(self, request: str) -> int:
        known = self._ledger.requests.get(request)
        return len(known.decisions) if known is not None else 0

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="approvals", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except PgwitnessError as error:
                log.error("approvals cannot be read", error=str(error))
                self._say(ready=False, failed=str(error))
                self._stop.wait(AGAIN_S)

    def _follow(self) -> None:
        ledger, topic = Ledger(self.trust), ApprovalsTopic(self._config)
        began_s = time.monotonic()
        try:
            while not self._stop.is_set():
                read = topic.poll()
                with self._changed:
                    if read is not None:
                        ledger.take(read.value, read.offset, read.at_us)
                    if topic.at_end:
                        self._ledger, self._ready, self._failed = ledger, True, ""
                    self._changed.notify_all()
                if not topic.at_end and read is None and time.monotonic() - began_s > WAIT_S:
                    raise Unreachable(f"{topic.name} cannot be read; is the broker up?")
        finally:
            topic.close()

    def _say(self, *, ready: bool, failed: str) -> None:
        with self._changed:
            self._ready, self._failed = ready, failed
            self._changed.notify_all()
