"""A database with the beacon, its writers, and what the WAL collector made of what they wrote."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import msgspec
import psycopg
import pytest

from collectors.context import Context
from collectors.installation.install import install
from collectors.installation.job import Job
from collectors.wal import collector
from collectors.wal.database import slot
from pgwitness.core.config import Config
from pgwitness.core.events import Row, Transaction
from pgwitness.demo.servers import wait_for
from tests.collectors.raw_topic import Bench

Factory = Callable[..., Config]
CLEAR = '[privacy]\nclear = ["*"]\n'


def name_of(dsn: str) -> str:
    """Give the database of a DSN."""
    return dsn.rsplit("/", 1)[1]


@contextmanager
def job_rests() -> Iterator[None]:
    """Let no collector of this process change what is published; calls of the function itself still do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "step", lambda *_, **__: False)
        yield


def collect(context: Context, dsn: str, stop: threading.Event) -> None:
    """Run the collector for the database of a DSN."""
    collector.run(context, name_of(dsn), stop)


class Source:
    """A database with the beacon installed over it, its writers, and what the collector made of them."""

    def __init__(self, dsn: str, made: Bench) -> None:
        self.dsn = dsn
        self.bench = made
        self.sql = psycopg.connect(dsn, autocommit=True)
        self.database = name_of(dsn)
        self.slot = slot.slot_name("pgwitness", self.database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sql.close()

    def create(self, *statements: str) -> None:
        for statement in statements:
            self.sql.execute(statement)
        install(self.sql)

    def running(self) -> Any:
        return self.bench.running(collect, self.dsn)

    def streaming(self) -> None:
        """Wait until the slot is there and its walsender runs."""
        wait_for(self.active, 20, "the slot is active")

    def active(self) -> bool:
        query = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
        row = self.sql.execute(query, (self.slot,)).fetchone()
        return row is not None and bool(row[0])

    def confirmed(self) -> int:
        query = "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s"
        row = self.sql.execute(query, (self.slot,)).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def position(self) -> int:
        row = self.sql.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        assert row is not None
        return int(row[0])

    def write_wal(self, bytes_min: int) -> None:
        """Let the server's WAL grow by at least so many bytes, of which no transaction is part.

        One `pg_switch_wal` does not do it: it skips what is left of a segment, which may be a few bytes.
        """
        until = self.position() + bytes_min
        while self.position() < until:
            self.sql.execute("SELECT pg_switch_wal()")
            self.sql.execute("SELECT pg_logical_emit_message(false, 'filler', '')")

    def mark(self) -> int:
        """Write the row that ends a test's writes; returns its transaction id."""
        row = self.sql.execute("INSERT INTO mark VALUES (default) RETURNING pg_current_xact_id()::text").fetchone()
        assert row is not None
        return int(row[0])

    def until_marked(self) -> list[Transaction]:
        """Mark, wait for the mark in the topic, and give the transactions before it that hold other rows."""
        xid = self.mark()
        raw = self.bench.raw
        raw.wait(lambda: any(t.xid == xid for t in raw.of(Transaction)), f"transaction {xid}")
        return [t for t in raw.of(Transaction) if not is_mark(t)]


@contextmanager
def reading_late() -> Iterator[None]:
    """Keep collectors from reading the stream until the block ends, as one that is behind does; all else goes on."""
    consume, over = collector.Stream._consume, threading.Event()

    def wait_or_consume(stream: collector.Stream) -> None:
        if over.wait(0.2):
            consume(stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector.Stream, "_consume", wait_or_consume)
        yield
        over.set()


def is_mark(transaction: Transaction) -> bool:
    """Say whether a transaction only marks the end of a test's writes."""
    return [relation.name for relation in transaction.relations] == ["public.mark"]


def rows(transactions: list[Transaction]) -> list[tuple[Any, ...]]:
    """Decode rows: (operation, relation, key, changed, before, after)."""
    found = []
    for transaction in transactions:
        for row in msgspec.json.decode(transaction.rows, type=list[Row]):
            images = (msgspec.json.decode(image) for image in (row.key, row.before, row.after))
            key, before, after = images
            name = transaction.relations[row.relation].name
            found.append((row.operation, name, key, row.changed, before, after))
    return found


MARK = "CREATE TABLE mark (id bigserial PRIMARY KEY)"
