"""What the catalogue of now says about rows of then: only what certainly held already when they were written.

The stream does not tell a table's primary key under REPLICA IDENTITY FULL, nor which columns are computed. The
catalogue does, but as of now. A row of the catalogue that transaction C wrote held for the rows of transaction X if C
committed before X: C took the table's lock against writers and held it to its end, so one of them was over before the
other touched the table. That is known in two ways: C's DDL came in the stream before X; or by a *horizon*, a place in
the WAL of which is known that every transaction below some id had ended there, C is below it, and X committed behind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container
from typing import Any

import psycopg
from msgspec import Struct

from collectors.wal.decoding.pgoutput import Relation
from collectors.wal.decoding.place import wide
from collectors.wal.decoding.plan import TableFacts

Connection = psycopg.Connection[tuple[Any, ...]]
HORIZONS_MAX = 256
FROZEN = 2
"""The last transaction id that stands for all of the past (FirstNormalTransactionId is 3)."""


class Horizon(Struct, frozen=True, order=True):
    """When the WAL stood at `lsn`, every transaction below `xid` (64 bits) had ended."""

    lsn: int = 0
    xid: int = 0


class Horizons:
    """The horizons known of one stream, bounded; the oldest go first, because the stream goes on."""

    def __init__(self, remembered: Horizon) -> None:
        self._known = [remembered] if remembered.lsn else []

    def add(self, horizon: Horizon) -> None:
        """Learn a new one, behind all that are known."""
        if not self._known or horizon.lsn > self._known[-1].lsn:
            self._known.append(horizon)
        del self._known[:-HORIZONS_MAX]

    def at(self, lsn: int) -> Horizon:
        """Return the last one at or before a place, an empty one where none is known."""
        place = bisect_right(self._known, lsn, key=lambda horizon: horizon.lsn)
        return self._known[place - 1] if place else Horizon()


class Written(Struct, frozen=True):
    """A part of the catalogue with the ids (32 bits) of the transactions that wrote it."""

    names: tuple[str, ...]
    xids: tuple[int, ...]

    def held(self, horizon: Horizon, before: Container[int]) -> bool:
        """Return whether it held for a transaction behind `horizon`, with `before` in the stream before it."""
        return all(
            xid <= FROZEN or (whole := wide(xid, horizon.xid)) in before or (whole < horizon.xid and horizon.xid > 0)
            for xid in self.xids
        )


class Catalogue:
    """Asks one database about its tables. `remembered` is a horizon at or before the slot's place."""

    def __init__(self, sql: Connection, remembered: Horizon) -> None:
        self._sql = sql
        self.horizons = Horizons(remembered)

    def look(self) -> Horizon:
        """Take a new horizon: the snapshot is older than the place in the WAL, so that whoever ended is before it."""
        row = self._sql.execute(_HORIZON).fetchone()
        assert row is not None
        horizon = Horizon(int(row[1]), int(row[0]))
        self.horizons.add(horizon)
        return horizon

    def facts(self, relation: Relation, commit_lsn: int, before: Container[int]) -> TableFacts:
        """Say of a table what held for a transaction with this commit LSN; of a table that is gone, nothing.

        `before` are transactions whose DDL came before it in the stream.
        """
        row = self._sql.execute(_FACTS, {"relation": relation.oid}).fetchone()
        if row is None:
            return TableFacts()
        # A table without a primary key has no names, and a NULL among the ids.
        key = Written(tuple(row[0] or ()), tuple(int(xid) for xid in row[1] or () if xid is not None))
        published = {column.name for column in relation.columns}
        computed = [Written((name,), (int(xid),)) for name, xid in zip(row[2], row[3], strict=True)]
        computed = [item for item in computed if item.names[0] not in published]
        horizon = self.horizons.at(commit_lsn)
        certain = [item for item in computed if item.held(horizon, before)]
        holds = key.held(horizon, before)
        return TableFacts(
            primary_key=key.names if holds else (),
            generated=tuple(item.names[0] for item in certain),
            settled=holds and len(certain) == len(computed),
        )


_HORIZON = """
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_insert_lsn() END - '0/0'::pg_catalog.pg_lsn
"""

_FACTS = """
SELECT p.names, p.xids,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.xmin::text FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_catalog.pg_class AS c
LEFT JOIN LATERAL (
    SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.place) AS names,
           pg_catalog.array_agg(a.xmin::text) || pg_catalog.min(i.xmin::text) AS xids
    FROM pg_catalog.pg_index AS i, pg_catalog.unnest(i.indkey) WITH ORDINALITY AS k(number, place),
         pg_catalog.pg_attribute AS a
    WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND a.attrelid = c.oid AND a.attnum = k.number
      AND k.place <= i.indnkeyatts
) AS p ON true
WHERE c.oid = %(relation)s
"""
