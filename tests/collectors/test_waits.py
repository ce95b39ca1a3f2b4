"""No session waits because of us: many that make tables and write at once, seen by their locks, on 15 and 18."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from collectors.installation import install
from collectors.installation.job import Job
from pgwitness.demo.servers import Postgres
from tests.conftest import fresh_database

SESSIONS = 20
SECONDS = 3.0
SAMPLE = """
SELECT l.locktype, coalesce(c.relname, l.objid::text, '') FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid LEFT JOIN pg_class AS c ON c.oid = l.relation
WHERE NOT l.granted AND a.datname = current_database()"""


def work(dsn: str, number: int, until: float, done: list[int], failed: list[str]) -> None:
    """Make tables, write to one of all, migrate and drop one's own; each in transactions that stay open a little."""
    with psycopg.connect(dsn, autocommit=True, application_name="app") as app:
        app.execute("SET deadlock_timeout = '10s'")
        turn = 0
        while time.monotonic() < until:
            turn += 1
            table = f"t_{number}_{turn}"
            try:
                with app.transaction():
                    app.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, v int)".encode())
                    app.execute(f"INSERT INTO {table} VALUES (1, 1)".encode())
                    app.execute("UPDATE shared SET v = v + 1 WHERE id = %s", [number])
                with app.transaction():
                    app.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey".encode())
                    app.execute(f"UPDATE {table} SET v = 2".encode())
                    app.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (id)".encode())
                app.execute(f"DROP TABLE {table}".encode())
            except psycopg.Error as error:
                failed.append(str(error))
        done.append(turn)


def waits(dsn: str) -> tuple[list[tuple[str, str]], int]:
    """Let the sessions work, and give each lock that one of them was seen to wait for, and how much was done."""
    until = time.monotonic() + SECONDS
    done: list[int] = []
    failed: list[str] = []
    threads = [threading.Thread(target=work, args=(dsn, n, until, done, failed)) for n in range(SESSIONS)]
    for thread in threads:
        thread.start()
    seen: list[tuple[str, str]] = []
    with psycopg.connect(dsn, autocommit=True) as watcher:
        while any(thread.is_alive() for thread in threads):
            seen += watcher.execute(SAMPLE.encode()).fetchall()
            time.sleep(0.01)
    assert failed == []
    return seen, sum(done)


@pytest.fixture
def shop(postgres: Postgres) -> Iterator[str]:
    """A database with one table that all sessions write to, each to a row of its own."""
    with fresh_database(postgres) as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE TABLE shared (id int PRIMARY KEY, v int)")
            admin.execute("INSERT INTO shared SELECT n, 0 FROM generate_series(0, %s) AS n", [SESSIONS])
        yield dsn


def test_twenty_sessions_never_wait_for_us(shop: str) -> None:
    """With the event triggers and the job, nobody waits for a lock on a relation or an object; nothing fails."""
    with psycopg.connect(shop, autocommit=True) as admin:
        assert install.install(admin).complete
    stop = threading.Event()

    def job() -> None:
        with psycopg.connect(shop, user="pgwitness", autocommit=True) as collector:
            kept = Job()
            while not stop.wait(0.02):
                kept.hasten()
                kept.step(collector, time.monotonic())

    keeper = threading.Thread(target=job)
    keeper.start()
    try:
        seen, done = waits(shop)
    finally:
        stop.set()
        keeper.join()
    # What PostgreSQL itself waits for a moment at, extending a catalogue's file, is no lock of anybody.
    assert [lock for lock in seen if lock[0] not in ("extend", "virtualxid")] == []
    assert done > SESSIONS


def test_the_job_is_never_waited_for(shop: str) -> None:
    """A table in use is passed over at once: behind an open writer and a reader the job stands in nobody's way."""
    with psycopg.connect(shop, autocommit=True) as admin:
        assert install.install(admin).complete
        admin.execute("CREATE TABLE busy (id int PRIMARY KEY, v int)")
        admin.execute("INSERT INTO busy VALUES (1, 1)")
        with psycopg.connect(shop) as writer, psycopg.connect(shop, user="pgwitness", autocommit=True) as collector:
            writer.execute("UPDATE busy SET v = 2")
            step = "SELECT what, state FROM pgwitness.publish(NULL, '{}')"
            assert collector.execute(step).fetchall() == [(3, None)]  # writers do not stand in its way
            assert collector.execute(step).fetchall() == [(6, "55P03")]  # the form of the trigger waits for its time
            admin.execute("SET lock_timeout = '1s'")
            admin.execute("INSERT INTO busy VALUES (2, 2)")
        with psycopg.connect(shop, user="pgwitness", autocommit=True) as collector:
            assert collector.execute(step).fetchall() == [(6, None)]
            assert collector.execute(step).fetchall() == []
