"""Installing without a superuser, as on managed services: what works, what is said to be unseen, and how to lift it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from psycopg import sql

from collectors.beacon import mac
from collectors.installation import capabilities, install
from collectors.installation.install import Report
from tests.collectors.beacon_wal import Connection, Source, opened

pytestmark = pytest.mark.every_postgres

TABLES = ("orders", "notes", "days", "days_1")


@pytest.fixture
def bare(database: str) -> Iterator[Source]:
    """A small shop without a beacon on each PostgreSQL in turn; `boss` owns its tables and may create roles."""
    with opened(database, beacon=False) as source:
        source.admin.execute("CREATE ROLE boss LOGIN CREATEROLE; CREATE ROLE other LOGIN")
        allow_create(source)
        for table in TABLES:
            source.admin.execute(sql.SQL("ALTER TABLE {} OWNER TO boss").format(sql.Identifier(table)))
        yield source


def allow_create(source: Source) -> None:
    """Let the boss make schemas and publications."""
    source.admin.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO boss").format(sql.Identifier(source.database)))


def subjects(report: Report) -> list[str]:
    """Name what an installation lacks."""
    return [limit.subject for limit in report.limits]


def run(connection: Connection, fix: str) -> None:
    """Run a fix as it stands, statement by statement, without what is to be done after it."""
    connection.execute(fix.removeprefix("as a superuser: ").partition("; then ")[0].partition(", then ")[0].encode())


def test_an_owner_who_may_create_roles_installs_what_it_may(bare: Source) -> None:
    """Everything that may be denied is left out, nothing is left to do, and a second run does nothing."""
    boss = bare.client("boss")
    report = install.install(boss)
    assert report.complete, report.left
    # Until 15, who may create roles may give them any of the predefined ones.
    denied = ["sight of sessions"], ["role pgwitness"]
    if bare.admin.info.server_version < 160_000:
        denied = [], []
    assert subjects(report) == [
        "guard",
        *denied[0],
        "event triggers",
        "role pgwitness",
        *denied[1],
        "keys that go",
        "dumps",
    ]
    assert not report.guarded
    again = install.install(boss)
    assert (again.done, again.left, again.limits) == ((), (), report.limits)
    app = bare.client()
    with app.transaction():
        app.execute("INSERT INTO orders VALUES (1)")
        app.execute("INSERT INTO notes VALUES ('a')")
    assert [beacon.session_user for beacon in bare.beacons()] == ["app", "app"]


def test_each_limit_is_lifted_by_its_fix(bare: Source) -> None:
    """What a more powerful role is told to run lifts the level to the full one, step by step."""
    boss = bare.client("boss")
    report = install.install(boss)
    while report.limits:
        before = subjects(report)
        if before[0] == "keys that go":  # what acts on another one's table is made by a superuser's installation
            assert install.install(bare.admin).complete
        else:
            run(bare.admin, report.limits[0].fix)
        report = install.install(boss)
        assert report.complete, report.left
        assert subjects(report) == ([] if before[0] == "keys that go" else before[1:])
    assert report.guarded
    app = bare.client()
    with app.transaction():
        app.execute("INSERT INTO orders VALUES (1)")
        app.execute("INSERT INTO orders VALUES (2)")
    app.execute("CREATE TABLE fresh (id int PRIMARY KEY)")
    (beacon,) = bare.beacons()
    assert beacon.backend_start_us > 0
    assert "CREATE TABLE" in [command.tag for command in bare.ddl() if command.session_user == "app"]
    status = install.status(bare.client("pgwitness"))
    assert (status.working, status.ddl, status.limits) == (True, "yes", ())
    assert "public.fresh" in {table.table for table in status.tables if table.beacon == "installed"}


def test_the_printed_file_leaves_out_what_is_denied(bare: Source) -> None:
    """The migration file of who is no superuser runs to its end, and leaves nothing for an installation to do."""
    boss = bare.client("boss")
    boss.execute(install.printed(boss).encode())
    report = install.install(boss)
    assert (report.done, report.left) == ((), ())
    assert "guard" in subjects(report)


def test_who_may_not_create_roles_is_told_what_to_ask_for(bare: Source) -> None:
    """Without CREATEROLE nothing is done, and the fix, run by a superuser, lets the installation go on."""
    bare.admin.execute("ALTER ROLE boss NOCREATEROLE")
    boss = bare.client("boss")
    report = install.install(boss)
    (failure,) = report.left
    assert (report.done, failure.what) == ((), "roles")
    run(bare.admin, failure.fix)
    report = install.install(boss)
    assert report.complete, report.left
    assert subjects(report) == ["guard", "event triggers", "keys that go", "dumps"]


def test_without_the_right_to_create_the_rest_waits(bare: Source) -> None:
    """Who may make no schema in the database is told the grant, and goes on from there."""
    bare.admin.execute(sql.SQL("REVOKE CREATE ON DATABASE {} FROM boss").format(sql.Identifier(bare.database)))
    boss = bare.client("boss")
    (failure,) = install.install(boss).left
    assert (failure.what, failure.fix[:24]) == ("schema", "GRANT CREATE ON DATABASE")
    run(bare.admin, failure.fix)
    assert install.install(boss).complete


def test_a_table_of_somebody_else_is_left_with_the_grant(bare: Source) -> None:
    """Tables of another role are reported one by one, the others are covered; the grant lets the next run do them."""
    bare.admin.execute("ALTER TABLE notes OWNER TO other")
    boss = bare.client("boss")
    (failure,) = install.install(boss).left
    assert failure.what == "table public.notes"
    assert failure.fix.startswith("GRANT other TO boss, ")
    table = {table.table: table for table in install.status(boss).tables}["public.notes"]
    assert table.beacon == "absent"
    assert "as other, who owns it" in (table.fix or "")
    run(bare.admin, failure.fix)
    assert install.install(boss).complete
    bare.client().execute("INSERT INTO notes VALUES ('a')")
    assert len(bare.beacons()) == 1


def test_the_level_survives_an_installation_by_the_owner(bare: Source) -> None:
    """What a superuser installed stays as it is when the owner installs again."""
    assert install.install(bare.admin).limits == ()
    bare.admin.execute("GRANT pgwitness_owner TO boss")
    report = install.install(bare.client("boss"))
    assert (report.done, report.left, report.limits) == ((), (), ())


def test_the_owner_can_remove_it_again(bare: Source) -> None:
    """Who installed without a superuser removes everything, roles too, and writes go on."""
    boss = bare.client("boss")
    assert install.install(boss).complete
    report = install.uninstall(boss)
    assert report.complete, report.left
    bare.client().execute("INSERT INTO orders VALUES (1)")
    assert [message for message in bare.messages() if message.prefix == mac.PREFIX] == []
    left = bare.admin.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^pgwitness'").fetchall()
    assert left == []


def test_the_doctor_spells_the_level_out(bare: Source) -> None:
    """The collectors' own role sees each limit with its fix; what that role itself lacks is an error."""
    assert install.install(bare.client("boss")).complete
    found = capabilities.doctor(bare.client("pgwitness"), lambda: time.time_ns() // 1000).findings
    told = {(finding.severity, finding.subject): finding.fix for finding in found}
    guard = "GRANT SET ON PARAMETER backtrace_functions TO pgwitness_owner"
    assert told["warning", "guard"].startswith(guard)
    assert "CREATE EVENT TRIGGER pgwitness_ddl" in told["warning", "event triggers"]
    assert {'ALTER ROLE "pgwitness" REPLICATION', 'GRANT pg_monitor TO "pgwitness"'} & {
        finding.fix for finding in found if finding.severity == "error"
    }


def test_amazons_role_for_reading_the_wal_is_used(bare: Source) -> None:
    """Where there is rds_replication, reading the WAL is granted through it."""
    bare.admin.execute("CREATE ROLE rds_replication")
    boss = bare.client("boss")
    denied = [limit for limit in install.install(boss).limits if "WAL" in limit.lost and limit.collector]
    # Until 15, who may create roles may grant it.
    assert [limit.fix for limit in denied] == ["GRANT rds_replication TO pgwitness"] * (
        bare.admin.info.server_version >= 160_000
    )
    for limit in denied:
        run(bare.admin, limit.fix)
    granted = bare.admin.execute("SELECT pg_has_role('pgwitness', 'rds_replication', 'USAGE')").fetchone()
    assert granted == (True,)
    assert not {limit.lost for limit in denied} & {limit.lost for limit in install.install(boss).limits}
