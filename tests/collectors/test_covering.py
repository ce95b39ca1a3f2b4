"""What our publications and event triggers do to an application: nothing that it could notice, on 15 and 18."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from collectors.installation import install, source
from collectors.installation.steps import Options
from pgwitness.demo.servers import Postgres
from tests.collectors.changes import Changes, Connection
from tests.conftest import POSTGRES, fresh_database

ONCE, EACH, PARTITION, TAKEN = ("", "A"), ("each", "A"), ("partition", "A"), ("taken", "A")
TREE, MIXED = ("tree", "A"), ("mixed", "A")
"""The forms of the beacon's trigger."""
BEFORE = """
CREATE ROLE app LOGIN;
GRANT CREATE ON SCHEMA public TO app;
CREATE TABLE mon (id int, at date, v int) PARTITION BY RANGE (at); ALTER TABLE mon REPLICA IDENTITY FULL;
CREATE TABLE mon_1 PARTITION OF mon FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
ALTER TABLE mon_1 REPLICA IDENTITY FULL;
CREATE TABLE pk (id int PRIMARY KEY, v int); INSERT INTO pk VALUES (1, 1);
CREATE TABLE ul (id int PRIMARY KEY);
CREATE TABLE inh_p (id int PRIMARY KEY, v text); CREATE TABLE inh_c (extra text, PRIMARY KEY (id)) INHERITS (inh_p);
CREATE TABLE det (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE det_1 PARTITION OF det FOR VALUES FROM (0) TO (100);
CREATE TABLE keyless (id int);
CREATE TABLE gfull (id int, v int, w int GENERATED ALWAYS AS (v * 2) STORED);
ALTER TABLE gfull REPLICA IDENTITY FULL; INSERT INTO gfull VALUES (1, 1);
CREATE TABLE gpk (v int, w int GENERATED ALWAYS AS (v * 2) STORED PRIMARY KEY); INSERT INTO gpk VALUES (1);
ALTER TABLE mon OWNER TO app; ALTER TABLE pk OWNER TO app; ALTER TABLE ul OWNER TO app; ALTER TABLE det OWNER TO app;
ALTER TABLE mon_1 OWNER TO app; ALTER TABLE det_1 OWNER TO app;
"""
VIRTUAL = """
CREATE TABLE gvirt (id int, v int, w int GENERATED ALWAYS AS (v * 2) VIRTUAL);
ALTER TABLE gvirt REPLICA IDENTITY FULL; INSERT INTO gvirt VALUES (1, 1);
"""


class Shop:
    """A database with everything installed, an application and what is published of it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.admin: Connection = psycopg.connect(dsn, autocommit=True)
        self.admin.execute(BEFORE.encode())
        self.version = self.admin.info.server_version
        if self.version >= 180_000:
            self.admin.execute(VIRTUAL)
        report = install.install(self.admin)
        assert report.complete, report.left
        self.app: Connection = psycopg.connect(dsn, user="app", autocommit=True)
        self.changes = Changes(self.admin)

    def job(self) -> list[tuple[str, int, str | None]]:
        """Let the job run until nothing is left to do, as the collectors' role."""
        done = []
        with psycopg.connect(self.dsn, user="pgwitness", autocommit=True) as collector:
            while found := collector.execute(
                "SELECT name, what, problem FROM pgwitness.publish(NULL, '{}')"
            ).fetchone():
                done.append(found)
                assert len(done) < 100, done
        return done

    def identity(self, table: str) -> tuple[str, str | None]:
        """Give a table's replica identity and what it had before one was lent to it."""
        row = self.admin.execute(
            "SELECT c.relreplident, right(obj_description(t.oid, 'pg_trigger'), 1) FROM pg_class AS c"
            " LEFT JOIN pg_trigger AS t ON t.tgrelid = c.oid AND t.tgname = 'pgwitness_beacon'"
            " WHERE c.oid = %s::regclass",
            [table],
        ).fetchone()
        assert row is not None
        return row

    def listed(self) -> set[str]:
        """Give the tables in the update publication."""
        rows = self.admin.execute(
            "SELECT r.prrelid::regclass::text FROM pg_publication_rel AS r"
            " JOIN pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = 'pgwitness'"
        ).fetchall()
        return {name for (name,) in rows}

    def form(self, table: str) -> tuple[str, str] | None:
        """Give the argument of a table's trigger, empty without one, and its tgenabled."""
        return self.admin.execute(
            "SELECT split_part(encode(tgargs, 'escape'), E'\\\\000', 1), tgenabled FROM pg_trigger"
            " WHERE tgname = 'pgwitness_beacon' AND tgrelid = %s::regclass",
            [table],
        ).fetchone()


