"""DDL tells of itself: the event triggers on real servers, also in front of those who want to get round them."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from collectors.beacon import mac
from collectors.installation import install, source
from collectors.installation.sql.templates import MASKS_AT_WORK
from collectors.installation.steps import Options
from collectors.masking import install as masking
from collectors.masking.install import Masks
from collectors.wal.beacons import ddl
from pgwitness.core.config import Audience, AudienceColumn, Privacy
from pgwitness.core.events import Ddl
from tests.collectors.beacon_wal import Source, opened

pytestmark = pytest.mark.every_postgres


@pytest.fixture
def shop(database: str) -> Iterator[Source]:
    """A small shop with the beacon and the event triggers, on each PostgreSQL in turn."""
    with opened(database) as made:
        yield made


@pytest.fixture
def shop18(database18: str) -> Iterator[Source]:
    """The same on PostgreSQL 18 only."""
    with opened(database18) as made:
        yield made


def told(shop: Source) -> list[Ddl]:
    """Give what the collector makes of the messages."""
    found: list[Ddl] = []
    for payload in shop.ddl():
        command = ddl.of_payload(payload)
        if found and ddl.continues(found[-1], command):
            found[-1] = ddl.joined(found[-1], command)
        else:
            found.append(command)
    return found


def by_tag(shop: Source, tag: str) -> list[Ddl]:
    """Give the commands of one tag."""
    return [command for command in told(shop) if command.tag == tag]


def test_ddl_alone_names_its_session(shop: Source) -> None:
    """A transaction of nothing but DDL carries the login, the role, pid, start, application and claim."""
    app = shop.client(application_name="psql")
    app.execute("SET pgwitness.claim = 'ticket 7'")
    app.execute("ALTER ROLE app SET search_path = public")  # event triggers do not see roles
    app.execute("CREATE VIEW v AS SELECT 1 AS one")
    (command,) = told(shop)
    shown = shop.admin.execute(
        "SELECT pid, (extract(epoch FROM backend_start) * 1000000)::int8 FROM pg_stat_activity WHERE pid = %s",
        [app.info.backend_pid],
    ).fetchone()
    beacon = command.beacon
    assert shown == (beacon.pid, beacon.backend_start_us)
    assert (beacon.session_user, beacon.role, beacon.application, beacon.claim) == ("app", "app", "psql", "ticket 7")
    assert (command.tag, [(o.type, o.identity, o.relation) for o in command.objects]) == (
        "CREATE VIEW",
        [("view", "public.v", "public.v")],
    )


def test_create_and_alter_without_literals(shop: Source) -> None:
    """What is made and changed is named, and the statement has none of its literals."""
    app = shop.client()
    app.execute("CREATE TABLE cards (id int PRIMARY KEY, pin text DEFAULT 'geheim')")
    app.execute("ALTER TABLE cards ADD COLUMN note text DEFAULT 'secret'")
    app.execute("ALTER TABLE cards RENAME COLUMN note TO remark")
    app.execute("CREATE INDEX ON cards (remark)")
    (made,) = by_tag(shop, "CREATE TABLE")
    assert made.statement == "CREATE TABLE cards (id int PRIMARY KEY, pin text DEFAULT $1)"
    assert (made.objects[0].type, made.objects[0].identity) == ("table", "public.cards")
    alter, rename = [c for c in by_tag(shop, "ALTER TABLE") if "TRIGGER" not in str(c.objects) and c.statement][-2:]
    assert alter.statement == "ALTER TABLE cards ADD COLUMN note text DEFAULT $1"
    assert [(o.identity, o.relation) for o in rename.objects] == [("public.cards.remark", "public.cards")]
    (index,) = by_tag(shop, "CREATE INDEX")
    assert [(o.type, o.relation) for o in index.objects] == [("index", "public.cards")]
    assert not any("geheim" in str(c) or "secret" in str(c) for c in told(shop))


def test_drop_cascade_tells_what_went_along(shop: Source) -> None:
    """A drop is one event with the table first, then its views, constraints of others and its own beacon."""
    shop.admin.execute("CREATE VIEW todo AS SELECT * FROM orders")
    shop.admin.execute("CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders)")
    shop.admin.execute("DROP TABLE orders CASCADE")
    (drop,) = by_tag(shop, "DROP TABLE")
    assert (drop.dropped[0].type, drop.dropped[0].identity) == ("table", "public.orders")
    assert {("view", "public.todo"), ("table constraint", "lines_order_id_fkey on public.lines")} <= {
        (o.type, o.identity) for o in drop.dropped
    }
    assert drop.objects == []


def test_dropped_column_is_one_event(shop: Source) -> None:
    """ALTER TABLE … DROP COLUMN says in one event what was altered and what went."""
    shop.admin.execute("ALTER TABLE orders DROP COLUMN note")
    (command,) = by_tag(shop, "ALTER TABLE")
    assert [o.identity for o in command.dropped] == ["public.orders.note"]
    assert [o.identity for o in command.objects] == ["public.orders"]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE orders DISABLE TRIGGER ALL",
        "ALTER TABLE orders DISABLE TRIGGER pgwitness_beacon",
        "DO $$ BEGIN EXECUTE 'ALTER TABLE orders DIS' || 'ABLE TRIGGER USER'; END $$",
        "SELECT quiet()",
        "ALTER TABLE orders ENABLE TRIGGER pgwitness_beacon",
    ],
)
def test_who_switched_the_beacon_off(shop: Source, statement: str) -> None:
    """Whatever way the beacon of a table is switched off, the command says so with the session that did it."""
    shop.admin.execute("CREATE ROLE boss LOGIN SUPERUSER")
    shop.admin.execute(
        "CREATE FUNCTION quiet() RETURNS void LANGUAGE plpgsql AS"
        " $$ BEGIN ALTER TABLE orders DISABLE TRIGGER pgwitness_beacon; END $$"
    )
    boss = shop.client("boss")
    boss.execute(statement.encode())
    (command,) = [c for c in told(shop) if c.beacon.session_user == "boss"]
    assert command.tag == "ALTER TABLE"
    ((relation, beacon),) = [(o.relation, o.beacon) for o in command.objects]
    assert relation == "public.orders"
    assert beacon in ("D", "O")


def test_dropped_beacon_is_told(shop: Source) -> None:
    """Dropping the beacon's trigger, or its function with all of them, is told by whom."""
    shop.admin.execute("DROP TRIGGER pgwitness_beacon ON orders")
    (command,) = by_tag(shop, "DROP TRIGGER")
    assert [(o.identity, o.relation) for o in command.dropped] == [
        ("pgwitness_beacon on public.orders", "public.orders")
    ]
    with pytest.raises(pg.DependentObjectsStillExist):
        shop.admin.execute("DROP FUNCTION pgwitness.beacon() CASCADE")
    shop.release()
    shop.admin.execute("DROP FUNCTION pgwitness.beacon(), pgwitness.beacon_each() CASCADE")
    (command,) = by_tag(shop, "DROP FUNCTION")
    assert "pgwitness_beacon on public.notes" in [o.identity for o in command.dropped]


