"""Lets go of what the stream said of tables that are gone, so that making and dropping tables fills no memory.

The server describes a table once to a stream and never again, so what is still there must be kept. A table is gone for
certain when a snapshot that sees the transaction which wrote to it last does not see the table: whoever dropped it had
waited for that transaction, and all that was ever written to it stands in the WAL before the end of then. Once the
stream has passed that place, nothing can come of it any more; its number, given again, is described again.
"""

from __future__ import annotations

from collections.abc import Mapping

from collectors.installation.catalogue import Connection

DESCRIBED_MIN = 2_000
"""So many tables are never looked at: they take a few dozen MiB."""

_GONE = """
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::int8,
    CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_lsn END,
    ARRAY(SELECT d.oid FROM unnest(%s::oid[]) AS d (oid)
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = d.oid))
"""


class Forgetting:
    """What is gone, and from which place of the WAL on it may be forgotten."""

    def __init__(self) -> None:
        self._from = DESCRIBED_MIN
        self._gone: dict[bytes, int] = {}
        self._behind_lsn = 0

    def look(self, connection: Connection, described: Mapping[bytes, int], passed_lsn: int) -> list[bytes]:
        """Return what is to be forgotten now; `described` are tables with the transaction that described each last."""
        if self._gone:
            if passed_lsn < self._behind_lsn:
                return []
            found = [oid for oid, xid in self._gone.items() if described.get(oid) == xid]
            self._gone = {}
            self._from = max(DESCRIBED_MIN, 2 * (len(described) - len(found)))
            return found
        if len(described) < self._from:
            return []
        oids = [int.from_bytes(oid, "big") for oid in described]
        row = connection.execute(_GONE, (oids,)).fetchone()
        assert row is not None
        horizon, end, gone = row
        if end is not None:
            self._behind_lsn = int(end)
            names = [int(oid).to_bytes(4, "big") for oid in gone]
            self._gone = {oid: described[oid] for oid in names if described[oid] < horizon}
        if not self._gone:
            self._from = 2 * len(described)
        return []
