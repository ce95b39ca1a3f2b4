"""What an audience can read beside its views, asked of the catalogue way by way; changes nothing.

Masks are worth what the privileges around them are. Each way is one query with the fix for what it finds: a `leak`
gives masked values away, or may; an `oracle` tells whether a value that somebody guesses is there; `told` is what
everybody can read and no privilege of this database closes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import psycopg
from msgspec import Struct

from collectors.masking.catalogue import Connection
from collectors.masking.names import OWNER, SCHEMA

Weight = Literal["leak", "oracle", "told"]


class Way(Struct, frozen=True):
    """One way to masked values: its name, how much it gives away, by what, why, and the statement that closes it."""

    name: str
    weight: Weight
    what: str
    why: str
    fix: str


_MASKED = """\
WITH RECURSIVE audience AS (SELECT r.oid, r.rolname FROM pg_roles AS r WHERE r.rolname = %(role)s),
given AS (
    SELECT m.relid, a.attname FROM unnest(%(oids)s::oid[], %(numbers)s::int2[]) AS m (relid, attnum)
        JOIN pg_attribute AS a ON a.attrelid = m.relid AND a.attnum = m.attnum
), tree (relid, attname) AS (
    SELECT relid, attname FROM given
    UNION SELECT CASE WHEN i.inhparent = t.relid THEN i.inhrelid ELSE i.inhparent END, t.attname
    FROM tree AS t JOIN pg_inherits AS i ON t.relid IN (i.inhparent, i.inhrelid)
), masked AS MATERIALIZED (
    SELECT DISTINCT a.attrelid AS relid, a.attnum, a.attname,
        quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relowner, c.relkind
    FROM tree AS t JOIN pg_attribute AS a ON a.attrelid = t.relid AND a.attname = t.attname AND NOT a.attisdropped
        JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
), tables AS MATERIALIZED (
    SELECT relid, name, min(relowner::text)::oid AS relowner, array_agg(attnum) AS numbers,
        string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns FROM masked GROUP BY relid, name
)
"""
"""The masked columns, in the tables of all of their trees, in whatever schema they lie."""

_TO = "CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END"
"""To whom a privilege was granted."""
_HAS = "(x.grantee = 0 OR pg_has_role(r.oid, x.grantee, 'USAGE') OR pg_has_role(r.oid, x.grantee, 'MEMBER'))"
"""Whether the audience has what was granted, itself or as a member."""


def _granted(privilege: str) -> str:
    """Write who got a privilege on a masked table, or on a masked column of it, that the audience has by it."""
    return f"""\
SELECT t.name, {_TO} AS grantee, 'REVOKE {privilege} ON ' || t.name || ' FROM ' || {_TO} AS fix
FROM tables AS t, audience AS r, pg_class AS c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS x
WHERE c.oid = t.relid AND x.privilege_type = '{privilege}' AND {_HAS}
UNION
SELECT m.name || '.' || quote_ident(m.attname), {_TO},
    'REVOKE {privilege} (' || quote_ident(m.attname) || ') ON ' || m.name || ' FROM ' || {_TO}
FROM masked AS m, audience AS r, pg_attribute AS a, aclexplode(a.attacl) AS x
WHERE a.attrelid = m.relid AND a.attnum = m.attnum AND x.privilege_type = '{privilege}' AND {_HAS}"""


def _told(privilege: str, why: str) -> str:
    return f"SELECT g.name, replace({why!r}, '%%', g.grantee), g.fix FROM ({_granted(privilege)}) AS g"


_POWERS = """\
SELECT 'role ' || r.rolname, 'it has ' || p.power, 'ALTER ROLE ' || quote_ident(r.rolname) || ' NO' || p.power
FROM audience JOIN pg_roles AS r USING (oid), LATERAL (VALUES ('SUPERUSER', r.rolsuper), ('BYPASSRLS', r.rolbypassrls),
    ('REPLICATION', r.rolreplication), ('CREATEROLE', r.rolcreaterole)) AS p (power, has) WHERE p.has"""

_MEMBER = """\
SELECT 'role ' || r.rolname, CASE g.rolname
        WHEN 'pg_read_all_data' THEN 'it reads every table' WHEN 'pg_read_server_files' THEN 'it reads the files'
        WHEN 'pg_execute_server_program' THEN 'it runs programs on the host'
        WHEN 'pg_monitor' THEN 'it reads the texts of everybody''s statements'
        WHEN 'pg_read_all_stats' THEN 'it reads the texts of everybody''s statements'
        ELSE 'it can do what ' || g.rolname || ' can' END,
    'REVOKE ' || quote_ident(g.rolname) || ' FROM ' || quote_ident(r.rolname)
