"""What a covered table is, is decided by its OID: no name hides it, and none makes another table one (real servers)."""

from __future__ import annotations

import psycopg

from pgwitness.core.events import Tick, Transaction
from tests.collectors.wal_source import MARK, Source
from tests.streams.folding import fold_all
from tests.streams.records import batch

OFF, ON = "DISABLE TRIGGER pgwitness_beacon", "ENABLE ALWAYS TRIGGER pgwitness_beacon"
WAYS = {
    "renamed": f"ALTER TABLE pay RENAME TO x; ALTER TABLE x {OFF}; UPDATE x SET v = 666; ALTER TABLE x {ON};"
    " ALTER TABLE x RENAME TO pay",
    "moved to another schema": f"ALTER TABLE pay SET SCHEMA other; ALTER TABLE other.pay {OFF};"
    f" UPDATE other.pay SET v = 667; ALTER TABLE other.pay {ON}; ALTER TABLE other.pay SET SCHEMA public",
    "its schema renamed": f"ALTER SCHEMA shop RENAME TO y; ALTER TABLE y.bill {OFF}; UPDATE y.bill SET v = 668;"
    f" ALTER TABLE y.bill {ON}; ALTER SCHEMA y RENAME TO shop",
    "swapped": f"ALTER TABLE pay RENAME TO z; ALTER TABLE debt RENAME TO pay; ALTER TABLE pay {OFF};"
    f" UPDATE pay SET v = 669; ALTER TABLE pay {ON}; ALTER TABLE pay RENAME TO debt; ALTER TABLE z RENAME TO pay",
    "a partition, renamed": f"ALTER TABLE day RENAME TO w; ALTER TABLE w {OFF}; UPDATE w SET v = 670;"
    f" ALTER TABLE w {ON}; ALTER TABLE w RENAME TO day",
}


def test_no_name_hides_a_covered_table(source: Source) -> None:
    """The owner renames, switches off, writes and puts back, all in one transaction: a shadow write, each time."""
    source.create(
        MARK,
        "CREATE ROLE boss LOGIN",
        "CREATE SCHEMA shop AUTHORIZATION boss",
        "CREATE SCHEMA other AUTHORIZATION boss",
        "GRANT CREATE ON SCHEMA public TO boss",
        "CREATE TABLE pay (id int PRIMARY KEY, v int)",
        "CREATE TABLE debt (id int PRIMARY KEY, v int)",
        "CREATE TABLE shop.bill (id int PRIMARY KEY, v int)",
        "CREATE TABLE day (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)",
        "CREATE TABLE day_1 PARTITION OF day FOR VALUES FROM (0) TO (9)",
        *[f"INSERT INTO {name} VALUES (1, 1)" for name in ("pay", "debt", "shop.bill", "day")],
        *[f"ALTER TABLE {name} OWNER TO boss" for name in ("pay", "debt", "shop.bill", "day", "day_1")],
        f"GRANT CREATE ON DATABASE {source.database} TO boss",
    )
    for name in ("pgwitness_ddl", "pgwitness_drop"):
        source.sql.execute(f"ALTER EVENT TRIGGER {name} DISABLE".encode())
    with source.running():
        source.streaming()
        with psycopg.connect(source.dsn.replace("postgres@", "boss@")) as boss:
            for way in WAYS.values():
                boss.execute(way.encode())
                boss.commit()
        with psycopg.connect(source.dsn, autocommit=True) as other:
            other.execute("DROP TABLE pay")
            other.execute("CREATE TABLE pay (id int PRIMARY KEY, v int)")
            other.execute("ALTER PUBLICATION pgwitness ADD TABLE pay")
            other.execute("INSERT INTO pay VALUES (9, 9)")
        found = source.until_marked()
    past = [finding(part) for part in found if not part.beacons]
    assert past[: len(WAYS)] == ["shadow_write"] * len(WAYS)
    assert "shadow_write" not in past[len(WAYS) :]  # the table of that name is another one


def finding(part: Transaction) -> object:
    """Fold one transaction, and say what is found in it."""
    later = Tick(captured_at_us=part.captured_at_us + 60_000_000)
    (event,) = (event for event in fold_all([batch(part), batch(later)]) if event.kind == "change")
    return event.detail.get("finding")
