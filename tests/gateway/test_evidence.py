"""From a client at the gateway to the lake: each statement once, named exactly, also after a kill."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgwitness.core.config import Config
from pgwitness.demo.servers import Broker
from tests.contract.system import System


def free_port() -> int:
    """Give a port that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_statements_land_named_and_once(
    tmp_path: Path, database18: str, embedded_broker: Broker, config_factory: Callable[..., Config]
) -> None:
    """What ran through the gateway is in the lake, exact; what a kill cut off is unknown."""
    given, port = conninfo_to_dict(database18), free_port()
    name = str(given["dbname"])
    role = f"ada_{name}"
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    (tmp_path / "identities.yaml").write_text(
        f"rules:\n- id: ada\n  match: {{ role: {role} }}\n  principal: ada\n  kind: human\n"
    )
    config = config_factory(
        tmp_path,
        embedded_broker.bootstrap,
        database18,
        [name],
        extra=f'[gateway]\nlisten = "127.0.0.1:{port}"\n[gateway.databases."*"]\ncluster = "shop"\n'
        f'upstream = "host={given["host"]} port={given["port"]} sslmode=disable"\n',
    )
    dsn = f"host=127.0.0.1 port={port} dbname={name} user={role} password=secret application_name=psql sslmode=disable"
    with System(tmp_path, config, database18) as system:
        system.command("topics", "apply")
        daemon = system.daemon("gateway", "--port", "0", name="gateway").ready()
        system.worker().ready()
        with psycopg.connect(dsn, autocommit=True) as client:
            for n in range(50):
                client.execute("SELECT count(*) FROM pg_class WHERE relpages > %s", [n])
            sleeping = threading.Thread(target=_sleep, args=(client,))
            sleeping.start()
            _until_running(database18, role)
            daemon.kill()
            sleeping.join()
        assert list((tmp_path / "state" / "gateway").glob("*.jsonl"))
        again = system.daemon("gateway", "--port", "0", name="gateway").ready()
        asked = (
            "SELECT principal, certainty, assurance, outcome, count(*), count(DISTINCT event_id), min(row_count)"
            " FROM statements WHERE binding = 'gateway' GROUP BY ALL ORDER BY outcome"
        )
        rows = system.landed(asked, lambda found: sum(row[4] for row in found) >= 51)
        assert rows == [
            ("ada", "exact", "role_only", "success", 50, 50, 1),
            ("ada", "exact", "role_only", "unknown", 1, 1, None),
        ]
        sessions = system.query(
            "SELECT operation, count(*) FROM sessions WHERE binding = 'gateway' GROUP BY 1 ORDER BY 1"
        )
        assert sessions == [("connect", 1), ("disconnect", 1)]
        _until(lambda: 'pgwitness_raw_events_total{cluster="shop",source="gateway"}' in again.get("/metrics")[1])
        assert "pgwitness_gateway_spool_bytes 0.0" in again.get("/metrics")[1]


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _sleep(client: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT pg_sleep(60)")


def _until_running(dsn: str, role: str) -> None:
    deadline = time.monotonic() + 20
    with psycopg.connect(dsn, autocommit=True) as admin:
        asked = "SELECT 1 FROM pg_stat_activity WHERE usename = %s AND query LIKE '%%pg_sleep%%' AND state = 'active'"
        while not admin.execute(asked, [role]).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.02)
