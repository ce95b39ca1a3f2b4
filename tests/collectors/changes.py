"""What our publications give of a database: which rows of which relation, as pgoutput writes them."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

PUBLICATIONS = "pgwitness,pgwitness_inserts"


class Changes:
    """A slot of the test's own; `read` gives what came since, as counts of `(operation, relation)`."""

    def __init__(self, sql: Connection) -> None:
        self.sql = sql
        self.slot = f"changes_{sql.info.backend_pid}"
        sql.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])
        self._names: dict[int, str] = {}

    def read(self) -> Counter[tuple[str, str]]:
        """Count inserts (I), updates (U), deletes (D) and truncates (T) by the relation they are published as.

        The registry is published, too, as every table is; the collector leaves it out.
        """
        rows = self.sql.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, 'proto_version', '1',"
            " 'publication_names', %s)",
            [self.slot, PUBLICATIONS],
        ).fetchall()
        found: Counter[tuple[str, str]] = Counter()
        for (data,) in rows:
            message = bytes(data)
            kind = message[:1].decode()
            if kind == "R":
                schema, name = message[5:].split(b"\0")[:2]
                self._names[struct.unpack(">I", message[1:5])[0]] = f"{schema.decode()}.{name.decode()}"
            elif kind in "IUD":
                found[kind, self._names[struct.unpack(">I", message[1:5])[0]]] += 1
            elif kind == "T":
                count = struct.unpack(">I", message[1:5])[0]
                for oid in struct.unpack(f">{count}I", message[6 : 6 + 4 * count]):
                    found[kind, self._names[oid]] += 1
        found.pop(("I", "pgwitness.covered"), None)
        return found

    def close(self) -> None:
        """Drop the slot."""
        self.sql.execute("SELECT pg_drop_replication_slot(%s)", [self.slot])
