"""The demo from its first server to its last: what is started here ends here, however that happens.

Servers, collectors and worker are real processes, the collectors and the worker by the commands that a reader of
the report can type. Each gets a signal when this process ends, so that not even a kill -9 leaves one behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg

from pgwitness.demo import report
from pgwitness.demo.helpdesk import ISSUER, Helpdesk
from pgwitness.demo.scenes import Scene, Stage, failed, scenes
from pgwitness.demo.servers import LOOPBACK, Broker, Postgres, free_port, spawn, tail, wait_for
from pgwitness.demo.shop import IDENTITIES, open_shop
from pgwitness.demo.watch import Watch
from pgwitness.demo.workload import Ledger, Workload, staff
from pgwitness.errors import ConfigurationError, NotInOrder, Unreachable

READY_SECONDS_MAX = 40.0
LAND_SECONDS_MAX = 25.0
SETTLE_SECONDS = 3.0
"""How long collectors go on after the shop has closed: time for alerts that nothing explains to show."""
CONFIG = """\
# The configuration of the demo; its servers are gone when the demo ends, the lake stays.
[kafka]
bootstrap = "{bootstrap}"

[topics]
raw_partitions = 1
event_partitions = 2

[clusters.shop]
dsn = "postgresql://pgwitness@127.0.0.1:{port}/postgres"
databases = ["shop"]
labels = {{ env = "demo", scope = "pci", owner = "payments" }}
stats_interval = "1s"
sessions_interval = "250ms"
posture_interval = "1s"

[privacy]
key_file = "privacy.key"
clear = ["public.orders.status", "public.tickets.state", "public.shipments.carrier"]

[identities]
claims_keys = "helpdesk.pem"
claims_issuer = "{issuer}"

[lake]
path = "lake"
flush_interval = "2s"

[collectors]
state_path = "state"
heartbeat_interval = "2s"

[worker]
grace = "1s"
session_timeout = "6s"
checkpoint_interval = "5s"
data_path = "state/worker"

[behaviour]
warmup = "{warmup_ms}ms"
warmup_observations = 20

