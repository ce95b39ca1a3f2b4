"""The key of the beacon: who may read it, that no dump, stream or log holds it, and what happens when it is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from collectors.installation import catalogue, install, source
from collectors.installation.sql import key_templates
from collectors.installation.stub import STUB
from collectors.posture.queries import EVENT_TRIGGERS, TRIGGERS
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Postgres
from tests.collectors.beacon_wal import Connection, Source, opened
from tests.conftest import fresh_database


@pytest.fixture
def shop(database: str) -> Iterator[Source]:
    """A small shop with the beacon, on PostgreSQL 18 and 15; `own` owns its tables and is no superuser."""
    with owned(database) as made:
        yield made


@contextmanager
def owned(dsn: str) -> Iterator[Source]:
    """Open a shop whose tables belong to `own`."""
    with opened(dsn, beacon=False) as made:
        made.admin.execute("CREATE ROLE own LOGIN; GRANT CREATE ON SCHEMA public TO own")
        for table in ("orders", "notes", "days", "days_1"):
            made.admin.execute(f"ALTER TABLE {table} OWNER TO own".encode())
        assert install.install(made.admin).complete
        yield made


def program(server: Postgres, name: str, *arguments: str, stdin: str = "") -> str:
    """Run one of PostgreSQL's programs of a server and give what it printed; an error is one of the test."""
    command = [str(server.bin / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def secrets_of(shop: Source) -> list[str]:
    """Give the key and what is made of it, as a dump or a stream would show them."""
    rows = shop.admin.execute("SELECT key, inner_pad, outer_pad FROM pgwitness.key").fetchall()
    return [bytes(value).hex() for row in rows for value in row]


@pytest.mark.parametrize("who", ["postgres", "own", "reader"])
def test_dumps_hold_nothing_of_ours(shop: Source, postgres: Postgres, who: str) -> None:
    """pg_dump works for a superuser, the owner of the tables and a backup role; of ours it has only the triggers."""
    shop.admin.execute("CREATE ROLE reader LOGIN IN ROLE pg_read_all_data")
    shop.client().execute("INSERT INTO orders VALUES (1, 'a')")
    dump = program(postgres, "pg_dump", "--no-publications", "-d", make_conninfo(shop.dsn, user=who))
    assert "COPY public.orders" in dump
    ours = {line for line in dump.splitlines() if "pgwitness" in line and not line.startswith("--")}
    assert {line.split(" AFTER ")[0].partition(" pgwitness_beacon")[0] for line in ours} <= {
        "CREATE TRIGGER",
        *(f"ALTER TABLE public.{name} ENABLE ALWAYS TRIGGER" for name in ("orders", "notes", "days", "days_1")),
    }
    assert not any(secret in dump for secret in secrets_of(shop))


def test_readers_and_writers_of_all_data_do_not_reach_it(shop: Source) -> None:
    """pg_read_all_data sees no row of the key and the registry, pg_write_all_data changes none."""
    shop.admin.execute("CREATE ROLE anybody LOGIN IN ROLE pg_read_all_data, pg_write_all_data")
    both = shop.client("anybody")
    for table in ("key", "covered"):
        assert both.execute(f"SELECT * FROM pgwitness.{table}".encode()).fetchall() == []
        assert both.execute(f"DELETE FROM pgwitness.{table}".encode()).rowcount == 0
    assert both.execute("UPDATE pgwitness.key SET number = 7").rowcount == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        both.execute("INSERT INTO pgwitness.covered (relation) VALUES ('orders')")
    shop.client().execute("INSERT INTO orders VALUES (1)")
    assert both.execute("SELECT last_value FROM pgwitness.session_secret_1").fetchone() == (1,)
    assert len(shop.beacons()) == 1
    assert len(source.covered_tables(shop.client("pgwitness"))) == 4


def test_no_other_stream_carries_it(shop: Source) -> None:
    """Another slot and a publication FOR ALL TABLES have no row of ours, also when the key changes."""
    shop.admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    slot = f"other_{shop.database}"
    shop.admin.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [slot])
    assert install.rotate_key(shop.admin).complete
    shop.client().execute("CREATE TABLE fresh (id int PRIMARY KEY)")
    shop.client().execute("INSERT INTO fresh VALUES (1)")
    rows = shop.admin.execute("SELECT data FROM pg_logical_slot_get_changes(%s, NULL, NULL)", [slot]).fetchall()
    said = "\n".join(str(data) for (data,) in rows)
    assert "table public.fresh: INSERT" in said
    assert "table pgwitness." not in said
    assert "pgwitness.beacon" in said
    assert not any(secret in said for secret in secrets_of(shop))
    published = shop.admin.execute(
        "SELECT tablename FROM pg_publication_tables WHERE pubname = 'everything' AND schemaname = 'pgwitness'"
    ).fetchall()
    assert published == []


def test_a_new_key_leaves_the_triggers_as_they_were(shop: Source) -> None:
    """What the snapshots compare of triggers is the same under another key, and not with another function."""

    def seen() -> list[object]:
        return sorted(map(str, [*shop.admin.execute(TRIGGERS), *shop.admin.execute(EVENT_TRIGGERS)]))

    before = seen()
    assert before != []
    assert install.rotate_key(shop.admin).complete
    assert seen() == before
    shop.admin.execute("ALTER FUNCTION pgwitness.beacon() SECURITY INVOKER")
    assert seen() != before


def test_a_lock_on_it_makes_nobody_wait(shop: Source) -> None:
    """While somebody holds a lock on the key, new sessions go on at once, and say who without a code."""
    shop.admin.execute("CREATE ROLE writer LOGIN IN ROLE pg_write_all_data")
    locker = shop.client("writer")
    with locker.transaction():
        locker.execute("LOCK TABLE pgwitness.key, pgwitness.covered IN ACCESS EXCLUSIVE MODE")
        app = shop.client(options="-c lock_timeout=0 -c statement_timeout=20s")
        app.execute("INSERT INTO orders VALUES (1)")
        app.execute("CREATE TABLE fresh (id int PRIMARY KEY)")
    app.execute("INSERT INTO orders VALUES (2)")
    assert [beacon.session_user for beacon in shop.claims()] == ["app"]
    assert len([message for message in shop.messages() if message.prefix == "pgwitness.ddl"]) >= 1


def test_a_lost_key_is_made_anew(shop: Source) -> None:
    """The collectors' role has a lost key and the registry made anew; new sessions are proven again, and it is told."""
    before = source.load_key(shop.admin)
    shop.admin.execute("TRUNCATE pgwitness.key, pgwitness.covered")
    collector = shop.client("pgwitness")
    assert collector.execute("SELECT pgwitness.renew_key()").fetchone() == (True,)
    assert collector.execute("SELECT pgwitness.renew_key()").fetchone() == (False,)
    after = source.load_key(collector)
    assert after is not None
    assert after != before
    assert len(source.covered_tables(collector)) == 4
    shop.client().execute("INSERT INTO orders VALUES (1)")
    assert [beacon.session_user for beacon in shop.beacons()] == ["app"]
    assert install.status(shop.admin).working


def test_a_new_key_reaches_open_sessions(shop: Source) -> None:
    """After a rotation the next transaction of an open session speaks under the new key."""
    app = shop.client()
    app.execute("INSERT INTO orders VALUES (1)")
    before = shop.verifier()
    for n in range(2, 5):
        assert install.rotate_key(shop.admin).complete
        app.execute("INSERT INTO orders VALUES (%s)", [n])
    messages = [message for message in shop.messages() if message.prefix == "pgwitness.beacon"]
    assert before.verify(messages[0].content, xid32=messages[0].xid).session_user == "app"
    assert shop.verify(messages[-1]).session_user == "app"
    assert shop.forgeries() == ["mac"] * 3
    assert install.status(shop.client("pgwitness")).working
    assert install.install(shop.admin).done == ()
    assert shop.admin.execute("SELECT number FROM pgwitness.key ORDER BY 1").fetchall() == [(1,), (2,), (3,), (4,)]
    assert install.pause(shop.admin).complete
    assert install.pause(shop.admin, paused=False).complete
    app.execute("INSERT INTO orders VALUES (9)")
    assert shop.verify(shop.messages()[-1]).session_user == "app"


def test_an_older_snapshot_keeps_no_old_key(shop: Source) -> None:
    """A session that introduces itself with a snapshot from before a rotation does so again in its next transaction."""
    app = shop.client()
    with app.transaction():
        app.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        app.execute("SELECT 1 FROM orders")
        before = shop.verifier()
        assert install.rotate_key(shop.admin).complete
        app.execute("INSERT INTO orders VALUES (1)")
    app.execute("INSERT INTO orders VALUES (2)")
    old, new = [message for message in shop.messages() if message.prefix == "pgwitness.beacon"]
    assert before.verify(old.content, xid32=old.xid).session_user == "app"
    assert shop.verify(new).session_user == "app"


def test_an_earlier_installation_is_moved(database: str) -> None:
    """A key that stood in the WAL and in dumps is replaced where it cannot; what it signed can still be verified."""
    with owned(database) as shop:
        as_it_was(shop.admin)
        app = shop.client()
        app.execute("INSERT INTO orders VALUES (1)")
        first = shop.verifier()
        assert install.install(shop.admin).complete
        app.execute("INSERT INTO orders VALUES (2)")
        old, new = [message for message in shop.messages() if message.prefix == "pgwitness.beacon"]
        assert first.verify(old.content, xid32=old.xid).session_user == "app"
        assert shop.verify(new).session_user == "app"
        state = catalogue.read(shop.admin, "pgwitness")
        assert (state.hidden, state.generation, state.kept) == (("covered", "key"), 2, True)
        assert shop.admin.execute("SELECT number, key FROM pgwitness.key ORDER BY 1").fetchall()[0] == (1, first.key)
        assert len(source.covered_tables(shop.admin)) == 4
        assert install.install(shop.admin).done == ()
        assert install.uninstall(shop.admin).complete


def as_it_was(admin: Connection) -> None:
    """Put the tables into the form of version 0.1; its functions read the same columns."""
    admin.execute(key_templates.RELEASE.encode())
    admin.execute(
        "CREATE TABLE pgwitness.old AS SELECT true AS single, key, inner_pad, outer_pad, system_id, false AS paused,"
        " 1 AS number FROM pgwitness.key"
    )
    admin.execute("DROP TABLE pgwitness.key")
    admin.execute("ALTER TABLE pgwitness.old RENAME TO key")
    admin.execute("ALTER TABLE pgwitness.key ADD CONSTRAINT key_pkey PRIMARY KEY (single)")
    admin.execute("ALTER TABLE pgwitness.key OWNER TO pgwitness_owner")
    admin.execute("GRANT SELECT ON pgwitness.key TO pgwitness")
    admin.execute("ALTER TABLE pgwitness.covered SET LOGGED, DISABLE ROW LEVEL SECURITY")


@pytest.fixture(scope="module")
def elsewhere(servers_path: Path) -> Iterator[Postgres]:
    """A server that has never seen pgwitness."""
    with Postgres(servers_path / "elsewhere18", settings=FAST_AND_FORGETFUL) as server:
        yield server
        server.remove()


def test_dumps_restore_where_pgwitness_never_was(database18: str, postgres18: Postgres, elsewhere: Postgres) -> None:
    """After one line, whole and partial dumps go into a foreign cluster without an error; the line harms no beacon."""
    with owned(database18) as shop:
        shop.admin.execute("CREATE TABLE mine (id int PRIMARY KEY); ALTER TABLE mine OWNER TO own")
        shop.admin.execute(
            "CREATE TRIGGER pgwitness_each AFTER INSERT ON mine FOR EACH STATEMENT"
            " EXECUTE FUNCTION pgwitness.beacon('each')"
        )
        app = shop.client()
        app.execute("INSERT INTO orders VALUES (1, 'a')")
        shop.admin.execute(STUB.encode())
        app.execute("INSERT INTO orders VALUES (2, 'b')")
        assert len(shop.beacons()) == 2
        dumps = [
            program(postgres18, "pg_dump", *arguments, "-d", make_conninfo(shop.dsn, user=who))
            for who, arguments in (
                ("postgres", []),
                ("postgres", ["-t", "orders"]),
                ("postgres", ["--section=pre-data", "--section=post-data"]),
                ("own", ["-t", "notes"]),
                ("own", ["-t", "public.*"]),
            )
        ]
        roles = program(postgres18, "pg_dumpall", "-r", "-d", shop.dsn)
    assert "'each'" in dumps[0]
    known = "\n".join(line for line in roles.splitlines() if "ROLE postgres" not in line)
    program(elsewhere, "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", elsewhere.dsn(), stdin=known)
    for dump in dumps:
        with fresh_database(elsewhere) as dsn:
            bare = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn]
            program(elsewhere, *bare, stdin=f"{STUB}\n{dump}")
            with psycopg.connect(dsn, autocommit=True) as there:
                tables = there.execute("SELECT relname FROM pg_class WHERE relname IN ('orders', 'notes')").fetchall()
                assert tables
                for (table,) in tables:
                    there.execute(f"DELETE FROM {table}".encode())


