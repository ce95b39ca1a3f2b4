"""The spine, run on each broker and on PostgreSQL 18 and 15; tests look at what came out.

Two pairs hold what four would: only collectors ask for the version of a server, and behind the topic `raw` nothing
knows of it; no collector asks which broker it writes to. For the same reason 16 and 17 are left to the collectors' own
tests, which run on every version (`every_postgres`).
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pgwitness.core.config import Config
from pgwitness.demo.servers import Postgres
from tests.conftest import AnyBroker, fresh_database, write_config
from tests.contract.system import Daemon, System

IDENTITIES = """\
rules:
  - match: {{role: ada_{tag}}}
    principal: ada
    kind: human
  - id: bot
    match: {{role: shared_{tag}, application: billing-bot}}
    principal: billing-bot
    kind: agent
    on_behalf_of: finance
  - match: {{role: shared_{tag}, application: shop-api}}
    principal: shop-api
    kind: service
"""

SECRET = "grace.hopper@example.org"
"""A value that must never be readable outside the database."""

LANDED = "SELECT count(*) FROM changes WHERE relations = ['public.orders']"


@dataclass
class Spine:
    """What the tests look at: the system after its work, and the work's own ledger.

    `committed` counts rows of public.orders by principal and operation, written down when the commit returned.
    Everything ran twice, with more work in between: `rows_by_run` is what had landed at the end of each run, `codes`
    are the exit codes of the daemons, `metrics` what they served in the first run.
    """

    system: System
    tag: str
    committed: dict[tuple[str | None, str], int]
    metrics: dict[str, str]
    codes: list[int]
    rows_by_run: list[int]


def _pairs() -> list[object]:
    newest, oldest = ("embedded_broker", "postgres18"), ("apache_kafka", "postgres15")
    return [
        pytest.param(newest, id="-".join(newest)),
        pytest.param(oldest, marks=[pytest.mark.kafka, pytest.mark.debian], id="-".join(oldest)),
    ]


@pytest.fixture(scope="module", params=_pairs())
def spine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spine]:
    """Install, collect, work, land, and end everything as an operator would."""
    broker: AnyBroker = request.getfixturevalue(request.param[0])
    server: Postgres = request.getfixturevalue(request.param[1])
    tag = secrets.token_hex(3)
    with fresh_database(server) as admin_dsn:
        directory = tmp_path_factory.mktemp("spine")
        config = configure(directory, broker.bootstrap, admin_dsn, f"s{tag}.", tag)
        make_shop(admin_dsn, tag)
        with System(directory, config, admin_dsn) as system:
            system.prepare()
            collectors = system.collect()
            worker = system.worker()
            ready(system, collectors, worker)
            visit(system, tag)
            committed = work(admin_dsn, tag)
            total = sum(committed.values())
            system.landed(LANDED, lambda rows: rows == [(total,)])
            for policy in ("mass_change", "superuser", "beacon_forged"):
                found = f"SELECT count(*) FROM alerts WHERE policy = '{policy}'"
                system.landed(found, lambda rows: rows[0][0] > 0)
            metrics = {"collect": collectors.get("/metrics")[1], "worker": worker.get("/metrics")[1]}
            codes = [collectors.stop(), worker.stop()]
            rows_by_run = [total]
            collectors, worker = system.collect(), system.worker()
            committed["ada", "delete"] += late_work(admin_dsn, tag)
            rows = system.landed(LANDED, lambda rows: rows[0][0] > total)
            rows_by_run.append(rows[0][0])
            codes += [collectors.stop(), worker.stop()]
            yield Spine(system, tag, committed, metrics, codes, rows_by_run)


def configure(directory: Path, bootstrap: str, admin_dsn: str, prefix: str, tag: str) -> Config:
    """Write the configuration and the identities of the suite."""
    database = admin_dsn.rpartition("/")[2]
    (directory / "identities.yaml").write_text(IDENTITIES.format(tag=tag))
    return write_config(
        directory,
        bootstrap,
        admin_dsn.replace("postgres@", "pgwitness@"),
        [database],
        prefix=prefix,
    )


def make_shop(admin_dsn: str, tag: str) -> None:
    """Make the application's table and roles."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        admin.execute("CREATE TABLE orders (id bigint PRIMARY KEY, note text, amount numeric)")
        for role in ("ada", "shared", "stranger"):
            name = sql.Identifier(f"{role}_{tag}")
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
            admin.execute(sql.SQL("GRANT ALL ON orders TO {}").format(name))


