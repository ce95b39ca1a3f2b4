"""The session collector with posture on real servers, into a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from collectors.connection import instance_name
from collectors.installation.install import install
from collectors.posture import queries as posture_queries
from collectors.posture import source as posture_source
from collectors.sessions.collector import run
from detectors.sensitive import Sensitive
from pgwitness.core.config import Config
from pgwitness.core.errors import Retry
from pgwitness.core.events import Gap, Posture, Session
from pgwitness.core.privacy import tokenizer
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Broker, Postgres
from tests.collectors.raw_topic import Bench, bench

pytestmark = pytest.mark.every_postgres

ConfigFactory = Callable[..., Config]


@pytest.fixture
def shop(tmp_path: Path, embedded_broker: Broker, database: str, config_factory: ConfigFactory) -> Iterator[Bench]:
    """A fresh database on each PostgreSQL in turn, and a topic of its own."""
    execute(database, "CREATE TABLE orders (id int)")
    with bench(config_factory(tmp_path, embedded_broker.bootstrap, database)) as made:
        yield made


def execute(dsn: str, *statements: str) -> None:
    """Run statements, each in its own transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def sessions(at: Bench, pid: int) -> list[Session]:
    """What arrived so far about one backend."""
    return [event for event in at.raw.of(Session) if event.pid == pid]


def operations(at: Bench, pid: int) -> list[str]:
    """The operations that arrived so far about one backend."""
    return [event.operation for event in sessions(at, pid)]


def changes(at: Bench, object_type: str, name: str) -> list[Posture]:
    """What arrived so far about one object, but for its being found."""
    found = at.raw.of(Posture)
    return [e for e in found if (e.object_type, e.name) == (object_type, name) and e.change != "found"]


def runs(at: Bench) -> dict[str, Any]:
    """What functions run, as far as that arrived."""
    told = [event.after for event in at.raw.of(Posture) if event.object_type == "functions" and event.after]
    return {name: entry for after in told for name, entry in after["runs"].items()}  # type: ignore[attr-defined]


def looked(at: Bench) -> None:
    """Wait until the first snapshot of posture is there."""
    at.raw.wait(lambda: any(e.object_type == "summary" for e in at.raw.of(Posture)), "the first snapshot")


def test_sessions_come_and_go(shop: Bench) -> None:
    """A session is found or connects, is sampled with its 64-bit transaction id, names itself anew and goes."""
    with psycopg.connect(shop.dsn, application_name="before") as old, shop.running(run) as raised:
        shop.raw.wait(lambda: operations(shop, old.info.backend_pid) == ["found"], "who was there")
        with psycopg.connect(shop.dsn, application_name="psql") as new:
            pid = new.info.backend_pid
            shop.raw.wait(lambda: operations(shop, pid) == ["connect"], "the connection")
            row = new.execute("SELECT pg_current_xact_id()::text::int8").fetchone()
            assert row is not None
            shop.raw.wait(lambda: operations(shop, pid) == ["connect", "sample"], "the sample")
            new.rollback()
            new.execute("SET application_name = 'other'")
            new.commit()
            shop.raw.wait(lambda: sessions(shop, pid)[-1].application == "other", "the new name")
        shop.raw.wait(lambda: operations(shop, pid)[-1] == "disconnect", "the end")
    assert raised == []
    first, sample = sessions(shop, pid)[:2]
    assert (first.role, first.database) == ("postgres", conninfo_to_dict(shop.dsn)["dbname"])
    assert (first.client_addr, first.occurred_at_us) == ("127.0.0.1", first.backend_start_us)
    assert sample.xid == row[0]


def test_who_names_itself_pgwitness_is_seen_and_we_are_not(shop: Bench) -> None:
    """Another role under our application name is reported; our own sessions are not."""
    execute(shop.dsn, "CREATE ROLE mallory LOGIN")
    evil = shop.dsn.replace("postgres@", "mallory@")
    with shop.running(run), psycopg.connect(evil, application_name="pgwitness sessions") as connection:
        pid = connection.info.backend_pid
        shop.raw.wait(lambda: operations(shop, pid) != [], "the attacker")
        looked(shop)
    named = {event.role for event in shop.raw.of(Session) if event.application.startswith("pgwitness")}
    assert named == {"mallory"}


