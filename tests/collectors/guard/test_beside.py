"""The guard beside what else is in a database: the beacon, dumps, replication's role, installers without powers."""

from __future__ import annotations

import psycopg

from collectors.installation import install as beacon
from pgwitness.demo.servers import Postgres
from tests.collectors.guard.conftest import COLUMNS_STAY, FEW_ROWS, Guarded, guard
from tests.conftest import fresh_database

TRIGGERS = "SELECT array_agg(tgname::text ORDER BY 1) FROM pg_trigger WHERE tgrelid = %s::regclass AND tgenabled = 'A'"


def test_ddl_of_the_beacon_is_nobodys_doing(guarded: Guarded) -> None:
    """An agent that may make tables and not alter them makes one: what event triggers alter in it is not judged."""
    with psycopg.connect(guarded.dsn) as connection:
        assert beacon.install(connection).complete
    assert not guarded.install(guard(COLUMNS_STAY, FEW_ROWS)).left
    guarded.passes("SET ROLE owners; CREATE TABLE mine (id int PRIMARY KEY); CREATE TABLE more AS TABLE mine")
    for table in ("mine", "more"):
        assert guarded.admin.execute(TRIGGERS, [table]).fetchone() == (
            ["pgwitness_beacon", "pgwitness_guard_delete", "pgwitness_guard_update"],
        )
    guarded.refused("ALTER TABLE mine ADD v int")
    guarded.passes("ALTER TABLE mine ADD v int; ALTER TABLE mine DROP CONSTRAINT mine_pkey", "ada")
    guarded.refused("ALTER TABLE mine ADD w int")
    assert guarded.status(guard(COLUMNS_STAY, FEW_ROWS))[0].state == "ok"
    with psycopg.connect(guarded.dsn) as connection:
        assert beacon.uninstall(connection).complete


def test_a_restored_dump_is_guarded_when_it_is_installed_there(guarded18: Guarded, postgres18: Postgres) -> None:
    """A dump holds no key and no count; where it is restored nothing is refused, and an installation completes it."""
    assert not guarded18.install(guard(FEW_ROWS)).left
    dump = postgres18.program("pg_dump", "--no-owner", guarded18.dsn)
    assert "CREATE TABLE pgwitness_guard" not in dump
    assert "CREATE UNLOGGED TABLE pgwitness_guard" not in dump
    with fresh_database(postgres18) as copy, psycopg.connect(copy, autocommit=True) as admin:
        for statement in _statements(dump):
            admin.execute(statement.encode())
        restored = Guarded(copy, admin)
        admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO bot")
        restored.passes("DELETE FROM items")
        assert "its tables are not there" in str(restored.status(guard(FEW_ROWS))[0].problem)
        assert not restored.install(guard(FEW_ROWS)).left
        admin.execute("INSERT INTO public.orders SELECT generate_series(1, 20)")
        restored.refused("DELETE FROM orders")
        assert not restored.uninstall(guard(FEW_ROWS)).left


def _statements(dump: str) -> list[str]:
    """Take from a dump what is no data; a row of COPY is no statement."""
    lines, copying = [], False
    for line in dump.split("\n"):
        copying = (copying or (line.startswith("COPY ") and line.endswith("FROM stdin;"))) and line != "\\."
        if not copying and not line.startswith(("\\", "--")):
            lines.append(line)
    return ["\n".join(lines)]