def test_functions_and_do_blocks(shop: Source) -> None:
    """DDL inside a DO block or a function is told command by command, with the client's statement."""
    app = shop.client()
    app.execute("DO $$ BEGIN CREATE VIEW a AS SELECT 1; CREATE VIEW b AS SELECT 2; DROP VIEW a; END $$")
    commands = told(shop)
    assert [c.tag for c in commands] == ["CREATE VIEW", "CREATE VIEW", "DROP VIEW"]
    assert {c.statement for c in commands} == {"DO $1"}
    assert {"create_view", "drop_view"} <= set(commands[0].operations)


def test_what_did_not_happen_is_not_told(shop: Source) -> None:
    """A failed command and a rolled back one leave nothing; one that was rolled back to a savepoint neither."""
    app = shop.client()
    with pytest.raises(pg.UndefinedTable):
        app.execute("DROP TABLE nowhere")
    app.execute("BEGIN; CREATE VIEW v AS SELECT 1; ROLLBACK")
    app.execute("BEGIN; CREATE VIEW v AS SELECT 1; SAVEPOINT a; DROP VIEW v; ROLLBACK TO a; COMMIT")
    app.execute("CREATE TABLE IF NOT EXISTS orders (id int)")
    app.execute("DROP TABLE IF EXISTS nowhere")
    assert [c.tag for c in told(shop)] == ["CREATE VIEW"]


def test_temporary_tables_and_extensions_insides_are_left_out(shop: Source) -> None:
    """Temporary tables are nobody's business; of an extension its creation is told, and what its script drops."""
    app = shop.client()
    app.execute("CREATE TEMP TABLE t (id int PRIMARY KEY); ALTER TABLE t ADD COLUMN a text; DROP TABLE t")
    shop.admin.execute("DROP EXTENSION IF EXISTS pg_stat_statements")
    before = len(told(shop))
    shop.admin.execute("CREATE EXTENSION pg_stat_statements SCHEMA public")
    tags = [c.tag for c in told(shop)[before:]]
    assert [tag for tag in tags if not tag.startswith("DROP ")] == ["CREATE EXTENSION"]
    assert not any(c.beacon.session_user == "app" for c in told(shop))


