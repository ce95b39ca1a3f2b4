"""Installing, pausing and removing what a source database needs, on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from collectors.beacon import mac
from collectors.installation import catalogue, install, planning
from collectors.installation import source as beacon_source
from collectors.installation.steps import Options
from pgwitness.core.errors import NotInOrder
from tests.collectors.beacon_wal import Source, opened

pytestmark = pytest.mark.every_postgres


@pytest.fixture
def bare(database: str) -> Iterator[Source]:
    """A small shop without pgwitness."""
    with opened(database, beacon=False) as source:
        yield source


def test_second_run_does_nothing(bare: Source) -> None:
    """Installing is idempotent: the second run finds everything and runs no statement."""
    first = install.install(bare.admin)
    assert first.complete
    assert first.done
    second = install.install(bare.admin)
    assert second.complete
    assert second.done == ()


def test_printed_file_equals_an_installation(bare: Source) -> None:
    """The migration file of --print, run as it is, leaves nothing for an installation to do."""
    text = install.printed(bare.admin)
    assert bare.admin.execute("SELECT to_regclass('pgwitness.key')").fetchone() == (None,)
    bare.admin.execute(text.encode())
    assert install.install(bare.admin).done == ()
    bare.client().execute("INSERT INTO orders VALUES (1)")
    assert len(bare.beacons()) == 1


def test_key_stays_in_the_database(bare: Source) -> None:
    """No statement of the plan carries the key, and two databases have different ones."""
    assert install.install(bare.admin).complete
    key = beacon_source.load_key(bare.admin)
    assert key is not None
    assert key.hex() not in install.printed(bare.admin)
    bare.release()
    bare.admin.execute("DROP SCHEMA pgwitness CASCADE")
    assert install.install(bare.admin).complete
    assert beacon_source.load_key(bare.admin) != key


def test_chosen_tables_only(bare: Source) -> None:
    """--tables chooses by glob; the others stay as they were, and a later run adds to them."""
    assert install.install(bare.admin, Options(tables=("public.ord*",))).complete
    assert beacon_source.covered_tables(bare.admin) == {"public.orders"}
    assert install.install(bare.admin, Options(tables=("days",))).complete
    assert beacon_source.covered_tables(bare.admin) == {"public.orders", "public.days", "public.days_1"}


def test_collectors_role_has_least_privilege(bare: Source) -> None:
    """The role pgwitness reads the key, the registry and everybody's sessions, and no row of the application."""
    assert install.install(bare.admin).complete
    collector = bare.client("pgwitness")
    assert beacon_source.load_key(collector) == beacon_source.load_key(bare.admin)
    assert "public.orders" in beacon_source.covered_tables(collector)
    assert install.status(collector).working
    for statement in (
        "SELECT * FROM orders",
        "UPDATE pgwitness.key SET number = 2",
        "SELECT pgwitness.fresh_key(2)",
        "DELETE FROM pgwitness.covered",
        "SET backtrace_functions = 'none'",
        "CREATE TABLE public.mine ()",
        "SELECT pgwitness.control('pause')",
    ):
        with pytest.raises(pg.InsufficientPrivilege):
            collector.execute(statement)


