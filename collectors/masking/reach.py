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

from collectors.masking import running
from collectors.masking.catalogue import Connection
from collectors.masking.fragments import BELOW, HAS, MASKED, TO
from collectors.masking.names import SCHEMA

Weight = Literal["leak", "oracle", "told"]


class Way(Struct, frozen=True):
    """One way to masked values: its name, how much it gives away, by what, why, and the statement that closes it."""

    name: str
    weight: Weight
    what: str
    why: str
    fix: str


def _granted(privilege: str) -> str:
    """Write who got a privilege on a masked table, or on a masked column of it, that the audience has by it."""
    return f"""\
SELECT t.name, {TO} AS grantee, 'REVOKE {privilege} ON ' || t.name || ' FROM ' || {TO} AS fix
FROM tables AS t, audience AS r, pg_class AS c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS x
WHERE c.oid = t.relid AND x.privilege_type = '{privilege}' AND {HAS}
UNION
SELECT m.name || '.' || quote_ident(m.attname), {TO},
    'REVOKE {privilege} (' || quote_ident(m.attname) || ') ON ' || m.name || ' FROM ' || {TO}
FROM masked AS m, audience AS r, pg_attribute AS a, aclexplode(a.attacl) AS x
WHERE a.attrelid = m.relid AND a.attnum = m.attnum AND x.privilege_type = '{privilege}' AND {HAS}"""


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


_VIEWS = f"""{BELOW}\
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'it shows masked columns, with its owner''s rights',
    'REVOKE SELECT ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' FROM ' || (
        SELECT string_agg(DISTINCT {TO}, ', ') FROM aclexplode(c.relacl) AS x
        WHERE x.privilege_type = 'SELECT' AND {HAS})
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
    'default privileges let ' || {TO} || ' read them, partitions of masked tables too',
    'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(pg_get_userbyid(d.defaclrole))
        || coalesce(' IN SCHEMA ' || quote_ident(n.nspname), '') || ' REVOKE SELECT ON TABLES FROM ' || {TO}
FROM pg_default_acl AS d LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace, audience AS r,
    aclexplode(d.defaclacl) AS x
WHERE d.defaclobjtype = 'r' AND x.privilege_type = 'SELECT' AND {HAS}"""


_SERVERS = f"""\
SELECT 'server ' || quote_ident(s.srvname), CASE WHEN u.umid IS NULL THEN 'the audience may make foreign tables on it'
        ELSE 'there is a user mapping for ' || CASE WHEN u.umuser = 0 THEN 'PUBLIC' ELSE u.usename::text END
            || ', by which the audience reads what it reads there' END,
    CASE WHEN u.umid IS NULL THEN 'REVOKE USAGE ON FOREIGN SERVER ' || quote_ident(s.srvname) || ' FROM ' || coalesce((
            SELECT string_agg(DISTINCT {TO}, ', ') FROM aclexplode(s.srvacl) AS x WHERE {HAS}), 'PUBLIC')
        ELSE 'DROP USER MAPPING FOR ' || CASE WHEN u.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(u.usename) END
            || ' SERVER ' || quote_ident(s.srvname) END
FROM audience AS r, pg_foreign_server AS s LEFT JOIN pg_user_mappings AS u ON u.srvid = s.oid
    AND (u.umuser = 0 OR u.umuser = (SELECT oid FROM audience))
WHERE u.umid IS NOT NULL OR has_server_privilege(r.oid, s.oid, 'USAGE')
UNION
SELECT 'foreign-data wrapper ' || quote_ident(w.fdwname), 'the audience may make servers of it',
    'REVOKE USAGE ON FOREIGN DATA WRAPPER ' || quote_ident(w.fdwname) || ' FROM ' || (SELECT string_agg(DISTINCT {TO},
        ', ') FROM aclexplode(w.fdwacl) AS x WHERE {HAS})
FROM audience AS r, pg_foreign_data_wrapper AS w
WHERE w.fdwacl IS NOT NULL AND has_foreign_data_wrapper_privilege(r.oid, w.oid, 'USAGE')"""