FROM audience AS r JOIN pg_auth_members AS m ON m.member = r.oid JOIN pg_roles AS g ON g.oid = m.roleid"""

_BELOW = f"""\
, below (relid) AS (
    SELECT relid FROM tables
    UNION SELECT w.ev_class FROM below AS b JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass
        AND d.refobjid = b.relid AND d.classid = 'pg_rewrite'::regclass
        AND (d.refobjsubid = 0 OR NOT EXISTS (SELECT FROM tables AS t WHERE t.relid = b.relid)
            OR EXISTS (SELECT FROM masked AS m WHERE m.relid = b.relid AND m.attnum = d.refobjsubid))
    JOIN pg_rewrite AS w ON w.oid = d.objid AND w.ev_class <> b.relid
    JOIN pg_class AS v ON v.oid = w.ev_class
    WHERE v.relkind = 'm' OR v.relkind = 'v' AND pg_get_userbyid(v.relowner) <> '{OWNER}'
        AND NOT coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(v.reloptions) AS o
            WHERE o.option_name = 'security_invoker'), false)
)
"""
"""The tables, and the views and materialized views through which their masked columns are read."""

_VIEWS = f"""{_BELOW}\
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'it shows masked columns, with its owner''s rights',
    'REVOKE SELECT ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' FROM ' || (
        SELECT string_agg(DISTINCT {_TO}, ', ') FROM aclexplode(c.relacl) AS x
        WHERE x.privilege_type = 'SELECT' AND {_HAS})
FROM below AS b JOIN pg_class AS c ON c.oid = b.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace, audience AS r
WHERE c.relkind IN ('v', 'm') AND has_any_column_privilege(r.oid, c.oid, 'SELECT')"""
"""A `security_invoker` view reads with the audience's own rights; what it reads of a materialized view is its own."""

_FOREIGN_KEYS = """\
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(a.attname),
    'a foreign key says that it has the values of ' || m.name || '.' || quote_ident(m.attname)
        || ', which is masked, and the audience sees it',
    'name it in masks.*.columns with the same `as`'
FROM masked AS m JOIN pg_constraint AS k ON k.contype = 'f' AND m.relid IN (k.conrelid, k.confrelid),
    LATERAL unnest(k.conkey, k.confkey) AS p (own, other),
    LATERAL (VALUES (k.conrelid, p.own, k.confrelid, p.other), (k.confrelid, p.other, k.conrelid, p.own))
        AS side (relid, attnum, peer, peer_attnum)
    JOIN pg_class AS c ON c.oid = side.peer JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = side.peer AND a.attnum = side.peer_attnum, audience AS r
WHERE side.relid = m.relid AND side.attnum = m.attnum
    AND NOT EXISTS (SELECT FROM masked AS o WHERE o.relid = side.peer AND o.attnum = side.peer_attnum)
    AND ((side.peer, side.peer_attnum) IN (SELECT * FROM unnest(%(clear_oids)s::oid[], %(clear_numbers)s::int2[]))
        OR has_column_privilege(r.oid, side.peer, side.peer_attnum, 'SELECT'))"""

_DEFAULTS = f"""\
SELECT 'tables that ' || pg_get_userbyid(d.defaclrole) || ' makes'
        || coalesce(' in ' || quote_ident(n.nspname), ''),
    'default privileges let ' || {_TO} || ' read them, partitions of masked tables too',
    'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(pg_get_userbyid(d.defaclrole))
        || coalesce(' IN SCHEMA ' || quote_ident(n.nspname), '') || ' REVOKE SELECT ON TABLES FROM ' || {_TO}
FROM pg_default_acl AS d LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace, audience AS r,
    aclexplode(d.defaclacl) AS x
WHERE d.defaclobjtype = 'r' AND x.privilege_type = 'SELECT' AND {_HAS}"""