def test_table_without_replica_identity_keeps_working(bare: Source) -> None:
    """A table without a key is published for inserts and truncates only, reported, and its updates still run."""
    report = install.install(bare.admin)
    assert any("public.notes has no usable replica identity" in note for note in report.notes)
    app = bare.client()
    app.execute("INSERT INTO notes VALUES ('a')")
    app.execute("UPDATE notes SET note = 'b'")
    app.execute("DELETE FROM notes")
    assert len(bare.beacons()) == 3
    bare.admin.execute("ALTER TABLE notes ADD COLUMN id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
    assert install.install(bare.admin).complete
    published = bare.admin.execute("SELECT pubname FROM pg_publication_tables WHERE tablename = 'notes'").fetchall()
    assert set(published) == {("pgwitness",), ("pgwitness_inserts",)}


@pytest.mark.parametrize(
    "identity",
    [
        "ALTER TABLE orders REPLICA IDENTITY NOTHING",
        "ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id) DEFERRABLE",
    ],
)
def test_unusable_identities_are_recognised(bare: Source, identity: str) -> None:
    """REPLICA IDENTITY NOTHING and a deferrable key would make updates fail: they are published without them."""
    bare.admin.execute(identity.encode())
    assert install.install(bare.admin).complete
    app = bare.client()
    app.execute("INSERT INTO orders VALUES (1)")
    app.execute("UPDATE orders SET note = 'x'")
    assert bare.count("orders") == 1


def test_busy_table_is_reported_and_resumed(bare: Source) -> None:
    """Behind an open writer an installation waits no longer than the lock timeout, does the rest, and resumes."""
    writer = bare.client()
    patient = Options(lock_timeout_ms=100, attempts=2)
    with writer.transaction():
        writer.execute("INSERT INTO orders VALUES (1)")
        report = install.install(bare.admin, patient)
        assert [failure.what for failure in report.left] == ["table public.orders"]
        assert f"pid {writer.info.backend_pid} (app)" in report.left[0].why
        assert beacon_source.covered_tables(bare.admin) == {"public.notes", "public.days", "public.days_1"}
        bare.client().execute("INSERT INTO orders VALUES (2)")
    again = install.install(bare.admin, patient)
    assert again.complete
    assert {statement.table for statement in again.done} == {"public.orders", None}
    assert "public.orders" in beacon_source.covered_tables(bare.admin)


def test_pause_is_evidence(bare: Source) -> None:
    """Pausing silences every beacon at once, is told in the WAL with a MAC, and nothing is missed meanwhile."""
    assert install.install(bare.admin).complete
    app = bare.client()
    assert install.pause(bare.admin).complete
    app.execute("INSERT INTO orders VALUES (1)")
    assert bare.beacons() == []
    assert beacon_source.covered_tables(bare.admin) == set()
    assert install.status(bare.admin).paused
    assert install.pause(bare.admin, paused=False).complete
    app.execute("INSERT INTO orders VALUES (2)")
    assert len(bare.beacons()) == 1
    key = beacon_source.load_key(bare.admin)
    assert key is not None
    told = [
        mac.verify_control(m.content, key, system_id=bare.system_id, database=bare.database, xid32=m.xid)
        for m in bare.messages()
        if m.prefix == mac.CONTROL_PREFIX
    ]
    said = [(control.operation, control.session_user) for control in told]
    assert [control for control in said if control[0] != "publications"] == [
        ("install", "postgres"),
        ("pause", "postgres"),
        ("resume", "postgres"),
    ]


def test_pause_without_a_beacon_says_so(bare: Source) -> None:
    """Pausing what is not installed is an error with the command that installs it."""
    with pytest.raises(NotInOrder, match="pgwitness db install"):
        install.pause(bare.admin)


def test_uninstall_leaves_nothing(bare: Source) -> None:
    """Removal takes triggers, publications, our idle slots, the schema and both roles; writes go on."""
    assert install.install(bare.admin).complete
    bare.admin.execute("SELECT pg_create_logical_replication_slot('pgwitness_left', 'pgoutput')")
    app = bare.client()
    app.execute("INSERT INTO orders VALUES (1)")
    report = install.uninstall(bare.admin)
    assert report.complete, report.left
    app.execute("INSERT INTO orders VALUES (2)")
    state = catalogue.read(bare.admin, "pgwitness")
    assert not state.schema
    assert not state.owner_exists
    assert state.collector is None
    assert state.publications == {}
    assert state.slots == ()
    assert all(table.trigger is None for table in state.tables)
    assert install.uninstall(bare.admin).done == ()


def test_uninstall_of_one_table_keeps_the_others(bare: Source) -> None:
    """Removal from one table leaves the beacon on the others."""
    assert install.install(bare.admin).complete
    assert install.uninstall(bare.admin, Options(tables=("public.orders",))).complete
    assert beacon_source.covered_tables(bare.admin) == {"public.notes", "public.days", "public.days_1"}
    app = bare.client()
    app.execute("INSERT INTO orders VALUES (1)")
    app.execute("INSERT INTO notes VALUES ('a')")
    assert len(bare.beacons()) == 1


def test_roles_stay_while_another_database_needs_them(bare: Source) -> None:
    """Removal from one database leaves the beacon of another in the same cluster working."""
    other = sql.Identifier(bare.database + "_b")
    bare.admin.execute(sql.SQL("CREATE DATABASE {}").format(other))
    try:
        with psycopg.connect(bare.dsn, dbname=bare.database + "_b", autocommit=True) as second:
            assert install.install(second).complete
            assert install.install(bare.admin).complete
            assert install.uninstall(second).complete
        assert install.status(bare.admin).working
        bare.client().execute("INSERT INTO orders VALUES (1)")
        assert len(bare.beacons()) == 1
    finally:
        bare.admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(other))


