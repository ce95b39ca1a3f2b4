"""A daemon that is told to end does so with 0, whatever broker and database do; the next run goes on where it was."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgwitness.core.config import Config
from pgwitness.demo.servers import FAST_AND_FORGETFUL, LOOPBACK, Broker, Postgres, free_port, wait_for
from tests.conftest import fresh_database, write_config
from tests.contract.system import Daemon, System

COMMANDS = {
    "collect": ["collect", "wal", "stats", "sessions", "log"],
    "worker": ["worker"],
    "deliver": ["alerts", "deliver"],
    "follow": ["alerts", "--follow"],
}
END_S = 25.0
"""A bound for a machine that is busy; the daemons' own is 10 seconds."""


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(64)
        yield listener.getsockname()[1]


def configure(folder: Path, bootstrap: str, dsn: str, prefix: str = "t.") -> Config:
    """Configure everything that can hang: a log to follow, and a target."""
    (folder / "server.log").touch()
    extra = '[deliveries.file]\nkind = "file"\npath = "alerts.jsonl"\nstart = "beginning"\n'
    log = 'log = { from = "file", path = "server.log" }'
    databases = [dsn.rpartition("/")[2]]
    return write_config(folder, bootstrap, dsn, databases, prefix=prefix, cluster_extra=log, extra=extra)


def begin(folder: Path, names: list[str]) -> dict[str, Daemon]:
    """Start daemons."""
    config = ["--config", str(folder / "pgwitness.toml")]
    return {name: Daemon([*COMMANDS[name], *config], folder / f"{name}.log").start() for name in names}


def end(daemons: dict[str, Daemon], number: signal.Signals, times: int = 1) -> dict[str, int]:
    """Tell all of them to end, and give their exit codes."""
    for _ in range(times):
        for daemon in daemons.values():
            daemon.signal(number)
    return {name: daemon.code(END_S) for name, daemon in daemons.items()}


@pytest.mark.parametrize(
    ("broker", "database", "number", "times"),
    [
        ("silent", "silent", signal.SIGTERM, 1),
        ("closed", "closed", signal.SIGINT, 2),
    ],
)
def test_without_servers_daemons_end_when_told(
    silent: int,
    tmp_path: Path,
    broker: str,
    database: str,
    number: signal.Signals,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither who listens and says nothing nor who is not there at all holds them; a second signal does no harm.

    What the Kafka client says of it when it is asked to is lines of the log as all others (`Daemon.code` looks).
    """
    monkeypatch.setenv("PGWITNESS_KAFKA__DEBUG", "broker")
    ports = {"silent": silent, "closed": free_port()}
    configure(tmp_path, f"{LOOPBACK}:{ports[broker]}", f"postgresql://pgwitness@{LOOPBACK}:{ports[database]}/postgres")
    names = ["collect", "worker", "deliver"]  # who follows ends by itself, with 3
    daemons = begin(tmp_path, names)
    try:
        for name in names:
            wait_for(lambda name=name: daemons[name].url is not None, 60, f"{name} runs")  # type: ignore[misc]
        assert end(daemons, number, times) == dict.fromkeys(names, 0)
        assert '"event": "librdkafka"' in (tmp_path / "collect.log").read_text()
    finally:
        for daemon in daemons.values():
            daemon.kill()


@pytest.mark.parametrize(("hangup", "code"), [("SIG_DFL", 0), ("SIG_IGN", -signal.SIGALRM)])
def test_a_daemon_that_is_still_starting_ends_with_0(tmp_path: Path, hangup: str, code: int) -> None:
    """From the moment that its first line runs, before anything heavy is imported; with `nohup` a hangup is none."""
    program = (
        f"import os, signal, sys; signal.signal(signal.SIGHUP, signal.{hangup}); "
        "sys.argv = ['pgwitness', 'worker']; import pgwitness.cli; "
        "os.kill(os.getpid(), signal.SIGHUP); signal.alarm(2); signal.pause()"
    )
    log = (tmp_path / "log").open("wb")
    import subprocess

    with log:
        done = subprocess.run([sys.executable, "-c", program], stderr=log, timeout=60, check=False)
    assert done.returncode == code


def test_servers_that_stop_answering_do_not_hold_daemons_and_nothing_is_lost(
    servers_path: Path, tmp_path: Path
) -> None:
    """Broker and database are frozen under running daemons: all end with 0, and their next run lands each row once."""
    postgres = Postgres(servers_path / "ending", settings=FAST_AND_FORGETFUL)
    broker = Broker(servers_path / "ending-broker")
    names = ["collect", "worker", "deliver", "follow"]
    with postgres, broker, fresh_database(postgres) as admin_dsn:
        dsn = admin_dsn.replace("postgres@", "pgwitness@")
        config = configure(tmp_path, broker.bootstrap, dsn, prefix=f"e{secrets.token_hex(3)}.")
        with psycopg.connect(admin_dsn) as admin:
            admin.execute("CREATE TABLE orders (id bigint PRIMARY KEY)")
        with System(tmp_path, config, admin_dsn) as it:
            it.prepare()
            daemons = begin(tmp_path, names)
            it.daemons += daemons.values()
            for name in ("collect", "worker", "deliver"):
                daemons[name].ready()
            insert(admin_dsn, 0)
            it.landed("SELECT count(*) FROM changes", lambda rows: rows == [(100,)])
            insert(admin_dsn, 1)  # on its way when everything freezes
            frozen = [pid for server in (broker, postgres) if (pid := server.pid) is not None]
            groups = [os.getpgid(pid) for pid in frozen]
            for group in groups:
                os.killpg(group, signal.SIGSTOP)
            try:
                assert end(daemons, signal.SIGTERM) == dict.fromkeys(names, 0)
            finally:
                for group in groups:
                    os.killpg(group, signal.SIGCONT)
            again = begin(tmp_path, ["collect", "worker"])
            it.daemons += again.values()
            insert(admin_dsn, 2)
            it.landed("SELECT count(*) FROM changes", lambda rows: rows[0][0] >= 300)
            assert it.query("SELECT count(*), count(DISTINCT event_id) FROM changes") == [(300, 300)]
            assert end(again, signal.SIGTERM) == {"collect": 0, "worker": 0}


def insert(dsn: str, number: int) -> None:
    """Commit a hundred rows."""
    with psycopg.connect(dsn) as admin:
        admin.execute(
            "INSERT INTO orders SELECT n FROM generate_series(%s::int, %s::int) AS r(n)",
            [number * 100, number * 100 + 99],
        )
