"""TLS on both sides, with the channel bound; what a client says before encryption is no part of its session."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from collectors.gateway.service import tls_of, watched_tls
from collectors.gateway.wire import startup
from pgwitness.core.config.gateway import Gateway, GatewayTls
from tests.collectors.tls import Authority, tls_server
from tests.conftest import DEBIAN_BIN, leave_out
from tests.gateway.conftest import Running, running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who issued the gateway's certificate."""
    return Authority(tmp_path)


@pytest.fixture
def gateway(tmp_path: Path, authority: Authority, database18: str) -> Iterator[Running]:
    """A gateway with a certificate."""
    certificate, key, _ = authority.issue("gateway", "127.0.0.1")
    context, binding = tls_of(Gateway(tls=GatewayTls(cert_file=certificate, key_file=key)))
    assert context is not None
    assert binding is not None
    with running(tmp_path, database18, (context, binding)) as one:
        yield one


@pytest.mark.parametrize("binding", ["require", "prefer", "disable"])
@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_clients_come_by_tls(gateway: Running, authority: Authority, binding: str, negotiation: str) -> None:
    """Libpq checks the gateway's certificate and binds the login to it, asked for TLS or beginning with it."""
    more = {"sslmode": "verify-full", "sslrootcert": str(authority.path), "sslnegotiation": negotiation}
    with psycopg.connect(gateway.dsn(**more, channel_binding=binding), autocommit=True) as client:
        assert client.pgconn.ssl_in_use
        assert client.execute("SELECT 1").fetchone() == (1,)
        client.execute("SELECT repeat('x', 1000) FROM generate_series(1, 10000)").fetchall()
    assert gateway.opened()[0].encrypted


@pytest.mark.parametrize(("low", "high"), [("3.0", "3.0"), ("3.2", "3.2"), ("3.0", "latest")])
def test_every_version_of_the_protocol(gateway: Running, low: str, high: str) -> None:
    """Clients of 3.0 and 3.2 cancel by keys of their own lengths."""
    more = {"min_protocol_version": low, "max_protocol_version": high}
    with psycopg.connect(gateway.dsn(**more), autocommit=True) as client:
        assert client.pgconn.full_protocol_version in (30000, 30002)
        timer = threading.Timer(0.3, client.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(60)")
        timer.join()


def test_a_certificate_is_renewed_under_the_sessions(tmp_path: Path, authority: Authority, database18: str) -> None:
    """New logins are bound to the new one; who is there stays, and a certificate that is none changes nothing."""
    certificate, key, _ = authority.issue("gateway", "127.0.0.1")
    settings = Gateway(tls=GatewayTls(cert_file=certificate, key_file=key))
    watched = watched_tls(settings)
    context, binding = watched.load()
    assert binding is not None
    more = {"sslmode": "verify-full", "sslrootcert": str(authority.path), "channel_binding": "require"}
    with running(tmp_path, database18, (context, binding)) as one:
        one.house.changed_tls = watched.poll
        with psycopg.connect(one.dsn(**more), autocommit=True) as before:
            authority.issue("gateway", "127.0.0.1")
            deadline = time.monotonic() + 20
            while one.house.binding == binding:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            with psycopg.connect(one.dsn(**more)) as after:
                assert after.execute("SELECT 1").fetchone() == (1,)
            renewed = one.house.binding
            certificate.write_text("nothing")
            while watched.refusal is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert one.house.binding == renewed
            with psycopg.connect(one.dsn(**more)) as after:
                assert after.execute("SELECT 1").fetchone() == (1,)
            assert before.execute("SELECT 1").fetchone() == (1,)


def test_another_protocol_is_not_served(gateway: Running) -> None:
    """Who begins with TLS and means another protocol gets no session."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as bare, context.wrap_socket(bare) as client:
        client.sendall(startup.startup_packet({"user": gateway.role}))
        assert client.recv(100) == b""


def test_nothing_is_read_from_before_the_encryption(gateway: Running) -> None:
    """A startup that somebody put behind the request for TLS, in the open, is no part of the session."""
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as bare:
        bare.sendall(startup.ssl_request() + startup.startup_packet({"user": gateway.role}))
        bare.settimeout(10)
        assert bare.recv(1) == b"S"
        with contextlib.suppress(ConnectionError):
            assert b"R" not in bare.recv(1000)[:1]


@pytest.fixture
def behind(tmp_path: Path, authority: Authority, servers_path: Path) -> Iterator[Running]:
    """A gateway in front of a PostgreSQL 15 that asks for TLS and for passwords."""
    if not (DEBIAN_BIN / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN}")
    with tls_server(servers_path / "tls", DEBIAN_BIN, authority, "nobody") as server:
        hba = server.place / "pg_hba.conf"
        lines = ("local all all trust", "hostnossl all postgres all trust", "hostssl all postgres all trust")
        lines = ("local all all trust", "hostnossl all postgres all trust", "hostssl all postgres all trust")
        hba.write_text("\n".join((*lines, "hostssl all all all scram-sha-256", "")))
        server.restart()
        where = f"host=localhost port={server.port} sslmode=verify-full sslrootcert={authority.path}"
        with running(tmp_path, server.dsn(), where=where) as one:
            yield one


@pytest.mark.debian
def test_the_server_is_spoken_to_by_tls(behind: Running) -> None:
    """The gateway checks the server's certificate and logs in by the client's own key; cancel goes by TLS too."""
    with psycopg.connect(behind.dsn(dbname="postgres"), autocommit=True) as client:
        asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert client.execute(asked).fetchone() == (True,)
        timer = threading.Timer(0.3, client.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(60)")
        timer.join()


def test_a_server_without_tls_is_refused_where_tls_is_asked_for(tmp_path: Path, database18: str) -> None:
    """With `sslmode=require` upstream nothing goes in the open."""
    given = conninfo_to_dict(database18)
    with (
        running(tmp_path, database18, where=f"host={given['host']} port={given['port']} sslmode=require") as one,
        pytest.raises(psycopg.OperationalError, match="offers no TLS"),
    ):
        psycopg.connect(one.dsn())


def test_sessions_are_told_that_the_gateway_ends(tmp_path: Path, database18: str) -> None:
    """An idle session ends with 57P01 when the gateway is told to end; one in a transaction may finish it."""
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(running(tmp_path, database18))
        idle = psycopg.connect(one.dsn(), autocommit=True)
        busy = psycopg.connect(one.dsn())
        busy.execute("CREATE TABLE t (id int)")
        ending = threading.Thread(target=stack.close)
        ending.start()
        deadline = time.monotonic() + 20
        while one.house.sessions and len(one.house.sessions) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(psycopg.errors.AdminShutdown):
            idle.execute("SELECT 1")
        busy.execute("INSERT INTO t VALUES (1)")
        busy.commit()
        ending.join()
    with psycopg.connect(database18) as admin:
        assert admin.execute("SELECT count(*) FROM t").fetchone() == (1,)
    for client in (idle, busy):
        client.close()
