"""Tables that are made and dropped all day fill no memory of the WAL collector, and no row is lost (real servers)."""

from __future__ import annotations

import psycopg
import pytest

from collectors.wal.database import forgetting
from collectors.wal.decoding.described import Described
from pgwitness.core.events import Gap
from pgwitness.demo.servers import wait_for
from tests.collectors.wal_source import MARK, Source, rows

TABLES = 30


def test_tables_that_are_gone_are_forgotten_once_nothing_can_come_of_them(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while a transaction of that time is open; what is still there is kept, and what comes again is described."""
    monkeypatch.setattr(forgetting, "DESCRIBED_MIN", TABLES // 2)
    forgotten: list[int] = []
    forget = Described.forget

    def seen(tables: Described, oids: list[bytes]) -> None:
        forget(tables, oids)
        forgotten.append(len(oids))
        assert tables.plans.keys() == tables.seen.keys()

    monkeypatch.setattr(Described, "forget", seen)
    source.create(MARK, "CREATE TABLE kept (id int PRIMARY KEY)", "CREATE TYPE mood AS ENUM ('fine')")
    with psycopg.connect(source.dsn) as held, source.running():
        source.streaming()
        source.sql.execute("INSERT INTO kept VALUES (1)")
        held.execute("SELECT pg_current_xact_id()")
        for number in range(TABLES):
            source.sql.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, m mood)".encode())
            source.sql.execute(f"INSERT INTO t{number} VALUES ({number}, 'fine'); DROP TABLE t{number}".encode())
        found = source.until_marked()
        confirmed = source.confirmed()
        wait_for(lambda: source.confirmed() > confirmed, 20, "a look with the transaction open")
        assert forgotten == []
        held.rollback()
        # A look that found nothing to forget waits for twice as many tables: so many more come.
        for number in range(3 * TABLES):
            source.sql.execute(f"CREATE TABLE u{number} (id int PRIMARY KEY, m mood)".encode())
            source.sql.execute(f"INSERT INTO u{number} VALUES ({number}, 'fine'); DROP TABLE u{number}".encode())
        wait_for(lambda: bool(forgotten), 30, "those that are gone are forgotten")
        # Of those that went just before the look, a transaction may still be open.
        assert forgotten[0] >= TABLES // 2
        source.sql.execute("INSERT INTO kept VALUES (2); CREATE TABLE again (id int PRIMARY KEY, m mood)")
        source.sql.execute("INSERT INTO again VALUES (3, 'fine')")
        found += source.until_marked()
    landed = {(relation, *key.values()) for kind, relation, key, *_ in rows(found) if kind == "i"}
    made = {(f"public.t{number}", number) for number in range(TABLES)}
    made |= {(f"public.u{number}", number) for number in range(3 * TABLES)}
    assert landed >= made | {("public.kept", 1), ("public.kept", 2), ("public.again", 3)}
    assert source.bench.raw.of(Gap) == []
