"""The beacon in front of those who want to get round it: each way is refused or found (docs/decisions/0011, 1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from collectors.beacon import mac
from collectors.beacon.verifier import BeaconVerifier
from collectors.installation import install
from collectors.installation import source as beacon_source
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres
from tests.collectors.beacon_wal import Connection, Source, opened
from tests.conftest import fresh_database

pytestmark = pytest.mark.every_postgres

SPEAKS = "INSERT INTO orders VALUES (1, 'a')"


@pytest.fixture
def shop(database: str) -> Iterator[Source]:
    """A small shop with the beacon, on each PostgreSQL in turn."""
    with opened(database) as source:
        yield source


def test_names_the_session(shop: Source) -> None:
    """A beacon carries the login role, pid, start, application, address and claim of the session that wrote."""
    app = shop.client(application_name="till 7")
    app.execute("SET pgwitness.claim = 'on behalf of ann'")
    app.execute(SPEAKS)
    (beacon,) = shop.beacons()
    shown = shop.admin.execute(
        "SELECT pid, (extract(epoch FROM backend_start) * 1000000)::int8, host(client_addr), client_port"
        " FROM pg_stat_activity WHERE pid = %s",
        [app.info.backend_pid],
    ).fetchone()
    assert shown == (beacon.pid, beacon.backend_start_us, beacon.client_addr, beacon.client_port)
    assert (beacon.session_user, beacon.role) == ("app", "app")
    assert (beacon.application, beacon.claim) == ("till 7", "on behalf of ann")
    assert beacon.auth_method == ("trust" if shop.admin.info.server_version >= 160_000 else None)


def test_speaks_once_in_a_transaction(shop: Source) -> None:
    """However many statements a transaction has on however many tables, it has one beacon, and the next its own."""
    app = shop.client()
    for _ in range(2):
        with app.transaction():
            for n in range(3):
                app.execute("INSERT INTO orders VALUES (%s, 'a') ON CONFLICT DO NOTHING", [n])
            app.execute("INSERT INTO notes VALUES ('b')")
            app.execute("UPDATE orders SET note = 'c'")
            app.execute("DELETE FROM orders")
    beacons = shop.beacons()
    assert len(beacons) == 2
    assert len({beacon.xid for beacon in beacons}) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders VALUES (2)",
        "UPDATE orders SET note = 'x'",
        "DELETE FROM orders",
        "TRUNCATE orders",
        "INSERT INTO days VALUES (2)",
        "INSERT INTO days_1 VALUES (2)",
        "WITH gone AS (DELETE FROM orders RETURNING id) INSERT INTO notes SELECT id FROM gone",
        "COPY notes FROM PROGRAM 'echo a'",
    ],
)
def test_every_kind_of_write_speaks(shop: Source, statement: str) -> None:
    """Insert, update, delete, truncate, COPY and writes to a partition by its own name all carry a beacon."""
    shop.admin.execute(SPEAKS)
    shop.admin.execute(statement)
    first, *others = shop.beacons()
    assert {beacon.xid for beacon in others} - {first.xid}


def test_forged_message_does_not_verify(shop: Source) -> None:
    """A message that the application writes under our prefix is found as a forgery with what it claims."""
    app = shop.client()
    app.execute("SELECT pg_logical_emit_message(true, 'pgwitness.beacon', 'I am the CFO')")
    session = f'["session/1","{shop.system_id}","{shop.database}",2,3,"cfo",null,null,null]'
    claim = "\x1f".join(["1", "cfo", "none", "ledger", "", "0" * 64 + session])
    app.execute(
        "SELECT pg_logical_emit_message(true, 'pgwitness.beacon', sha256('guess') || convert_to(%s, 'UTF8'))", [claim]
    )
    assert shop.forgeries() == ["malformed", "mac"]
    with pytest.raises(mac.Forged) as caught:
        shop.verify(shop.messages()[1])
    assert caught.value.claims["session_user"] == "cfo"


def test_own_functions_do_not_get_between(shop: Source) -> None:
    """Functions and operators of one's own, earlier in search_path, change nothing in the genuine beacon."""
    app = shop.client()
    app.execute("CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$SELECT 'cfo'$$")
    app.execute("CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$SELECT '\\x00'::bytea$$")
    app.execute(
        "CREATE FUNCTION public.json_build_array(VARIADIC text[]) RETURNS json LANGUAGE sql AS $$SELECT '[]'::json$$"
    )
    app.execute("CREATE FUNCTION public.cat(bytea, bytea) RETURNS bytea LANGUAGE sql AS $$SELECT $1$$")
    app.execute("CREATE OPERATOR public.|| (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = public.cat)")
    app.execute("CREATE TEMP TABLE key (inner_pad bytea, outer_pad bytea, system_id text, paused bool)")
    app.execute("SET search_path = pg_temp, public, pg_catalog")
    app.execute(SPEAKS)
    assert [beacon.session_user for beacon in shop.beacons()] == ["app"]