_DEFINERS = f"""{_BELOW}\
SELECT 'function ' || p.oid::regprocedure, 'it runs with the rights of ' || pg_get_userbyid(p.proowner)
        || ', who may read masked columns',
    'REVOKE EXECUTE ON FUNCTION ' || p.oid::regprocedure || ' FROM '
        || coalesce((SELECT string_agg(DISTINCT {_TO}, ', ') FROM aclexplode(p.proacl) AS x
            WHERE x.privilege_type = 'EXECUTE' AND {_HAS}), 'PUBLIC')
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace, audience AS r
WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgwitness', '{SCHEMA}')
    AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
    AND has_function_privilege(r.oid, p.oid, 'EXECUTE') AND has_schema_privilege(r.oid, n.oid, 'USAGE')
    AND (EXISTS (SELECT FROM masked AS m WHERE has_column_privilege(p.proowner, m.relid, m.attnum, 'SELECT'))
        OR EXISTS (SELECT FROM below AS b JOIN pg_class AS v ON v.oid = b.relid AND v.relkind IN ('v', 'm')
            WHERE has_any_column_privilege(p.proowner, v.oid, 'SELECT')))"""

_NOTIFIES = r"""
SELECT t.name, 'its trigger ' || quote_ident(g.tgname) || ' notifies, and everybody may listen',
    'let ' || g.tgfoid::regproc || ' notify without values of the row'
FROM tables AS t JOIN pg_trigger AS g ON g.tgrelid = t.relid AND NOT g.tgisinternal
    JOIN pg_proc AS p ON p.oid = g.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname <> 'pgwitness' AND p.prosrc ~* '\mnotify\M|\mpg_notify\M'"""

_RAISES = r"""
SELECT t.name, 'the audience may write to it, and its trigger ' || quote_ident(g.tgname) || ' raises',
    'let ' || g.tgfoid::regproc || ' raise without values of the row'
FROM tables AS t JOIN pg_trigger AS g ON g.tgrelid = t.relid AND NOT g.tgisinternal
    JOIN pg_proc AS p ON p.oid = g.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace, audience AS r
WHERE n.nspname <> 'pgwitness' AND p.prosrc ~* '\mraise\M' AND (has_table_privilege(r.oid, t.relid, 'DELETE')
    OR has_any_column_privilege(r.oid, t.relid, 'INSERT') OR has_any_column_privilege(r.oid, t.relid, 'UPDATE'))"""

_CHECKS = """\
SELECT t.name, 'the audience may write to it, and ' || quote_ident(k.conname) || ' was never checked for rows that are '
        || 'there: where it raises, it quotes one', 'ALTER TABLE ' || t.name || ' VALIDATE CONSTRAINT '
        || quote_ident(k.conname)
FROM tables AS t JOIN pg_constraint AS k ON k.conrelid = t.relid AND k.contype = 'c' AND NOT k.convalidated
    AND k.conkey && t.numbers, audience AS r WHERE has_any_column_privilege(r.oid, t.relid, 'UPDATE')"""

_SERVERS = f"""\
SELECT 'server ' || quote_ident(s.srvname), CASE WHEN u.umid IS NULL THEN 'the audience may make foreign tables on it'
        ELSE 'there is a user mapping for ' || CASE WHEN u.umuser = 0 THEN 'PUBLIC' ELSE u.usename::text END
            || ', by which the audience reads what it reads there' END,
    CASE WHEN u.umid IS NULL THEN 'REVOKE USAGE ON FOREIGN SERVER ' || quote_ident(s.srvname) || ' FROM ' || coalesce((
            SELECT string_agg(DISTINCT {_TO}, ', ') FROM aclexplode(s.srvacl) AS x WHERE {_HAS}), 'PUBLIC')
        ELSE 'DROP USER MAPPING FOR ' || CASE WHEN u.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(u.usename) END
            || ' SERVER ' || quote_ident(s.srvname) END
FROM audience AS r, pg_foreign_server AS s LEFT JOIN pg_user_mappings AS u ON u.srvid = s.oid
    AND (u.umuser = 0 OR u.umuser = (SELECT oid FROM audience))
WHERE u.umid IS NOT NULL OR has_server_privilege(r.oid, s.oid, 'USAGE')"""

