"""Client certificates on Debian's PostgreSQL 15; the wheel's is built without TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from collectors.sessions.collector import run
from pgwitness.core.config import Config
from pgwitness.core.events import Certificate, Session
from pgwitness.demo.servers import Broker
from streams.fold.sessions.attribution import by_session, known
from streams.identity.identities import Identities
from tests.collectors.raw_topic import bench
from tests.collectors.tls import Authority, tls_server
from tests.conftest import DEBIAN_BIN, leave_out

RULES = """
rules:
  - match: {certificate: {dn: /CN=ada, issuer: "/CN=our ca"}}
    principal: ada
    kind: human
  - match: {role: "*"}
    principal: "{role}"
"""


@pytest.mark.debian
def test_certificates_name_sessions(
    servers_path: Path, embedded_broker: Broker, tmp_path: Path, config_factory: Callable[..., Config]
) -> None:
    """A certificate is told with its serial; only under its own name does it authenticate the role."""
    if not (DEBIAN_BIN / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    authority = Authority(tmp_path)
    with tls_server(servers_path / "tls15", DEBIAN_BIN, authority, "ada") as server:
        with psycopg.connect(server.socket_dsn(), autocommit=True) as admin:
            admin.execute("CREATE ROLE ada LOGIN; CREATE ROLE shared LOGIN")
        certificate, key, serial = authority.issue("ada")
        long_certificate, long_key, long_serial = authority.issue("ada" * 20)
        clients = {
            "own": {"user": "ada", "sslcert": str(certificate), "sslkey": str(key)},
            "other": {"user": "shared", "sslcert": str(certificate), "sslkey": str(key)},
            "long": {"user": "shared", "sslcert": str(long_certificate), "sslkey": str(long_key)},
            "none": {"user": "shared", "sslcert": str(tmp_path / "none"), "sslkey": str(tmp_path / "none")},
            "plain": {"user": "shared", "sslmode": "disable"},
        }
        config = config_factory(tmp_path, embedded_broker.bootstrap, server.socket_dsn())
        with bench(config) as at, at.running(run):
            found: dict[str, Session] = {}
            for name, options in clients.items():
                dsn = make_conninfo(server.dsn(), sslmode="require", application_name=name)
                with psycopg.connect(make_conninfo(dsn, **options)) as connection:
                    pid = connection.info.backend_pid
                    at.raw.wait(lambda pid=pid: any(e.pid == pid for e in at.raw.of(Session)), name)  # type: ignore[misc]
                found[name] = next(event for event in at.raw.of(Session) if event.pid == pid)
    shown = Certificate("/CN=ada", "/CN=our ca", str(serial))
    assert {name: event.certificate for name, event in found.items()} == {
        "own": shown,
        "other": shown,
        "long": Certificate(None, "/CN=our ca", str(long_serial)),
        "none": None,
        "plain": None,
    }
    assert {name: event.auth_method for name, event in found.items() if event.auth_method} == {"own": "cert"}
    rules = Identities.parse(RULES)
    named = {name: by_session(known(event, "db"), "shop", rules, "own") for name, event in found.items()}
    assert {name: (whose.principal, whose.assurance) for name, whose in named.items()} == {
        "own": ("ada", "verified"),
        "other": ("ada", "verified"),
        "long": (None, "none"),
        "none": ("shared", "role_only"),
        "plain": ("shared", "role_only"),
    }