def test_own_functions_do_not_silence(shop: Source) -> None:
    """Functions and operators of one's own under the names that the trigger's decision rests on do not silence it."""
    app = shop.client()
    for statement in (
        "CREATE FUNCTION public.pg_current_xact_id_if_assigned() RETURNS xid8 LANGUAGE sql AS 'SELECT NULL::xid8'",
        "CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$SELECT 'on'$$",
        "CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.same)",
        "CREATE FUNCTION public.has_schema_privilege(oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
        "CREATE FUNCTION public.has_schema_privilege(regnamespace, text) RETURNS boolean LANGUAGE sql"
        " AS 'SELECT false'",
        "CREATE FUNCTION public.has_function_privilege(oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
        "SET search_path = pg_temp, public, pg_catalog",
    ):
        app.execute(statement)
    app.execute(SPEAKS)
    app.execute("UPDATE public.orders SET note = 'x' WHERE id > 0")
    assert [beacon.session_user for beacon in shop.beacons()] == ["app", "app"]


def test_guard_is_out_of_reach(shop: Source) -> None:
    """An ordinary role cannot close the guard: SET, PGOPTIONS, ALTER ROLE SET, set_config and function SET fail."""
    app = shop.client()
    for statement in (
        "SET backtrace_functions = 'none'",
        "SELECT set_config('backtrace_functions', 'none', true)",
        "ALTER ROLE app SET backtrace_functions = 'none'",
        "CREATE FUNCTION quiet() RETURNS void LANGUAGE sql SET backtrace_functions = 'none' AS 'SELECT'",
    ):
        with contextlib.suppress(pg.InsufficientPrivilege):
            app.execute(statement)
            app.execute("SELECT quiet()")
    with pytest.raises(psycopg.OperationalError, match="permission denied to set parameter"):
        shop.client(options="-c backtrace_functions=none")
    shop.client().execute(SPEAKS)
    assert len(shop.beacons()) == 1


@pytest.mark.parametrize("forgets", ["RESET ALL", "RESET pgwitness.session", "SET pgwitness.session = ''"])
def test_reset_only_speaks_again(shop: Source, forgets: str) -> None:
    """RESET ALL opens the guard and forgets the introduction: both are made again, and nothing is hidden."""
    app = shop.client()
    with app.transaction():
        app.execute(SPEAKS)
        app.execute(forgets.encode())
        app.execute("UPDATE orders SET note = 'b'")
    app.execute("UPDATE orders SET note = 'c'")
    one, *others = shop.beacons()
    assert len(others) == (2 if forgets == "RESET ALL" else 1)
    assert mac.same_session(one, others[0]) == (forgets == "RESET ALL")
    assert {beacon.pid for beacon in others} == {one.pid}


def test_discard_all_introduces_again(shop: Source) -> None:
    """A pooler's DISCARD ALL between two users of a connection costs an introduction and hides nothing."""
    app = shop.client()
    app.execute(SPEAKS)
    app.execute("DISCARD ALL")
    app.execute("UPDATE orders SET note = 'b'")
    app.execute("DISCARD SEQUENCES")
    app.execute("UPDATE orders SET note = 'c'")
    assert [(beacon.session_user, beacon.pid) for beacon in shop.beacons()] == [("app", app.info.backend_pid)] * 3


def test_introduction_in_a_transaction_that_rolls_back(shop: Source) -> None:
    """A session whose first transaction was rolled back is introduced by its next one."""
    app = shop.client()
    with contextlib.suppress(psycopg.Rollback), app.transaction():
        app.execute(SPEAKS)
        raise psycopg.Rollback
    app.execute(SPEAKS)
    assert [beacon.pid for beacon in shop.beacons()] == [app.info.backend_pid]


