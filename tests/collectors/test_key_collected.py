"""The collector while the key of the beacon is lost and changed: nothing is forged, and what is not proven is told."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from collectors.installation import catalogue, install
from collectors.installation.planning import rotate_key
from collectors.posture import source as posture_source
from pgwitness.core.events import Control, Gap, Transaction
from pgwitness.demo.servers import wait_for
from tests.collectors.wal_source import MARK, Source, rows


def writer(source: Source) -> psycopg.Connection[tuple[object, ...]]:
    """Open a session of its own."""
    return psycopg.connect(make_conninfo(source.dsn, application_name="till"), autocommit=True)


def said(transactions: list[Transaction]) -> list[bool]:
    """Say of each row's transaction whether its beacon is proven; one without is an error."""
    assert [
        (t.xid, bytes(t.rows), t.beacons, t.captured_at_us) for t in transactions if t.n_rows and not t.beacons
    ] == []
    return [t.beacons[0].authenticated for t in transactions if t.n_rows]


def test_a_lost_key_is_made_anew_and_nothing_is_forged(source: Source) -> None:
    """A session that had introduced itself stays proven, a new one is named, and within seconds both are proven."""
    source.create(MARK, "CREATE TABLE orders (id int PRIMARY KEY)")
    with source.running(), writer(source) as old:
        source.streaming()
        old.execute("INSERT INTO orders VALUES (1)")
        with source.sql.transaction():
            # As a crash does it, but so that nobody makes another one before somebody has written.
            source.sql.execute("LOCK TABLE pgwitness.key IN ACCESS EXCLUSIVE MODE")
            source.sql.execute("TRUNCATE pgwitness.key")
            old.execute("INSERT INTO orders VALUES (2)")
            with writer(source) as new:
                new.execute("INSERT INTO orders VALUES (3)")
        wait_for(lambda: source.sql.execute("SELECT FROM pgwitness.key").fetchone() is not None, 20, "another key")
        with writer(source) as new:
            new.execute("INSERT INTO orders VALUES (4)")
        old.execute("INSERT INTO orders VALUES (5)")
        assert install.rotate_key(source.sql).complete
        old.execute("INSERT INTO orders VALUES (6)")
        source.bench.raw.wait(lambda: len(reasons(source)) >= 2, "both gaps")
        found = source.until_marked()
    assert said(found) == [True, True, False, True, True, True]
    assert [t.forged for t in found if t.forged] == []
    assert {b.session_user for t in found for b in t.beacons} == {"postgres"}
    assert sorted(reasons(source)) == ["beacon_unproven", "key_lost"]
    told = [event.operation for event in source.bench.raw.of(Control)]
    assert [name for name in told if name.endswith("_key")] == ["beacon_renew_key", "beacon_rotate_key"]


def test_a_rotation_that_is_long_under_way_is_proven(source18: Source) -> None:
    """A stranger makes the keys be read while the new one is not there for others yet: only the stranger has forged."""
    source18.create(MARK, "CREATE TABLE orders (id int PRIMARY KEY)", "CREATE ROLE stranger LOGIN")
    forge = "SELECT pg_logical_emit_message(true, 'pgwitness.ddl', repeat('x', 99))"
    with source18.running():
        source18.streaming()
        stranger = psycopg.connect(make_conninfo(source18.dsn, user="stranger"), autocommit=True)
        with stranger, source18.sql.transaction():
            for statement in rotate_key(catalogue.read(source18.sql, "pgwitness")):
                source18.sql.execute(statement.sql.encode())
            stranger.execute(forge)
            raw = source18.bench.raw
            raw.wait(lambda: any(t.forged for t in raw.of(Transaction)), "the forgery")
        source18.sql.execute("INSERT INTO orders VALUES (1)")
        found = source18.until_marked()
    assert said(found) == [True]
    assert [[forgery.reason for forgery in t.forged] for t in found if t.forged] == [["mac"]]
    assert "beacon_rotate_key" in [event.operation for event in source18.bench.raw.of(Control)]


def test_a_lock_on_key_and_registry_stops_nothing(source18: Source) -> None:
    """Who may write all data may lock any table: rows land meanwhile, and a stranger's message is told in one way."""
    source18.create(MARK, "CREATE TABLE orders (id int PRIMARY KEY)", "CREATE TABLE other (id int PRIMARY KEY)")
    source18.sql.execute("CREATE ROLE locker LOGIN IN ROLE pg_write_all_data")
    with source18.running() as raised, writer(source18) as app:
        source18.streaming()
        app.execute("INSERT INTO orders VALUES (1)")
        with psycopg.connect(make_conninfo(source18.dsn, user="locker")) as locker:
            locker.execute("LOCK TABLE pgwitness.key, pgwitness.covered IN ACCESS EXCLUSIVE MODE")
            app.execute("INSERT INTO other VALUES (2)")
            app.execute("SELECT pg_logical_emit_message(true, 'pgwitness.ddl', repeat('x', 99))")
            app.execute("INSERT INTO orders VALUES (3)")
            source18.until_marked()
            with pytest.raises(psycopg.errors.LockNotAvailable):
                posture_source.database(source18.sql, "shop")
        found = source18.until_marked()
    assert raised == []
    assert [row[2] for row in rows(found)] == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert said(found) == [True, True, True]
    told = [gap.detail["why"] for gap in source18.bench.raw.of(Gap) if gap.reason == "message_unreadable"]
    assert len(told) + sum(len(t.forged) for t in found) == 1


def test_a_backlog_of_before_a_rotation_is_proven(source18: Source) -> None:
    """What waited in the slot while the key was changed twice verifies by the key that signed it, or is a claim."""
    source18.create(MARK, "CREATE TABLE orders (id int PRIMARY KEY)")
    with source18.running():
        source18.streaming()
    with writer(source18) as app:
        for n in range(6):
            app.execute("INSERT INTO orders VALUES (%s)", [n])
            assert install.rotate_key(source18.sql).complete
        app.execute("INSERT INTO orders VALUES (9)")
    with source18.running():
        found = source18.until_marked()
    # The first key is known from before, the last four are in the database; nobody has those between.
    assert said(found) == [True, False, False, True, True, True, True]
    assert [t.forged for t in found if t.forged] == []


def reasons(source: Source) -> list[str]:
    """Name the gaps that were sent."""
    return [gap.reason for gap in source.bench.raw.of(Gap) if gap.reason in ("key_lost", "beacon_unproven")]
