"""The sealer as a daemon: a round every so often, until it is told to end."""

from __future__ import annotations

import threading
import time

import structlog

from pgwitness.core.errors import Retry, Stop
from pgwitness.core.runtime.health import Health
from sinks.seal.anchoring import Anchoring
from sinks.seal.metrics import REFUSED, SEALED, SEALED_AT
from sinks.seal.sealer import Sealed, Sealer

PART = "seal"
log = structlog.get_logger()


def run(sealer: Sealer, anchoring: Anchoring, every_s: float, health: Health, stop: threading.Event) -> None:
    """Seal in rounds. What cannot be done at the moment is said and tried again in the next round.

    Raise `Stop` when the lake contradicts what was signed, or is not whole: that is for a person.
    """
    health.expect(PART)
    while not stop.is_set():
        try:
            done = sealer.round(lambda: health.beat(PART))
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
            anchor(anchoring, done)
        health.wait(PART, every_s, stop)


def anchor(anchoring: Anchoring, done: Sealed) -> list[str]:
    """Give the anchors what is sealed; gives what went wrong. Raise nothing: what is sealed is sealed."""
    try:
        return anchoring.round(done.lake, done.checkpoint.size, done.note)
    except OSError as error:
        log.warning("not_anchored", why=str(error))
        return [f"what the anchors answered could not be kept ({error}): look at room and rights"]