def introduction(of: Connection) -> str:
    """Read what the session carries as its introduction; the session itself may."""
    row = of.execute("SELECT current_setting('pgwitness.session')").fetchone()
    assert row is not None
    return str(row[0])


def test_introduction_of_another_session_does_not_verify(shop: Source) -> None:
    """Who puts another session's genuine introduction over its own, or another login into its own, is found."""
    app, admin = shop.client(), shop.client("postgres")
    for client in (app, admin):
        client.execute("INSERT INTO notes VALUES ('a')")
    forgeries = [introduction(admin), introduction(app).replace('"app"', '"cfo"'), "nonsense", "\x1f".join("abc")]
    for forgery in forgeries:
        app.execute("SELECT set_config('pgwitness.session', %s, false)", [forgery])
        app.execute("INSERT INTO notes VALUES ('b')")
    assert shop.forgeries() == ["mac"] * 4


def test_separator_in_a_name_shifts_no_field(shop: Source) -> None:
    """A role whose name holds the separator is known by its whole name, and nobody is accused."""
    name = sql.Identifier("app\x1fcfo")
    shop.admin.execute(sql.SQL("CREATE ROLE {0} LOGIN; GRANT ALL ON notes TO {0}").format(name))
    try:
        shop.client("app\x1fcfo").execute("INSERT INTO notes VALUES ('a')")
        assert [beacon.session_user for beacon in shop.beacons()] == ["app\x1fcfo"]
        assert shop.forgeries() == []
    finally:
        shop.admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


@pytest.mark.parametrize("role", ["web-anon", "büro", "a b", "x" * 63])
def test_set_role_to_an_unusual_name(shop: Source, role: str) -> None:
    """A role that the guard cannot hold is told like any other, with each statement; so is the change back."""
    name = sql.Identifier(role)
    shop.admin.execute(sql.SQL("CREATE ROLE {0}; GRANT {0} TO app; GRANT ALL ON orders TO {0}").format(name))
    try:
        app = shop.client()
        for _ in range(2):
            with app.transaction():
                app.execute(sql.SQL("SET LOCAL ROLE {}").format(name))
                app.execute("INSERT INTO orders VALUES (1) ON CONFLICT DO NOTHING")
                app.execute("UPDATE orders SET note = 'b'")
                app.execute("RESET ROLE")
                app.execute("DELETE FROM orders")
        roles = [beacon.role for beacon in shop.beacons()]
        times = 1 if role in ("a b", "x" * 63) else 2
        assert roles == [*[role] * times, "app"] * 2
    finally:
        shop.admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def test_pause_silences_open_sessions(shop: Source) -> None:
    """A pause is in force at once in sessions that have spoken, an installation keeps it, and resuming ends it."""
    app = shop.client()
    app.execute(SPEAKS)
    assert install.pause(shop.admin).complete
    app.execute("UPDATE orders SET note = 'b'")
    shop.client().execute("UPDATE orders SET note = 'c'")
    assert install.install(shop.admin).done == ()
    app.execute("UPDATE orders SET note = 'd'")
    assert len(shop.beacons()) == 1
    assert install.pause(shop.admin, paused=False).complete
    app.execute("UPDATE orders SET note = 'e'")
    assert [beacon.pid for beacon in shop.beacons()] == [app.info.backend_pid] * 2


@pytest.mark.parametrize("name", ['x","cfo', "a'b\\", "tab\tnew\nline", "naïve ✓", "]}", "\\u0000"])
def test_nothing_is_injected(shop: Source, name: str) -> None:
    """Quotes, delimiters, control characters and Unicode in what the client says of itself stay in their field."""
    app = shop.client()
    app.execute(
        "SELECT set_config('application_name', %s, false), set_config('pgwitness.claim', %s, false)", [name] * 2
    )
    app.execute(SPEAKS)
    (beacon,) = shop.beacons()
    shown = app.execute("SELECT current_setting('application_name')").fetchone()
    assert (beacon.session_user, beacon.claim) == ("app", name)
    assert shown == (beacon.application,)


def test_endless_claim_is_cut(shop: Source) -> None:
    """A claim of a megabyte does not swell the WAL: it is cut."""
    app = shop.client()
    app.execute("SELECT set_config('pgwitness.claim', repeat('x', 1000000), false)")
    app.execute(SPEAKS)
    assert shop.beacons()[0].claim == "x" * 1000


