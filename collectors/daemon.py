"""The collector daemon: one thread a task, each started again after what it lost is back.

`pgwitness.core.contracts.collector` says what a collector and its tasks promise. `supervise` runs a task that ended
again with exponential back-off and jitter; `Stop` from any of them ends the daemon, because going on would
lose or falsify evidence. Every second a cluster with a collector sends a `Tick`: the fold's clock.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog
from prometheus_client import Counter

from collectors.context import Context, now_us
from collectors.publisher import Publisher
from collectors.registry import COLLECTORS, load
from pgwitness.core.config import Config
from pgwitness.core.contracts.collector import Task
from pgwitness.core.errors import ConfigurationError, PgwitnessError, Retry, Stop
from pgwitness.core.events import Control, Tick
from pgwitness.core.privacy import load_key
from pgwitness.core.runtime import backoff
from pgwitness.core.runtime.disk import moment
from pgwitness.core.runtime.health import Health

BACKOFF_S_MAX = 30.0
CALM_S = 60.0
"""After so long without an error the back-off begins anew."""
TICK_S = 1.0
END_S = 4.0
"""How long collectors may take to end after they were asked to, while the broker may still take what they hand over."""
ABANDONED_S = 1.0
"""How long after that, when what was not confirmed is left to the next run."""
CLOSE_S = 3.0

RESTARTS = Counter("pgwitness_collector_restarts", "Times a collector was started again after an error.", ["collector"])

UNCONFIRMED_TICKS_MAX = 5
GC_THRESHOLDS = (50_000, 20, 100)
"""How rarely Python looks for cycles: what passes through here has none, and looking costs every twentieth second."""

log = structlog.get_logger("collect")


def supervise(
    tasks: Mapping[str, Task],
    stop: threading.Event,
    health: Health,
    abandon: Callable[[], None] = lambda: None,
) -> int:
    """Run each task in a thread until `stop`; return the exit code: 0, or 1 after a `Stop`.

    `abandon` wakes what waits for a broker that does not answer, when tasks have not ended in time.

    A task that returns before `stop` is started again like one that raised `Retry`. An error nobody expected is
    logged whole and retried too: one collector's defect must not blind the others.
    """
    fatal: list[BaseException] = []

    def keep(name: str, task: Task) -> None:
        try:
            _keep(name, task, stop, health)
        except Stop as error:
            log.error("stopping", collector=name, error=str(error))
            fatal.append(error)
            stop.set()

    for name in tasks:
        health.expect(name)
    threads = [threading.Thread(target=keep, args=item, name=item[0], daemon=True) for item in tasks.items()]
    for thread in threads:
        thread.start()
    stop.wait()
    if _joined(threads, END_S):
        abandon()
    for name in _joined(threads, ABANDONED_S):
        log.warning("did not end in time", collector=name)
    return 1 if fatal else 0


def _joined(threads: list[threading.Thread], seconds: float) -> list[str]:
    """Wait so long for threads to end; return the names of those that did not."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]


def _keep(name: str, task: Task, stop: threading.Event, health: Health) -> None:
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            task(stop)
            reason = "ended by itself"
        except Stop:
            health.ready(name, "stopped")
            raise
        except PgwitnessError as error:
            reason = str(error)
            if not stop.is_set():
                log.warning("trying again", collector=name, error=reason)
        except OSError as error:
            reason = moment(error)
            if not stop.is_set():
                log.warning("trying again", collector=name, error=reason)
        except Exception as error:
            reason = f"unexpected {type(error).__name__}; the log has its trace, please report it"
            log.exception("unexpected error", collector=name)
        if stop.is_set():
            return
        RESTARTS.labels(name).inc()
        health.ready(name, reason)
        failures = 1 if time.monotonic() - began > CALM_S else failures + 1
        health.wait(name, backoff.pause_s(failures, BACKOFF_S_MAX), stop)


def run_collectors(config: Config, names: list[str], stop: threading.Event, health: Health) -> int:
    """Run the named collectors (of `COLLECTORS`) for every cluster until `stop`; return the exit code.

    Raise `ConfigurationError` when a name is unknown, no cluster is configured, the masking key cannot be used, or
    what a collector needs is not configured.
    """
    if unknown := [name for name in names if name not in COLLECTORS]:
        raise ConfigurationError(f"unknown collector {', '.join(unknown)}; known are {', '.join(COLLECTORS)}")
    if not config.clusters:
        raise ConfigurationError("no cluster is configured; add a table [clusters.NAME] with its dsn")
    key = load_key(config.privacy.key_file)
    for name in names:
        load(name).check(config)
    publisher = Publisher(config)
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        contexts = [
            Context(config, name, cluster, publisher, health, key) for name, cluster in sorted(config.clusters.items())
        ]
        _control(contexts, "collectors_started", names)
        code = supervise(
            {k: v for context in contexts for k, v in tasks(context, names).items()}, stop, health, publisher.abandon
        )
        _control(contexts, "collectors_stopped", names)
        return code
    finally:
        gc.set_threshold(*thresholds)
        publisher.close(CLOSE_S)


def tasks(context: Context, names: Sequence[str]) -> dict[str, Task]:
    """Return the tasks of one cluster, by the name under which health and metrics know them."""
    made: dict[str, Task] = {f"tick {context.name}": partial(tick, context)}
    for name in names:
        made.update(load(name).tasks(context))
    return made


def tick(context: Context, stop: threading.Event) -> None:
    """Send the cluster's time every second until `stop`."""
    channel = context.publisher.channel(context.name, "tick", None)
    part = f"tick {context.name}"
    channel.while_blocked = lambda: context.health.ready(part, "the broker does not take records; check that it runs")
    try:
        while not stop.wait(TICK_S):
            channel.send(Tick(captured_at_us=now_us()))
            silent = channel.undelivered > UNCONFIRMED_TICKS_MAX
            complaint = context.publisher.complaint("the broker does not confirm records")
            context.health.ready(part, complaint if silent else None)
    finally:
        channel.close()


def _control(contexts: list[Context], operation: str, names: list[str]) -> None:
    """Write down what pgwitness itself does; an absent broker does not hold it up."""
    for context in contexts:
        channel = context.publisher.channel(context.name, "control", None)
        try:
            channel.send(Control(captured_at_us=now_us(), operation=operation, detail={"collectors": sorted(names)}))
        except Retry as error:
            log.warning("not written down", operation=operation, error=str(error))
        finally:
            channel.close()
