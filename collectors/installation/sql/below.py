"""The SQL that finds what a statement wrote below its table and nobody publishes; nothing is run here.

Rows that are written through a partitioned table, or updated through one that others inherit from, are counted by the
tables they lie in, whose own triggers do not fire. So a trigger on such a table asks `below` with each statement that
the stream may not have whole, and the beacon names each table that it gives. A partitioned table that the update
publication lists as a whole is done with after one look; what it costs otherwise grows with the tables below
(docs/explanation/beacon.md). Rows of a foreign table lie on another server, and are counted by nobody here.

tests/collectors/test_wal_below.py tries on PostgreSQL what is claimed here.
"""

from __future__ import annotations

from collectors.installation.sql.templates import PUBLICATION, PUBLICATION_INSERTS, SCHEMA, TREE, TRIGGER

BELOW = " BELOW"
"""How the statement ends in a message that speaks of a table below the one that the statement named."""

TABLES_MAX = 32
"""Tables below that one statement's beacon names at most."""

_OURS = f"'{PUBLICATION}', '{PUBLICATION_INSERTS}'"

BODY = f"""
#variable_conflict use_column
BEGIN
    IF form = '{TREE}' AND EXISTS (
        SELECT FROM pg_publication AS p JOIN pg_publication_rel AS r ON r.prpubid = p.oid
        WHERE p.pubname = '{PUBLICATION}' AND p.pubupdate AND p.pubdelete AND r.prqual IS NULL
            AND r.prrelid IN (SELECT a.relid FROM pg_partition_ancestors(above) AS a)
    ) THEN
        RETURN NULL;
    END IF;
    RETURN (
        WITH RECURSIVE below AS (
            SELECT i.inhrelid AS oid FROM pg_inherits AS i WHERE i.inhparent = above
            UNION SELECT i.inhrelid FROM below AS b JOIN pg_inherits AS i ON i.inhparent = b.oid
        ), wrote AS MATERIALIZED (
            SELECT b.oid, pg_stat_get_xact_tuples_inserted(b.oid) AS inserted,
                pg_stat_get_xact_tuples_updated(b.oid) AS updated, pg_stat_get_xact_tuples_deleted(b.oid) AS deleted
            FROM below AS b
        ), unread AS (
            SELECT w.oid, CASE WHEN p.inserts THEN 0 ELSE w.inserted END AS inserted,
                CASE WHEN p.updates THEN 0 ELSE w.updated END AS updated,
                CASE WHEN p.deletes THEN 0 ELSE w.deleted END AS deleted
            FROM wrote AS w JOIN pg_class AS c ON c.oid = w.oid CROSS JOIN LATERAL (
                SELECT bool_or(p.pubinsert) AS inserts, bool_or(p.pubupdate) AS updates, bool_or(p.pubdelete) AS deletes
                FROM pg_publication AS p WHERE p.pubname IN ({_OURS}) AND c.relpersistence = 'p' AND (p.puballtables
                    OR EXISTS (SELECT FROM pg_publication_rel AS r WHERE r.prpubid = p.oid AND r.prqual IS NULL AND (
                        r.prrelid = c.oid OR r.prrelid IN (SELECT a.relid FROM pg_partition_ancestors(c.oid) AS a))))
            ) AS p
            WHERE w.inserted + w.updated + w.deleted > 0 AND c.relkind = 'r' AND (c.relispartition
                OR EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND t.tgname = '{TRIGGER}'))
        )
        SELECT array_agg(concat_ws(E'\\x1f', u.oid, statement || '{BELOW}', u.inserted, u.updated, u.deleted))
        FROM (SELECT * FROM unread AS u WHERE u.inserted + u.updated + u.deleted > 0
            ORDER BY u.oid LIMIT {TABLES_MAX}) AS u
    );
END
"""
"""One line for each table: what the beacon says of it, without the numbers of what is published. Null for none."""

SIGNATURE = "below(oid, text, text)"

CREATE_BELOW = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.below(above oid, statement text, form text) RETURNS text[] LANGUAGE plpgsql\n"
    f"STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgwitness${BODY}$pgwitness$"
)
