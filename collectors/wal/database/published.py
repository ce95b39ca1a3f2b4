"""What the catalogue says of our publications: which operations of a relation they list; reads only."""

from __future__ import annotations

from collectors.installation.sql.templates import PUBLICATION, PUBLICATION_INSERTS, TRIGGER
from collectors.wal.assembly.unpublished import Listed
from collectors.wal.database.slot import Connection
from pgwitness.core.events import qualified

PUBLICATIONS = (PUBLICATION, PUBLICATION_INSERTS)


def listed(connection: Connection, oid: int) -> Listed:
    """Read of a relation its root, that one's name and the operations that our publications have of it."""
    row = connection.execute(_LISTED, {"oid": oid, "publications": list(PUBLICATIONS), "trigger": TRIGGER}).fetchone()
    if row is None:
        return Listed(oid)
    root, schema, name, own_schema, own_name, temporary, partly, letters = row
    partition = qualified(own_schema, own_name) if int(root) != oid else None
    return Listed(int(root), qualified(schema, name), letters or "", partition, bool(temporary), bool(partly))


def partitions(connection: Connection) -> dict[int, int]:
    """Read which partition belongs to which root, by OID."""
    rows = connection.execute(
        "SELECT c.oid::int8, pg_catalog.pg_partition_root(c.oid)::oid::int8 FROM pg_catalog.pg_class AS c"
        " WHERE c.relispartition AND c.relkind IN ('r', 'p')"
    ).fetchall()
    return {int(oid): int(root) for oid, root in rows if root is not None}


_LISTED = """
SELECT r.oid::int8, n.nspname::text, r.relname::text, m.nspname::text, c.relname::text, r.relpersistence = 't',
  EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = c.oid AND t.tgname = %(trigger)s
    AND pg_catalog."left"(pg_catalog.encode(t.tgargs, 'escape'), 5) IN ('each\\', 'mixed') AND c.relkind = 'r')
  OR c.relreplident = 'n' OR c.relreplident = 'd' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate), (
    SELECT pg_catalog.concat(CASE WHEN pg_catalog.bool_or(p.pubinsert) THEN 'i' END,
        CASE WHEN pg_catalog.bool_or(p.pubupdate) THEN 'u' END, CASE WHEN pg_catalog.bool_or(p.pubdelete) THEN 'd' END,
        CASE WHEN pg_catalog.bool_or(p.pubtruncate) AND r.oid = c.oid THEN 't' END)
    FROM pg_catalog.pg_publication AS p
    WHERE p.pubname = ANY(%(publications)s) AND (p.puballtables AND r.relpersistence = 'p' OR EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS l WHERE l.prpubid = p.oid AND (l.prrelid = c.oid OR l.prrelid IN (
            SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) AS a)))))
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_class AS r ON r.oid = COALESCE(pg_catalog.pg_partition_root(c.oid), c.oid)
JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
JOIN pg_catalog.pg_namespace AS m ON m.oid = c.relnamespace WHERE c.oid = %(oid)s::oid
"""
