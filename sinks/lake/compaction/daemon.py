"""The compactor and the retainer as daemons: a round every so often, until they are told to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from pgwitness.core.errors import NotInOrder, Retry
from pgwitness.core.runtime import backoff
from pgwitness.core.runtime.health import Health
from sinks.lake.compaction import metrics
from sinks.lake.compaction.compactor import Compactor
from sinks.lake.compaction.retainer import Retainer

PAUSE_S_MAX = 60.0
log = structlog.get_logger()

Round = Callable[[Callable[[], object]], str | None]
"""One round, told what to call while it works; gives what is not in order, None when all is."""


class Ending(Exception):
    """The daemon was told to end while it worked: what is not committed is done again by its next run."""


def compacting(compactor: Compactor) -> Round:
    """Make the rounds of a compactor."""

    def one(beat: Callable[[], object]) -> str | None:
        done = compactor.run(beat)
        metrics.REPLACED.inc(done.replaced)
        metrics.ROWS.inc(done.rows)
        metrics.REMOVED.inc(done.removed)
        metrics.ORPHANS.set(done.orphans)
        metrics.REFUSED.set(len(done.refused))
        metrics.LIVE.set(compactor.live)
        return done.refused[0] if done.refused else None

    return one


def retaining(retainer: Retainer) -> Round:
    """Make the rounds of a retainer."""

    def one(beat: Callable[[], object]) -> None:
        done = retainer.run(beat)
        metrics.RETIRED.inc(done.retired)
        metrics.REMOVED.inc(done.removed)

    return one


def run(part: str, one: Round, every_s: float, health: Health, stop: threading.Event) -> None:
    """Work in rounds. What cannot be done at the moment is said and tried again, with growing pauses.

    Raise `Stop` when the lake's log is damaged: that is for a person.
    """

    def beat() -> None:
        health.beat(part)
        if stop.is_set():
            raise Ending

    health.expect(part)
    failures = 0
    while not stop.is_set():
        try:
            health.ready(part, one(beat))
        except Ending:
            return
        except (Retry, NotInOrder) as error:
            failures += 1
            metrics.FAILURES.inc()
            health.ready(part, str(error))
            log.warning("round not done", part=part, why=str(error))
            health.wait(part, min(every_s, backoff.pause_s(failures, PAUSE_S_MAX)), stop)
            continue
        failures = 0
        metrics.LAST.set(time.time())
        health.wait(part, every_s, stop)
