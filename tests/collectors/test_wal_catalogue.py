"""The catalogue of now counts for rows of then only where it certainly held already: else a key is unknown."""

from __future__ import annotations

import pytest

from collectors.wal.database.catalogue import HORIZONS_MAX, Horizon, Horizons, Written
from pgwitness.demo.servers import wait_for
from tests.collectors.wal_source import MARK, Source, rows


def test_the_last_horizon_before_a_place_counts() -> None:
    """Before the first nothing is known; only so many are kept; one that is no news is left out."""
    horizons = Horizons(Horizon(10, 3))
    for lsn in (20, 20, 15, 30):
        horizons.add(Horizon(lsn, lsn))
    assert [horizons.at(lsn).xid for lsn in (9, 10, 19, 20, 29, 30, 99)] == [0, 3, 3, 20, 20, 30, 30]
    for lsn in range(100, 100 + 2 * HORIZONS_MAX):
        horizons.add(Horizon(lsn, lsn))
    assert horizons.at(100).xid == 0
    assert Horizons(Horizon()).at(1 << 62) == Horizon()


@pytest.mark.parametrize(
    ("xids", "xid", "before", "held"),
    [
        ((99,), 100, (), True),
        ((100,), 100, (), False),
        ((99, 100), 100, (), False),
        ((99, 100), 100, (100,), True),
        ((1, 2), 0, (), True),
        ((), 0, (), True),
        ((0xFFFFFFF0,), (7 << 32) + 5, (), True),
        ((3,), (6 << 32) + 0xFFFFFFF0, (), False),
        ((3,), (6 << 32) + 0xFFFFFFF0, ((7 << 32) + 3,), True),
    ],
)
def test_what_was_written_before(xids: tuple[int, ...], xid: int, before: tuple[int, ...], held: bool) -> None:
    """Below the horizon, or by DDL that came before; ids are compared over the wrap of their 32 bits."""
    assert Written(("a",), xids).held(Horizon(1, xid), before) is held


def test_keys_are_those_of_the_row(source: Source) -> None:
    """A primary key that was made, moved or renamed after the rows is not theirs; what the WAL itself tells is."""
    source.create(
        MARK,
        "CREATE TABLE moved (a int PRIMARY KEY, b int NOT NULL)",
        "CREATE TABLE renamed (a int PRIMARY KEY, b int NOT NULL)",
        "CREATE TABLE stays (a int PRIMARY KEY, b int NOT NULL)",
        "CREATE TABLE later (a int NOT NULL, b int)",
        "ALTER TABLE moved REPLICA IDENTITY FULL",
        "ALTER TABLE renamed REPLICA IDENTITY FULL",
        "ALTER TABLE stays REPLICA IDENTITY FULL",
        "CREATE TABLE told (a int PRIMARY KEY, b int NOT NULL)",
    )
    with source.running():
        source.streaming()
        first = source.until_marked()
        confirmed = source.position()
        wait_for(lambda: source.confirmed() >= confirmed, 20, "what stood there is confirmed")
    assert first == []
    for table in ("moved", "renamed", "stays", "later", "told"):
        source.sql.execute(f"INSERT INTO {table} VALUES (1, 2)".encode())  # while nobody reads
    source.sql.execute("ALTER TABLE moved DROP CONSTRAINT moved_pkey, ADD PRIMARY KEY (b)")
    source.sql.execute("ALTER TABLE renamed RENAME a TO c")
    source.sql.execute("ALTER TABLE renamed RENAME b TO a")
    source.sql.execute("ALTER TABLE later ADD PRIMARY KEY (a)")
    source.sql.execute("ALTER TABLE told DROP CONSTRAINT told_pkey, ADD PRIMARY KEY (b)")
    with source.running() as raised:
        source.streaming()
        for table in ("moved", "renamed", "stays", "later", "told"):
            source.sql.execute(f"INSERT INTO {table} VALUES (3, 4)".encode())
        found = rows(source.until_marked())
    assert raised == []
    keys = [(name.removeprefix("public."), key) for operation, name, key, *_ in found if operation == "i"]
    assert keys[:5] == [
        ("moved", None), ("renamed", None), ("stays", {"a": 1}), ("later", None), ("told", {"a": 1}),
    ]  # fmt: skip
    assert keys[5:] == [
        ("moved", {"b": 4}), ("renamed", {"c": 3}), ("stays", {"a": 3}), ("later", {"a": 3}), ("told", {"b": 4}),
    ]  # fmt: skip
