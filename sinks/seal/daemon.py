"""The sealer as a daemon: a round every so often, until it is told to end."""

from __future__ import annotations

import threading
import time

import structlog

from pgwitness.core.errors import Retry, Stop
from pgwitness.core.runtime.health import Health
from sinks.seal.metrics import REFUSED, SEALED, SEALED_AT
from sinks.seal.sealer import Sealer

PART = "seal"
BEAT_S = 5.0
log = structlog.get_logger()


def run(sealer: Sealer, every_s: float, health: Health, stop: threading.Event) -> None:
    """Seal in rounds. What cannot be done at the moment is said and tried again in the next round.

    Raise `Stop` when the lake contradicts what was signed, or is not whole: that is for a person.
    """
    health.expect(PART)
    while not stop.is_set():
        try:
            done = sealer.round()
        except Retry as error:
            health.ready(PART, str(error))
            log.warning("not_sealed", why=str(error))
        except Stop as error:
            REFUSED.inc()
            health.ready(PART, str(error))
            raise
        else:
            health.ready(PART)
            SEALED.set(done.checkpoint.size)
            SEALED_AT.set(time.time())
            if done.entries:
                log.info("sealed", entries=done.checkpoint.size, new=done.entries, files=done.files)
        _wait(every_s, health, stop)


def _wait(every_s: float, health: Health, stop: threading.Event) -> None:
    """Wait, and show meanwhile that the daemon lives."""
    until = time.monotonic() + every_s
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, BEAT_S)):
        health.beat(PART)
