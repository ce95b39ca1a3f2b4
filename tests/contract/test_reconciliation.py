"""Statements against commits on real servers: what is honest raises nothing, what is not is found.

pgAudit is loaded beside PostgreSQL 15 where it is installed (Debian: postgresql-15-pgaudit); the views must say the
same with it and without. With CI=true it must be there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from pgwitness.demo.servers import Broker, Postgres, wait_for
from sinks.lake.views.reconciliation import SETTLED
from tests.collectors.log_server import SETTINGS, TIMEZONE, files, pattern
from tests.conftest import DEBIAN_BIN, leave_out, write_config
from tests.contract.system import System

PGAUDIT = Path(os.environ.get("PGAUDIT_LIBRARY", DEBIAN_BIN.parent / "lib" / "pgaudit.so"))
WITHOUT_PGAUDIT = f"pgAudit: {PGAUDIT} not found (Debian: apt-get install postgresql-15-pgaudit)"
AUDITING = {"pgaudit.log": "write", "pgaudit.log_rows": "on", "pgaudit.log_relation": "on"}
TABLES = """
CREATE ROLE app LOGIN;
CREATE TABLE orders (id int PRIMARY KEY, parent int REFERENCES orders ON DELETE CASCADE, note text);
CREATE TABLE lines (id int PRIMARY KEY, orders int REFERENCES orders ON DELETE CASCADE);
CREATE TABLE history (what text);
CREATE TABLE parts (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (1000);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (1000) TO (2000);
CREATE UNLOGGED TABLE scratch (id int);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO history VALUES (tg_op); INSERT INTO history VALUES (tg_op); RETURN NULL; END$$;
CREATE TRIGGER remember AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION remember();
CREATE FUNCTION in_vain(number int) RETURNS void LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO history VALUES ('in vain');
      BEGIN INSERT INTO orders VALUES (number); RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN NULL; END; END$$;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
"""
EVERY_KIND = [
    "INSERT INTO orders SELECT n FROM generate_series({0}, {0} + 9) AS n",
    "UPDATE orders SET note = 'x' WHERE id = {0}",
    "DELETE FROM orders WHERE id = {0}",
    "INSERT INTO lines VALUES ({0}), ({0} + 1)",
    "UPDATE lines SET orders = NULL WHERE id = {0}",
    "DELETE FROM lines WHERE id = {0}",
    "INSERT INTO parts VALUES ({0}), ({0} + 1)",
    "UPDATE parts SET note = 'x' WHERE id = {0}",
    "DELETE FROM parts WHERE id = {0}",
]


@dataclass
class Played:
    """The lake after the work: `wanted` is the status of each transaction by what it was, None for none at all."""

    system: System
    wanted: dict[str, str | None]
    xids: dict[str, int]

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """Ask the lake through its own views, as if everything had had its minute to land."""
        lake = self.system.config.lake.path
        views = (lake / "views.sql").read_text()
        assert SETTLED in views
        with duckdb.connect() as connection:
            connection.execute(f"SET file_search_path = '{lake}'")
            connection.execute(views.replace(SETTLED, "INTERVAL 0 SECOND"))
            return connection.execute(question).fetchall()


@pytest.fixture(scope="module", params=[18, pytest.param(15, marks=pytest.mark.debian)])
def server(request: pytest.FixtureRequest, servers_path: Path) -> Iterator[Postgres]:
    """A server that logs every statement as jsonlog."""
    binaries = None if request.param == 18 else DEBIAN_BIN
    if binaries is not None and not (binaries / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    settings = {
        **SETTINGS,
        "log_destination": "jsonlog",
        "log_error_verbosity": "verbose",
        "log_directory": "log",
        "max_prepared_transactions": "5",
    }
    if binaries is not None and not PGAUDIT.exists() and os.environ.get("CI") == "true":
        leave_out(WITHOUT_PGAUDIT)
    if binaries is not None and PGAUDIT.exists():
        settings |= {**AUDITING, "shared_preload_libraries": f"pg_stat_statements,{PGAUDIT}"}
    with Postgres(servers_path / f"reconciled{request.param}", bin=binaries, settings=settings) as made:
        yield made


@pytest.fixture(scope="module")
def played(server: Postgres, embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """Everything installed and collected, the honest and the dishonest at work, everything landed."""
    directory = tmp_path_factory.mktemp("reconciled")
    log = f'[clusters.shop.log]\npath = "{pattern(server, "jsonlog")}"\ntimezone = "{TIMEZONE}"\ninterval = "50ms"\n'
    admin_dsn = server.dsn()
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION pg_stat_statements")
        admin.execute(TABLES)
    config = write_config(
        directory, embedded_broker.bootstrap, admin_dsn.replace("postgres@", "pgwitness@"), ["postgres"],
        prefix=f"reconciled{server.port}.", cluster_extra=log,
    )  # fmt: skip
    with System(directory, config, admin_dsn) as system:
        system.prepare()
        system.collect("wal", "stats", "sessions", "log").ready()
        system.worker().ready()
        system.landed("SELECT count(*) FROM posture", lambda rows: rows != [] and rows[0][0] > 0)
        with (
            psycopg.connect(server.dsn("app"), autocommit=True, application_name="honest") as app,
            psycopg.connect(admin_dsn, autocommit=True, application_name="owner") as admin,
        ):
            work = Work(system, app, admin)
            work.before()
            work.honest(server.dsn("app"))
            work.past_the_beacon()
            work.dishonest(files(server, "jsonlog")[-1], server.dsn("app"))
            work.counted()
            work.after()
        with psycopg.connect(server.dsn("app"), autocommit=True, application_name="the end") as last:
            last.execute("SELECT 1")
        xids = ", ".join(str(xid) for name, xid in work.xids.items() if work.wanted[name] not in (None, "unpublished"))
        number = xids.count(",") + 1
        system.landed(
            f"SELECT count(DISTINCT xid) FROM changes WHERE xid IN ({xids})", lambda rows: rows == [(number,)]
        )
        system.landed(
            "SELECT count(*) FROM statements WHERE application = 'the end'", lambda rows: rows != [] and rows[0][0] > 0
        )
        unread = f"SELECT count(*) FROM events WHERE kind = 'change' AND xid = {work.xids['hidden']}"
        system.landed(unread, lambda rows: rows != [] and rows[0][0] > 0)
        system.landed(COUNTED, lambda rows: rows == [(25,)])
        system.landed("SELECT count(*) FROM alerts WHERE policy = 'beacon_missing'", lambda rows: rows[0][0] > 0)
        yield Played(system, work.wanted, work.xids)
        assert [daemon.stop() for daemon in system.daemons] == [0, 0]


COUNTED = "SELECT sum(calls) FROM query_stats WHERE contains(statement, 'counted')"


class Work:
    """Transactions with what should become of each; `app` is the application, `admin` a superuser."""

    def __init__(self, system: System, app: psycopg.Connection, admin: psycopg.Connection) -> None:
        self.system = system
        self.app = app
        self.admin = admin
        self.wanted: dict[str, str | None] = {}
        self.xids: dict[str, int] = {}

    def do(
        self,
        name: str,
        wanted: str | None,
        *statements: str,
        by: psycopg.Connection | None = None,
        end: str = "COMMIT",
        wait: bool = False,
    ) -> None:
        """Run a transaction and remember its id; `end` is its last statement. `wait`: only when the log has landed."""
        by = by or self.app
        by.execute("BEGIN")
        for statement in statements:
            by.execute(statement)
        row = by.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        if wait:
            asked = f"SELECT count(*) FROM statements WHERE xid = {row[0]}"
            self.system.landed(asked, lambda rows: rows[0][0] > 0)
        by.execute(end)
        assert name not in self.xids
        self.wanted[name], self.xids[name] = wanted, int(row[0])

    def alone(self, name: str, wanted: str | None, insert: str, *, by: psycopg.Connection | None = None) -> None:
        """Run one INSERT without a transaction around it."""
        row = (by or self.app).execute(f"{insert} RETURNING pg_current_xact_id()::text").fetchone()
        assert row is not None
        self.wanted[name], self.xids[name] = wanted, int(row[0])

    def before(self) -> None:
        """Change every table in every way, so that it is known what is captured."""
        for number, statement in enumerate(EVERY_KIND):
            self.do(f"before {number}", "attributed", statement.format(1))

    def after(self) -> None:
        """Do so again."""
        for number, statement in enumerate(EVERY_KIND):
            self.do(f"after {number}", "attributed", statement.format(501))

    def honest(self, dsn: str) -> None:
        """What people do, of which nothing is a finding."""
        self.alone("alone", "attributed", "INSERT INTO orders VALUES (90)")
        self.do("several", "attributed", *(f"INSERT INTO public.lines VALUES ({n})" for n in range(60, 65)))
        self.do("tree", "attributed", "INSERT INTO orders VALUES (100, NULL), (101, 100), (102, 101)",
                "INSERT INTO lines VALUES (100, 101), (101, 102)")  # fmt: skip
        self.do("cascade", "attributed", "DELETE FROM orders WHERE id = 100")
        self.do("move", "attributed", "UPDATE parts SET id = id + 1000 WHERE id = 2")
        self.do("leaf", "attributed", "INSERT INTO parts VALUES (40)", "INSERT INTO parts_low VALUES (41)")
        self.do("conflict", "attributed",
                "INSERT INTO orders VALUES (5), (205) ON CONFLICT (id) DO UPDATE SET note = 'again'")  # fmt: skip
        self.do("merge", "attributed",
                "MERGE INTO parts USING (VALUES (40), (42)) AS s (n) ON parts.id = s.n"
                " WHEN MATCHED THEN UPDATE SET note = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (s.n)")  # fmt: skip
        self.do("writing query", "attributed",
                "WITH gone AS (DELETE FROM lines WHERE id IN (60, 61) RETURNING id)"
                " INSERT INTO lines SELECT id + 200 FROM gone")  # fmt: skip
        self.do("rolled back", None, "INSERT INTO public.lines VALUES (70)", end="ROLLBACK")
        self.do("savepoint", "attributed", "SAVEPOINT a", "INSERT INTO public.lines VALUES (71), (72)",
                "ROLLBACK TO a", "INSERT INTO public.lines VALUES (73)")  # fmt: skip
        self.do("in vain", "attributed", "SELECT in_vain(300)")
        self.do("unlogged", None, "INSERT INTO public.scratch VALUES (1)")
        self.do("nothing to change", None, "UPDATE public.lines SET orders = NULL WHERE id = -1")
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("CREATE TEMP TABLE lines (id int)")
            self.do("temporary", None, "INSERT INTO lines VALUES (1)", by=other)
        self.do("prepared", "attributed", "INSERT INTO public.lines VALUES (74)", end="PREPARE TRANSACTION 'later'")
        self.app.execute("COMMIT PREPARED 'later'")
        self.do("given up", None, "INSERT INTO public.lines VALUES (75)", end="PREPARE TRANSACTION 'never'")
        self.app.execute("ROLLBACK PREPARED 'never'")

    def past_the_beacon(self) -> None:
        """With its beacon off, a table is written to by somebody the log names, by a replica, and by nobody."""
        self.admin.execute("ALTER TABLE lines DISABLE TRIGGER USER")
        # The log's line comes first here: a transaction without a beacon does not wait for it.
        self.do("named by the log", "attributed", "INSERT INTO public.lines VALUES (80)", wait=True)
        self.admin.execute("SELECT pg_replication_origin_create('elsewhere')")
        self.admin.execute("SELECT pg_replication_origin_session_setup('elsewhere')")
        self.alone("replicated", "attributed", "INSERT INTO lines VALUES (81)", by=self.admin)
        self.admin.execute("SELECT pg_replication_origin_session_reset()")
        self.unheard()
        self.alone("shadow", "shadow_write", "INSERT INTO lines VALUES (82)", by=self.admin)
        self.heard()
        self.admin.execute("ALTER TABLE lines ENABLE ALWAYS TRIGGER pgwitness_beacon")

    def dishonest(self, log: Path, dsn: str) -> None:
        """A log that lies about how many rows a statement changed, and a committed row that is kept out of the WAL."""
        self.admin.execute("SET pgaudit.log = 'none'")
        self.alone("lie", "count_mismatch", "UPDATE parts SET note = 'lie' WHERE id IN (40, 41, 42)", by=self.admin)
        forge(log, "UPDATE parts SET note = 'lie'", self.xids["lie"], "WRITE,UPDATE,TABLE,public.parts", rows=1)
        self.admin.execute("RESET pgaudit.log")
        self.admin.execute("ALTER PUBLICATION pgwitness_inserts SET (publish = 'truncate')")
        # A session of its own: what one has changed in the last seconds may stand for as many rows of the same table.
        with psycopg.connect(dsn, autocommit=True) as other:
            self.do("hidden", "unpublished", "INSERT INTO public.lines VALUES (83)", by=other)
        self.admin.execute("ALTER PUBLICATION pgwitness_inserts SET (publish = 'insert, truncate')")

    def counted(self) -> None:
        """Run one statement twenty times for all to see, and five times out of the log's sight."""
        for _ in range(20):
            self.admin.execute("SELECT count(*) AS counted FROM parts")
        self.unheard()
        for _ in range(5):
            self.admin.execute("SELECT count(*) AS counted FROM parts")
        self.heard()

    def unheard(self) -> None:
        """Keep the superuser's session out of the log."""
        self.admin.execute("SET log_min_duration_statement = -1")
        self.admin.execute("SET pgaudit.log = 'none'")

    def heard(self) -> None:
        """Let the log have it again."""
        self.admin.execute("RESET log_min_duration_statement")
        self.admin.execute("RESET pgaudit.log")


def forge(log: Path, statement: str, xid: int, what: str, rows: int) -> None:
    """Write a line of pgAudit into the server's log, as somebody would who may write to it: who, when, and a lie."""
    found: list[dict[str, Any]] = []

    def told() -> bool:
        lines = (line for line in log.read_text().splitlines() if line.endswith("}"))
        found[:] = [line for line in map(json.loads, lines) if statement in line["message"]]
        return bool(found)

    wait_for(told, 30, "the server logs the statement")
    text = found[0]["message"].partition("statement: ")[2].replace('"', '""')
    lie = {"message": f'AUDIT: SESSION,900,1,{what},"{text}",<not logged>,{rows}', "txid": xid, "line_num": 9_000_000}
    lie |= {"func_name": "log_audit_event", "file_name": "pgaudit.c"}
    with log.open("a") as end:
        end.write(json.dumps(found[0] | lie) + "\n")


def test_each_transaction_has_the_status_that_it_deserves(played: Played) -> None:
    """Cascades, triggers, moved partitions, replicated rows, rollbacks and unlogged tables are none; lies are."""
    found = dict(played.ask("SELECT xid, status FROM reconciliation"))
    assert {name: found.get(xid) for name, xid in played.xids.items()} == played.wanted
    others = {status for xid, status in found.items() if xid not in played.xids.values()}
    assert others <= {"attributed", "weak"}


def test_findings_bring_what_they_rest_on(played: Played) -> None:
    """The numbers of a mismatch, the table and role of what was kept out of the WAL's stream."""
    ask = "SELECT rows, updates, relations, role FROM reconciliation WHERE xid = {}"
    assert played.ask(ask.format(played.xids["lie"])) == [(3, 3, ["public.parts"], "postgres")]
    assert played.ask(f"SELECT claimed_rows FROM reconciliation WHERE xid = {played.xids['lie']}") == [(1,)]
    assert played.ask(ask.format(played.xids["hidden"])) == [(0, 0, ["public.lines"], "app")]


def test_a_missing_beacon_is_an_alert_that_names_the_actor(played: Played) -> None:
    """The view says attributed, the finding stays one: whose beacon is silent is known, and is asked about."""
    row = played.ask(
        "SELECT DISTINCT binding, certainty, role, detail->>'$.finding' FROM events"
        f" WHERE kind = 'change' AND xid = {played.xids['named by the log']}"
    )
    assert row == [("log", "exact", "app", "beacon_missing")]
    raised = dict(played.ask("SELECT policy, any_value(message) FROM alerts GROUP BY policy"))
    assert "app" in raised["beacon_missing"]
    assert "shadow_write" in raised


def test_lost_lines_show_as_a_share(played: Played) -> None:
    """Five of twenty-five calls that statistics counted are not in the log."""
    rows = played.ask(
        "SELECT DISTINCT status, sum(calls) OVER (), sum(seen) OVER (), sum(missing) OVER () FROM statement_coverage"
        " WHERE contains(statement, 'counted')"
    )
    assert rows == [("logged", 25, 20, 5)]


def test_pgaudit_was_there_where_it_is_installed(played: Played, server: Postgres) -> None:
    """On PostgreSQL 15 the lines of pgAudit were collected, with the rows that they tell; without it none are."""
    if server.version() == 15 and not PGAUDIT.exists():
        leave_out(WITHOUT_PGAUDIT)
    audited = played.ask("SELECT count(*) FROM statements WHERE detail->>'$.source' = 'pgaudit' AND row_count > 0")
    assert (audited[0][0] > 1) == (server.version() == 15)  # one is forged