_FILES = f"""\
SELECT 'function ' || p.oid::regprocedure, 'it reads what no table''s privileges keep',
    'REVOKE EXECUTE ON FUNCTION ' || p.oid::regprocedure || ' FROM ' || (SELECT string_agg(DISTINCT {_TO}, ', ')
        FROM aclexplode(p.proacl) AS x WHERE x.privilege_type = 'EXECUTE' AND {_HAS})
FROM pg_proc AS p, audience AS r
WHERE p.proname IN ('pg_read_file', 'pg_read_binary_file', 'lo_import', 'lo_export', 'pg_ls_dir', 'dblink_connect_u')
    AND p.proacl IS NOT NULL AND has_function_privilege(r.oid, p.oid, 'EXECUTE')"""

_PADS = f"""\
SELECT '{SCHEMA}.pads', 'the audience may read the key of the tokens', 'REVOKE ALL ON {SCHEMA}.pads FROM ' || {_TO}
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace, audience AS r, aclexplode(c.relacl) AS x
WHERE n.nspname = '{SCHEMA}' AND c.relname = 'pads' AND {_HAS}"""

_CREATES = """\
SELECT 'schema ' || quote_ident(n.nspname),
    'the audience may create in it what others call by mistake, with their rights',
    'REVOKE CREATE ON SCHEMA ' || quote_ident(n.nspname) || ' FROM ' || CASE
        WHEN has_schema_privilege('public', n.oid, 'CREATE') THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
FROM pg_namespace AS n, audience AS r
WHERE n.nspname !~ '^pg_' AND has_schema_privilege(r.oid, n.oid, 'CREATE')"""

_UNIQUE = """\
SELECT t.name, 'the audience may write to it, and ' || quote_ident(i.relname)
        || ' refuses a value of a masked column that is there already',
    'REVOKE INSERT, UPDATE ON ' || t.name || ' FROM ' || quote_ident(r.rolname)
FROM tables AS t JOIN pg_index AS x ON x.indrelid = t.relid AND (x.indisunique OR x.indisexclusion)
    AND x.indkey::int2[] && t.numbers JOIN pg_class AS i ON i.oid = x.indexrelid, audience AS r
WHERE has_any_column_privilege(r.oid, t.relid, 'INSERT') OR has_any_column_privilege(r.oid, t.relid, 'UPDATE')"""

_CHILDREN = """\
SELECT k.conrelid::regclass::text, 'the audience may write to it, and its foreign key refuses what is no value of '
        || t.name, 'REVOKE INSERT, UPDATE ON ' || k.conrelid::regclass || ' FROM ' || quote_ident(r.rolname)
FROM tables AS t JOIN pg_constraint AS k ON k.contype = 'f' AND k.confrelid = t.relid AND k.confkey && t.numbers,
    audience AS r
WHERE has_any_column_privilege(r.oid, k.conrelid, 'INSERT') OR has_any_column_privilege(r.oid, k.conrelid, 'UPDATE')"""

_GUESSABLE = """\
SELECT m.name || '.' || quote_ident(m.attname), 'guessable: the audience may write a guess there and read its token',
    'REVOKE INSERT, UPDATE ON ' || m.name || ' FROM ' || quote_ident(r.rolname)
FROM masked AS m, audience AS r WHERE has_column_privilege(r.oid, m.relid, m.attnum, 'INSERT')
    OR has_column_privilege(r.oid, m.relid, m.attnum, 'UPDATE')"""

_BOUNDS = """\
SELECT m.name || '.' || quote_ident(m.attname), 'its values stand in the bounds of partitions, which every role reads '
        || 'in the catalogue', 'partition by another column, or by hash'
FROM masked AS m JOIN pg_partitioned_table AS p ON p.partrelid = m.relid AND p.partstrat <> 'h'
WHERE m.attnum = ANY (p.partattrs::int2[])"""