def ready(system: System, collectors: Daemon, worker: Daemon) -> None:
    """Wait until everything works, and the first snapshot of roles and settings has landed."""
    collectors.ready()
    worker.ready()
    system.landed("SELECT count(*) FROM posture", lambda rows: rows != [] and rows[0][0] > 0)


def visit(system: System, tag: str) -> None:
    """Stay connected until the session has landed: a shorter one may come and go between two looks."""
    with psycopg.connect(system.admin_dsn.replace("postgres@", f"ada_{tag}@"), application_name="psql"):
        system.landed(f"SELECT count(*) FROM sessions WHERE role = 'ada_{tag}'", lambda rows: rows[0][0] > 0)


def work(admin_dsn: str, tag: str) -> dict[tuple[str | None, str], int]:
    """Do the application's work, and some that it should not; gives the committed rows of public.orders."""
    committed: dict[tuple[str | None, str], int] = {}
    numbers = itertools.count(1)

    def session(role: str, application: str) -> psycopg.Connection:
        dsn = admin_dsn.replace("postgres@", f"{role}_{tag}@")
        return psycopg.connect(dsn, application_name=application)

    def insert(connection: psycopg.Connection, rows: int) -> int:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO orders VALUES (%s, %s, %s)", [(next(numbers), SECRET, 9.5) for _ in range(rows)]
            )
        return rows

    def change(connection: psycopg.Connection, statement: str) -> int:
        return connection.execute(statement).rowcount

    def note(principal: str | None, operation: str, rows: int) -> None:
        committed[principal, operation] = committed.get((principal, operation), 0) + rows

    with session("ada", "psql") as ada:
        rows = insert(ada, 20)
        ada.commit()
        note("ada", "insert", rows)
        updated = change(ada, "UPDATE orders SET amount = amount + 1 WHERE id <= 5")
        deleted = change(ada, "DELETE FROM orders WHERE id IN (6, 7)")
        ada.commit()
        note("ada", "update", updated)
        note("ada", "delete", deleted)
    with session("shared", "shop-api") as api:
        with api.cursor().copy("COPY orders FROM STDIN") as copy:
            for _ in range(1500):
                copy.write_row((next(numbers), SECRET, 1))
        api.commit()
        note("shop-api", "insert", 1500)
    with session("shared", "billing-bot") as bot:
        rows = change(bot, "UPDATE orders SET amount = 0 WHERE id > 20 AND id <= 320")
        bot.commit()
        note("billing-bot", "update", rows)
    with session("stranger", "") as stranger:
        insert(stranger, 5)
        stranger.rollback()
        stranger.execute("SELECT pg_logical_emit_message(true, 'pgwitness.beacon', 'I am the chief accountant')")
        rows = insert(stranger, 1)
        stranger.commit()
        note(None, "insert", rows)
    with psycopg.connect(admin_dsn) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} SUPERUSER").format(sql.Identifier(f"mallory_{tag}")))
    return committed


def late_work(admin_dsn: str, tag: str) -> int:
    """Change one more row, for a second run of the daemons; gives how many it was."""
    with psycopg.connect(admin_dsn.replace("postgres@", f"ada_{tag}@"), application_name="psql") as ada:
        return ada.execute("DELETE FROM orders WHERE id = 1").rowcount
