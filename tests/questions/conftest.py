"""The lake of an office whose work is known: a real server, every collector, and a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgwitness.demo.servers import Broker
from tests.collectors.log_server import TIMEZONE, logging_server, pattern
from tests.conftest import write_config
from tests.contract.system import System
from tests.questions.office import IDENTITIES, PRIVACY, SCHEMA, Office


@pytest.fixture(scope="session")
def audited(servers_path: Path, embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system after the office's work: everything has landed, all daemons have ended."""
    directory = tmp_path_factory.mktemp("office")
    with logging_server(servers_path / "office", None, "verbose") as server:
        admin_dsn = server.dsn()
        log = (
            f'[clusters.shop.log]\npath = "{pattern(server, "jsonlog")}"\ntimezone = "{TIMEZONE}"\ninterval = "50ms"\n'
        )
        with psycopg.connect(admin_dsn, autocommit=True) as admin:
            admin.execute(SCHEMA.encode())
        config = write_config(
            directory, embedded_broker.bootstrap, admin_dsn.replace("postgres@", "pgwitness@"), ["postgres"],
            prefix=f"office{server.port}.", cluster_extra=log, extra=PRIVACY,
        )  # fmt: skip
        config.identities.file.write_text(IDENTITIES)
        with System(directory, config, admin_dsn) as system:
            system.prepare()
            collectors = system.collect("wal", "stats", "sessions", "log").ready()
            worker = system.worker().ready()
            system.landed("SELECT count(*) FROM posture", lambda rows: rows != [] and rows[0][0] > 0)
            Office(server).work()
            system.command("db", "pause", "--dsn", admin_dsn)
            system.command("db", "pause", "--resume", "--dsn", admin_dsn)
            system.command("sql", "SELECT 1")
            system.command("alerts", "--limit", "1")
            system.command("policy", "replay", "--since", "1h")
            with psycopg.connect(server.dsn("maria"), autocommit=True, application_name="the end") as last:
                last.execute("SELECT 1")
            for wanted in LANDED:
                system.landed(f"SELECT count(*) > 0 FROM {wanted}", lambda rows: rows == [(True,)])
            assert collectors.stop() == 0
            ended = "SELECT count(*) > 0 FROM control WHERE operation = 'collectors_stopped'"
            system.landed(ended, lambda rows: rows == [(True,)])
            assert worker.stop() == 0
            yield system


LANDED = (
    "statements WHERE application = 'the end'",
    "control WHERE operation = 'beacon_resume'",
    "control WHERE operation = 'replay'",
    "gaps WHERE operation = 'stats_reset'",
    "posture WHERE detail ->> '$.name' = 'metrics'",
)
"""What comes last, each from a source of its own: when all of it is there, so is what came before."""