@pytest.fixture(scope="module", params=POSTGRES)
def server(request: pytest.FixtureRequest) -> Postgres:
    """Each PostgreSQL in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Postgres)
    return found


@pytest.fixture(scope="module")
def shop(server: Postgres) -> Iterator[Shop]:
    """One database for all tests of this module: each has tables of its own."""
    with fresh_database(server) as dsn:
        made = Shop(dsn)
        try:
            yield made
        finally:
            made.changes.close()
            made.app.close()
            made.admin.close()


def test_nothing_fails_after_an_installation(shop: Shop) -> None:
    """Updates and deletes go on whatever the identity, and are published where they can be."""
    shop.changes.read()
    shop.admin.execute("UPDATE gfull SET v = 2")
    shop.admin.execute("DELETE FROM gpk")
    shop.admin.execute("INSERT INTO keyless VALUES (1); UPDATE keyless SET id = 2; DELETE FROM keyless")
    if shop.version >= 180_000:
        shop.admin.execute("UPDATE gvirt SET v = 2")
    assert shop.changes.read() == {("U", "public.gfull"): 1, ("D", "public.gpk"): 1, ("I", "public.keyless"): 1}
    assert install.install(shop.admin).done == ()


def test_inheritance_children_are_published_by_themselves(shop: Shop) -> None:
    """A parent is listed without its children, whatever the order of their names; an update of both is read."""
    shop.changes.read()
    assert {"inh_p", "inh_c"} <= shop.listed()
    shop.admin.execute("INSERT INTO inh_p VALUES (1, 'p'); INSERT INTO inh_c VALUES (2, 'c', 'e')")
    shop.admin.execute("UPDATE inh_p SET v = 'z'")
    assert shop.changes.read() == {
        ("I", "public.inh_p"): 1,
        ("I", "public.inh_c"): 1,
        ("U", "public.inh_p"): 1,
        ("U", "public.inh_c"): 1,
    }


def test_a_partition_without_a_key_breaks_nothing(shop: Shop) -> None:
    """Next month's partition has no identity of its own: updates go on, and those of the others are still read."""
    shop.changes.read()
    shop.app.execute("CREATE TABLE mon_2 PARTITION OF mon FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
    shop.app.execute("INSERT INTO mon VALUES (1, '2026-01-05', 1), (2, '2026-02-05', 1)")
    shop.app.execute("UPDATE mon SET v = 2")
    shop.job()
    shop.app.execute("UPDATE mon SET v = 3")
    assert shop.changes.read() == {("I", "public.mon"): 2, ("U", "public.mon"): 2}
    assert shop.identity("mon_2") == ("d", None)
    assert (shop.form("mon_2"), shop.form("mon_1"), shop.form("mon")) == (EACH, PARTITION, TREE)
    shop.app.execute("ALTER TABLE mon_2 REPLICA IDENTITY FULL")
    shop.job()
    shop.app.execute("UPDATE mon SET v = 4")
    assert shop.changes.read() == {("U", "public.mon"): 2}
    assert (shop.form("mon_2"), shop.form("mon")) == (PARTITION, TREE)


def test_a_migration_swaps_the_primary_key(shop: Shop) -> None:
    """Between DROP and ADD the identity is lent: updates go on and are read; then the table has what it had."""
    shop.changes.read()
    with shop.app.transaction():
        shop.app.execute("ALTER TABLE pk DROP CONSTRAINT pk_pkey")
        assert shop.app.execute("SELECT relreplident FROM pg_class WHERE relname = 'pk'").fetchone() == ("f",)
        shop.app.execute("UPDATE pk SET id = id + 10")
        shop.app.execute("ALTER TABLE pk ADD PRIMARY KEY (id)")
    assert shop.identity("pk") == ("d", None)
    shop.app.execute("UPDATE pk SET v = v + 1")
    assert shop.changes.read() == {("U", "public.pk"): 2}
    assert "pk" in shop.listed()
    assert shop.job() == []


@pytest.mark.parametrize(
    "lost",
    [
        "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey",
        "ALTER TABLE {t} DROP COLUMN id",
        "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey, ADD PRIMARY KEY (id) DEFERRABLE",
        "DROP INDEX {t}_u",
        "ALTER TABLE {t} DROP COLUMN id CASCADE",
        "DO $$ BEGIN EXECUTE 'ALTER TABLE {t} DROP CONSTRAINT {t}_pkey'; END $$",
        "DROP TYPE {t}_key CASCADE",
        "SET session_replication_role = replica; ALTER TABLE {t} DROP CONSTRAINT {t}_pkey;"
        " RESET session_replication_role",
    ],
)
def test_a_lost_identity_is_lent(shop: Shop, lost: str, request: pytest.FixtureRequest) -> None:
    """Whatever takes the identity away, the table stays writable, its updates are read, and uninstalling returns it."""
    t = f"lost_{abs(hash(request.node.name)) % 10**8}"
    shop.admin.execute(f"CREATE DOMAIN {t}_key AS int; CREATE TABLE {t} (id {t}_key PRIMARY KEY, v int)".encode())
    if "DROP INDEX" in lost:
        shop.admin.execute(f"ALTER TABLE {t} DROP CONSTRAINT {t}_pkey, ALTER id SET NOT NULL".encode())
        shop.admin.execute(f"CREATE UNIQUE INDEX {t}_u ON {t} (id)".encode())
        shop.admin.execute(f"ALTER TABLE {t} REPLICA IDENTITY USING INDEX {t}_u".encode())
    shop.admin.execute(f"INSERT INTO {t} VALUES (1, 1)".encode())
    shop.job()
    assert t in shop.listed()
    shop.changes.read()
    had = shop.identity(t)[0]
    shop.admin.execute(lost.format(t=t).encode())
    shop.admin.execute(f"UPDATE {t} SET v = 2".encode())
    assert shop.changes.read() == {("U", f"public.{t}"): 1}
    assert shop.identity(t) == ("f", had)
    status = {table.table: table for table in source.status(shop.admin, Options()).tables}[f"public.{t}"]
    assert "identity FULL is lent" in status.published
    shop.admin.execute(f"DROP TABLE {t}; DROP DOMAIN IF EXISTS {t}_key".encode())
    assert shop.admin.execute(
        "SELECT count(*) FROM pgwitness.covered WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = relation)"
    ).fetchone() == (0,)


@pytest.mark.parametrize(
    "choice",
    ["ALTER TABLE {t} REPLICA IDENTITY NOTHING", "ALTER TABLE {t} ADD w int GENERATED ALWAYS AS (v * 2) VIRTUAL"],
)
def test_what_full_cannot_help_leaves_the_update_publication(
    shop: Shop, choice: str, request: pytest.FixtureRequest
) -> None:
    """NOTHING, and a virtual column under FULL, end the publication of updates at once; the job brings them back."""
    if "VIRTUAL" in choice and shop.version < 180_000:
        pytest.skip("no virtual columns before 18")
    t = f"left_{abs(hash(request.node.name)) % 10**8}"
    shop.admin.execute(f"CREATE TABLE {t} (id int, v int); ALTER TABLE {t} REPLICA IDENTITY FULL".encode())
    shop.job()
    assert t in shop.listed()
    shop.admin.execute(choice.format(t=t).encode())
    shop.admin.execute(f"INSERT INTO {t} VALUES (1, 1); UPDATE {t} SET v = 2".encode())
    assert t not in shop.listed()
    assert shop.form(t) == TAKEN
    shop.job()
    assert shop.form(t) == EACH
    shop.admin.execute(f"ALTER TABLE {t} ADD PRIMARY KEY (id), REPLICA IDENTITY DEFAULT".encode())
    shop.job()
    assert t in shop.listed()
    assert shop.form(t) == ONCE


def test_what_a_transaction_takes_out_comes_back_in_it(shop: Shop) -> None:
    """NOTHING and back again in one transaction leaves the table published; no other table is put back with it."""
    shop.admin.execute("CREATE TABLE back (id int PRIMARY KEY, v int); ALTER TABLE back OWNER TO app")
    shop.job()
    with shop.app.transaction():
        shop.app.execute("ALTER TABLE back REPLICA IDENTITY NOTHING")
        shop.app.execute("ALTER TABLE back REPLICA IDENTITY DEFAULT")
    assert ("back" in shop.listed(), shop.form("back")) == (True, TAKEN)
    with shop.admin.transaction():
        shop.admin.execute("ALTER PUBLICATION pgwitness DROP TABLE back")
        shop.admin.execute("ALTER TABLE back RENAME TO came_back")
    assert "came_back" not in shop.listed()
    shop.job()  # leave nothing due to other tests


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE pk ALTER v SET STATISTICS 100 /* alter table pk set unlogged */",
        "ALTER TABLE ul ALTER id SET DEFAULT length('alter table pk set unlogged')",
    ],
)
def test_text_that_only_looks_like_a_command_takes_nothing_out(shop: Shop, statement: str) -> None:
    """A comment or a literal that says SET UNLOGGED leaves the table published and its beacon as it was."""
    shop.app.execute(statement.encode())
    assert ("pk" in shop.listed(), shop.form("pk")) == (True, ONCE)


