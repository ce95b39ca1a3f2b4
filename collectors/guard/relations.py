"""The SQL by which the guard names what is touched: by every name that a policy may know it by; pure.

A table that is renamed, moved, attached to a root or given a parent is still the one that policies are about. So it is
named as it is called now, and as it was called when the guard was installed or the table made (`known`); and a table
through which rows of others are reached names those as well.
"""

from __future__ import annotations

from collectors.guard.names import SCHEMA

SETTINGS = (
    "SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off SET standard_conforming_strings = on"
    " SET plpgsql.extra_errors = 'none'"
)
"""What a client can set and SQL hangs on. `pg_temp` stands last, and is never looked into for functions."""

CREATE_KNOWN = f"CREATE TABLE {SCHEMA}.known (relid oid PRIMARY KEY, name text NOT NULL)"
"""Logged, unlike the guard's other tables: behind a crash a renamed table must not be another one."""

TABLE = f"""c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgwitness', 'pgwitness_masks', '{SCHEMA}')
            AND n.nspname !~ '^pg_(toast|temp)' AND NOT EXISTS (SELECT FROM pg_depend AS d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"""
"""Which tables `c` of schemas `n` are guarded."""

NAMED = f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.named(relation oid) RETURNS text LANGUAGE sql STABLE
{SETTINGS} AS $pgwitness$
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = (SELECT CASE WHEN p.relispartition THEN pg_partition_root(p.oid)::oid ELSE p.oid END
    FROM pg_class AS p WHERE p.oid = relation)
$pgwitness$"""
"""Names a relation as evidence does, of a partition its root."""

NAMES = f"""\
CREATE OR REPLACE FUNCTION {SCHEMA}.names(relation oid) RETURNS text[] LANGUAGE sql STABLE
{SETTINGS} AS $pgwitness$
WITH RECURSIVE tree (oid) AS (
    SELECT relation UNION SELECT i.inhrelid FROM tree AS t JOIN pg_inherits AS i ON i.inhparent = t.oid
), other (name) AS (
    SELECT k.name FROM tree AS t JOIN {SCHEMA}.known AS k ON k.relid = t.oid
    UNION SELECT format('%I.%I', n.nspname, c.relname) FROM tree AS t
        JOIN pg_class AS c ON c.oid = t.oid AND NOT c.relispartition JOIN pg_namespace AS n ON n.oid = c.relnamespace
)
SELECT array_remove(array[m.name], NULL) || ARRAY(SELECT o.name FROM other AS o
    WHERE o.name IS DISTINCT FROM m.name ORDER BY 1)
FROM (SELECT {SCHEMA}.named(relation)) AS m (name)
$pgwitness$"""
"""Lists the names of a relation: first that of today, then the one it is known by, and those of its children."""

_NAMES_NOW = f"""\
SELECT c.oid, {SCHEMA}.named(c.oid) AS name, c.relispartition AS part
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {TABLE}"""

DIFFERING = f"""\
SELECT now.name, k.name FROM ({_NAMES_NOW}) AS now LEFT JOIN {SCHEMA}.known AS k ON k.relid = now.oid
WHERE k.name IS DISTINCT FROM now.name AND (k.name IS NULL OR NOT now.part) ORDER BY 1"""
"""Asks which tables are called otherwise than the guard knows them, with that name; that a table is attached to a root
is no matter."""

LEARN = f"""\
WITH gone AS (DELETE FROM {SCHEMA}.known AS k WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = k.relid))
INSERT INTO {SCHEMA}.known AS k SELECT now.oid, now.name FROM ({_NAMES_NOW}) AS now
ON CONFLICT (relid) DO UPDATE SET name = EXCLUDED.name WHERE k.name <> EXCLUDED.name"""
"""Takes up the names that tables have now."""

FORGET = f"""\
DELETE FROM {SCHEMA}.known AS k USING pg_event_trigger_dropped_objects() AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0 AND k.relid = d.objid;"""
"""Forgets what a command has dropped: its number may become another table's."""
