"""A role that may do nothing but connect writes messages under our prefixes by the ten thousand, on a real server."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgwitness.demo.servers import wait_for
from pgwitness.events import Control, Transaction
from tests.collectors.wal_source import MARK, Source, rows

PREFIXES = ("pgwitness.beacon", "pgwitness.ddl", "pgwitness.control", "pgwitness.heartbeat", "pgwitness.silenced")
EVENTS_MAX = 5 * 30
"""Five a second, if the flood takes half a minute on a busy machine."""


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_flood_is_told_in_few_words_and_hides_nothing(source18: Source, size: int) -> None:
    """Rows before, in and after it are there with their beacons; a few messages are told, and how many there were."""
    source = source18
    source.create(MARK, "CREATE TABLE item (id int PRIMARY KEY)", "CREATE ROLE stranger LOGIN")
    count = 10_000 if size < 1_000 else 200
    with source.running() as raised:
        source.streaming()
        source.sql.execute("INSERT INTO item VALUES (1)")
        with psycopg.connect(make_conninfo(source.dsn, user="stranger"), autocommit=True) as stranger:
            for prefix in PREFIXES:
                for transactional in (False, True):
                    stranger.execute(
                        "SELECT count(pg_logical_emit_message(%s, %s, repeat('x', %s))) FROM generate_series(1, %s)",
                        (transactional, prefix, size, count),
                    )
                    stranger.execute("SELECT pg_logical_emit_message(true, %s, 'x')", (prefix,))
                    source.sql.execute("INSERT INTO item SELECT max(id) + 1 FROM item")
        found = source.until_marked()
        raw = source.bench.raw
        wait_for(lambda: flood(raw.of(Control)) is not None, 20, "the flood is told")
    assert raised == []
    written = [transaction for transaction in found if transaction.n_rows]
    assert [row[2] for row in rows(written)] == [{"id": n} for n in range(1, 12)]
    assert all(transaction.beacons for transaction in written)
    assert len(raw.of(Transaction)) - len(written) < EVENTS_MAX
    control = flood(raw.of(Control))
    assert control is not None
    assert control.detail["reason"] == "flood"
    assert control.detail["finding"] == "beacon_forged"


def flood(events: list[Control]) -> Control | None:
    """Find what was told of a flood as one."""
    return next((event for event in events if event.operation == "beacon_forged"), None)