def test_a_new_partition_of_a_covered_table_is_covered(shop: Shop) -> None:
    """Where not all tables were asked for, a partition goes with its root, and another new table is left alone."""
    asked = "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = 'pgwitness_inserts'"
    before = shop.admin.execute(asked).fetchone()
    assert before is not None
    shop.admin.execute("COMMENT ON PUBLICATION pgwitness_inserts IS '[\"public.det\"]'")
    shop.app.execute(
        "CREATE TABLE det_7 PARTITION OF det FOR VALUES FROM (700) TO (800); CREATE TABLE not_asked (i int)"
    )
    shop.admin.execute(psycopg.sql.SQL("COMMENT ON PUBLICATION pgwitness_inserts IS {}").format(before[0]))
    assert (shop.form("det_7"), shop.form("not_asked")) == (PARTITION, None)
    shop.app.execute("DROP TABLE det_7, not_asked")


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE ul SET UNLOGGED",
        'alter table only public."ul" add column x int, set  unlogged',
        "DO $$ BEGIN EXECUTE 'ALTER TABLE ' || 'ul SET UNLOGGED'; END $$",
        "ALTER TABLE ul /* ; */ SET -- now\n UNLOGGED",
        "SET standard_conforming_strings = off; ALTER TABLE ul SET UNLOGGED",
        "CREATE FUNCTION away() RETURNS void LANGUAGE sql AS 'ALTER TABLE ul SET UNLOGGED'; SELECT away()",
    ],
)
def test_unlogged_and_logged_again(shop: Shop, statement: str) -> None:
    """A table in the update publication can be made unlogged; logged again it is covered and published again."""
    shop.app.execute(statement.encode())
    assert shop.form("ul") == TAKEN
    shop.app.execute("INSERT INTO ul VALUES (1)")
    shop.app.execute("ALTER TABLE ul SET LOGGED; RESET standard_conforming_strings")
    shop.job()
    assert shop.form("ul") == ONCE
    shop.changes.read()
    shop.app.execute("DELETE FROM ul")
    assert shop.changes.read() == {("D", "public.ul"): 1}


