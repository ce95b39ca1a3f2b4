"""A database without an encoding (SQL_ASCII), whose clients sent whatever they liked, collected like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psycopg
import pytest
from psycopg import sql

from collectors.sessions.collector import run as sessions
from collectors.stats.collector import run as stats
from pgwitness.core.events import Gap, QueryStats, Session
from tests.collectors.wal_source import MARK, Source, name_of, rows

CAFE = b"caf\xe9"
NO_TEXT = b"\xff\x80"


@pytest.fixture
def plain(database18: str, prepared: Callable[[str], AbstractContextManager[Source]]) -> Iterator[Source]:
    """A database in SQL_ASCII, beside one in UTF-8 that has the statistics."""
    name = f"{name_of(database18)}_plain"
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION pg_stat_statements")
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'").format(sql.Identifier(name))
        )
    dsn = database18.rpartition("/")[0] + f"/{name}"
    try:
        with prepared(dsn) as source:
            yield source
    finally:
        with psycopg.connect(database18, autocommit=True) as admin:
            slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
            admin.execute(slots, [name])
            admin.execute("SELECT pg_stat_statements_reset()")  # its texts would hide those of all others
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_rows_statistics_and_sessions_of_a_database_without_an_encoding(plain: Source, database18: str) -> None:
    """What is text is read, other bytes are shown by their numbers, and nothing that others do is hidden by them."""
    table = b'"t' + CAFE + b'"'
    plain.create(MARK)
    plain.sql.execute(b"CREATE TABLE " + table + b' (id int PRIMARY KEY, "n' + CAFE + b'" text)')
    at = plain.bench
    with plain.running() as raised, at.running(sessions) as raised_too:
        plain.streaming()
        plain.sql.execute(b"INSERT INTO " + table + b" VALUES (1, '" + CAFE + b"'), (2, '" + NO_TEXT + b"')")
        found = plain.until_marked()
        at.raw.wait(lambda: any(e.database == plain.database for e in at.raw.of(Session)), "the session")
    assert raised == raised_too == []
    images = [(name, after) for _, name, _, _, _, after in rows(found) if name != "public.mark"]
    assert images == [
        ('public."tcaf\\xe9"', {"id": 1, "ncaf\\xe9": "caf\\xe9"}),
        ('public."tcaf\\xe9"', {"id": 2, "ncaf\\xe9": "\\xff\\x80"}),
    ]
    with at.running(stats, database18) as raised:
        at.raw.wait(lambda: "stats_begun" in [gap.reason for gap in at.raw.of(Gap)], "the first reading")
        plain.sql.execute(b"UPDATE " + table + b' SET "n' + CAFE + b"\" = 'x'")
        at.raw.wait(lambda: any(e.database == plain.database for e in at.raw.of(QueryStats)), "its statements")
    assert raised == []
    (gap,) = [gap for gap in at.raw.of(Gap) if gap.reason == "stats_texts_unreadable"]
    assert "SQL_ASCII" in str(gap.detail["fix"])
