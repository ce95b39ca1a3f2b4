"""Shipping in a process of its own, so that no client waits for it: in one process both would take turns at Python.

The gateway's process tells over a pipe how far its spool is written, and is told what is not needed any more, how the
work goes, and what the metrics counted. The other process owns nothing but its state file; it ends with the pipe, also
where the gateway was killed.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import structlog
from msgspec import Struct

from collectors import publisher
from collectors.daemon import CLOSE_S, GC_THRESHOLDS
from collectors.gateway.spool.shipping import PART, POLL_S, Shipper
from collectors.gateway.spool.spool import Spool
from collectors.publisher import Publisher
from pgwitness.core.config import Config
from pgwitness.core.errors import PgwitnessError, Retry, Stop
from pgwitness.core.runtime import logs
from pgwitness.core.runtime.health import Health

METRICS_S = 1.0
END_S = CLOSE_S + 1.0
MIRRORED = (publisher.EVENTS, publisher.BYTES, publisher.WAITING, publisher.FAILURES)
"""Metrics of the other process, that this one shows as its own."""

log = structlog.get_logger("gateway")


class Told(Struct, frozen=True):
    """What the gateway says: how far the spool is written, and whether that was the last of it."""

    end: int
    served: bool


class Report(Struct, frozen=True):
    """What the shipping process says. `failure` and `final` are how it has ended, where it had to."""

    released: int | None = None
    complaint: str | None = None
    counted: list[tuple[int, tuple[str, ...], float]] = []
    failure: str | None = None
    final: bool = False
    done: bool = False


class ShippingProcess:
    """Sends what is on a spool: the task of the daemon, which starts the process and watches it."""

    def __init__(self, config: Config, spool: Spool, health: Health, servers: list[tuple[str, str]]) -> None:
        self._servers = servers
        self._config = config
        self._spool = spool
        self._health = health
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """End at once; what was not confirmed is shipped by the next run."""
        self._abandoned.set()

    def run(self, served: threading.Event) -> None:
        """Ship until all sessions are `served`. Raise `Retry` or `Stop` for what the process raised."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        started = (there, self._config, self._spool.folder, self._spool.id, self._spool.released, self._servers)
        process = context.Process(target=ship, args=started, name="shipping", daemon=True)
        process.start()
        there.close()
        try:
            self._follow(here, served)
        except (EOFError, OSError) as error:
            raise Retry("the process that ships the gateway's spool has ended unforeseen; its log says why") from error
        finally:
            here.close()
            process.join(END_S)
            process.kill()

    def _follow(self, pipe: Connection, served: threading.Event) -> None:
        told: Told | None = None
        counted = _Counted()
        while not self._abandoned.is_set():
            last = served.is_set()  # before the end is looked at: what was written by then is told
            now = Told(self._spool.end, last)
            if now != told:
                pipe.send(now)
                told = now
            if not pipe.poll(POLL_S):
                continue
            report: Report = pipe.recv()
            counted.take(report.counted)
            if report.released is not None:
                self._spool.release(report.released)
            if report.failure is not None:
                raise Stop(report.failure) if report.final else Retry(report.failure)
            self._health.ready(PART, report.complaint)
            if report.done:
                return


class _Counted:
    """Adds what another process has counted to the metrics of this one."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, tuple[str, ...]], float] = {}

    def take(self, counted: list[tuple[int, tuple[str, ...], float]]) -> None:
        for index, labels, value in counted:
            metric = MIRRORED[index]
            child = metric.labels(*labels) if labels else metric
            child.inc(value - self._before.get((index, labels), 0.0))
            self._before[index, labels] = value


def _counts() -> list[tuple[int, tuple[str, ...], float]]:
    """Read this process's own metrics."""
    return [
        (index, tuple(sample.labels.values()), sample.value)
        for index, metric in enumerate(MIRRORED)
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]


class _Remote:
    """The spool and the health of the gateway, as the shipping process sees them. It is what `Shipper` asks for."""

    def __init__(self, pipe: Connection, folder: Path, spool: str, released: int) -> None:
        self.folder, self.id, self.released = folder, spool, released
        self.end = released
        self.served = threading.Event()
        self._pipe = pipe
        self._lock = threading.Lock()
        self._counted_at = 0.0

    def listen(self) -> None:
        """Take up what the gateway says; this process ends at once when that has no end."""
        try:
            while True:
                told: Told = self._pipe.recv()
                self.end = told.end
                if told.served:
                    self.served.set()
        except (EOFError, OSError):
            os._exit(0)

    def release(self, place: int) -> None:
        """Take up that nothing before a place is needed."""
        self.say(Report(released=place, counted=_counts()))

    def ready(self, _part: str, because_not: str | None = None) -> None:
        """Say that the work goes on, or why it does not."""
        due = time.monotonic() - self._counted_at >= METRICS_S
        if due or because_not is not None:
            self._counted_at = time.monotonic()
            self.say(Report(complaint=because_not, counted=_counts()))

    def say(self, report: Report) -> None:
        """Tell the gateway's process."""
        with self._lock, contextlib.suppress(OSError):
            self._pipe.send(report)


@logs.process
def ship(
    pipe: Connection, config: Config, folder: Path, spool: str, released: int, servers: list[tuple[str, str]]
) -> None:
    """Be the shipping process: ship until the gateway has served its last session."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they came to the gateway too, which says when it has come to its end
    gc.set_threshold(*GC_THRESHOLDS)
    remote = _Remote(pipe, folder, spool, released)
    threading.Thread(target=remote.listen, name="told", daemon=True).start()
    sending = Publisher(config)
    try:
        shipper = Shipper(remote, sending, remote, config.collectors.state_path, servers)
        _until_served(remote, lambda: shipper.run(remote.served))
    finally:
        sending.close(CLOSE_S)


def _until_served(remote: _Remote, work: Callable[[], None]) -> None:
    try:
        work()
        remote.say(Report(done=True, counted=_counts()))
    except PgwitnessError as error:
        remote.say(Report(failure=str(error), final=isinstance(error, Stop)))
    except Exception as error:
        log.exception("unexpected error", collector=PART)
        remote.say(Report(failure=f"unexpected {type(error).__name__}; the log has its trace, please report it"))
