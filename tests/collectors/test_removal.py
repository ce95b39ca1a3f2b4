"""After `db uninstall` everything is as `install` found it, and no transaction that was open has been tripped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from collectors.installation import install
from collectors.installation.steps import Options
from pgwitness.demo.servers import Postgres
from tests.conftest import fresh_database

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA = """
CREATE ROLE app LOGIN;
CREATE TABLE orders (id int PRIMARY KEY, note text);
CREATE TABLE notes (note text);
CREATE TABLE days (day int PRIMARY KEY) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (100);
CREATE TABLE theirs (id int PRIMARY KEY);
CREATE PUBLICATION theirs FOR TABLE theirs;
GRANT CREATE ON SCHEMA public TO app;
"""

CATALOGUES = {
    "roles": "SELECT rolname, rolsuper, rolreplication, rolcanlogin FROM pg_roles ORDER BY 1",
    "members": "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members ORDER BY 1, 2",
    "settings": "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
    "parameters": "SELECT parname, paracl::text FROM pg_parameter_acl ORDER BY 1",
    "publications": "SELECT pubname FROM pg_publication ORDER BY 1",
    "listed": "SELECT prrelid::regclass::text FROM pg_publication_rel ORDER BY 1",
    "slots": "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()",
    "extensions": "SELECT extname FROM pg_extension ORDER BY 1",
    "members of extensions": "SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND objid >= 16384"
    " AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'plpgsql')",
    "event triggers": "SELECT evtname FROM pg_event_trigger ORDER BY 1",
    "triggers": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "identities": "SELECT relname, relreplident FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
    "rights": "SELECT coalesce(proacl, acldefault('f', proowner))::text FROM pg_proc WHERE oid = 3578",
    "comments": "SELECT description FROM pg_shdescription WHERE description ~ 'pgwitness'",
}


class Place:
    """A database of a server, and what stands in it."""

    def __init__(self, server: Postgres, dsn: str) -> None:
        self.server = server
        self.dsn = dsn
        self.admin: Connection = psycopg.connect(dsn, autocommit=True)
        self.admin.execute(SCHEMA.encode())

    def everything(self) -> dict[str, Any]:
        """Give all that an installation could have changed."""
        found: dict[str, Any] = {name: self.admin.execute(sql.encode()).fetchall() for name, sql in CATALOGUES.items()}
        dump = [str(self.server.psql_bin / "pg_dump"), "--schema-only", self.dsn]
        text = subprocess.run(dump, capture_output=True, text=True, check=True, timeout=60).stdout
        found["dump"] = [
            line for line in text.splitlines() if not line.startswith("\\")
        ]  # has a word of chance since 17
        return found


@pytest.fixture
def place(postgres: Postgres) -> Iterator[Place]:
    """A small shop without pgwitness on each PostgreSQL in turn."""
    with fresh_database(postgres) as dsn:
        made = Place(postgres, dsn)
        try:
            yield made
        finally:
            made.admin.close()


@pytest.mark.parametrize("role", [None, "LOGIN", "LOGIN REPLICATION IN ROLE pg_monitor"])
def test_nothing_is_left_and_nothing_is_missing(place: Place, role: str | None) -> None:
    """Dump, roles, rights, publications, extensions, identities: as before, whoever made the collectors' role."""
    if role is not None:
        place.admin.execute(f"CREATE ROLE pgwitness {role}".encode())
    before = place.everything()
    assert install.install(place.admin).complete
    place.admin.execute("ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    lent = place.admin.execute("SELECT relreplident FROM pg_class WHERE relname = 'orders'").fetchone()
    assert lent == ("f",)
    place.admin.execute("CREATE TABLE quick (id int PRIMARY KEY); ALTER TABLE quick SET UNLOGGED")
    place.admin.execute("SELECT pg_create_logical_replication_slot('pgwitness_left', 'pgoutput')")
    report = install.uninstall(place.admin)
    assert report.complete, report.left
    place.admin.execute("INSERT INTO quick VALUES (1); DROP TABLE quick; ALTER TABLE orders ADD PRIMARY KEY (id)")
    assert place.everything() == before


def test_an_open_transaction_is_not_tripped(place: Place) -> None:
    """A table made in an open transaction has our trigger already: the removal waits for it, or is left for later."""
    assert install.install(place.admin).complete
    with psycopg.connect(place.dsn, user="app") as app:
        app.execute("CREATE TABLE fresh (id int PRIMARY KEY)")
        report = install.uninstall(place.admin, Options(wait_ms=100))
        assert [failure.what for failure in report.left] == ["open transactions"]
        assert f"{app.info.backend_pid} (app" in report.left[0].why
        app.execute("INSERT INTO fresh VALUES (1)")
        app.commit()
        app.execute("INSERT INTO fresh VALUES (2)")
        app.commit()
    assert install.uninstall(place.admin).complete
    place.admin.execute("INSERT INTO fresh VALUES (3)")
    assert place.admin.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)


def test_a_busy_table_keeps_the_function(place: Place) -> None:
    """While a trigger stands on a table whose lock is not to be had, its function stays, and writes go on."""
    assert install.install(place.admin).complete
    with psycopg.connect(place.dsn) as writer:
        writer.execute("SELECT * FROM orders")  # reads hold no id, but the table's lock against DROP TRIGGER
        report = install.uninstall(place.admin, Options(lock_timeout_ms=50, attempts=1))
        assert [failure.what for failure in report.left] == ["table public.orders"]
        place.admin.execute("INSERT INTO orders VALUES (1)")
    assert install.uninstall(place.admin).complete
    place.admin.execute("INSERT INTO orders VALUES (2)")