def test_a_restart_of_the_collector_forgets_nobody(shop: Bench) -> None:
    """Who left while nobody looked is told to have gone, and the time without a look is a gap when it is long."""
    with psycopg.connect(shop.dsn) as connection:
        pid = connection.info.backend_pid
        with shop.running(run):
            shop.raw.wait(lambda: operations(shop, pid) == ["found"], "who was there")
    (path,) = shop.config.collectors.state_path.glob("sessions-*.json")
    state = msgspec.json.decode(path.read_bytes())
    state["state"]["look"]["taken_at_us"] -= 60_000_000
    path.write_bytes(msgspec.json.encode(state))
    with shop.running(run):
        shop.raw.wait(lambda: operations(shop, pid) == ["found", "disconnect"], "the end that nobody saw")
    (gap,) = (gap for gap in shop.raw.of(Gap) if gap.reason == "sessions_unwatched")
    assert gap.occurred_at_us == state["state"]["look"]["taken_at_us"]


def test_hidden_sessions_are_a_gap(shop: Bench) -> None:
    """A role that may not see other roles' sessions says so, with the grant that mends it."""
    execute(shop.dsn, "CREATE ROLE weak LOGIN")
    with psycopg.connect(shop.dsn), shop.running(run, shop.dsn.replace("postgres@", "weak@")):
        shop.raw.wait(lambda: shop.raw.of(Gap) != [], "the gap")
    assert [gap.reason for gap in shop.raw.of(Gap)] == ["sessions_insufficient_privilege"]
    assert "GRANT pg_read_all_stats TO weak" in str(shop.raw.of(Gap)[0].detail["fix"])


def test_roles_memberships_and_grants(shop: Bench) -> None:
    """Power given to somebody is seen: a superuser, a membership, a setting of a role, a table open to everybody."""
    with shop.running(run) as raised:
        looked(shop)
        execute(
            shop.dsn,
            "CREATE ROLE evil SUPERUSER LOGIN PASSWORD 'hunter2'",
            "CREATE ROLE reader",
            "GRANT pg_read_all_data TO reader",
            "CREATE ROLE under",
            "GRANT reader TO under",
            "ALTER ROLE reader SET myapp.secret = 'hunter2'",
            "GRANT SELECT ON orders TO PUBLIC",
            "GRANT SELECT (rolpassword) ON pg_authid TO reader",
            "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO reader",
        )
        for kind, name in (
            ("role", "evil"),
            ("membership", "reader IN pg_read_all_data"),
            ("membership", "under IN reader"),
            ("role_setting", "reader IN ALL"),
            ("grant", "public.orders"),
            ("grant", "pg_catalog.pg_authid"),
            ("grant", "function pg_catalog.pg_read_file(text)"),
        ):
            shop.raw.wait(lambda k=kind, n=name: changes(shop, k, n) != [], f"{kind} {name}")  # type: ignore[misc]
        (led,) = changes(shop, "membership", "under IN reader")
        assert (led.after or {})["leads_to"] == ["pg_read_all_data"]
        sizes = [event.after or {} for event in shop.raw.of(Posture) if event.object_type == "sizes"]
        assert any("public.orders" in dict(size["rows"]) for size in sizes if isinstance(size["rows"], dict))
        execute(shop.dsn, "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM reader", "ALTER ROLE evil NOSUPERUSER")
        shop.raw.wait(lambda: len(changes(shop, "role", "evil")) == 2, "the change")
    assert raised == []
    added, changed = changes(shop, "role", "evil")
    assert (added.change, changed.change) == ("added", "changed")
    assert added.after is not None
    assert added.after["superuser"] is True
    assert changed.before == added.after
    (opened,) = changes(shop, "grant", "public.orders")
    assert opened.after is not None
    assert "=r/postgres" in str(opened.after["acl"])
    assert b"hunter2" not in msgspec.json.encode(shop.raw.seen)


