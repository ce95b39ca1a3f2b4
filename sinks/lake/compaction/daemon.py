"""The compactor as a daemon: a round every so often, until it is told to end."""

from __future__ import annotations

import threading
import time

import structlog

from pgwitness.core.errors import NotInOrder, Retry
from pgwitness.core.runtime import backoff
from pgwitness.core.runtime.health import Health
from sinks.lake.compaction import metrics
from sinks.lake.compaction.compactor import Compactor, Done

PART = "compact"
BEAT_S = 5.0
PAUSE_S_MAX = 60.0
log = structlog.get_logger("compact")


class Ending(Exception):
    """The daemon was told to end while it worked: what is not committed is done again by its next run."""


def run(compactor: Compactor, every_s: float, health: Health, stop: threading.Event) -> None:
    """Compact in rounds. What cannot be done at the moment is said and tried again, with growing pauses.

    Raise `Stop` when the lake's log is damaged: that is for a person.
    """

    def beat() -> None:
        health.beat(PART)
        if stop.is_set():
            raise Ending

    health.expect(PART)
    failures = 0
    while not stop.is_set():
        try:
            done = compactor.run(beat)
        except Ending:
            return
        except (Retry, NotInOrder) as error:
            failures += 1
            metrics.FAILURES.inc()
            health.ready(PART, str(error))
            log.warning("not compacted", why=str(error))
            _wait(min(every_s, backoff.pause_s(failures, PAUSE_S_MAX)), health, stop)
            continue
        failures = 0
        health.ready(PART, done.refused[0] if done.refused else None)
        _count(compactor, done)
        _wait(every_s, health, stop)


def _count(compactor: Compactor, done: Done) -> None:
    metrics.REPLACED.inc(done.replaced)
    metrics.ROWS.inc(done.rows)
    metrics.REMOVED.inc(done.removed)
    metrics.ORPHANS.inc(done.orphans)
    metrics.REFUSED.set(len(done.refused))
    metrics.LIVE.set(compactor.live)
    metrics.LAST.set(time.time())


def _wait(pause_s: float, health: Health, stop: threading.Event) -> None:
    """Wait, and show meanwhile that the daemon lives."""
    until = time.monotonic() + pause_s
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, BEAT_S)):
        health.beat(PART)
