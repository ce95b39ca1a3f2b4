"""Who is at the gateway shows on its own machine, and can be ended there: by whom, its client and the evidence know."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from collectors.gateway.control.server import open_socket
from collectors.gateway.spool.records import Closed, Opened, Stopped
from collectors.gateway.spool.shipping import Shipment
from pgwitness.cli import main
from pgwitness.core.errors import ConfigurationError, Unreachable
from pgwitness.core.events import Control
from pgwitness.core.runtime import control
from pgwitness.core.runtime.control import LiveSession
from tests.gateway.conftest import DEADLINE_S, Running, running


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, postgres18: object) -> Iterator[Running]:
    """One gateway for all."""
    folder = tmp_path_factory.mktemp("control")
    with running(folder, postgres18.dsn()) as gateway:  # type: ignore[attr-defined]
        yield gateway


def folder_of(gateway: Running) -> Path:
    """Where a gateway answers."""
    return gateway.spool.folder.parent / "control"


def until(gateway: Running, state: str, name: str) -> LiveSession:
    """Wait until a session is in a state."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = [each for each in control.sessions(folder_of(gateway)) if each.application == name]
        if found and found[0].state == state:
            return found[0]
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_sessions_show_what_they_run_without_literals(one: Running) -> None:
    """With their state, intent, rows and statements; the last statement stays while nothing runs."""
    with psycopg.connect(one.dsn(application_name="looked_at"), autocommit=True) as client:
        client.execute("SET pgwitness.intent = 'TICKET-7'")
        client.execute("SELECT n, 'hunter2' FROM generate_series(1, 40) n")
        seen = until(one, "idle", "looked_at")
        assert (seen.rows, seen.statements, seen.intent, seen.role) == (40, 2, "TICKET-7", one.role)
        assert seen.statement == "SELECT n, $1 FROM generate_series($2, $3) n"
        assert (seen.pid, seen.client_addr) == (client.info.backend_pid, "127.0.0.1")
        client.execute("BEGIN")
        assert until(one, "idle in transaction", "looked_at").statement == "BEGIN"
        with pytest.raises(psycopg.errors.DivisionByZero):
            client.execute("SELECT 1 / 0")
        until(one, "idle in transaction (aborted)", "looked_at")


def test_a_session_is_ended_by_somebody_for_a_reason(one: Running) -> None:
    """Its client is told, what it ran stops at the server, others go on, and who did it is on the spool first."""
    said: list[str] = []

    def run() -> None:
        with psycopg.connect(one.dsn(application_name="ended"), autocommit=True) as client:
            try:
                client.execute("SELECT pg_sleep(60), 'ended here'")
            except psycopg.Error as error:
                said.append(str(error))

    thread = threading.Thread(target=run)
    with psycopg.connect(one.dsn(application_name="other"), autocommit=True) as other:
        thread.start()
        seen = until(one, "active", "ended")
        assert seen.statement == "SELECT pg_sleep($1), $2"
        assert control.end(folder_of(one), seen.session_id, "ada@desk", "it\nruns  away")
        thread.join(DEADLINE_S)
        assert said
        assert "terminating connection: ada@desk has ended this session: it runs away" in said[0]
        assert not control.end(folder_of(one), seen.session_id, "ada", "")
        asked = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        deadline = time.monotonic() + DEADLINE_S
        while other.execute(asked, [seen.pid]).fetchone() != (0,):
            assert time.monotonic() < deadline, "it runs on at the server"
            time.sleep(0.05)
    (stopped,) = [record for record in one.records() if isinstance(record, Stopped) and record.reason != "lunch"]
    assert (stopped.by, stopped.peer, stopped.reason) == ("ada@desk", getpass.getuser(), "it runs away")
    assert any(isinstance(record, Closed) and record.session == stopped.session for record in one.records())


def test_who_ended_a_session_is_evidence() -> None:
    """An event of the session's cluster says who, and whose session it was; of a session that is not known nothing."""
    shipment = Shipment("spool")
    opened = Opened(session=1, at_us=1, cluster="shop", instance="db:5432", role="ada", database="shop", pid=77)
    stopped = Stopped(session=1, at_us=5, by="bob@desk", peer="root", reason="why")
    shipment.take(10, opened)
    ((cluster, instance, event),) = shipment.take(20, stopped)
    assert isinstance(event, Control)
    assert (cluster, instance, event.operation, event.database) == ("shop", "db:5432", "gateway_session_ended", "shop")
    assert event.detail["session_id"] == "db:5432/0.4d"
    assert (event.detail["by"], event.detail["peer"], event.detail["role"]) == ("bob@desk", "root", "ada")
    assert shipment.take(30, Stopped(session=2, at_us=5, by="bob", peer="root")) == []


