"""A transaction that cannot be sent or read holds the stream up for some tries, and is then passed over as a gap."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import psycopg
import pytest

from collectors.wal.stuck import PATIENT_TRIES_MAX, TRIES_MAX, Stuck, failed, of_the_data, start_after
from pgwitness.core.events import Gap
from pgwitness.demo.servers import wait_for
from tests.collectors.wal_source import MARK, Source, rows

Prepared = Callable[[str], AbstractContextManager[Source]]


def test_only_one_transaction_is_passed_over_and_only_after_some_tries() -> None:
    """Another one begins to be counted anew; behind the place nothing is passed over any more."""
    stuck = Stuck()
    for _ in range(TRIES_MAX):
        assert start_after(stuck, 0) == 0
        stuck = failed(stuck, 300)
    assert (start_after(stuck, 200), start_after(stuck, 301)) == (301, 0)
    assert failed(stuck, 400) == Stuck(400, 1)
    assert start_after(failed(stuck, 400), 200) == 0


def test_a_shortage_of_memory_is_waited_out() -> None:
    """It may be a matter of the moment: a quarter of an hour goes by before the transaction is given up."""
    stuck = Stuck()
    for _ in range(PATIENT_TRIES_MAX):
        assert start_after(stuck, 0) == 0
        stuck = failed(stuck, 300, short_of_memory=True)
    assert start_after(stuck, 0) == 301


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("22P05", True),
        ("54000", True),
        ("XX000", True),
        ("53200", True),
        ("57P01", False),
        ("55000", False),
        ("", False),
    ],
)
def test_errors_of_the_data_are_told_from_those_of_the_moment(sqlstate: str, expected: bool) -> None:
    """A shutdown, a dropped slot or a lost connection never makes a transaction be passed over."""
    assert of_the_data(sqlstate) is expected


def test_a_row_that_the_server_cannot_send_does_not_hold_the_slot(database18: str, prepared: Prepared) -> None:
    """WIN1252 takes a byte that UTF-8 has no character for: the transactions before and behind it are there."""
    name = f"{database18.rsplit('/', 1)[1]}_w"
    made = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'WIN1252' LC_COLLATE 'C' LC_CTYPE 'C'"
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute(made.encode())
    dsn = f"{database18.rsplit('/', 1)[0]}/{name}"
    try:
        with prepared(dsn) as source:
            source.create(MARK, "CREATE TABLE t (id int PRIMARY KEY, a text)")
            with source.running():
                source.streaming()
                source.sql.execute("INSERT INTO t VALUES (1, 'a')")
                assert len(source.until_marked()) == 1
                before = source.position()
                wait_for(lambda: source.confirmed() >= before, 20, "the first row is confirmed")
            source.sql.execute("INSERT INTO t VALUES (2, chr(129))")
            source.sql.execute("INSERT INTO t VALUES (3, 'c')")
            for _ in range(TRIES_MAX):
                with source.running() as raised:
                    wait_for(lambda raised=raised: bool(raised), 20, "the server ends the stream")  # type: ignore[misc]
                assert "22P05" in str(raised[0]) or "WIN1252" in str(raised[0])
                wait_for(lambda: not source.active(), 20, "the slot is free")
            with source.running() as raised:
                source.streaming()
                found = source.until_marked()
            assert raised == []
            assert [row[2] for row in rows(found)] == [{"id": 1}, {"id": 3}]
            (gap,) = [gap for gap in source.bench.raw.of(Gap) if gap.reason == "transaction_unreadable"]
            assert gap.detail["why"] == "the server cannot send it: SQLSTATE 22P05"
            position = source.position()
            with source.running():
                wait_for(lambda: source.confirmed() >= position, 20, "the slot moves on")
    finally:
        drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s"
        with psycopg.connect(database18, autocommit=True) as admin:
            admin.execute(drop, [name])
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
