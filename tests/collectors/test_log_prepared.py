"""Two-phase commit in the server's log: who wrote and who committed are told apart, without a beacon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from collectors.log import collector
from pgwitness.core.config import Config
from pgwitness.core.events import SCHEMA_VERSION, RawBatch, RawHeader, Statement
from pgwitness.demo.servers import Broker, Postgres
from tests.collectors.log_server import SETTINGS, TIMEZONE, pattern
from tests.collectors.raw_topic import RawTopic, bench, context_of, running
from tests.conftest import DEBIAN_BIN, leave_out
from tests.streams.folding import fold_all
from tests.streams.records import batch, tick, transaction

RULES = "rules: [{match: {role: '*'}, principal: '{role}'}]"


@pytest.fixture(params=[18, pytest.param(15, marks=pytest.mark.debian)])
def server(request: pytest.FixtureRequest, servers_path: Path) -> Iterator[Postgres]:
    """A server that writes jsonlog and takes prepared transactions."""
    binaries = None if request.param == 18 else DEBIAN_BIN
    if binaries is not None and not (binaries / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    settings = {**SETTINGS, "log_destination": "jsonlog", "log_directory": "log", "max_prepared_transactions": "5"}
    with Postgres(servers_path / f"log_prepared{request.param}", bin=binaries, settings=settings) as made:
        yield made


def is_read(session: psycopg.Connection, raw: RawTopic) -> bool:
    """Write a line, and say whether one like it has been read."""
    session.execute("SELECT 1 AS begun")
    return any(event.statement == "SELECT $1 AS begun" for event in raw.of(Statement))


def test_the_log_says_who_wrote_and_who_committed(
    server: Postgres, embedded_broker: Broker, tmp_path: Path, config_factory: Callable[..., Config]
) -> None:
    """A prepared transaction is the writer's by the log's lines with its id; COMMIT PREPARED is the other session's."""
    log = f'[clusters.shop.log]\npath = "{pattern(server, "jsonlog")}"\ntimezone = "{TIMEZONE}"\ninterval = "50ms"\n'
    config = config_factory(tmp_path, embedded_broker.bootstrap, server.dsn(), cluster_extra=log)
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("CREATE ROLE writer LOGIN; CREATE ROLE closer LOGIN SUPERUSER; CREATE TABLE item (id int)")
        admin.execute("GRANT ALL ON item TO writer")
    with bench(config) as at:
        with running(
            lambda context, _, stop: collector.run(context, stop), context_of(config, at.publisher), ""
        ) as raised:
            with (
                psycopg.connect(server.dsn("writer"), autocommit=True) as writer,
                psycopg.connect(server.dsn("closer"), autocommit=True) as closer,
            ):
                # It reads from where the log ends when it begins: what is written before that is not its own.
                at.raw.wait(lambda: is_read(closer, at.raw), "the collector has begun")
                writer.execute("BEGIN")
                writer.execute("INSERT INTO item VALUES (1)")
                row = writer.execute("SELECT pg_current_xact_id()::text::int8").fetchone()
                writer.execute("PREPARE TRANSACTION 'later'")
                closer.execute("COMMIT PREPARED 'later'")
            committed = "COMMIT PREPARED $1"
            at.raw.wait(lambda: any(e.statement == committed for e in at.raw.of(Statement)), "the commit")
        told = RawBatch(SCHEMA_VERSION, "test", RawHeader("shop", "log", "db:5432"), at.raw.seen)
    assert raised == []
    assert row is not None
    written = transaction(10, xid=int(row[0]), database="postgres")
    events = fold_all([told, batch(written), batch(tick(1e6))], RULES)
    (change,) = (event for event in events if event.kind == "change")
    assert (change.principal, change.binding, change.certainty) == ("writer", "log", "strong")
    (commit,) = (event for event in events if event.statement == committed)
    assert (commit.principal, commit.operation, commit.xid) == ("closer", "commit_prepared", None)
