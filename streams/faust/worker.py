"""`pgwitness worker`: attribute, judge, land. Runs Faust until asked to stop, again after what it lost is back.

Every error a stage raises ends this run of the application: buffers are thrown away and the next run resumes from
checkpoints and the lake, which is the same path as after a crash, and therefore a tested one. `Stop` ends the daemon.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
import uvloop
from faust.types import TP

from pgwitness.core.config import Config
from pgwitness.core.contracts.evidence_writer import EvidenceStore
from pgwitness.core.errors import ConfigurationError, PgwitnessError, Retry, Stop
from pgwitness.core.runtime import backoff
from pgwitness.core.runtime.disk import moment
from pgwitness.core.runtime.health import Health
from streams import metrics
from streams.faust.app import make_app
from streams.identity.file import IdentityFile
from streams.kafka import admin
from streams.kafka.notes import SuppressionFile
from streams.kafka.topic_watch import TopicWatch
from streams.worker.policy_file import PolicyFile
from streams.worker.protocols import JudgeMaker
from streams.worker.stages import Stages

log = structlog.get_logger("worker")

TICK_S = 0.02
BACKOFF_S_MAX = 30.0
STOP_S_MAX = 20.0
PART = "worker"
GC_THRESHOLDS = (50_000, 20, 100)
"""A backlog puts many short-lived objects in flight; by default a third of the time went into walking through them."""


def run(
    config: Config,
    lake: EvidenceStore,
    make_judge: JudgeMaker,
    health: Health,
    stop: threading.Event,
    ready: Callable[[], None] | None = None,
    policy_file: PolicyFile | None = None,
) -> int:
    """Work until `stop`; return the exit code: 0, or 1 after a `Stop`. `ready` is called once partitions are read.
    Policies that change in `policy_file` are taken on while it works.

    Raise `ConfigurationError` when identities or suppressions cannot be read at the start. Whatever can come back is
    retried with exponential back-off and jitter.
    """
    identity_file = IdentityFile(config.identities.file)
    identity_file.load()
    suppression_file = SuppressionFile(config.triage.suppressions)
    suppression_file.load()
    health.expect(PART)
    failures = 0
    worked_ever = False
    while not stop.is_set():
        worked = False

        def started() -> None:
            nonlocal worked, worked_ever
            worked = worked_ever = True
            health.ready(PART)
            if ready is not None:
                ready()

        try:
            try:
                partitions = admin.require(config, stop=stop)
            except Stop as error:
                if not worked_ever:
                    raise
                raise Retry(str(error)) from None  # topics that were there may come back
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(
                    _work(
                        config,
                        lake,
                        make_judge,
                        (identity_file, suppression_file),
                        policy_file,
                        partitions,
                        health,
                        stop,
                        started,
                    )
                )
        except (Stop, ConfigurationError) as error:
            log.error("stopping", error=str(error))
            health.ready(PART, str(error))
            return 1
        except Exception as error:
            failures = 1 if worked else failures + 1
            metrics.RESTARTS.inc()
            why = moment(error) if isinstance(error, OSError) else str(error)
            health.ready(PART, why)
            pause_s = backoff.pause_s(failures, BACKOFF_S_MAX)
            if isinstance(error, PgwitnessError | OSError):
                log.warning("worker_restarts", error=why, kind=type(error).__name__, in_s=round(pause_s, 1))
            else:
                log.exception("worker_restarts", in_s=round(pause_s, 1))
            stop.wait(pause_s)
    return 0


async def _work(
    config: Config,
    lake: EvidenceStore,
    make_judge: JudgeMaker,
    files: tuple[IdentityFile, SuppressionFile],
    policy_file: PolicyFile | None,
    partitions: Mapping[str, int],
    health: Health,
    stop: threading.Event,
    started: Callable[[], None],
) -> None:
    """One run of the application, from its start to `stop` or the first error, which is raised."""
    failure: list[BaseException] = []
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    stages = Stages(config, lake, make_judge, *files, policy_file, partitions=partitions)
    watch = TopicWatch(config, admin.of_worker(config), partitions)

    def failed(error: BaseException) -> None:
        failure.append(error)
        stages.abandon()

    app = make_app(config, stages, failed)
    try:
        await app.start()
        reported, trouble = False, None
        while not stop.is_set() and not failure:
            await asyncio.sleep(TICK_S)
            if app.crashed:
                raise Retry(f"Faust ended: {app.crash_reason!r}")
            if failure:
                break
            stages.look(app.end_of)
            stages.tick()
            if watch.poll(stages.topic_ids, app.suspicious):
                app.trust()
            health.beat(PART)
            if reported and stages.trouble != trouble:
                trouble = stages.trouble
                health.ready(PART, trouble)
            if not reported and stages.positions():
                reported = True
                gc.collect()
                gc.freeze()
                started()
            await _report(app, stages)
        if failure:
            raise failure[0]
        stages.close()
        await _report(app, stages)
    finally:
        stages.abandon()
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        with suppress(Exception):
            await asyncio.wait_for(app.stop(), STOP_S_MAX)


async def _report(app: Any, stages: Stages) -> None:
    """Bring lag metrics and the group's offsets up to date."""
    acknowledged = stages.take_acknowledged()
    await app.consumer.commit_positions({TP(*at): offset for at, offset in acknowledged.items()})
    for (topic, number), offset in acknowledged.items():
        end = app.end_of((topic, number))
        if end is not None:
            metrics.LAG.labels(topic, str(number)).set(max(0, end - offset))
