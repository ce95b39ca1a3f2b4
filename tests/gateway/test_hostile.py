"""Clients that mean harm, a spool that is full, a gateway that is killed: others are undisturbed, nothing is unseen."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from collectors.gateway.spool.records import Begun
from collectors.gateway.spool.spool import Reader, segments
from collectors.gateway.wire import backend, startup
from collectors.gateway.wire.frames import frame
from pgwitness.core.config import Config
from tests.contract.system import System
from tests.gateway.conftest import Running
from tests.gateway.test_evidence import free_port

SENT = [
    b"", b"\0\0\0\x08\x04\xd2\x16\x30", b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1\0\0\0\1", b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01", b"\xff" * 8, b"\0\0\0\x04", b"\0\0\x27\x10\0\3\0\0", b"\0\0\0\x09\0\3\0\0\0",
    startup.startup_packet({"user": "a"}), startup.startup_packet({"user": "a", "database": "b"}) + b"p\0\0\0\4",
    startup.startup_packet({"user": "a"}) + frame(b"p", b"SCRAM-SHA-256\0\xff\xff\xff\xff"),
    startup.startup_packet({"user": "a"}) + b"p\x7f\xff\xff\xff",
]  # fmt: skip


def test_whatever_connects_disturbs_nobody(gateway: Running) -> None:
    """Garbage, half a packet, another protocol, a login that stops in its midst: a session beside them goes on."""
    rng = random.Random(1)
    half_open = []
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        for n in range(300):
            one = socket.create_connection(("127.0.0.1", gateway.port), 10)
            sent = SENT[n % len(SENT)]
            one.sendall(sent if n < 2 * len(SENT) else sent[: rng.randrange(len(sent) + 1)] + rng.randbytes(20))
            half_open.append(one)
            if n % 10 == 0:
                assert client.execute("SELECT 1").fetchone() == (1,)
        for one in half_open:
            one.close()
        assert client.execute("SELECT 2").fetchone() == (2,)
    assert len(gateway.statements()) == 31


def bare_session(gateway: Running) -> tuple[psycopg.Connection, socket.socket]:
    """Log in with libpq, and take its socket."""
    client = psycopg.connect(gateway.dsn(), autocommit=True)
    return client, socket.fromfd(client.fileno(), socket.AF_INET, socket.SOCK_STREAM)


def all_of(bare: socket.socket) -> bytes:
    """Read to the end."""
    bare.settimeout(20)
    data = b""
    while more := bare.recv(65536):
        data += more
    return data


NO_MESSAGES = [
    b"y\0\0\0\4", b"Q\0\0\0\3", b"Q\x7f\xff\xff\xff", frame(b"Q", b"SELECT 1"), frame(b"P", b"a\0b\0"),
    frame(b"p", b"x\0"), frame(b"B", b"x" * 10_000), frame(b"C", b"Xa\0"),
]  # fmt: skip


@pytest.mark.parametrize("sent", NO_MESSAGES)
def test_what_is_no_message_ends_its_session(gateway: Running, sent: bytes) -> None:
    """A violation is answered by its SQLSTATE and the end, and nothing of it reaches the server."""
    client, bare = bare_session(gateway)
    bare.setblocking(True)
    bare.sendall(sent)
    said = all_of(bare)
    assert said[:1] == b"E"
    assert backend.fields(said[5:])["C"] in ("08P01", "54000")
    bare.close()
    client.close()


@pytest.mark.parametrize(
    "behind", [frame(b"S"), frame(b"S") + frame(b"Q", b"SELECT 1\0"), frame(b"Q", b"DROP TABLE t\0")]
)
def test_nothing_hides_behind_a_copy(gateway: Running, behind: bytes) -> None:
    """A COPY that times out while the client goes on: whatever runs then is on the spool, or the session ends."""
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        client.execute("CREATE TABLE t (id int)")
    client, bare = bare_session(gateway)
    bare.setblocking(True)
    bare.sendall(frame(b"Q", b"SET statement_timeout = '100ms'\0"))
    bare.recv(1000)
    bare.sendall(
        frame(b"P", b"\0COPY t FROM STDIN\0\0\0") + frame(b"B", b"\0" * 8) + frame(b"E", b"\0" * 5) + frame(b"H")
    )
    time.sleep(0.1)
    bare.sendall(behind)
    time.sleep(0.2)
    try:
        bare.sendall(frame(b"S") + frame(b"Q", b"DROP TABLE t\0"))
        all_of(bare)
    except (OSError, TimeoutError):
        pass
    bare.close()
    client.close()
    texts = [begun.said.statement for begun, _ in gateway.statements(2)]
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        gone = client.execute("SELECT to_regclass('t') IS NULL").fetchone() == (True,)
    assert "DROP TABLE t" in texts or not gone


def test_a_long_pipeline(gateway: Running) -> None:
    """Ten thousand statements in one pipeline are answered, and each is written down."""
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        client.execute("CREATE TABLE t (id int)")
        with client.pipeline():
            for n in range(10_000):
                client.execute("INSERT INTO t VALUES (%s)", [n])
        assert client.execute("SELECT count(*) FROM t").fetchone() == (10_000,)
    found = gateway.statements()
    assert len(found) == 10_002
    assert {ended.outcome for _, ended in found} == {"success"}


def test_a_full_spool_lets_nothing_through(gateway: Running, database: str) -> None:
    """What cannot be written down does not reach the server: the session ends, and nobody is let in."""
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        client.execute("CREATE TABLE t (id int)")
        gateway.spool._bytes_max = gateway.spool.end
        with pytest.raises(psycopg.OperationalError, match="cannot write down"):
            client.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(psycopg.OperationalError, match="cannot write down"):
        psycopg.connect(gateway.dsn())
    gateway.spool._bytes_max = 1 << 30
    with psycopg.connect(gateway.dsn(), autocommit=True) as client:
        assert client.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_a_client_that_does_not_read_is_not_read_for(gateway: Running) -> None:
    """The answer of a client that reads nothing waits at the server, not in the gateway's memory."""
    client, bare = bare_session(gateway)
    bare.setblocking(True)
    bare.sendall(frame(b"Q", b"SELECT repeat('x', 1000) FROM generate_series(1, 300000)\0"))
    held = 0
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        (connection,) = gateway.house.sessions.values()
        transport = connection._client.transport
        assert transport is not None
        held = max(held, transport.get_write_buffer_size())
        time.sleep(0.05)
    assert 0 < held < 2 * 1024 * 1024
    size = 0
    while size < 300_000_000:
        size += len(bare.recv(1 << 20))
    bare.close()
    client.close()


