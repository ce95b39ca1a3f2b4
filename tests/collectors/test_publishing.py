"""What is published, and how it gets there: from the layout of earlier versions, by an owner, by the collector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from psycopg import sql

from collectors.installation import install
from collectors.installation.install import Report
from collectors.installation.job import HELD_S, Job
from collectors.installation.steps import Options, wants
from pgwitness.core.events import Gap
from pgwitness.demo.servers import wait_for
from tests.collectors.changes import Changes
from tests.collectors.wal_source import MARK, Source, reading_late, rows

Connection = psycopg.Connection[tuple[Any, ...]]

TABLES = """
CREATE TABLE orders (id int PRIMARY KEY, v int);
CREATE TABLE notes (v int);
CREATE TABLE days (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (100);
"""
EARLIER = """
DROP PUBLICATION pgwitness; DROP PUBLICATION pgwitness_inserts;
CREATE PUBLICATION pgwitness WITH (publish = 'insert,update,delete,truncate', publish_via_partition_root = true);
CREATE PUBLICATION pgwitness_inserts WITH (publish = 'insert,truncate', publish_via_partition_root = true);
ALTER PUBLICATION pgwitness ADD TABLE orders, days; ALTER PUBLICATION pgwitness_inserts ADD TABLE notes;
CREATE OR REPLACE TRIGGER pgwitness_beacon AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON notes
    FOR EACH STATEMENT EXECUTE FUNCTION pgwitness.beacon('each');
ALTER TABLE notes ENABLE ALWAYS TRIGGER pgwitness_beacon;
"""
"""The publications, and a trigger with an argument, as earlier versions made them."""


@pytest.fixture
def admin(database: str) -> Iterator[Connection]:
    """A superuser in a small shop, on each PostgreSQL in turn; `boss` owns its tables."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES.encode())
        connection.execute("CREATE ROLE boss LOGIN CREATEROLE; GRANT CREATE ON SCHEMA public TO boss")
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO boss").format(name))
        for table in ("orders", "notes", "days", "days_1"):
            connection.execute(sql.SQL("ALTER TABLE {} OWNER TO boss").format(sql.Identifier(table)))
        yield connection


def owner(admin: Connection) -> Connection:
    """Connect as who owns the tables and is no superuser."""
    return psycopg.connect(admin.info.dsn, user="boss", autocommit=True)


def installed(connection: Connection, *globs: str) -> Report:
    """Install, and see that nothing is left."""
    report = install.install(connection, Options(tables=globs or ("*",)))
    assert report.complete, report.left
    return report


@pytest.mark.parametrize("who", ["superuser", "owner"])
def test_the_earlier_layout_is_replaced_without_losing_a_row(admin: Connection, who: str) -> None:
    """Every row before, during and after the change of layout is published once; a second run does nothing."""
    with admin if who == "superuser" else owner(admin) as installer:
        installed(installer)
        installer.execute(EARLIER.encode())
        changes = Changes(psycopg.connect(admin.info.dsn, autocommit=True))
        with psycopg.connect(admin.info.dsn) as open_one:
            open_one.execute("INSERT INTO orders VALUES (1, 1)")
            installer.execute("INSERT INTO notes VALUES (1); INSERT INTO days VALUES (1, 1)")
            installed(installer)
            open_one.execute("INSERT INTO days VALUES (2, 2)")
            open_one.commit()
        installer.execute(
            "UPDATE orders SET v = 2; UPDATE days SET v = 3; DELETE FROM days; INSERT INTO notes VALUES (2)"
        )
        installer.execute("TRUNCATE notes")
        assert admin.execute(
            "SELECT tgfoid::regproc::text, tgenabled FROM pg_trigger WHERE tgrelid = 'notes'::regclass"
        ).fetchone() == ("pgwitness.beacon_each", "A")
        assert changes.read() == {
            ("I", "public.orders"): 1,
            ("I", "public.notes"): 2,
            ("I", "public.days"): 2,
            ("U", "public.orders"): 1,
            ("U", "public.days"): 2,
            ("D", "public.days"): 2,
            ("T", "public.notes"): 1,
        }
        changes.close()
        changes.sql.close()
        assert install.install(installer).done == ()


def test_an_owner_publishes_what_it_may_and_the_job_follows(admin: Connection) -> None:
    """Without a superuser the job keeps the application writing too: it takes out what lost its key, and back in."""
    with owner(admin) as boss:
        installed(boss)
        with psycopg.connect(admin.info.dsn, user="pgwitness", autocommit=True) as collector:
            step = "SELECT name, what, problem FROM pgwitness.publish(NULL, '{}')"
            boss.execute("INSERT INTO orders VALUES (1, 1); ALTER TABLE orders DROP CONSTRAINT orders_pkey")
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                boss.execute("UPDATE orders SET v = 2")  # the window that the level tells of
            assert collector.execute(step).fetchall() == [("public.orders", 1, None)]
            boss.execute("UPDATE orders SET v = 2")
            boss.execute("ALTER TABLE orders ADD PRIMARY KEY (id)")
            while collector.execute(step).fetchall():
                pass
            # A partition that comes without a key breaks nothing at this level either.
            boss.execute("CREATE TABLE loose (id int, v int) PARTITION BY RANGE (id)")
            boss.execute("CREATE TABLE loose_1 PARTITION OF loose FOR VALUES FROM (0) TO (9)")
            boss.execute("ALTER TABLE loose_1 ADD PRIMARY KEY (id)")
            installed(boss)
            boss.execute("CREATE TABLE loose_2 PARTITION OF loose FOR VALUES FROM (9) TO (99)")
            boss.execute("INSERT INTO loose VALUES (1, 1), (10, 1); UPDATE loose SET v = 2")
        listed = admin.execute(
            "SELECT r.prrelid::regclass::text FROM pg_publication_rel AS r"
            " JOIN pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = 'pgwitness' ORDER BY 1"
        ).fetchall()
        assert listed == [("days",), ("loose_1",), ("orders",)]
        assert "keys that go" in {limit.subject for limit in installed(boss).limits}


def test_the_collector_publishes_new_tables_and_leaves_out_what_nobody_asked_for(source: Source) -> None:
    """A table made while it runs is published for updates by itself; the registry's rows never land."""
    source.create(MARK)
    with source.running():
        source.streaming()
        source.sql.execute("CREATE TABLE fresh (id int PRIMARY KEY, v int); INSERT INTO fresh VALUES (1, 1)")
        query = "SELECT FROM pg_publication_rel WHERE prrelid = 'fresh'::regclass"
        wait_for(lambda: source.sql.execute(query).fetchone() is not None, 20, "the table is published")
        source.sql.execute("UPDATE fresh SET v = 2")
        source.sql.execute("CREATE TABLE copied AS SELECT 1 AS id")
        transactions = source.until_marked()
    assert [row[:2] for row in rows(transactions)] == [
        ("i", "public.fresh"),
        ("u", "public.fresh"),
        ("i", "public.copied"),
    ]
    # The rows of CREATE TABLE AS are older than the trigger, which speaks for them all the same.
    assert all(t.beacons for t in transactions if t.relations)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_rows_of_tables_that_were_not_asked_for_never_land(source: Source, late: bool) -> None:
    """With --tables the collector drops the others' inserts, from where on a removal left a table out."""
    source.sql.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
    source.sql.execute("CREATE TABLE till (id int PRIMARY KEY)")
    source.sql.execute(MARK.encode())
    installed(source.sql, "orders", "mark")
    with source.running():
        source.streaming()
        with reading_late() if late else nullcontext():
            source.sql.execute("INSERT INTO other VALUES (1); INSERT INTO orders VALUES (1); TRUNCATE other")
            source.sql.execute("CREATE TABLE fresh (id int); INSERT INTO fresh VALUES (1)")
            assert install.uninstall(source.sql, Options(tables=("orders",))).complete
            source.sql.execute("INSERT INTO orders VALUES (2)")
        source.until_marked()
        with reading_late() if late else nullcontext():
            source.sql.execute("INSERT INTO till VALUES (1)")
            installed(source.sql, "till")
            source.sql.execute("INSERT INTO till VALUES (2)")
        found = source.until_marked()
    landed = [row[:3] for row in rows(found)]
    # Of a table that is asked for next, rows of just before may come, too; nobody is said to have avoided the beacon.
    assert [row for row in landed if row != ("i", "public.till", {"id": 1})] == [
        ("i", "public.orders", {"id": 1}),
        ("i", "public.till", {"id": 2}),
    ]
    assert all(t.beacons for t in found if any(relation.beacon for relation in t.relations))
    assert [relation.beacon for t in found for relation in t.relations if t.beacons] == [True, True]
    assert [gap.reason for gap in source.bench.raw.of(Gap) if gap.reason == "publication_changed"] == []


def test_no_stranger_keeps_the_job_from_its_turn(admin: Connection) -> None:
    """Whoever may connect gets no lock that it waits for; who may write all data can take it, and that is said."""
    installed(admin)
    admin.execute("CREATE ROLE stranger LOGIN; CREATE ROLE writer LOGIN; GRANT pg_write_all_data TO writer")
    admin.execute("ALTER TABLE orders REPLICA IDENTITY NOTHING; ALTER TABLE orders REPLICA IDENTITY DEFAULT")
    job = Job()
    dsn = admin.info.dsn
    with (
        psycopg.connect(dsn, user="pgwitness", autocommit=True) as collector,
        psycopg.connect(dsn, user="stranger", autocommit=True) as stranger,
        psycopg.connect(dsn, user="writer") as writer,
    ):
        for mode in ("ACCESS SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), stranger.transaction():
                stranger.execute(f"LOCK TABLE pgwitness.covered IN {mode} MODE".encode())
        stranger.execute("SELECT pg_advisory_lock(1885829481, 12)")  # what an earlier version waited for
        writer.execute("LOCK TABLE pgwitness.covered IN SHARE MODE")
        for now, waiting in ((0.0, 0), (10.0, 0), (HELD_S, 1)):
            assert not job.step(collector, now)
            assert (job.changed, job.waiting) == (0, waiting)
        writer.rollback()
        while job.step(collector, 2 * HELD_S):
            pass
    assert job.changed > 0
    assert job.waiting == 0
    assert admin.execute(
        "SELECT FROM pg_publication_tables WHERE tablename = 'orders' AND pubname = 'pgwitness'"
    ).rowcount


@pytest.mark.parametrize(
    ("globs", "name", "chosen"),
    [
        (["*"], "public.orders", True),
        (["orders"], "public.orders", True),
        (["app.*"], "public.orders", False),
        (["*", "!orders"], "public.orders", False),
        (["*", "!public.ord*"], "public.notes", True),
        ([], "public.orders", False),
    ],
)
def test_globs(globs: list[str], name: str, chosen: bool) -> None:
    """A glob without a dot is of any schema; one behind an exclamation mark leaves out."""
    assert wants(globs, [name]) is chosen