def test_concurrent_index_is_told(shop: Source) -> None:
    """CREATE INDEX CONCURRENTLY, which runs in several transactions, is told in its last."""
    shop.admin.execute("CREATE INDEX CONCURRENTLY orders_note ON orders (note)")
    shop.admin.execute("DROP INDEX CONCURRENTLY orders_note")
    assert [c.tag for c in told(shop)] == ["CREATE INDEX", "DROP INDEX"]


def test_forged_ddl_does_not_verify(shop: Source) -> None:
    """A message of the application's own under the prefix, or a genuine beacon under it, is a forgery."""
    app = shop.client()
    app.execute("SELECT pg_logical_emit_message(true, 'pgwitness.ddl', %s::bytea)", [b"x" * 32 + b'["ddl/1"]'])
    app.execute("INSERT INTO orders VALUES (1)")
    (genuine,) = [m.content for m in shop.messages() if m.prefix == mac.PREFIX]
    app.execute("SELECT pg_logical_emit_message(true, 'pgwitness.ddl', %s::bytea)", [genuine])
    key = source.load_key(shop.admin)
    assert key is not None
    reasons = []
    for message in shop.messages():
        if message.prefix == mac.DDL_PREFIX:
            with pytest.raises(mac.Forged) as forged:
                mac.verify_ddl(
                    message.content,
                    key,
                    system_id=shop.system_id,
                    database=shop.database,
                    xid32=message.xid & 0xFFFFFFFF,
                )
            reasons.append(forged.value.reason)
    assert reasons == ["mac", "mac"]


def test_only_a_superuser_can_get_round_the_event_triggers(shop: Source) -> None:
    """session_replication_role does not silence them; the application may neither disable nor call them."""
    shop.admin.execute("SET session_replication_role = replica")
    shop.admin.execute("CREATE VIEW v AS SELECT 1")
    assert [c.tag for c in told(shop)] == ["CREATE VIEW"]
    app = shop.client()
    for statement in (
        "ALTER EVENT TRIGGER pgwitness_ddl DISABLE",
        "DROP EVENT TRIGGER pgwitness_drop",
        "SELECT pgwitness.ddl()",
        "SELECT pgwitness.keep()",
        "SELECT pgwitness.publish(NULL, '{}')",
    ):
        with pytest.raises((pg.InsufficientPrivilege, pg.FeatureNotSupported)):
            app.execute(statement.encode())


def test_disabled_event_trigger_is_reported_with_its_fix(shop: Source) -> None:
    """A switched off event trigger is silent, which the status says; an installation puts it right."""
    shop.admin.execute("ALTER EVENT TRIGGER pgwitness_ddl DISABLE")
    shop.admin.execute("CREATE VIEW v AS SELECT 1")
    assert told(shop) == []
    status = source.status(shop.admin, Options())
    assert status.ddl == "partly"
    report = install.install(shop.admin)
    assert report.complete
    assert source.status(shop.admin, Options()).ddl == "yes"
    shop.admin.execute("DROP VIEW v")
    assert [c.tag for c in told(shop)] == ["ALTER EXTENSION", "DROP VIEW"]


def test_new_tables_are_covered_where_they_are_made(shop: Source) -> None:
    """A new table, partition and CREATE TABLE AS have their beacon and publication before their first row."""
    app = shop.client()
    with app.transaction():
        app.execute("CREATE TABLE fresh (id int PRIMARY KEY)")
        app.execute("INSERT INTO fresh VALUES (1)")
    app.execute("CREATE TABLE keyless (id int)")
    app.execute("CREATE TABLE copied AS SELECT 1 AS id")
    shop.admin.execute("CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (100) TO (200)")
    app.execute("CREATE UNLOGGED TABLE quick (id int)")
    # The rows of CREATE TABLE AS are told by their beacon, too.
    assert [beacon.session_user for beacon in shop.beacons()] == ["app", "app"]
    status = {table.table: table for table in source.status(shop.admin, Options()).tables}
    assert {
        name: status[f"public.{name}"].beacon for name in ("fresh", "keyless", "copied", "days_2")
    } == dict.fromkeys(("fresh", "keyless", "copied", "days_2"), "installed")
    assert {status["public.fresh"].published, status["public.keyless"].published} == {"insert,truncate"}
    assert "public.quick" not in status
    report = install.install(shop.admin)
    assert (report.left, {s.table for s in report.done}) == ((), {"public.fresh", None})
    status = {table.table: table for table in source.status(shop.admin, Options()).tables}
    assert status["public.fresh"].published == "insert,truncate,update,delete"


def test_ddl_never_fails_because_of_it(shop: Source) -> None:
    """With the key, the registry or everything gone, or a name that is no table's, DDL goes on as if nothing were."""
    app = shop.client()
    shop.release()
    shop.admin.execute("ALTER TABLE pgwitness.covered RENAME TO elsewhere")
    app.execute("CREATE TABLE a (id int)")
    shop.admin.execute("DROP TABLE pgwitness.key")
    app.execute('CREATE TABLE "b.\'"";" (id int)')
    app.execute('DROP TABLE "b.\'"";"')
    shop.admin.execute("DROP SCHEMA pgwitness CASCADE")
    app.execute("CREATE TABLE c (id int)")
    app.execute("DROP TABLE a, c")