def test_no_statement_runs_that_a_kill_makes_unseen(
    tmp_path: Path, database18: str, config_factory: Callable[..., Config]
) -> None:
    """Killed at any moment under load: of each session at least as many statements are on the spool as have run."""
    given, port = conninfo_to_dict(database18), free_port()
    role = f"client_{given['dbname']}"
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        admin.execute("CREATE TABLE ran (session int)")
        admin.execute(f"GRANT ALL ON ran TO {role}")
    config = config_factory(
        tmp_path, "127.0.0.1:1", database18, [],
        extra=f'[gateway]\nlisten = "127.0.0.1:{port}"\n[gateway.databases."*"]\ncluster = "shop"\n'
        f'upstream = "host={given["host"]} port={given["port"]} sslmode=disable"\n',
    )  # fmt: skip
    dsn = f"host=127.0.0.1 port={port} dbname={given['dbname']} user={role} password=secret sslmode=disable"
    rng = random.Random(7)
    with System(tmp_path, config, database18) as system:
        for _ in range(3):
            daemon = system.daemon("gateway", "--port", "0", name="gateway")
            threads = [threading.Thread(target=insert_until_lost, args=(dsn, n)) for n in range(6)]
            for thread in threads:
                thread.start()
            with psycopg.connect(database18, autocommit=True) as admin:
                before = count(admin)
                while count(admin) < before + rng.randrange(100, 600):
                    time.sleep(0.01)
            daemon.kill()
            for thread in threads:
                thread.join()
    with psycopg.connect(database18, autocommit=True) as admin:
        ran = count(admin)
    spool = config.gateway.spool.path
    end = sum(path.stat().st_size for path in spool.glob("*.jsonl"))
    assert segments(spool)[0] == 0
    begun = sum(isinstance(record, Begun) for _, record in Reader(spool, 0).read(end))
    assert ran > 300
    assert begun >= ran


def count(admin: psycopg.Connection) -> int:
    """How many statements have run."""
    row = admin.execute("SELECT count(*) FROM ran").fetchone()
    assert row is not None
    return int(row[0])


def insert_until_lost(dsn: str, session: int) -> None:
    """Insert row after row until the gateway is gone."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client = psycopg.connect(dsn, autocommit=True)
        except psycopg.OperationalError:
            time.sleep(0.05)
            continue
        try:
            while True:
                client.execute("INSERT INTO ran VALUES (%s)", [session])
        except psycopg.OperationalError:
            return