def test_replay_in_another_transaction(shop: Source) -> None:
    """A genuine message written again by another transaction is found: its xid is not that transaction's."""
    shop.client().execute(SPEAKS)
    (genuine,) = shop.messages()
    shop.client().execute("SELECT pg_logical_emit_message(true, 'pgwitness.beacon', %s::bytea)", [genuine.content])
    assert shop.forgeries() == ["xid"]


def test_replay_in_a_copy_of_the_database(shop: Source) -> None:
    """A database made from a template carries its key, and still no message of one verifies in the other."""
    shop.client().execute(SPEAKS)
    (genuine,) = shop.messages()
    key = beacon_source.load_key(shop.admin)
    assert key is not None
    with pytest.raises(mac.Forged) as caught:
        BeaconVerifier(key, system_id=shop.system_id, database="copy").verify(genuine.content, xid32=genuine.xid)
    assert caught.value.reason == "database"
    with pytest.raises(mac.Forged) as caught:
        BeaconVerifier(key, system_id="1", database=shop.database).verify(genuine.content, xid32=genuine.xid)
    assert caught.value.reason == "system_id"


def test_key_is_out_of_reach(shop: Source) -> None:
    """The application can neither read the key, call the functions, nor touch what the session remembers."""
    app = shop.client()
    for statement in (
        "SELECT * FROM pgwitness.key",
        "SELECT pgwitness.control('pause')",
        "SELECT setval('pgwitness.session_secret_1', 10)",
        "SELECT currval('pgwitness.session_secret_1')",
        "SELECT last_value FROM pgwitness.session_secret_1",
        "SELECT pgwitness.introduce('')",
        "SELECT pgwitness.claimed()",
        "UPDATE pgwitness.key SET number = 7",
        "SELECT pgwitness.renew_key()",
        "SELECT pgwitness.fresh_key(7)",
        "DELETE FROM pgwitness.covered",
        "CREATE TABLE mine (id int); CREATE TRIGGER t AFTER INSERT ON mine EXECUTE FUNCTION pgwitness.beacon()",
    ):
        with pytest.raises(pg.InsufficientPrivilege):
            app.execute(statement)


def test_disabled_by_the_owner_is_found(shop: Source) -> None:
    """A table's owner can disable the trigger; the table stays registered, and the status names it with the fix."""
    shop.admin.execute("ALTER TABLE orders OWNER TO app")
    shop.client().execute("ALTER TABLE orders DISABLE TRIGGER pgwitness_beacon")
    shop.client().execute(SPEAKS)
    assert shop.beacons() == []
    assert "public.orders" in beacon_source.covered_tables(shop.admin)
    status = {table.table: table for table in install.status(shop.admin).tables}["public.orders"]
    assert status.beacon == "disabled"
    shop.admin.execute((status.fix or "").encode())
    shop.client().execute("UPDATE orders SET note = 'b'")
    assert len(shop.beacons()) == 1


def test_dropped_by_the_owner_is_found(shop: Source) -> None:
    """A trigger that was dropped is missed: the registry still has the table, and an installation puts it back."""
    shop.admin.execute("DROP TRIGGER pgwitness_beacon ON orders")
    assert "public.orders" in beacon_source.covered_tables(shop.admin)
    assert {t.table: t.beacon for t in install.status(shop.admin).tables}["public.orders"] == "missing"
    assert install.install(shop.admin).complete
    assert {t.table: t.beacon for t in install.status(shop.admin).tables}["public.orders"] == "installed"


def test_set_role_is_told(shop: Source) -> None:
    """SET ROLE changes the role in force, not who logged in, and each change within a transaction is told."""
    app = shop.client()
    with app.transaction():
        app.execute(SPEAKS)
        app.execute("SET LOCAL ROLE clerk")
        app.execute("UPDATE orders SET note = 'b'")
        app.execute("RESET ROLE")
        app.execute("UPDATE orders SET note = 'c'")
        app.execute("UPDATE orders SET note = 'd'")
    assert [(b.session_user, b.role) for b in shop.beacons()] == [("app", "app"), ("app", "clerk"), ("app", "app")]


