"""One server for all that is judged: its log has every statement, and its WAL can be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgwitness.demo.servers import Postgres
from tests.collectors.log_server import SETTINGS


@pytest.fixture(scope="session")
def server(servers_path: Path) -> Iterator[Postgres]:
    """A server with a superuser called ada."""
    more = {"log_destination": "jsonlog", "log_directory": "log", "wal_level": "logical", "log_statement": "all"}
    with Postgres(servers_path / "judgement", settings={**SETTINGS, **more}) as made:
        with psycopg.connect(made.dsn(), autocommit=True) as admin:
            admin.execute("CREATE ROLE ada LOGIN SUPERUSER")
        yield made
