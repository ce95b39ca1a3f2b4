"""The whole system on servers that run already: what must be there is made, then collectors and worker watch.

They are processes, by the commands that a reader of the report can type. Each gets a signal when this process ends, so
that not even a kill -9 leaves one behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg

from pgwitness.core.errors import ConfigurationError, NotInOrder, Unreachable
from pgwitness.demo.servers import LOOPBACK, Broker, Postgres, spawn, tail, wait_for

READY_SECONDS_MAX = 40.0
CLOSING = ("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC", "GRANT CONNECT ON DATABASE postgres TO pgwitness")
"""An audience has no business where there are no masks."""
SETTINGS = {"fsync": "off", "max_slot_wal_keep_size": "4GB"}


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the program as Ctrl-C does, so that everything that was started ends."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pgwitness", *arguments, "--config", str(config)]


def _environment() -> dict[str, str]:
    """Return this process's environment without what would redirect a client of PostgreSQL, or change the demo's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def run(config: Path, *arguments: str) -> str:
    """Run one of our commands to its end. Raise `NotInOrder` with what it said."""
    done = subprocess.run(  # noqa: S603 - our own command
        _command(config, *arguments), capture_output=True, text=True, check=False, env=_environment(), timeout=60
    )
    if done.returncode != 0:
        raise NotInOrder(
            f"pgwitness {' '.join(arguments)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


class Daemon:
    """One of our daemons as a process."""

    def __init__(self, config: Path, log: Path, *arguments: str) -> None:
        self.log = log
        self.name = arguments[0]
        self._process = spawn(_command(config, *arguments), log, environment=_environment())

    def ready(self, port: int) -> Callable[[], bool]:
        """Make the question whether the daemon is ready. Asking raises `Unreachable` when it has ended."""

        def ask() -> bool:
            self.check()
            try:
                with urlopen(f"http://{LOOPBACK}:{port}/readyz", timeout=2) as answer:
                    return bool(answer.status == 200)
            except HTTPError as error:
                error.close()
                return False
            except OSError:
                return False

        return ask

    def check(self) -> None:
        """Raise `Unreachable` with the end of its log when the daemon has ended."""
        if self._process.poll() is not None:
            raise Unreachable(f"pgwitness {self.name} ended with {self._process.returncode}:\n{tail(self.log)}")

    def end(self) -> None:
        """Ask it to end and wait; one that does not is killed."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def fresh(folder: Path) -> Path:
    """Make a folder for everything that is kept. Raise `ConfigurationError` when it is in use already."""
    place = folder.absolute()
    if (place / "pgwitness.toml").exists():
        raise ConfigurationError(f"--dir: {place} holds a pgwitness.toml already; name a new or empty folder")
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextlib.contextmanager
def servers(place: Path, settings: Mapping[str, str] | None = None) -> Iterator[tuple[Postgres, Broker]]:
    """Have PostgreSQL and the broker running in a folder; PostgreSQL's data is gone afterwards.

    `settings` are PostgreSQL's, beside those that every demo needs.
    """
    (place / "logs").mkdir(exist_ok=True)
    postgres = Postgres(place / "postgres", settings={**SETTINGS, **(settings or {})})
    broker = Broker(place / "logs")
    with contextlib.ExitStack() as stack:
        stack.callback(postgres.remove)
        with ThreadPoolExecutor() as pool:
            starts = [pool.submit(stack.enter_context, server) for server in (postgres, broker)]
            for start in starts:
                start.result()
        yield postgres, broker


def prepare(config: Path, admin_dsn: str) -> None:
    """Install the beacon, masks where there are any, the guard behind a gateway, and create the topics.

    Raise `NotInOrder`.
    """
    from pgwitness.core.config import load

    loaded = load(config)
    masks, guarded = bool(loaded.masks), bool(loaded.gateway.databases)

    def install() -> str:
        said = run(config, "db", "install", "--dsn", admin_dsn)
        if masks:  # in their turn: both change the same tables
            with psycopg.connect(admin_dsn, autocommit=True) as admin:
                for statement in CLOSING:
                    admin.execute(statement)
            said += run(config, "db", "install", "--masks", "--dsn", admin_dsn)
        if guarded:
            said += run(config, "db", "install", "--guard", "--dsn", admin_dsn)
        return said

    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(install), pool.submit(run, config, "topics", "apply")]
        for job in jobs:
            job.result()


@contextlib.contextmanager
def watching(config: Path, logs: Path) -> Iterator[list[Daemon]]:
    """Have collectors and a worker running; the block begins when they are ready. Raise `Unreachable`.

    The server's log is collected where the configuration says where it is, and a gateway runs where it has a database.
    They are listed in the order in which evidence passes through them.
    """
    from pgwitness.core.config import load

    loaded = load(config)
    http = loaded.http
    log = ["log"] if any(cluster.log is not None for cluster in loaded.clusters.values()) else []
    daemons: list[Daemon] = []
    try:
        ports = [http.collect_port, http.worker_port]
        if loaded.gateway.databases:
            daemons.append(Daemon(config, logs / "gateway.log", "gateway"))
            ports.insert(0, http.gateway_port)
        daemons.append(Daemon(config, logs / "collect.log", "collect", "wal", "stats", "sessions", *log))
        daemons.append(Daemon(config, logs / "worker.log", "worker"))
        for daemon, port in zip(daemons, ports, strict=True):
            wait_for(daemon.ready(port), READY_SECONDS_MAX, f"a daemon is not ready; see {daemon.log}")
        yield daemons
    finally:
        for daemon in daemons:
            daemon.end()