def test_triggers_publications_extensions_and_tables(shop: Bench) -> None:
    """Objects that carry evidence are watched: disabled, changed, dropped."""
    execute(
        shop.dsn,
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER seen AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION f()",
        "CREATE PUBLICATION p FOR TABLE orders",
        "CREATE FUNCTION reads() RETURNS bigint LANGUAGE sql AS "
        "'SELECT count(id) FROM public.orders WHERE id::text = $$hunter2$$'",
        "CREATE VIEW everything AS SELECT id FROM orders WHERE id::text <> 'hunter2'",
    )
    with shop.running(run):
        looked(shop)
        shop.raw.wait(lambda: runs(shop) != {}, "what functions run")
        execute(shop.dsn, "ALTER TABLE orders DISABLE TRIGGER seen")
        shop.raw.wait(lambda: changes(shop, "trigger", "public.orders.seen") != [], "the disabled trigger")
        execute(shop.dsn, "CREATE EXTENSION pg_stat_statements", "DROP VIEW everything", "DROP TABLE orders")
        shop.raw.wait(lambda: changes(shop, "table", "public.orders") != [], "the dropped table")
        shop.raw.wait(lambda: changes(shop, "extension", "pg_stat_statements") != [], "the extension")
        shop.raw.wait(lambda: changes(shop, "publication", "p") != [], "the publication")
    assert runs(shop)["public.reads"] == [True, ["select"], ["public.orders"], ["public.orders.id"], ["count"], []]
    reads = [event.after for event in shop.raw.of(Posture) if event.object_type == "views" and event.after]
    assert reads[0]["reads"] == {"public.everything": [False, ["public.orders"], ["public.orders.id"], ["id"]]}
    assert b"hunter2" not in msgspec.json.encode(shop.raw.seen)
    disabled, dropped = changes(shop, "trigger", "public.orders.seen")
    assert disabled.before is not None
    assert disabled.after is not None
    assert (disabled.before["enabled"], disabled.after["enabled"]) == ("origin", "disabled")
    assert (disabled.before["active"], disabled.after["active"]) == (True, False)
    assert dropped.change == "removed"
    assert [event.change for event in changes(shop, "table", "public.orders")] == ["removed"]
    assert changes(shop, "table", "public.orders")[0].database == conninfo_to_dict(shop.dsn)["dbname"]


def test_tables_without_a_sensitive_column_are_sent(
    tmp_path: Path, embedded_broker: Broker, database18: str, config_factory: ConfigFactory
) -> None:
    """Those of which no pattern means a column, with the name of the patterns."""
    execute(database18, "CREATE TABLE orders (id int)", "CREATE TABLE people (id int, email text)")
    extra = '[privacy]\nsensitive = ["public.*.email"]\n'
    config = config_factory(tmp_path, embedded_broker.bootstrap, database18, extra=extra)

    def sent(at: Bench) -> list[dict[str, object]]:
        return [event.after for event in at.raw.of(Posture) if event.after is not None and "clear" in event.after]

    with bench(config) as at, at.running(run) as raised:
        at.raw.wait(lambda: sent(at) != [], "the clear tables")
        assert raised == []
    (after,) = sent(at)
    assert (after["clear"], after["unclear"]) == (["public.orders"], [])
    assert after["clear_of"] == Sensitive(["public.*.email"]).fingerprint


def test_a_registry_that_a_crash_emptied_is_no_beacon_switched_off(
    tmp_path: Path, embedded_broker: Broker, database18: str, config_factory: ConfigFactory
) -> None:
    """Looks that see it empty under standing triggers say nothing of them; a trigger that is dropped is told."""
    execute(database18, "CREATE TABLE orders (id int)", "CREATE TABLE items (id int)")
    with psycopg.connect(database18, autocommit=True) as admin:
        install(admin)
    with bench(config_factory(tmp_path, embedded_broker.bootstrap, database18)) as at, at.running(run):
        looked(at)
        execute(database18, "DELETE FROM pgwitness.covered", "CREATE ROLE marker_one SUPERUSER")
        at.raw.wait(lambda: changes(at, "role", "marker_one") != [], "a look that saw it empty")
        execute(database18, "DROP TRIGGER pgwitness_beacon ON items")
        at.raw.wait(lambda: changes(at, "beacon", "public.items") != [], "the beacon without a trigger")
    assert [event.change for event in changes(at, "beacon", "public.items")] == ["removed"]
    assert changes(at, "beacon", "public.orders") == []


def test_what_changed_while_the_collector_was_down_is_seen(shop: Bench) -> None:
    """The snapshot survives a restart: what was found once is not found again, what changed meanwhile is told."""
    with shop.running(run):
        looked(shop)
    execute(shop.dsn, "CREATE ROLE evil SUPERUSER", "DROP TABLE orders")
    with shop.running(run):
        shop.raw.wait(lambda: changes(shop, "role", "evil") != [], "the role")
        shop.raw.wait(lambda: changes(shop, "table", "public.orders") != [], "the table")
    assert sum(event.object_type == "summary" for event in shop.raw.of(Posture)) == 1