_FILES = f"""\
SELECT 'function ' || p.oid::regprocedure, 'it reads what no table''s privileges keep',
    'REVOKE EXECUTE ON FUNCTION ' || p.oid::regprocedure || ' FROM ' || (SELECT string_agg(DISTINCT {TO}, ', ')
        FROM aclexplode(p.proacl) AS x WHERE x.privilege_type = 'EXECUTE' AND {HAS})
FROM pg_proc AS p, audience AS r
WHERE p.proacl IS NOT NULL AND has_function_privilege(r.oid, p.oid, 'EXECUTE') AND EXISTS (
    SELECT FROM pg_init_privs AS i WHERE i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid
        AND NOT EXISTS (SELECT FROM aclexplode(i.initprivs) AS y WHERE y.grantee = 0))"""

_PADS = f"""\
SELECT '{SCHEMA}.pads', 'the audience may read the key of the tokens', 'REVOKE ALL ON {SCHEMA}.pads FROM ' || {TO}
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace, audience AS r, aclexplode(c.relacl) AS x
WHERE n.nspname = '{SCHEMA}' AND c.relname = 'pads' AND {HAS}"""

_CREATES = """\
SELECT 'schema ' || quote_ident(n.nspname),
    'the audience may create in it what others call by mistake, with their rights',
    'REVOKE CREATE ON SCHEMA ' || quote_ident(n.nspname) || ' FROM ' || CASE
        WHEN has_schema_privilege('public', n.oid, 'CREATE') THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
FROM pg_namespace AS n, audience AS r
WHERE n.nspname !~ '^pg_' AND has_schema_privilege(r.oid, n.oid, 'CREATE')
UNION
SELECT 'database ' || quote_ident(d.datname), 'the audience may make schemas in it, such as one that is called as a'
        || ' role and stands first in its search path',
    'REVOKE CREATE ON DATABASE ' || quote_ident(d.datname) || ' FROM ' ||
    CASE WHEN has_database_privilege('public', d.oid, 'CREATE') THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
FROM pg_database AS d, audience AS r
WHERE d.datname = current_database() AND has_database_privilege(r.oid, d.oid, 'CREATE')"""

_RELATIONS = f"""{BELOW}\
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), CASE c.relkind
        WHEN 'f' THEN 'the audience may read it, and foreign tables have no views that mask'
        WHEN 'm' THEN 'the audience may read it, and what its functions read is not known'
        ELSE 'the audience may read it, and no view masks it: its schema is in no masks.*.schemas' END,
    'REVOKE ALL ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) || ' FROM '
        || (SELECT string_agg(DISTINCT {TO}, ', ') FROM (SELECT c.relacl UNION ALL
            SELECT a.attacl FROM pg_attribute AS a WHERE a.attrelid = c.oid) AS o (acl), aclexplode(o.acl) AS x
            WHERE x.privilege_type = 'SELECT' AND {HAS})
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace, audience AS r
WHERE (c.relkind IN ('r', 'p', 'f') AND c.oid NOT IN (SELECT relid FROM tables)
        AND c.oid <> ALL (%(clear_oids)s::oid[])
    OR c.relkind = 'm' AND c.oid NOT IN (SELECT relid FROM below) AND EXISTS (SELECT FROM pg_rewrite AS w
        JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        WHERE w.ev_class = c.oid AND d.refclassid = 'pg_proc'::regclass))
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgwitness', 'pgwitness_guard', '{SCHEMA}')
    AND c.relpersistence <> 't' AND c.relowner <> r.oid
    AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
        AND d.deptype = 'e')
    AND has_any_column_privilege(r.oid, c.oid, 'SELECT') AND has_schema_privilege(r.oid, n.oid, 'USAGE')"""
"""What the audience may read itself and no view stands for: other schemas, foreign tables, views made by functions."""