[http]
collect_port = {collect_port}
worker_port = {worker_port}
"""


@dataclass
class Result:
    """What came of the demo, for the report."""

    seconds: float
    lake: Path
    ledger: Ledger
    planted: list[Scene]
    begun_ms: dict[str, int]
    watch: Watch
    problems: list[str]


def main(*, seconds: float, folder: Path | None, as_json: bool) -> int:
    """Run the demo and print its report; gives the exit code.

    Raises `ConfigurationError` when the folder is in use, `Unreachable` when a server does not start.
    """
    kept = folder is not None
    place = (folder or Path(tempfile.mkdtemp(prefix="pgwitness-demo-"))).absolute()
    if (place / "pgwitness.toml").exists():
        raise ConfigurationError(f"--dir: {place} holds a pgwitness.toml already; name a new or empty folder")
    place.mkdir(parents=True, exist_ok=True)
    tell = report.Narrator(sys.stderr)
    with _signals():
        try:
            with tell:
                result = _play(place, seconds, tell)
            summary = report.summarize(result)
            if as_json:
                print(json.dumps(summary))
            else:
                report.show(summary, result, place, kept)
        finally:
            if not kept and sys.exc_info()[0] is not None:
                shutil.rmtree(place, ignore_errors=True)
    return 0 if report.in_order(summary) else 1


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the program as Ctrl-C does, so that everything that was started ends."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _play(place: Path, seconds: float, tell: report.Narrator) -> Result:
    began = time.monotonic()
    (place / "logs").mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        tell("starting PostgreSQL 18 and the broker")
        postgres = Postgres(place / "postgres", settings={"fsync": "off"})
        stack.callback(postgres.remove)
        broker = Broker(place / "logs")
        with ThreadPoolExecutor() as pool:
            starts = [pool.submit(stack.enter_context, server) for server in (postgres, broker)]
            for start in starts:
                start.result()
        helpdesk = Helpdesk()
        config = _configure(place, postgres, broker, seconds, helpdesk)
        tell("opening the shop: tables, roles, customers")
        with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
            _trust_loopback(postgres, admin)
            open_shop(postgres.dsn(dbname="shop"), admin)
        tell("installing the beacon, creating the topics")
        with ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(_run, config, "db", "install", "--dsn", postgres.dsn()),
                pool.submit(_run, config, "topics", "apply"),
            ]
            for job in jobs:
                job.result()
        tell("starting the collectors and the worker")
        daemons = [
            stack.enter_context(_daemon(config, place / "logs" / "collect.log", "collect", "wal", "stats", "sessions")),
            stack.enter_context(_daemon(config, place / "logs" / "worker.log", "worker")),
        ]
        ports = _ports(config)
        for daemon, port in zip(daemons, ports, strict=True):
            wait_for(daemon.ready(port), READY_SECONDS_MAX, f"a daemon is not ready; see {daemon.log}")
        watch = Watch(config)
        stack.callback(watch.stop)
        watch.start()
        ledger = Ledger()
        stage = Stage(LOOPBACK, postgres.port, postgres.psql_bin / "psql", ledger)
        workload = Workload(staff(stage.host, stage.port, stage.psql, helpdesk), ledger)
        stack.callback(workload.stop)
        planted, begun_ms = _work(workload, stage, seconds, tell)
        tell("waiting until everything has landed")
        _landed(place / "lake", ledger, planted, watch, daemons)
        for daemon in daemons:
            daemon.end()
        watch.stop()
    problems = [f"{type(error).__name__}: {error}" for error in workload.errors]
    return Result(time.monotonic() - began, place / "lake", ledger, planted, begun_ms, watch, problems)


def _trust_loopback(postgres: Postgres, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    """Let connections in from all of 127.0.0.0/8, so that one scene can come from an address of its own."""
    with (postgres.data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 127.0.0.0/8 trust\n")
    admin.execute("SELECT pg_reload_conf()")


def _configure(place: Path, postgres: Postgres, broker: Broker, seconds: float, helpdesk: Helpdesk) -> Path:
    from detectors.policies import packaged_files
    from pgwitness.privacy import KEY_BYTES, write_key

    path = place / "pgwitness.toml"
    path.write_text(
        CONFIG.format(
            bootstrap=broker.bootstrap,
            port=postgres.port,
            collect_port=free_port(),
            worker_port=free_port(),
            warmup_ms=int(seconds * 1000 * 0.3),
            issuer=ISSUER,
        )
    )
    (place / "helpdesk.pem").write_text(helpdesk.public_key)
    (place / "identities.yaml").write_text(IDENTITIES)
    (place / "policies").mkdir()
    for name, text in packaged_files().items():
        (place / "policies" / name).write_text(text)
    write_key(place / "privacy.key", secrets.token_bytes(KEY_BYTES))
    return path


def _command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pgwitness", *arguments, "--config", str(config)]


def _environment() -> dict[str, str]:
    """Give this process's environment without what would redirect a client of PostgreSQL, or change the demo's own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _run(config: Path, *arguments: str) -> str:
    """Run one of our commands to its end. Raises `NotInOrder` with what it said."""
    done = subprocess.run(  # noqa: S603 - our own command
        _command(config, *arguments), capture_output=True, text=True, check=False, env=_environment(), timeout=60
    )
    if done.returncode != 0:
        raise NotInOrder(f"pgwitness {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
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


@contextlib.contextmanager
def _daemon(config: Path, log: Path, *arguments: str) -> Iterator[Daemon]:
    daemon = Daemon(config, log, *arguments)
    try:
        yield daemon
    finally:
        daemon.end()


def _ports(config: Path) -> tuple[int, int]:
    from pgwitness.config import load

    http = load(config).http
    return http.collect_port, http.worker_port


def _work(
    workload: Workload, stage: Stage, seconds: float, tell: report.Narrator
) -> tuple[list[Scene], dict[str, int]]:
    """Let the shop work for so many seconds; after more than half of them, one misbehaviour after the other."""
    planned = scenes()
    begin, end = time.monotonic(), time.monotonic() + seconds
    first = begin + 0.55 * seconds
    gap_s = 0.35 * seconds / len(planned)
    begun_ms: dict[str, int] = {}
    planted: list[Scene] = []
    workload.start()
    pause = threading.Event()
    while (now := time.monotonic()) < end and not workload.errors:
        rows = f"{workload.ledger.rows:,} rows committed"
        if planned and now >= first + gap_s * len(planted):
            scene = planned.pop(0)
            tell(f"the shop is open: {rows}; {scene.who.name}: {scene.title}")
            begun_ms[scene.id] = time.time_ns() // 1_000_000
            try:
                scene.play(stage)
                planted.append(scene)
            except (psycopg.Error, Unreachable, OSError) as error:
                raise NotInOrder(f"the scene {scene.id} could not be played: {failed(error)}") from error
        elif not planted:
            tell(f"the shop is open: {rows}; everybody behaves, habits are learned", passing=True)
        pause.wait(0.1)
    workload.stop()
    return planted, begun_ms


def _landed(lake: Path, ledger: Ledger, planted: list[Scene], watch: Watch, daemons: list[Daemon]) -> None:
    """Wait until every committed row is in the lake and every misbehaviour raised its alert, or time is up."""
    began = time.monotonic()
    pause = threading.Event()
    while (waited_s := time.monotonic() - began) < LAND_SECONDS_MAX:
        for daemon in daemons:
            daemon.check()
        alerts = [alert for _, alert in watch.alerts()]
        missed = [scene for scene in planted if not any(scene.explains(alert) for alert in alerts)]
        if waited_s >= SETTLE_SECONDS and not missed and report.landed_rows(lake) >= ledger.rows:
            return
        pause.wait(0.5)