def test_set_session_authorization_is_seen_through(shop: Source) -> None:
    """A superuser who becomes somebody else by SET SESSION AUTHORIZATION is still named as who logged in."""
    admin = shop.client("postgres")
    admin.execute("SET SESSION AUTHORIZATION app")
    admin.execute(SPEAKS)
    assert [(b.session_user, b.role) for b in shop.beacons()] == [("postgres", "app")]


def test_speaks_without_sight_of_the_session(shop: Source) -> None:
    """Where the owner may not see who logged in when, the beacon still names the session's user, each time."""
    shop.admin.execute("REVOKE pg_read_all_stats FROM pgwitness_owner")
    app = shop.client()
    app.execute(SPEAKS)
    app.execute("UPDATE orders SET note = 'b'")
    assert [(b.session_user, b.backend_start_us, b.pid) for b in shop.beacons()] == [
        ("app", 0, app.info.backend_pid)
    ] * 2


@pytest.mark.parametrize("sessions", [1, 5])
def test_emits_outside_of_a_subtransaction(shop: Source, sessions: int) -> None:
    """The message belongs to the transaction itself, which takes one id, in a new session, too.

    Somebody else, autovacuum say, may take an id between two of them, but not each time.
    """
    clients = [shop.client() for _ in range(sessions)]
    for n in range(5):
        clients[n % sessions].execute("INSERT INTO orders VALUES (%s)", [n])
    xids = [beacon.xid for beacon in shop.beacons()]
    assert min(after - before for before, after in pairwise(xids)) == 1


def test_savepoints(shop: Source) -> None:
    """A beacon inside a savepoint that is rolled back goes with it, and the next write speaks again."""
    app = shop.client()
    with app.transaction():
        with contextlib.suppress(psycopg.Rollback), app.transaction():
            app.execute(SPEAKS)
            raise psycopg.Rollback
        app.execute(SPEAKS)
        with app.transaction():
            app.execute("UPDATE orders SET note = 'b'")
    assert len(shop.beacons()) == 1
    assert shop.count("orders") == 1


def test_rollback_leaves_nothing(shop: Source) -> None:
    """A transaction that rolls back leaves no beacon."""
    app = shop.client()
    with contextlib.suppress(psycopg.Rollback), app.transaction():
        app.execute(SPEAKS)
        raise psycopg.Rollback
    assert shop.messages() == []


def test_replica_mode_does_not_silence(shop: Source) -> None:
    """The beacon also speaks under session_replication_role = replica, as restores and some loaders use it."""
    admin = shop.client("postgres")
    admin.execute("SET session_replication_role = replica")
    admin.execute(SPEAKS)
    assert len(shop.beacons()) == 1


def test_nothing_changed_takes_no_transaction_id(shop: Source) -> None:
    """An update that finds no row stays without a transaction id, so that it needs no flush."""
    app = shop.client()
    with app.transaction():
        app.execute("UPDATE orders SET note = 'x' WHERE false")
        app.execute("DELETE FROM orders WHERE id = 4711")
        assert app.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)
    assert shop.messages() == []