_LARGE_OBJECTS = f"""\
SELECT 'large objects', count(*) || ' of them may be read by ' || o.grantee,
    'REVOKE ALL ON LARGE OBJECT ' || min(o.oid::text) || ' FROM ' || o.grantee
FROM (SELECT l.oid, {TO} AS grantee FROM pg_largeobject_metadata AS l, audience AS r, aclexplode(l.lomacl) AS x
    WHERE x.privilege_type = 'SELECT' AND {HAS}) AS o GROUP BY o.grantee
UNION ALL
SELECT 'large objects', 'lo_compat_privileges lets everybody read all of them',
    'ALTER SYSTEM RESET lo_compat_privileges'
FROM audience WHERE current_setting('lo_compat_privileges')::boolean
    AND EXISTS (SELECT FROM pg_largeobject_metadata)"""

_STATISTICS = """\
SELECT t.name, 'its statistics ' || quote_ident(s.stxname) || ' are over expressions, whose values this server shows to'
        || ' everybody (CVE-2024-4317)', 'run share/fix-CVE-2024-4317.sql of a newer minor version as a superuser'
FROM tables AS t JOIN pg_statistic_ext AS s ON s.stxrelid = t.relid AND s.stxexprs IS NOT NULL
WHERE pg_get_viewdef('pg_catalog.pg_stats_ext_exprs'::regclass) !~ 'pg_has_role'"""
"""A cluster that an older minor version has made keeps the old definition of the view until somebody mends it."""

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
    OR has_column_privilege(r.oid, m.relid, m.attnum, 'UPDATE')
UNION
SELECT m.name || '.' || quote_ident(m.attname), 'guessable: it is made of what the audience may write or set, and shown'
        || ' as a token', 'REVOKE INSERT, UPDATE ON ' || m.name || ' FROM ' || quote_ident(r.rolname)
FROM masked AS m JOIN pg_attribute AS a ON a.attrelid = m.relid AND a.attnum = m.attnum
    JOIN pg_attrdef AS f ON f.adrelid = m.relid AND f.adnum = m.attnum, audience AS r
WHERE CASE WHEN a.attgenerated = '' THEN has_any_column_privilege(r.oid, m.relid, 'INSERT')
        AND pg_get_expr(f.adbin, f.adrelid) ~ 'current_setting'
    ELSE EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid = m.relid AND d.refobjsubid NOT IN (0, m.attnum)
        AND (has_column_privilege(r.oid, m.relid, d.refobjsubid::int2, 'INSERT')
            OR has_column_privilege(r.oid, m.relid, d.refobjsubid::int2, 'UPDATE'))) END"""

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
    ("security_definer", "leak", running.DEFINERS),
    ("trigger_privilege", "leak", _told("TRIGGER", "%% may make a trigger that sees whole rows")),
    ("notify", "leak", running.NOTIFIES),
    ("raise", "leak", running.RAISES),
    ("trigger", "leak", running.TRIGGERS),
    ("rule", "leak", running.RULES),
    ("check", "leak", running.CHECKS),
    ("policy", "leak", running.POLICIES),
    ("relation", "leak", _RELATIONS),
    ("large_object", "leak", _LARGE_OBJECTS),
    ("statistics", "leak", _STATISTICS),
    ("foreign_server", "leak", _SERVERS),
    ("files", "leak", _FILES),
    ("create", "leak", _CREATES),
    ("references", "oracle", _told("REFERENCES", "%% may refer to it, which tells whether a value is there")),
    ("unique", "oracle", _UNIQUE),
    ("child", "oracle", _CHILDREN),
    ("guessable", "oracle", _GUESSABLE),
    ("policy_guess", "oracle", running.POLICY_GUESSES),
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
            query = f"{MASKED}{sql} ORDER BY 1, 2"
            rows = cursor.execute(query.encode(), parameters).fetchall()
            found += [Way(name, weight, what, why, fix or "") for what, why, fix in rows]
    return found
