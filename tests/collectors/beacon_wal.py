"""What a test needs to look at the beacon from outside: a database with it, clients, and the WAL as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql
from psycopg.conninfo import make_conninfo

from collectors.beacon import mac
from collectors.beacon.verifier import BeaconVerifier, claimed
from collectors.installation import install, source
from collectors.installation.sql import key_templates
from pgwitness.core.events import Beacon

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA = """
CREATE TABLE orders (id int PRIMARY KEY, note text);
CREATE TABLE notes (note text);
CREATE TABLE days (day int PRIMARY KEY) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (100);
CREATE ROLE app LOGIN;
CREATE ROLE clerk;
GRANT clerk TO app;
GRANT ALL ON orders, notes, days, days_1 TO app, clerk;
GRANT CREATE ON SCHEMA public TO app;
CREATE PUBLICATION peek;
"""


class Message(Struct, frozen=True):
    """One logical message: the transaction's xid (32 bits), its prefix and its content."""

    xid: int
    prefix: str
    content: bytes


class Source:
    """A database with the beacon; `admin` is a superuser, `client` connects as anybody."""

    def __init__(self, dsn: str, *, beacon: bool = True) -> None:
        self.dsn = dsn
        self.admin: Connection = psycopg.connect(dsn, autocommit=True)
        self.admin.execute(SCHEMA)
        self.slot = f"peek_{self.admin.info.dbname}"
        self._clients: list[Connection] = []
        if beacon:
            report = install.install(self.admin)
            assert report.complete, report.left
        self.admin.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])
        row = self.admin.execute("SELECT (pg_control_system()).system_identifier::text, current_database()").fetchone()
        assert row is not None
        self.system_id, self.database = row

    def release(self) -> None:
        """Take what is ours out of the extension that holds it, so that a test may drop it."""
        self.admin.execute(key_templates.RELEASE.encode())

    def client(self, user: str = "app", **settings: str) -> Connection:
        """Connect as an application does; leave autocommit on."""
        connection: Connection = psycopg.connect(make_conninfo(self.dsn, user=user, **settings), autocommit=True)
        self._clients.append(connection)
        return connection

    def close(self) -> None:
        """Close every connection."""
        for connection in [*self._clients, self.admin]:
            connection.close()

    def messages(self) -> list[Message]:
        """Read every logical message that a committed transaction has left in the WAL since the start.

        Messages need no publication; an empty one of the test's own is older than its slot, as 15 wants it.
        """
        rows = self.admin.execute(
            "SELECT xid::text::int8, data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
            " 'proto_version', '1', 'publication_names', 'peek', 'messages', 'true')",
            [self.slot],
        ).fetchall()
        return [_message(xid, bytes(data)) for xid, data in rows if bytes(data[:1]) == b"M"]

    def verifier(self) -> BeaconVerifier:
        """Make what the collector verifies this database's beacons with."""
        key = source.load_key(self.admin)
        assert key is not None
        return BeaconVerifier(key, system_id=self.system_id, database=self.database)

    def verify(self, message: Message) -> Beacon:
        """Verify a message as the collector does, in the transaction it was found in."""
        return self.verifier().verify(message.content, xid32=message.xid & 0xFFFFFFFF)

    def beacons(self) -> list[Beacon]:
        """Verify every message under the beacon's prefix; a forged one is an error."""
        return [self.verify(message) for message in self.messages() if message.prefix == mac.PREFIX]

    def ddl(self) -> list[mac.DdlPayload]:
        """Verify every message of the event triggers; a forged one is an error."""
        key = source.load_key(self.admin)
        assert key is not None
        return [
            mac.verify_ddl(
                message.content, key, system_id=self.system_id, database=self.database, xid32=message.xid & 0xFFFFFFFF
            )
            for message in self.messages()
            if message.prefix == mac.DDL_PREFIX
        ]

    def forgeries(self) -> list[str]:
        """Give the reasons of the messages that do not verify."""
        reasons = []
        for message in self.messages():
            if message.prefix == mac.PREFIX:
                try:
                    self.verify(message)
                except mac.Forged as forged:
                    reasons.append(forged.reason)
        return reasons

    def claims(self) -> list[Beacon]:
        """Read the beacons that were written without a key."""
        found = [
            claimed(message.content, xid32=message.xid & 0xFFFFFFFF, database=self.database)
            for message in self.messages()
            if message.prefix == mac.PREFIX
        ]
        return [beacon for beacon in found if beacon is not None]

    def count(self, table: str) -> int:
        """Count a table's rows."""
        row = self.admin.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def opened(dsn: str, *, beacon: bool = True) -> Iterator[Source]:
    """Open a `Source` and close it."""
    made = Source(dsn, beacon=beacon)
    try:
        yield made
    finally:
        made.close()


def _message(xid: int, data: bytes) -> Message:
    """Read pgoutput's Message: `M`, flags, LSN, prefix, length, content (PostgreSQL manual, 55.9)."""
    end = data.index(b"\0", 10)
    return Message(xid, data[10:end].decode(), data[end + 5 :])
