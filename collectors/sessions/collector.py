"""The session collector: looks at pg_stat_activity of one instance every interval; on the primary, at posture too.

Who was connected is kept in a state file, so that a restart of the collector does not make sessions appear or vanish
without an event; how long nobody looked is a gap. Posture runs in a thread of its own, because a look at a large
catalogue must not hold up the sampling of transaction ids.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import structlog
from msgspec import Struct
from prometheus_client import Gauge

from collectors.connection import connect, instance_name
from collectors.context import Context, now_us
from collectors.posture import watcher
from collectors.publisher import Channel
from collectors.sessions import activity_source
from collectors.sessions.activity import Look, compare
from collectors.statefile import StateFile
from pgwitness.core.config import Config
from pgwitness.core.contracts.collector import Task
from pgwitness.core.errors import Retry
from pgwitness.core.events import Gap
from pgwitness.core.messages.refusal import words

DELIVERY_S_MAX = 30.0
STORE_S = 1.0
"""How often at most the state is written; after a crash, events of that long are sent again."""
UNWATCHED_S = 10.0
"""From how long without a look on there is a gap, if that is more than `UNWATCHED_INTERVALS`."""
UNWATCHED_INTERVALS = 3
SESSIONS = Gauge("pgwitness_sessions", "Client sessions at the last look.", ["cluster", "instance"])
LOOKING = Gauge("pgwitness_sessions_reading_seconds", "How long the last look took.", ["cluster", "instance"])

log = structlog.get_logger("sessions")


class State(Struct, frozen=True):
    """What is kept over a restart: the last look, and whether hidden sessions were reported."""

    look: Look | None = None
    hidden_reported: bool = False


def check(config: Config) -> None:
    """Every cluster with a `dsn` can be collected from."""


def tasks(context: Context) -> dict[str, Task]:
    """Return one task for each instance of a cluster."""
    return {
        f"sessions {context.name} {instance_name(dsn)}": partial(run, context, dsn)
        for dsn in (context.cluster.dsn, *context.cluster.replicas)
    }


def run(context: Context, dsn: str, stop: threading.Event) -> None:
    """Collect from one instance until `stop`. Raise `Retry` when the server or the broker is lost."""
    instance = instance_name(dsn)
    part = f"sessions {context.name} {instance}"
    channel = context.publisher.channel(context.name, "sessions", instance)
    channel.while_blocked = lambda: context.health.ready(part, "the broker does not take records; check that it runs")
    interval = context.cluster.sessions_interval
    try:
        with (
            connect(context.cluster, dsn, application_name="pgwitness sessions", key=context.key) as connection,
            _posture(context, dsn, instance) as check,
        ):
            collector = Collector(context, instance, connection, channel)
            try:
                while not stop.is_set():
                    collector.step()
                    trouble = check()
                    context.health.ready(part, collector.unstored or trouble)
                    stop.wait(interval)
            finally:
                collector.end()
    except psycopg.Error as error:
        raise Retry(f"{part}: the connection was lost: {words(error)}; it is made again") from error
    finally:
        channel.close()


class _Posture:
    """Posture's thread, and what ended it."""

    def __init__(self, context: Context, dsn: str, instance: str) -> None:
        self._arguments = (context, dsn, instance)
        self._raised: BaseException | None = None
        self._trouble: str | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._work, name=f"posture {instance}", daemon=True)

    def _work(self) -> None:
        try:
            watcher.run(*self._arguments, self.stop, self._report)
        except Exception as error:
            self._raised = error

    def _report(self, trouble: str | None) -> None:
        self._trouble = trouble

    def check(self) -> str | None:
        """Say what posture waits for; raise what ended it, so that the collector is started again as a whole."""
        if self._raised is not None:
            raise self._raised
        return self._trouble


@contextmanager
def _posture(context: Context, dsn: str, instance: str) -> Iterator[Callable[[], str | None]]:
    """Run posture beside the block when this instance is the cluster's own; return a function that says how it is."""
    if dsn != context.cluster.dsn:
        yield lambda: None
        return
    posture = _Posture(context, dsn, instance)
    posture.thread.start()
    try:
        yield posture.check
    finally:
        posture.stop.set()
        posture.thread.join(DELIVERY_S_MAX)


class Collector:
    """One instance's sessions, from one connection; `step` looks once."""

    def __init__(
        self, context: Context, instance: str, connection: activity_source.Connection, channel: Channel
    ) -> None:
        self._labels = (context.name, instance)
        self._interval = context.cluster.sessions_interval
        self._connection = connection
        self._channel = channel
        self._own = activity_source.ourselves(connection)
        self._file = StateFile(context.config.collectors.state_path, f"sessions-{context.name}-{instance}", State)
        self._state = self._file.load() or State()
        self._resumed = True
        self._stored_at = time.monotonic()
        self.unstored: str | None = None
        """Why the last look cannot be remembered: a restart would compare with an older one, and repeat some."""
        if self._file.problem is not None:
            log.warning("state lost", reason=self._file.problem)
            self._gap("collector_state_lost", {"problem": self._file.problem})

    def step(self) -> None:
        """Look, compare, send; from time to time, remember what the broker has confirmed."""
        began = time.monotonic()
        answer = activity_source.look(self._connection, self._own)
        LOOKING.labels(*self._labels).set(time.monotonic() - began)
        SESSIONS.labels(*self._labels).set(len(answer.look.backends))
        before, at_us = self._state.look, now_us()
        self._unwatched(before, answer.look)
        if answer.hidden and not self._state.hidden_reported:
            fix = f"{answer.hidden} sessions are hidden: GRANT pg_read_all_stats TO {self._own.role}"
            self._gap("sessions_insufficient_privilege", {"fix": fix})
        for event in compare(before, answer.look, at_us, resumed=self._resumed):
            self._channel.send(event)
        self._resumed = False
        self._state = State(answer.look, answer.hidden > 0)
        if time.monotonic() - self._stored_at >= STORE_S:
            self._store()

    def end(self) -> None:
        """Remember the last look, if the broker still takes what led to it."""
        try:
            self._store()
        except Retry as error:
            log.warning("last looks are repeated after the restart", reason=str(error))

    def _store(self) -> None:
        self._channel.flush(DELIVERY_S_MAX)
        self._stored_at = time.monotonic()
        try:
            self._file.store(self._state, durable=False)
        except Retry as error:
            if self.unstored is None:
                log.error("the last look is not remembered; sessions are watched on", error=str(error))
            self.unstored = str(error)
        else:
            self.unstored = None

    def _unwatched(self, before: Look | None, after: Look) -> None:
        if before is None:
            return
        seconds = (after.taken_at_us - before.taken_at_us) / 1_000_000
        if seconds > max(UNWATCHED_S, UNWATCHED_INTERVALS * self._interval):
            self._gap("sessions_unwatched", {"seconds": seconds, "until_us": after.taken_at_us}, before.taken_at_us)

    def _gap(self, reason: str, detail: dict[str, object], occurred_at_us: int | None = None) -> None:
        self._channel.send(Gap(captured_at_us=now_us(), reason=reason, occurred_at_us=occurred_at_us, detail=detail))
