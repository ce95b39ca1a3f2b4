"""Several processes of one gateway on one port: started, watched, told to end, and added up.

The kernel hands each connection to one of them (`SO_REUSEPORT`). Each has a loop, a spool and a control socket of its
own, and knows nothing of the others but by those sockets. One that dies takes its own sessions along and nobody
else's; it is started anew and completes what is on its spool. All end when the first process does, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

import structlog
from msgspec import Struct
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Metric
from prometheus_client.registry import Collector

from collectors.daemon import supervise
from collectors.gateway.judging.rules import Namers
from collectors.gateway.service import check, run_gateway
from pgwitness.core.config import Config
from pgwitness.core.errors import PgwitnessError, Retry, Stop
from pgwitness.core.runtime import logs
from pgwitness.core.runtime.health import Health

REPORT_S: Final = 1.0
POLL_S: Final = 0.1
END_S: Final = 8.5
"""How long processes may take to end: their sessions, then what their spools still hold."""
KILL_S: Final = 1.0
OURS: Final = "pgwitness_"

PROCESSES = Counter("pgwitness_gateway_process_starts", "Times a process of the gateway was started.")

log = structlog.get_logger("gateway")
Samples = list[tuple[str, dict[str, str], float]]


class Family(Struct, frozen=True):
    """A metric as a process has it."""

    name: str
    kind: str
    said: str
    samples: Samples


class Told(Struct, frozen=True):
    """What a process says of itself. `code` is how it has ended, `failure` why, and `final` that it cannot go on."""

    complaints: list[str] = []
    families: list[Family] = []
    code: int | None = None
    failure: str | None = None
    final: bool = False


class Summed(Collector):
    """The metrics of all processes, added up. What one has counted stays when it is gone; what it held does not.

    `own` are those of this process.
    """

    def __init__(self, own: Callable[[], list[Family]] = list) -> None:
        self._own = own
        self._lock = threading.Lock()
        self._now: dict[int, list[Family]] = {}
        self._gone: dict[str, Family] = {}

    def took(self, process: int, families: list[Family]) -> None:
        """Take what a process has counted so far."""
        with self._lock:
            self._now[process] = families

    def ended(self, process: int) -> None:
        """Keep what a process has counted that is gone."""
        with self._lock:
            counted = [one for one in self._now.pop(process, []) if one.kind != "gauge"]
            self._gone = {one.name: one for one in _added([*self._gone.values(), *counted])}

    def collect(self) -> Iterable[Metric]:
        """Give the sums."""
        with self._lock:
            families = [*self._own(), *self._gone.values(), *(one for each in self._now.values() for one in each)]
        for family in _added(families):
            metric = Metric(family.name, family.said, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric


def _added(families: Iterable[Family]) -> list[Family]:
    """Add up what has the same name and labels."""
    sums: dict[str, tuple[Family, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for family in families:
        _, values = sums.setdefault(family.name, (family, {}))
        for name, labels, value in family.samples:
            key = (name, tuple(sorted(labels.items())))
            values[key] = values.get(key, 0.0) + value
    return [
        Family(one.name, one.kind, one.said, [(name, dict(labels), value) for (name, labels), value in values.items()])
        for one, values in sums.values()
    ]


class _Python(Collector):
    """What Python counts of this process: its memory, its time."""

    def collect(self) -> Iterable[Metric]:
        return [one for one in REGISTRY.collect() if not one.name.startswith(OURS)]


class Fleet:
    """The processes of a gateway."""

    def __init__(self, config: Config, namers: Namers) -> None:
        self._config, self._namers = config, namers
        self._summed = Summed(counted)
        self._running: dict[int, BaseProcess] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self._summed)
        self.registry.register(_Python())

    def run(self, stop: threading.Event, health: Health) -> int:
        """Run until `stop`; return the exit code. Raise `ConfigurationError` for what cannot be served."""
        check(self._config, self._namers)
        numbers = range(self._config.gateway.processes)
        code = supervise({f"process {n}": partial(self._keep, n, health) for n in numbers}, stop, health)
        deadline = time.monotonic() + END_S
        for process in list(self._running.values()):
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
        return code

    def _keep(self, number: int, health: Health, stop: threading.Event) -> None:
        """Run one process to its end. Raise `Retry` where that came unforeseen, `Stop` where it cannot go on."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=be, args=(there, self._config, number, self._namers), name=f"gateway {number}", daemon=False
        )
        process.start()
        self._running[number] = process
        there.close()
        PROCESSES.inc()
        try:
            self._follow(here, number, health, stop)
        except (EOFError, OSError) as error:
            if not stop.is_set():
                process.join(KILL_S)
                raise Retry(f"process {number} has ended unforeseen (code {process.exitcode})") from error
        finally:
            here.close()
            self._summed.ended(number)
            process.join(KILL_S)
            process.kill()
            self._running.pop(number, None)

    def _follow(self, pipe: Connection, number: int, health: Health, stop: threading.Event) -> None:
        ending = False
        while True:
            if stop.is_set() and not ending:
                ending = True
                pipe.send(None)
            if not pipe.poll(POLL_S):
                continue
            told: Told = pipe.recv()
            if told.code is not None or told.failure is not None:
                if told.failure is not None and not ending:
                    raise Stop(told.failure) if told.final else Retry(told.failure)
                return
            self._summed.took(number, told.families)
            health.ready(f"process {number}", "; ".join(told.complaints) or None)


@logs.process
def be(pipe: Connection, config: Config, number: int, namers: Namers) -> None:
    """Be one of a gateway's processes, until told to end, or until the first one is gone."""
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)  # they came to the first process too, which says when to end
    stop, health, lock = threading.Event(), Health(), threading.Lock()
    threading.Thread(target=_listen, args=(pipe, stop), name="told", daemon=True).start()
    ended = threading.Event()
    reporting = threading.Thread(target=_report, args=(pipe, health, ended, lock), name="reports", daemon=True)
    reporting.start()
    try:
        told = Told(code=run_gateway(config, stop, health, namers, number))
        if told.code:
            told = Told(failure=f"process {number} has stopped; its log says why", final=True)
    except PgwitnessError as error:
        told = Told(failure=str(error), final=isinstance(error, Stop))
    except Exception as error:
        log.exception("unexpected error", process=number)
        told = Told(failure=f"unexpected {type(error).__name__}; the log has its trace, please report it")
    ended.set()
    reporting.join()
    _say(pipe, told, lock)
    os._exit(0)


def _listen(pipe: Connection, stop: threading.Event) -> None:
    try:
        pipe.recv()
    except (EOFError, OSError):
        log.warning("the gateway's first process is gone; this one ends its sessions, then itself")
    stop.set()


def _report(pipe: Connection, health: Health, ended: threading.Event, lock: threading.Lock) -> None:
    while True:
        _say(pipe, Told(sorted({*health.stalled(), *health.not_ready()}), counted()), lock)
        if ended.wait(REPORT_S):
            return


def _say(pipe: Connection, told: Told, lock: threading.Lock) -> None:
    with lock:
        try:
            pipe.send(told)
        except OSError:
            return  # nobody is there any more; `_listen` knows


def counted() -> list[Family]:
    """Read this process's own metrics."""
    return [
        Family(
            one.name,
            one.type,
            one.documentation,
            [(each.name, dict(each.labels), each.value) for each in one.samples if not each.name.endswith("_created")],
        )
        for one in REGISTRY.collect()
        if one.name.startswith(OURS)
    ]