def test_a_database_that_cannot_be_read_is_a_gap(
    tmp_path: Path, embedded_broker: Broker, database18: str, config_factory: ConfigFactory
) -> None:
    """One database that is not there neither hides the others nor looks as if its tables had been dropped."""
    config = config_factory(tmp_path, embedded_broker.bootstrap, database18, ["nowhere"])
    with bench(config) as at, at.running(run) as raised:
        looked(at)
        at.raw.wait(lambda: at.raw.of(Gap) != [], "the gap")
        execute(at.dsn, "CREATE TABLE items (id int)")
        at.raw.wait(lambda: changes(at, "table", "public.items") != [], "the table")
        assert raised == []
    assert [(gap.reason, gap.database) for gap in at.raw.of(Gap)] == [("posture_unread", "nowhere")]


def test_a_look_at_posture_is_cheap(
    database18: str,
) -> None:
    """On a schema of a few hundred tables with triggers and grants a look is a fraction of its interval."""
    tables = (f"CREATE TABLE t{n} (a int); GRANT SELECT ON t{n} TO PUBLIC" for n in range(300))
    execute(database18, *tables)
    with psycopg.connect(database18, autocommit=True) as connection:
        durations = []
        for _ in range(5):
            began = time.monotonic()
            found = posture_source.cluster(connection, tokenizer(b"k"))
            found += posture_source.database(connection, "x")
            durations.append(time.monotonic() - began)
    assert sum(item.object_type == "table" for item in found) == 300
    assert min(durations) < 0.5


def test_what_an_extension_gives_everybody_is_no_grant(database18: str) -> None:
    """Its own privileges, as it was made with them; what somebody adds to them is one."""
    with psycopg.connect(database18, autocommit=True) as connection:

        def given() -> list[str]:
            found = posture_source.database(connection, "x")
            return [item.name for item in found if item.object_type == "grant" and "stat_statements" in item.name]

        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public")
        assert given() == []
        connection.execute("GRANT INSERT ON pg_stat_statements TO PUBLIC")
        assert given() == ["public.pg_stat_statements"]


class Meddled:
    """A connection during whose look somebody else drops a table."""

    def __init__(self, connection: psycopg.Connection, dsn: str) -> None:
        self.connection, self.dsn = connection, dsn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)

    def execute(self, query: str, *parameters: Any) -> Any:
        """Run a query; after the one of tables the table is dropped."""
        answer = self.connection.execute(query, *parameters)
        if query == posture_queries.TABLES:
            execute(self.dsn, "DROP TABLE going")
        return answer


def test_a_look_sees_one_moment(database: str) -> None:
    """A table that is dropped while one looks is there with its trigger, or gone with it: nobody switched that off."""
    execute(
        database,
        "CREATE TABLE going (a int)",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE TRIGGER watch AFTER INSERT ON going EXECUTE FUNCTION f()",
    )
    with psycopg.connect(database, autocommit=True) as connection:
        meddled: Any = Meddled(connection, database)
        during, after = posture_source.database(meddled, "x"), posture_source.database(connection, "x")
    named = [[item.object_type for item in look if "going" in item.name] for look in (during, after)]
    assert named == [["table", "trigger"], []]


def test_a_replica_has_sessions_and_no_posture(
    tmp_path: Path, servers_path: Path, embedded_broker: Broker, config_factory: ConfigFactory
) -> None:
    """Sessions are per instance; roles and tables are the primary's to tell. A lost replica is tried again."""
    with Postgres(servers_path / f"{tmp_path.name}-p", settings=FAST_AND_FORGETFUL) as primary:
        replica = Postgres.standby_of(primary, servers_path / f"{tmp_path.name}-r")
        with (
            replica,
            bench(config_factory(tmp_path, embedded_broker.bootstrap, primary.dsn(), replicas=[replica.dsn()])) as at,
        ):
            with at.running(run, replica.dsn()) as raised:
                with psycopg.connect(replica.dsn(), application_name="report") as connection:
                    pid = connection.info.backend_pid
                    at.raw.wait(lambda: operations(at, pid) != [], "the replica's session")
                replica.stop()
                at.raw.wait(lambda: len(raised) == 1, "the loss of the replica")
            assert isinstance(raised[0], Retry)
            assert instance_name(replica.dsn()) in str(raised[0])
            assert at.raw.of(Posture) == []
