"""Every way to write, on real servers and through to its name: covered, or seen and said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from collectors.installation.install import status
from pgwitness.core.events import Event, Tick, Transaction
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres, wait_for
from tests.collectors.wal_source import MARK, Source, rows
from tests.streams.folding import fold_all
from tests.streams.records import batch

pytestmark = pytest.mark.every_postgres

RULES = "rules: [{match: {role: '*'}, principal: '{role}'}]"

SCHEMA = """
CREATE TABLE item (id int PRIMARY KEY, name text);
CREATE TABLE part (id int PRIMARY KEY, item int REFERENCES item ON DELETE CASCADE);
CREATE TABLE scrap (id int PRIMARY KEY, item int REFERENCES item ON DELETE CASCADE);
CREATE TABLE shelf (id int PRIMARY KEY);
CREATE TABLE box (id int PRIMARY KEY, shelf int REFERENCES shelf ON DELETE CASCADE);
CREATE TABLE bill (id int PRIMARY KEY);
CREATE TABLE trail (bill int PRIMARY KEY);
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN INSERT INTO trail VALUES (NEW.id); INSERT INTO scrap VALUES (NEW.id, NULL); RETURN NEW; END $$;
CREATE TRIGGER follow BEFORE INSERT ON bill FOR EACH ROW EXECUTE FUNCTION follow();
CREATE TABLE silent (id int PRIMARY KEY);
CREATE FUNCTION speak() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO item VALUES (NEW.id, 'spoken'); RETURN NULL; END $$;
CREATE TRIGGER speak AFTER INSERT ON silent FOR EACH ROW EXECUTE FUNCTION speak();
CREATE TABLE day (n int, id int, PRIMARY KEY (n, id)) PARTITION BY RANGE (n);
CREATE TABLE day_1 PARTITION OF day FOR VALUES FROM (0) TO (10);
CREATE TABLE day_2 PARTITION OF day FOR VALUES FROM (10) TO (20);
CREATE FUNCTION add(n int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO item VALUES (n, 'f'); END $$;
CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO item VALUES (501, 'a'); COMMIT;
    INSERT INTO item VALUES (502, 'b'); ROLLBACK;
    INSERT INTO item VALUES (503, 'c'); COMMIT;
    UPDATE item SET name = 'd' WHERE id = 501; END $$;
INSERT INTO item SELECT n, 'old' FROM generate_series(1, 20) AS n;
INSERT INTO part SELECT n, n FROM generate_series(1, 20) AS n;
INSERT INTO scrap SELECT n, n FROM generate_series(1, 20) AS n;
INSERT INTO shelf VALUES (1), (2);
INSERT INTO box VALUES (1, 1), (2, 2);
INSERT INTO day VALUES (1, 1), (2, 2);
"""

UNCOVERED = ("scrap", "shelf", "silent")

Ways = dict[str, tuple[list[str], dict[str, int]]]
WAYS: Ways = {
    "savepoint": (
        [
            "BEGIN; SAVEPOINT a; INSERT INTO item VALUES (101, 'x'); ROLLBACK TO a; INSERT INTO item VALUES (102, 'y');"
            " SAVEPOINT b; UPDATE item SET name = 'z' WHERE id = 102; RELEASE b; COMMIT"
        ],
        {"i public.item": 1, "u public.item": 1},
    ),
    "only a rolled back savepoint": (
        ["BEGIN; SAVEPOINT a; INSERT INTO item VALUES (103, 'x'); ROLLBACK TO a; COMMIT"],
        {},
    ),
    "do block": (
        ["DO $$ BEGIN FOR n IN 110..112 LOOP INSERT INTO item VALUES (n); END LOOP; END $$"],
        {"i public.item": 3},
    ),
    "do block with exception": (
        [
            "DO $$ BEGIN BEGIN INSERT INTO item VALUES (120); RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END;"
            " INSERT INTO item VALUES (121); END $$"
        ],
        {"i public.item": 1},
    ),
    "function": (["SELECT add(130)"], {"i public.item": 1}),
    "merge": (
        [
            "MERGE INTO item USING (VALUES (1, 'm'), (140, 'n')) AS v (id, name) ON item.id = v.id"
            " WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.name)"
        ],
        {"i public.item": 1, "u public.item": 1},
    ),
    "merge that deletes": (
        ["MERGE INTO item USING (VALUES (2)) AS v (id) ON item.id = v.id WHEN MATCHED THEN DELETE"],
        {"d public.item": 1, "d public.part": 1, "d public.scrap": 1},
    ),
    "upsert": (
        ["INSERT INTO item VALUES (3, 'u'), (150, 'v') ON CONFLICT (id) DO UPDATE SET name = excluded.name"],
        {"i public.item": 1, "u public.item": 1},
    ),
    "upsert that updates only": (
        ["INSERT INTO item VALUES (4, 'u') ON CONFLICT (id) DO UPDATE SET name = excluded.name"],
        {"u public.item": 1},
    ),
    "cascade": (
        ["DELETE FROM item WHERE id IN (5, 6)"],
        {"d public.item": 2, "d public.part": 2, "d public.scrap": 2},
    ),
    "cascade from an uncovered table": (["DELETE FROM shelf WHERE id = 1"], {"d public.shelf": 1, "d public.box": 1}),
    "trigger": (["INSERT INTO bill VALUES (160)"], {"i public.bill": 1, "i public.trail": 1, "i public.scrap": 1}),
    "trigger of an uncovered table": (["INSERT INTO silent VALUES (170)"], {"i public.silent": 1, "i public.item": 1}),
    "writable cte": (
        ["WITH gone AS (DELETE FROM part WHERE id = 7 RETURNING id) INSERT INTO item SELECT id + 173, 'w' FROM gone"],
        {"d public.part": 1, "i public.item": 1},
    ),
    "writable cte alone": (
        ["WITH gone AS (DELETE FROM part WHERE id = 8 RETURNING id) SELECT * FROM gone"],
        {"d public.part": 1},
    ),
    "partition move": (["UPDATE day SET n = 12 WHERE id = 1"], {"d public.day": 1, "i public.day": 1}),
    "partition move by the partition's name": (["UPDATE day_1 SET n = 3 WHERE id = 2"], {"u public.day": 1}),
    "truncate cascade": (["TRUNCATE shelf CASCADE"], {"t public.shelf": 1, "t public.box": 1}),
    "prepared statement": (["PREPARE p AS INSERT INTO item VALUES ($1)", "EXECUTE p(190)"], {"i public.item": 1}),
    "procedure": (["CALL steps()"], {"i public.item": 2, "u public.item": 1}),
}


@pytest.fixture
def shop(source: Source) -> Source:
    """Tables of which three are published and carry no beacon, and a role that may write all of them."""
    source.sql.execute(SCHEMA.encode())
    source.create(MARK, "CREATE ROLE app LOGIN", "GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
    for table in UNCOVERED:
        source.sql.execute(sql.SQL("DROP TRIGGER pgwitness_beacon ON {}").format(sql.Identifier(table)))
        source.sql.execute("DELETE FROM pgwitness.covered WHERE relation = to_regclass(%s)", (table,))
    return source


def client(source: Source, user: str = "app") -> psycopg.Connection:
    """Connect as an application does."""
    return psycopg.connect(source.dsn.replace("postgres@", f"{user}@"), autocommit=True, application_name=user)


def counted(transactions: list[Transaction]) -> Counter[str]:
    """Count rows by operation and relation."""
    return Counter(f"{operation} {relation}" for operation, relation, *_ in rows(transactions))


def changes(transactions: list[Transaction], rules: str = RULES) -> list[Event]:
    """Fold what the collector wrote."""
    later = Tick(captured_at_us=max(t.captured_at_us for t in transactions) + 60_000_000)
    return [event for event in fold_all([batch(*transactions), batch(later)], rules) if event.kind == "change"]


def test_every_way_of_writing_is_named(shop: Source) -> None:
    """Whatever the statement, all rows of its transaction are there and exactly the session's that made them."""
    with shop.running() as raised:
        shop.streaming()
        with client(shop) as app:
            for way, (statements, _) in WAYS.items():
                app.execute("SELECT set_config('pgwitness.claim', %s, false)", [way])
                for statement in statements:
                    app.execute(statement.encode())
            app.execute("SELECT set_config('pgwitness.claim', 'copy', false)")
            with app.cursor().copy("COPY item FROM STDIN") as copy:
                copy.write(b"201\ta\n202\tb\n")
            pid = app.info.backend_pid
        found = shop.until_marked()
    assert raised == []
    assert [t for t in found if len(t.beacons) != 1 or t.forged or t.unpublished or t.silenced] == []
    assert {(t.beacons[0].session_user, t.beacons[0].pid) for t in found} == {("app", pid)}
    by_way: dict[str, list[Transaction]] = {}
    for transaction in found:
        by_way.setdefault(transaction.beacons[0].claim or "", []).append(transaction)
    expected = {way: Counter(counts) for way, (_, counts) in WAYS.items() if counts}
    assert {way: counted(made) for way, made in by_way.items()} == {**expected, "copy": Counter({"i public.item": 2})}
    assert len(by_way["procedure"]) == 3
    named = changes(found)
    assert {(e.principal, e.binding, e.certainty, e.detail.get("finding")) for e in named} == {
        ("app", "beacon", "exact", None)
    }


def test_an_uncovered_table_is_seen_and_said(shop: Source) -> None:
    """Rows of a table without a beacon arrive, are nobody's and no finding; the status names the table."""
    with shop.running() as raised:
        shop.streaming()
        with client(shop) as app:
            app.execute("INSERT INTO scrap VALUES (900, NULL)")
        found = shop.until_marked()
    assert raised == []
    (event,) = changes(found)
    assert (event.principal, event.binding, event.certainty, event.detail) == (None, "none", "none", {})
    absent = {table.table for table in status(shop.sql).tables if table.beacon == "absent"}
    assert absent == {f"public.{table}" for table in UNCOVERED}


def test_a_role_that_was_rolled_back_does_not_mislead(shop: Source) -> None:
    """SET ROLE in a savepoint that is rolled back leaves neither its beacon nor its role."""
    shop.sql.execute("CREATE ROLE clerk; GRANT clerk TO app; GRANT ALL ON item TO clerk")
    with shop.running():
        shop.streaming()
        with client(shop) as app, app.transaction():
            app.execute("SAVEPOINT a")
            app.execute("SET LOCAL ROLE clerk")
            app.execute("SET LOCAL pgwitness.claim = 'the clerk'")
            app.execute("INSERT INTO item VALUES (301)")
            app.execute("ROLLBACK TO a")
            app.execute("INSERT INTO item VALUES (302)")
        found = shop.until_marked()
    (transaction,) = found
    assert [(b.session_user, b.role, b.claim) for b in transaction.beacons] == [("app", "app", None)]
    assert [row[2] for row in rows(found)] == [{"id": 302}]


def test_a_prepared_transaction_arrives_when_it_is_committed(shop: Source) -> None:
    """Rows come with COMMIT PREPARED and are the writer's, whoever commits; what is rolled back never comes."""
    shop.sql.execute("CREATE ROLE closer LOGIN SUPERUSER")
    with shop.running() as raised:
        shop.streaming()
        with client(shop) as app, client(shop, "closer") as closer:
            for name in ("kept", "dropped"):
                app.execute("BEGIN")
                app.execute("SAVEPOINT a")
                app.execute("INSERT INTO item VALUES (%s)", [401 if name == "kept" else 402])
                app.execute("RELEASE a")
                app.execute(f"PREPARE TRANSACTION '{name}'")
            writer = app.info.backend_pid
            assert shop.until_marked() == []
            closer.execute("ROLLBACK PREPARED 'dropped'")
            closer.execute("COMMIT PREPARED 'kept'")
        found = shop.until_marked()
    assert raised == []
    assert [(row[1], row[2]) for row in rows(found)] == [("public.item", {"id": 401})]
    assert [(b.session_user, b.pid) for b in found[0].beacons] == [("app", writer)]
    (event,) = changes(found)
    assert (event.principal, event.certainty) == ("app", "exact")


def test_a_superuser_who_becomes_somebody_else_is_named(shop: Source) -> None:
    """SET SESSION AUTHORIZATION changes the role in force, not who is named."""
    with shop.running():
        shop.streaming()
        with client(shop, "postgres") as admin:
            admin.execute("SET SESSION AUTHORIZATION app")
            admin.execute("INSERT INTO item VALUES (601)")
        found = shop.until_marked()
    (event,) = changes(found)
    assert (event.principal, event.role, event.effective_role, event.certainty) == (
        "postgres",
        "postgres",
        "app",
        "exact",
    )


def test_a_transaction_of_a_replication_origin_is_its(shop: Source) -> None:
    """What says of itself that it came from elsewhere, on a table without a beacon, is the origin's."""
    origin = f"elsewhere_{shop.database}"
    with shop.running():
        shop.streaming()
        with client(shop, "postgres") as other:
            other.execute("SELECT pg_replication_origin_create(%s)", (origin,))
            other.execute("SELECT pg_replication_origin_session_setup(%s)", (origin,))
            other.execute("INSERT INTO scrap VALUES (901, NULL)")
            other.execute("INSERT INTO item VALUES (701)")
            other.execute("SELECT pg_replication_origin_session_reset()")
            other.execute("SELECT pg_replication_origin_drop(%s)", (origin,))
        found = shop.until_marked()
    assert [t.origin for t in found] == [origin, origin]
    assert [(e.principal, e.binding) for e in changes(found)] == [
        (f"replication:{origin}", "replication"),
        ("postgres", "beacon"),  # a session that only says so is named by its beacon
    ]


@contextmanager
def subscribed(source: Source, servers_path: Path, like: Postgres) -> Iterator[psycopg.Connection]:
    """Subscribe a database to `item` of another server; gives a connection to that."""
    name = f"publisher_{source.database}"
    with Postgres(servers_path / name, bin=like.bin, settings=FAST_AND_FORGETFUL) as publisher:
        with psycopg.connect(publisher.dsn(), autocommit=True) as upstream:
            upstream.execute("CREATE TABLE item (id int PRIMARY KEY, name text)")
            upstream.execute("CREATE TABLE scrap (id int PRIMARY KEY, item int)")
            upstream.execute("INSERT INTO item VALUES (801, 'copied')")
            upstream.execute("CREATE PUBLICATION shop FOR TABLE item, scrap")
            source.sql.execute(f"CREATE SUBSCRIPTION {name} CONNECTION '{publisher.dsn()}' PUBLICATION shop")
            try:
                yield upstream
            finally:
                source.sql.execute(f"DROP SUBSCRIPTION {name}")
        publisher.remove()


def test_logical_apply_is_replication(shop: Source, servers_path: Path, postgres: Postgres) -> None:
    """Rows that an apply worker writes are the origin's on covered tables too, and no shadow write."""
    with shop.running() as raised:
        shop.streaming()
        with subscribed(shop, servers_path, postgres) as upstream:
            ready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
            wait_for(lambda: shop.sql.execute(ready).fetchone() == (0,), 30, "the first copy")
            upstream.execute("UPDATE item SET name = 'applied'")
            upstream.execute("INSERT INTO scrap VALUES (902, NULL)")
            arrived = "SELECT count(*) FROM scrap WHERE id = 902"
            wait_for(lambda: shop.sql.execute(arrived).fetchone() == (1,), 30, "what is applied")
        found = [transaction for transaction in shop.until_marked() if transaction.n_rows]
    assert raised == []
    copied, updated, inserted = found
    assert [(updated.origin is not None, updated.beacons, updated.relations[0].beacon)] == [(True, [], True)]
    applied = changes([updated, inserted])
    assert {(e.principal, e.binding, e.certainty, e.detail.get("finding")) for e in applied} == {
        (f"replication:{updated.origin}", "replication", "strong", None)
    }
    # The first copy is a COPY in a worker's session, for which triggers for statements do fire.
    (event,) = changes([copied])
    assert (event.principal, event.binding, event.detail) == ("postgres", "beacon", {"origin": copied.origin})