_MISSING = """\
SELECT m.name || '.' || quote_ident(m.attname), 'the value that all rows got when the column was added stands in the '
        || 'catalogue, which every role reads', 'VACUUM FULL ' || m.name
FROM masked AS m JOIN pg_attribute AS a ON a.attrelid = m.relid AND a.attnum = m.attnum AND a.atthasmissing"""

_PARTIAL = """\
SELECT t.name, 'the condition of index ' || quote_ident(i.relname) || ' names values of a masked column, and every '
        || 'role reads it in the catalogue', 'make the index without the values'
FROM tables AS t JOIN pg_index AS x ON x.indrelid = t.relid JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE strpos(pg_get_expr(x.indpred, x.indrelid), chr(39)) > 0 AND EXISTS (
    SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.relid AND d.refobjsubid = ANY (t.numbers)
        AND d.refobjsubid <> ALL (x.indkey::int2[]))"""

_DATABASES = """\
SELECT 'database ' || quote_ident(d.datname),
    'the audience may connect to it, and masks of this database do not hold there',
    'REVOKE CONNECT ON DATABASE ' || quote_ident(d.datname) || ' FROM PUBLIC'
FROM pg_database AS d, audience AS r
WHERE d.datallowconn AND d.datname <> current_database() AND NOT d.datistemplate AND d.datname <> ALL (%(databases)s)
    AND has_database_privilege(r.oid, d.oid, 'CONNECT')"""

WAYS: tuple[tuple[str, Weight, str], ...] = (
    ("powers", "leak", _POWERS),
    ("membership", "leak", _MEMBER),
    ("select", "leak", _told("SELECT", "granted to %%")),
    ("key", "leak", _PADS),
    ("view", "leak", _VIEWS),
    ("foreign_key", "leak", _FOREIGN_KEYS),
    ("default_privileges", "leak", _DEFAULTS),
    ("security_definer", "leak", _DEFINERS),
    ("trigger_privilege", "leak", _told("TRIGGER", "%% may make a trigger that sees whole rows")),
    ("notify", "leak", _NOTIFIES),
    ("raise", "leak", _RAISES),
    ("check", "leak", _CHECKS),
    ("foreign_server", "leak", _SERVERS),
    ("files", "leak", _FILES),
    ("create", "leak", _CREATES),
    ("references", "oracle", _told("REFERENCES", "%% may refer to it, which tells whether a value is there")),
    ("unique", "oracle", _UNIQUE),
    ("child", "oracle", _CHILDREN),
    ("guessable", "oracle", _GUESSABLE),
    ("partition_bounds", "told", _BOUNDS),
    ("missing_value", "told", _MISSING),
    ("partial_index", "told", _PARTIAL),
    ("databases", "told", _DATABASES),
)
"""Every way by its name, how much it gives away, and the query that finds it."""


class Seen(Struct, frozen=True, kw_only=True):
    """What an audience is to see: the masked and the clear columns of tables, by oid and number, and where else."""

    role: str
    masked: tuple[tuple[int, int], ...]
    clear: tuple[tuple[int, int], ...]
    databases: tuple[str, ...] = ()


def ways(connection: Connection, seen: Seen, names: Iterable[str] | None = None) -> list[Way]:
    """List the ways by which a role gets at masked columns; `names` are those that are asked for, else all."""
    parameters: dict[str, Any] = {
        "role": seen.role,
        "oids": [oid for oid, _ in seen.masked],
        "numbers": [number for _, number in seen.masked],
        "clear_oids": [oid for oid, _ in seen.clear],
        "clear_numbers": [number for _, number in seen.clear],
        "databases": list(seen.databases),
    }
    wanted = None if names is None else set(names)
    found: list[Way] = []
    with connection.transaction():
        connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        cursor = psycopg.ClientCursor(connection)
        for name, weight, sql in WAYS:
            if wanted is not None and name not in wanted:
                continue
            query = f"{_MASKED}{sql} ORDER BY 1, 2"
            rows = cursor.execute(query.encode(), parameters).fetchall()
            found += [Way(name, weight, what, why, fix or "") for what, why, fix in rows]
    return found