def test_owner_without_superuser_can_install(bare: Source) -> None:
    """Who owns the tables and may create roles can install: without the guard, a beacon with each statement."""
    bare.admin.execute("CREATE ROLE pgwitness LOGIN REPLICATION IN ROLE pg_monitor")
    bare.admin.execute("CREATE ROLE boss LOGIN CREATEROLE IN ROLE pg_monitor")
    bare.admin.execute("GRANT pg_read_all_stats TO boss WITH ADMIN OPTION")
    bare.admin.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO boss").format(sql.Identifier(bare.database)))
    for table in ("orders", "notes", "days", "days_1"):
        bare.admin.execute(sql.SQL("ALTER TABLE {} OWNER TO boss").format(sql.Identifier(table)))
    report = install.install(bare.client("boss"))
    assert report.complete, report.left
    assert not report.guarded
    app = bare.client()
    with app.transaction():
        app.execute("INSERT INTO orders VALUES (1)")
        app.execute("INSERT INTO notes VALUES ('a')")
    assert [beacon.session_user for beacon in bare.beacons()] == ["app", "app"]


def test_quoted_names(bare: Source) -> None:
    """Schemas and tables whose names need quotes are installed, registered and spoken for."""
    bare.admin.execute("""CREATE SCHEMA "My ""Shop"; CREATE TABLE "My ""Shop"."Ärger 'x" (id int PRIMARY KEY)""")
    assert install.install(bare.admin).complete
    bare.admin.execute("""INSERT INTO "My ""Shop"."Ärger 'x" VALUES (1)""")
    assert len(bare.beacons()) == 1
    assert """"My ""Shop"."Ärger 'x\"""" in beacon_source.covered_tables(bare.admin)


def test_two_phase_commit_carries_the_beacon(bare: Source) -> None:
    """A prepared transaction brings its beacon along when somebody else commits it."""
    assert install.install(bare.admin).complete
    app = bare.client()
    app.execute("BEGIN")
    app.execute("INSERT INTO orders VALUES (1)")
    app.execute("PREPARE TRANSACTION 'later'")
    assert bare.beacons() == []
    app.execute("INSERT INTO orders VALUES (2)")
    bare.admin.execute("COMMIT PREPARED 'later'")
    assert [beacon.session_user for beacon in bare.beacons()] == ["app", "app"]


def test_earlier_form_of_the_trigger_is_replaced(bare: Source) -> None:
    """A trigger with a WHEN clause, as earlier installations made it, still speaks, is shown and replaced."""
    assert install.install(bare.admin).complete
    bare.admin.execute(
        "CREATE OR REPLACE TRIGGER pgwitness_beacon AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON orders FOR EACH"
        " STATEMENT WHEN (pg_current_xact_id_if_assigned() IS NOT NULL) EXECUTE FUNCTION pgwitness.beacon()"
    )
    bare.admin.execute("ALTER TABLE orders ENABLE ALWAYS TRIGGER pgwitness_beacon")
    bare.client().execute("INSERT INTO orders VALUES (1)")
    assert len(bare.beacons()) == 1
    assert {t.table: t.beacon for t in install.status(bare.admin).tables}["public.orders"] == "outdated"
    assert {statement.table for statement in install.install(bare.admin).done} == {"public.orders", None}
    assert {t.table: t.beacon for t in install.status(bare.admin).tables}["public.orders"] == "installed"
    bare.client().execute("INSERT INTO orders VALUES (2)")
    assert len(bare.beacons()) == 2


def test_plan_of_a_finished_installation_is_empty(bare: Source) -> None:
    """The plan is a function of the state: after an installation it is empty, and rendering it commits nothing."""
    assert install.install(bare.admin).complete
    state = catalogue.read(bare.admin, "pgwitness")
    assert planning.install(state, Options()) == []
    assert "BEGIN" not in planning.render([], Options())