BREAKAGES = {
    "key dropped": "DROP TABLE pgwitness.key",
    "key emptied": "DELETE FROM pgwitness.key",
    "key out of reach": "REVOKE ALL ON pgwitness.key FROM pgwitness_owner",
    "key renamed": "ALTER TABLE pgwitness.key RENAME TO elsewhere",
    "key replaced by a view that raises": "DROP TABLE pgwitness.key; CREATE VIEW pgwitness.key AS SELECT ''::bytea"
    " AS inner_pad, ''::bytea AS outer_pad, 'x' AS system_id, 1 / (random() * 0)::int AS number",
    "schema out of reach": "REVOKE ALL ON SCHEMA pgwitness FROM pgwitness_owner, PUBLIC",
    "sequences dropped": "DROP SEQUENCE pgwitness.session_secret_1, pgwitness.session_secret_2",
    "guard revoked": "REVOKE SET ON PARAMETER backtrace_functions FROM pgwitness_owner",
    "messages revoked": "DO $$ DECLARE f text; BEGIN SELECT 3577::regprocedure INTO f;"
    " EXECUTE 'REVOKE ALL ON FUNCTION ' || f || ' FROM PUBLIC, pgwitness_owner'; END $$",
    "function dropped": "DROP FUNCTION pgwitness.beacon(), pgwitness.beacon_each(), pgwitness.beacon_tree() CASCADE",
    "introducing function dropped": "DROP FUNCTION pgwitness.introduce(text)",
    "introducing function renamed": "ALTER FUNCTION pgwitness.introduce(text) RENAME TO other",
    "introducing function out of reach": "REVOKE ALL ON FUNCTION pgwitness.introduce FROM PUBLIC, pgwitness_owner",
    "token function dropped": "DROP FUNCTION pgwitness.claimed()",
    "schema renamed": "ALTER SCHEMA pgwitness RENAME TO elsewhere",
    "schema dropped": "DROP SCHEMA pgwitness CASCADE",
}
GOES_ON = {
    "key dropped": 4,
    "key emptied": 4,
    "key out of reach": 4,
    "key renamed": 4,
    "key replaced by a view that raises": 4,
    "introducing function dropped": 2,
    "introducing function renamed": 2,
    "introducing function out of reach": 2,
    "token function dropped": 4,
}
"""What is still said after a breakage: a session that is introduced needs neither key nor introduction, a new one says
who it is without a code, and who claims nothing needs no token. Two transactions are made by such a session, and two by
a new one."""


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_no_failure_reaches_the_application(shop: Source, breakage: str) -> None:
    """Whatever breaks the beacon, writes go on in open sessions and in new ones, and status says what is wrong."""
    before = shop.client()
    before.execute(SPEAKS)
    shop.release()
    with shop.admin.transaction():
        for statement in (
            BREAKAGES[breakage].split(";") if "DO $$" not in BREAKAGES[breakage] else [BREAKAGES[breakage]]
        ):
            shop.admin.execute(statement.encode())
    try:
        for connection in (before, shop.client()):
            connection.execute("UPDATE orders SET note = 'b'")
            with connection.transaction():
                connection.execute("INSERT INTO notes VALUES ('c')")
                connection.execute("INSERT INTO notes VALUES ('d')")
        assert shop.count("notes") == 4
        assert sum(message.prefix == mac.PREFIX for message in shop.messages()) == 1 + GOES_ON.get(breakage, 0)
        assert not install.status(shop.admin).working
    finally:
        _restore(shop.admin)


def _restore(admin: Connection) -> None:
    """Give back what belongs to the server rather than to the test's database."""
    signature = admin.execute("SELECT 3577::regprocedure::text").fetchone()
    assert signature is not None
    admin.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO PUBLIC").format(sql.SQL(signature[0])))


def test_without_the_guard_each_statement_speaks(database: str) -> None:
    """Where the guard is on by default the beacon speaks with each statement, and still verifies."""
    with psycopg.connect(database, autocommit=True) as admin:
        name = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("ALTER DATABASE {} SET backtrace_functions = 'errfinish'").format(name))
    with opened(database) as shop:
        app = shop.client()
        with app.transaction():
            app.execute(SPEAKS)
            app.execute("UPDATE orders SET note = 'b'")
        one, other = shop.beacons()
        assert mac.same_session(one, other)
        assert install.status(shop.admin).working


def test_the_beacon_says_how_the_session_authenticated(servers_path: Path) -> None:
    """A session that logged in by password says so; SET SESSION AUTHORIZATION changes nothing in it."""
    with Postgres(servers_path / "passwords18", settings=FAST_AND_FORGETFUL) as server:
        (server.place / "pg_hba.conf").write_text(
            "local all all trust\nhost all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        )
        server.restart()
        with fresh_database(server) as dsn, opened(dsn) as shop:
            shop.admin.execute("ALTER ROLE app PASSWORD 'secret'")
            shop.client(password="secret").execute(SPEAKS)
            admin = shop.client("postgres")
            admin.execute("SET SESSION AUTHORIZATION app")
            admin.execute("UPDATE orders SET note = 'b'")
            shop.client(password="secret").execute("CREATE TABLE mine (id int)")
            ddl = [mac.beacon_of(said).auth_method for said in shop.ddl() if said.tag == "CREATE TABLE"]
            said = [(beacon.session_user, beacon.auth_method) for beacon in shop.beacons()]
        server.remove()
    assert said == [("app", "scram-sha-256"), ("postgres", "trust")]
    assert ddl == ["scram-sha-256"]