def test_a_restored_database_can_be_installed_on(database18: str, postgres18: Postgres, elsewhere: Postgres) -> None:
    """Where a dump was restored after the line, an installation replaces it, and a removal removes it."""
    with owned(database18) as shop:
        dump = program(postgres18, "pg_dump", "--no-owner", "--no-privileges", "-d", shop.dsn)
    with fresh_database(elsewhere) as dsn:
        program(elsewhere, "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, stdin=f"{STUB}\n{dump}")
        with psycopg.connect(dsn, autocommit=True) as there:
            report = install.install(there)
            assert report.complete, report.left
            assert install.status(there).working
            assert install.install(there).done == ()
            assert install.uninstall(there).complete
            there.execute("INSERT INTO orders VALUES (1)")


def test_a_crash_and_a_promotion_take_the_key(servers_path: Path) -> None:
    """After either, sessions write and are named without a proof; one call brings a key, and no table is uncovered."""
    with Postgres(servers_path / "crash18", settings=FAST_AND_FORGETFUL) as server:
        with fresh_database(server) as dsn:
            with owned(dsn) as shop:
                before = {source.load_key(shop.admin)}
                shop.admin.execute("CHECKPOINT")
                standby = Postgres.standby_of(server, servers_path / "standby18")
                with standby:
                    with psycopg.connect(standby.dsn(dbname=shop.database), autocommit=True) as there:
                        assert source.load_keys(there) == []
                        assert not install.status(there).working
                    server.kill()
                    standby.promote()
                    before |= renewed(make_conninfo(standby.dsn(dbname=shop.database)))
                    standby.remove()
            server.start()
            before |= renewed(dsn)
        server.remove()
    assert len(before) == 3


def renewed(dsn: str) -> set[bytes | None]:
    """Write, have a key made, write again: who wrote is named at first without, then with a proof; gives the key."""
    with psycopg.connect(make_conninfo(dsn, user="app"), autocommit=True) as app:
        with psycopg.connect(dsn, autocommit=True) as admin:
            assert source.load_keys(admin) == []
            assert not install.status(admin).working
        app.execute("INSERT INTO orders VALUES (1) ON CONFLICT DO NOTHING; INSERT INTO notes VALUES ('a')")
        with psycopg.connect(make_conninfo(dsn, user="pgwitness"), autocommit=True) as collector:
            assert collector.execute("SELECT pgwitness.renew_key()").fetchone() == (True,)
            assert len(source.covered_tables(collector)) == 4
            assert install.status(collector).working
            key = source.load_key(collector)
        app.execute("INSERT INTO notes VALUES ('b')")
        with psycopg.connect(dsn, autocommit=True) as admin:
            assert install.install(admin).done == ()
    return {key}


def test_it_can_be_released_for_an_upgrade(shop: Source) -> None:
    """Released, nothing is a member of an extension and the beacon goes on; an installation puts it back."""
    assert install.release(shop.admin).complete
    assert not catalogue.read(shop.admin, "pgwitness").kept
    shop.client().execute("INSERT INTO orders VALUES (1)")
    assert len(shop.beacons()) == 1
    assert install.install(shop.admin).complete
    assert catalogue.read(shop.admin, "pgwitness").kept