def test_odd_names_are_covered(shop: Source) -> None:
    """A name that must be quoted is quoted in every statement that covers it."""
    shop.client().execute('CREATE TABLE "Odd.\'"" %s" (id int PRIMARY KEY)')
    assert '"Odd.\'"" %s"' in {
        table.table.removeprefix("public.") for table in source.status(shop.admin, Options()).tables
    }
    assert all(table.beacon == "installed" for table in source.status(shop.admin, Options()).tables)


def test_long_statements_and_many_objects_are_bounded(shop18: Source) -> None:
    """A statement beyond the limit is its hash only; of many objects the first are named and all are counted."""
    app = shop18.client()
    app.execute(f"CREATE VIEW v AS SELECT '{'x' * 40_000}' AS long".encode())
    shop18.admin.execute("CREATE SCHEMA many")
    shop18.admin.execute(
        "DO $$ BEGIN FOR n IN 1..120 LOOP EXECUTE format('CREATE VIEW many.v%s AS SELECT 1', n); END LOOP; END $$"
    )
    shop18.admin.execute("DROP SCHEMA many CASCADE")
    (view, *_) = by_tag(shop18, "CREATE VIEW")
    assert view.statement is None
    assert view.statement_sha256 is not None
    (drop,) = by_tag(shop18, "DROP SCHEMA")
    assert (drop.dropped_total, len(drop.dropped), drop.dropped[0].type) == (121, 100, "schema")


def test_pause_silences_ddl_too(shop: Source) -> None:
    """While the beacon is paused, nothing is written and nothing is covered."""
    install.pause(shop.admin)
    shop.client().execute("CREATE TABLE quiet (id int)")
    assert told(shop) == []


def test_without_superuser_the_report_says_what_is_not_seen(database18: str) -> None:
    """An owner of tables installs everything but the event triggers, and is told what that costs."""
    with opened(database18, beacon=False) as shop:
        shop.admin.execute("CREATE ROLE pgwitness LOGIN REPLICATION IN ROLE pg_monitor")
        shop.admin.execute("CREATE ROLE boss LOGIN CREATEROLE IN ROLE pg_monitor")
        shop.admin.execute("GRANT pg_read_all_stats TO boss WITH ADMIN OPTION")
        shop.admin.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO boss").format(sql.Identifier(shop.database)))
        for table in ("orders", "notes", "days", "days_1"):
            shop.admin.execute(sql.SQL("ALTER TABLE {} OWNER TO boss").format(sql.Identifier(table)))
        report = install.install(shop.client("boss"))
        assert report.complete, report.left
        assert "event triggers" in {limit.subject for limit in report.limits}
        assert source.status(shop.admin, Options()).ddl == "no"


def test_uninstall_takes_the_event_triggers_along(shop: Source) -> None:
    """After the removal DDL works and nothing of pgwitness is left to run."""
    report = install.uninstall(shop.admin)
    assert report.complete, report.left
    assert shop.admin.execute("SELECT count(*) FROM pg_event_trigger").fetchone() == (0,)
    with psycopg.connect(shop.dsn, autocommit=True) as other:
        other.execute("CREATE TABLE after_all (id int)")


def test_views_that_mask_tell_that_their_commands_are_no_clients(shop18: Source) -> None:
    """They stand aside and come back within the client's command; what the client itself does to views is its own."""
    masks = Masks(
        audiences={"support": Audience(columns=[AudienceColumn(column="*", as_="clear")])},
        privacy=Privacy(),
        key=bytes(range(32)),
    )
    with psycopg.connect(shop18.dsn) as connection:
        assert not masking.install(connection, masks).left
    shop18.admin.execute("ALTER TABLE notes OWNER TO app")
    before = len(list(shop18.ddl()))
    app = shop18.client()
    app.execute("ALTER TABLE notes DROP COLUMN note")
    app.execute("CREATE VIEW own AS SELECT 1 AS one")
    with pytest.raises(pg.InsufficientPrivilege):
        app.execute(sql.SQL("SET backtrace_functions = {}").format(MASKS_AT_WORK))
    told = [(command.tag, command.masks) for command in map(ddl.of_payload, list(shop18.ddl())[before:])]
    assert ("DROP VIEW", True) in told
    assert ("CREATE VIEW", True) in told
    assert [tag for tag, masks in told if not masks] == ["ALTER TABLE", "ALTER TABLE", "CREATE VIEW"]
