"""Without a beacon, on the server's log alone: every committed change is named rightly or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pgwitness.demo.servers import Broker, Postgres
from tests.collectors.log_server import TIMEZONE, logging_server, pattern
from tests.conftest import DEBIAN_BIN, leave_out, write_config
from tests.contract.system import System

WRITERS = ("billing-bot", "shop-api", "report")
ROUNDS = 12
IDENTITIES = """\
rules:
  - match: {role: shared, application: "*"}
    principal: "{application}"
    kind: service
"""


@pytest.fixture(scope="module", params=[18, pytest.param(15, marks=pytest.mark.debian)])
def server(request: pytest.FixtureRequest, servers_path: Path) -> Iterator[Postgres]:
    """A server that writes jsonlog."""
    binaries = None if request.param == 18 else DEBIAN_BIN
    if binaries is not None and not (binaries / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    with logging_server(servers_path / f"names{request.param}", binaries, "verbose") as made:
        yield made


def test_the_log_alone_names_rightly_or_not_at_all(
    server: Postgres, embedded_broker: Broker, tmp_path: Path, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions behind one role, explicit transactions, savepoints and rollbacks, one connection after the other's name.

    What carries a transaction id in the log is named exactly; single statements that carry none stay unnamed, but for
    an INSERT that only one transaction can be.
    """
    monkeypatch.setenv("PGWITNESS_WORKER__GRACE", "5s")
    log = f'[clusters.shop.log]\npath = "{pattern(server, "jsonlog")}"\ntimezone = "{TIMEZONE}"\ninterval = "50ms"\n'
    admin_dsn = server.dsn()
    make_shop(admin_dsn)
    dsn = admin_dsn.replace("postgres@", "pgwitness@")
    config = write_config(
        tmp_path, embedded_broker.bootstrap, dsn, ["postgres"], prefix=topic_prefix, cluster_extra=log,
        extra='[privacy]\nclear = ["public.orders.who"]\n',
    )  # fmt: skip
    config.identities.file.write_text(IDENTITIES)
    with System(tmp_path, config, admin_dsn) as system:
        system.prepare()
        uncover(admin_dsn)
        system.collect("wal", "log").ready()
        system.worker().ready()
        writers = [threading.Thread(target=write, args=(server.dsn("shared"), name)) for name in WRITERS]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        pooled(server.dsn("shared"))
        expected = len(WRITERS) * ROUNDS * 4 + 2 * ROUNDS
        system.landed("SELECT count(*) FROM changes", lambda rows: rows == [(expected,)])
        told = system.query(
            "SELECT principal, json_extract_string(after, '$.who'), binding, certainty, count(*) FROM changes"
            " GROUP BY ALL"
        )
        assert {(principal or who) == who for principal, who, *_ in told} == {True}, told
        counted = {(principal, binding, certainty): 0 for principal, _, binding, certainty, _ in told}
        for principal, _, binding, certainty, number in told:
            counted[principal, binding, certainty] += number
        # A single INSERT may be found by what it made; that it is named rightly was asked above.
        exact = {key: number for key, number in counted.items() if key[2] == "exact"}
        others = {key: number for key, number in counted.items() if key[2] != "exact"}
        assert exact == {(name, "log", "exact"): ROUNDS * (3 + (name in WRITERS[:2])) for name in WRITERS}
        assert {key[1:] for key in others} <= {("none", "none"), ("log", "weak")}
        assert sum(others.values()) == len(WRITERS) * ROUNDS
        statements = system.query(
            "SELECT count(*), count(DISTINCT event_id), bool_and(binding = 'log' AND certainty = 'exact')"
            " FROM statements"
        )
        assert statements[0][0] == statements[0][1]
        assert statements[0][2]
        assert [daemon.stop() for daemon in system.daemons] == [0, 0]


def make_shop(admin_dsn: str) -> None:
    """A table and a role that everybody shares."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE shared LOGIN")
        admin.execute("CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text)")
        admin.execute("GRANT ALL ON orders TO shared")


def uncover(admin_dsn: str) -> None:
    """Take the beacon off the table, as on a database where none may be installed; it stays published."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        triggers = admin.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal"
        ).fetchall()
        for (name,) in triggers:
            admin.execute(sql.SQL("DROP TRIGGER {} ON orders").format(sql.Identifier(name)))
        admin.execute("DELETE FROM pgwitness.covered")


def write(dsn: str, name: str) -> None:
    """Transactions of one application: plain, with a savepoint, rolled back, and a single statement as text."""
    with psycopg.connect(dsn, application_name=name, autocommit=True) as connection:
        for _ in range(ROUNDS):
            with connection.transaction():
                connection.execute("INSERT INTO orders (who) VALUES (%s)", [name])
            with connection.transaction():
                connection.execute(f"INSERT INTO orders (who) VALUES ('{name}')")
                with connection.transaction(force_rollback=True):
                    connection.execute("INSERT INTO orders (who) VALUES ('nobody')")
            with connection.transaction(force_rollback=True):
                connection.execute("INSERT INTO orders (who) VALUES ('nobody')")
            connection.execute("INSERT INTO orders (who) VALUES (%s)", [name])
            connection.execute(f"INSERT INTO orders (who) VALUES ('{name}')")


def pooled(dsn: str) -> None:
    """One server session that serves two applications in turn, as behind a pooler."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(ROUNDS):
            for name in WRITERS[:2]:
                connection.execute(f"SET application_name = '{name}'")
                connection.execute("INSERT INTO orders (who) VALUES (%s)", [name])