def test_the_socket_is_its_users_own(one: Running) -> None:
    """What is no question is answered by what is wrong, a line without an end not at all, and the gateway goes on."""
    (path,) = control.sockets(folder_of(one))
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o077) == (0o600, 0)
    for sent in (
        b"{}\n",
        b"nonsense\n",
        b'{"do": "drop"}\n',
        b'{"do": "cancel", "pid": 1, "secret": "x"}\n',
        b"\xff\n",
    ):
        with socket.socket(socket.AF_UNIX) as asking, control.reachable(path) as name:
            asking.settimeout(DEADLINE_S)
            asking.connect(name)
            asking.sendall(sent)
            assert b'"error"' in asking.recv(4096), sent
    with socket.socket(socket.AF_UNIX) as asking, control.reachable(path) as name:
        asking.settimeout(DEADLINE_S)
        asking.connect(name)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _pour(asking)
    assert control.ask(path, control.Sessions()).error is None


def _pour(asking: socket.socket) -> None:
    while True:
        asking.sendall(b"x" * 65536)


def test_many_who_ask_nothing_keep_nobody_out_for_ever(one: Running) -> None:
    """So many are taken; the next are hung up on, and when one leaves another is answered."""
    (path,) = control.sockets(folder_of(one))
    idle = []
    with control.reachable(path) as name:
        for _ in range(64):
            asking = socket.socket(socket.AF_UNIX)
            asking.connect(name)
            asking.sendall(b'{"do": "sessions"}\n')
            asking.settimeout(DEADLINE_S)
            assert asking.recv(64)
            idle.append(asking)
        with pytest.raises(Unreachable):
            control.ask(path, control.Sessions())
        for asking in idle:
            asking.close()
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            control.ask(path, control.Sessions())
            return
        except Unreachable:
            assert time.monotonic() < deadline


def test_the_commands(one: Running, tmp_path: Path) -> None:
    """A table, JSON, and an end; 1 for a session that is not there, 3 where no gateway answers."""
    config = tmp_path / "pgwitness.toml"
    (tmp_path / "privacy.key").write_text("aa" * 32)
    (tmp_path / "privacy.key").chmod(0o600)
    config.write_text(f'[privacy]\nkey_file = "privacy.key"\n[gateway]\ncontrol = "{folder_of(one)}"\n')
    given = ("--config", str(config))
    with psycopg.connect(one.dsn(application_name="by_command"), autocommit=True) as client:
        client.execute("SELECT 'hunter2'")
        until(one, "idle", "by_command")
        shown = CliRunner().invoke(main, ["gateway", "sessions", "--json", *given])
        (row,) = [each for each in json.loads(shown.stdout) if each["application"] == "by_command"]
        assert (row["state"], row["statement"], row["principal"]) == ("idle", "SELECT $1", None)
        table = CliRunner().invoke(main, ["gateway", "sessions", *given])
        assert row["session_id"].rpartition("/")[2] in table.stdout
        done = CliRunner().invoke(main, ["gateway", "end", row["session_id"], "--reason", "lunch", *given])
        assert done.exit_code == 0, done.output
        with pytest.raises(psycopg.OperationalError, match="has ended this session: lunch"):
            client.execute("SELECT 1")
        again = CliRunner().invoke(main, ["gateway", "end", row["session_id"], *given])
    assert (again.exit_code, "no session" in again.output) == (1, True)
    config.write_text(config.read_text().replace("control = ", "#"))
    nobody = CliRunner().invoke(main, ["gateway", "sessions", *given])
    assert (nobody.exit_code, "no gateway answers" in nobody.output) == (3, True)


def test_a_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    """However long its path is; one at which somebody answers is not, and a group that is not there is told."""
    folder = tmp_path / ("long" * 20) / secrets.token_hex(8)
    open_socket(folder, 0, None).close()
    assert (folder / "0.sock").is_socket()
    with open_socket(folder, 0, None), pytest.raises(ConfigurationError, match="another gateway answers"):
        open_socket(folder, 0, None)
    with pytest.raises(ConfigurationError, match="no group"):
        open_socket(folder, 1, "no such group")
    with open_socket(tmp_path / "shared", 0, _group()):
        assert (tmp_path / "shared" / "0.sock").stat().st_mode & 0o777 == 0o660


def _group() -> str:
    import grp

    return grp.getgrgid(os.getgid()).gr_name