def test_born_unlogged_and_logged_later(shop: Shop) -> None:
    """A table that becomes logged is covered from there on, before its first row."""
    shop.app.execute("CREATE UNLOGGED TABLE born (id int PRIMARY KEY)")
    assert shop.form("born") is None
    shop.app.execute("ALTER TABLE born SET LOGGED")
    assert shop.form("born") == EACH
    shop.job()
    assert shop.form("born") == ONCE


def test_detached_and_attached(shop: Shop) -> None:
    """A partition that is detached is read by its own name, and attached again by its root's."""
    shop.changes.read()
    shop.app.execute("INSERT INTO det VALUES (3, 1), (4, 1)")
    shop.app.execute("ALTER TABLE det DETACH PARTITION det_1")
    assert shop.form("det_1") == PARTITION
    shop.job()
    assert shop.form("det_1") == ONCE
    shop.app.execute("UPDATE det_1 SET v = 999")
    shop.app.execute("DELETE FROM det_1 WHERE id = 3")
    shop.app.execute("ALTER TABLE det ATTACH PARTITION det_1 FOR VALUES FROM (0) TO (100)")
    shop.job()
    shop.app.execute("UPDATE det SET v = 1000")
    assert shop.changes.read() == {
        ("I", "public.det"): 2,
        ("U", "public.det_1"): 2,
        ("D", "public.det_1"): 1,
        ("U", "public.det"): 1,
    }
    assert "det_1" not in shop.listed()


def test_an_attached_table_without_a_key_breaks_nothing(shop: Shop) -> None:
    """A table without identity attached to a published root is lent one, in the same command."""
    shop.admin.execute("CREATE TABLE att (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)")
    shop.job()
    assert "att" in shop.listed()
    shop.admin.execute("CREATE TABLE att_1 (id int NOT NULL, v int); ALTER TABLE att_1 REPLICA IDENTITY NOTHING")
    shop.admin.execute("ALTER TABLE att ATTACH PARTITION att_1 FOR VALUES FROM (0) TO (100)")
    shop.admin.execute("INSERT INTO att VALUES (1, 1); UPDATE att SET v = 2")
    shop.job()
    shop.admin.execute("UPDATE att SET v = 2; DELETE FROM att")


def test_new_tables_do_not_wait_for_each_other(shop: Shop) -> None:
    """A table made in a transaction that stays open keeps no other session from making one, and both are covered."""
    with psycopg.connect(shop.dsn, user="app") as first:
        first.execute("CREATE TABLE one (i int PRIMARY KEY)")
        shop.app.execute("SET lock_timeout = '2s'; CREATE TABLE two (i int); RESET lock_timeout")
        shop.job()
        first.commit()
    assert (shop.form("one"), shop.form("two")) == (EACH, EACH)
    shop.job()
    assert "one" in shop.listed()
