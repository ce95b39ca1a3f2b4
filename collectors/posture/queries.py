"""The catalogue queries behind posture; what comes of them says `collectors.posture.source`.

Lists are sorted, so that equal states give equal answers. A catalogue's own grants count only where they differ from
what the installation gave (pg_init_privs). None of these takes a lock that anybody waits for. The beacon's function
counts as the same while it is paused and under another key: `pgwitness db pause` and `rotate-key` tell of themselves.
"""

from collectors.installation.sql.emission import PAUSE
from collectors.installation.sql.templates import BEACON, BEACON_EACH, SCHEMA

_SPEAKING = ",".join(("below", BEACON, BEACON_EACH, "claimed", "introduce"))
"""The functions of the beacon's triggers, and those that they call."""


def _plain(column: str) -> str:
    """Return a function's body as it is when it is not paused, under the first key (`key_templates.plain`)."""
    body = f"replace({column}, '{PAUSE}', '')"
    return rf"regexp_replace({body}, '''pgwitness\.session_\d+''', '''pgwitness.session''', 'g')"


def _acl(column: str) -> str:
    """Return an ACL as a sorted list of PostgreSQL's own words for its entries."""
    return f"(SELECT jsonb_agg(i::text ORDER BY i::text) FROM unnest({column}) AS i)"


ROLES = """
SELECT rolname::text, jsonb_build_object('superuser', rolsuper, 'createdb', rolcreatedb, 'createrole', rolcreaterole,
  'replication', rolreplication, 'bypassrls', rolbypassrls, 'login', rolcanlogin, 'inherit', rolinherit,
  'connection_limit', rolconnlimit, 'valid_until', rolvaliduntil::text)
FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_'"""

MEMBERSHIPS = """
WITH RECURSIVE above (role, reached) AS (
  SELECT oid, oid FROM pg_catalog.pg_roles
  UNION SELECT a.role, m.roleid FROM above AS a JOIN pg_catalog.pg_auth_members AS m ON m.member = a.reached
), powers AS (
  SELECT a.role, jsonb_agg(DISTINCT p.power ORDER BY p.power) AS leads_to
  FROM above AS a JOIN pg_catalog.pg_roles AS r ON r.oid = a.reached, LATERAL (VALUES
    (CASE WHEN r.rolsuper THEN 'superuser' END), (CASE WHEN r.rolcreaterole THEN 'createrole' END),
    (CASE WHEN r.rolreplication THEN 'replication' END), (CASE WHEN r.rolbypassrls THEN 'bypassrls' END),
    (CASE WHEN r.rolname ~ '^pg_' THEN r.rolname::text END)) AS p (power)
  WHERE p.power IS NOT NULL GROUP BY a.role
)
SELECT g.rolname::text, m.rolname::text, jsonb_build_object('role', g.rolname, 'member', m.rolname,
  'admin', bool_or(a.admin_option), 'inherit', bool_or((to_jsonb(a) ->> 'inherit_option')::bool),
  'set', bool_or((to_jsonb(a) ->> 'set_option')::bool))
  || jsonb_strip_nulls(jsonb_build_object('leads_to', w.leads_to))
FROM pg_catalog.pg_auth_members AS a JOIN pg_catalog.pg_roles AS g ON g.oid = a.roleid
LEFT JOIN powers AS w ON w.role = g.oid
JOIN pg_catalog.pg_roles AS m ON m.oid = a.member
WHERE m.rolname !~ '^pg_' GROUP BY g.rolname, m.rolname, w.leads_to"""

ROLE_SETTINGS = """
SELECT r.rolname::text, d.datname::text, s.setconfig
FROM pg_catalog.pg_db_role_setting AS s LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase"""

SETTINGS = """
SELECT name, setting, source, unit, pending_restart FROM pg_catalog.pg_settings
WHERE source IN ('configuration file', 'command line', 'environment variable')"""

DATABASES = """
SELECT datname::text, jsonb_build_object('owner', pg_get_userbyid(datdba), 'template', datistemplate,
  'allow_connections', datallowconn, 'connection_limit', datconnlimit)
FROM pg_catalog.pg_database"""

CLUSTER_GRANTS = f"""
SELECT 'database ' || quote_ident(datname),
  jsonb_build_object('owner', pg_get_userbyid(datdba), 'acl', {_acl("datacl")})
FROM pg_catalog.pg_database WHERE datacl IS NOT NULL"""

PARAMETER_GRANTS = f"""
SELECT 'parameter ' || parname, jsonb_build_object('acl', {_acl("paracl")})
FROM pg_catalog.pg_parameter_acl"""

TABLES = """
SELECT n.nspname::text, c.relname::text, n.nspname = 'pg_catalog',
  jsonb_build_object('oid', c.oid::int8, 'owner', pg_get_userbyid(c.relowner),
  'kind', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
    WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END,
  'persistence', CASE c.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'permanent' END,
  'row_security', c.relrowsecurity, 'force_row_security', c.relforcerowsecurity,
  'replica_identity', CASE c.relreplident WHEN 'd' THEN 'default' WHEN 'f' THEN 'full' WHEN 'i' THEN 'index'
    ELSE 'nothing' END),
  CASE WHEN c.relacl IS DISTINCT FROM p.initprivs
    THEN (SELECT array_agg(i::text ORDER BY i::text) FROM unnest(c.relacl) AS i) END
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_init_privs AS p
  ON p.objoid = c.oid AND p.classoid = 'pg_class'::regclass AND p.objsubid = 0
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND (n.nspname !~ '^pg_'
  AND n.nspname <> 'information_schema' OR n.nspname = 'pg_catalog' AND c.relacl IS DISTINCT FROM p.initprivs)"""

SIZES = """
WITH leaves AS (
  SELECT coalesce(pg_partition_root(c.oid), c.oid) AS root, s.n_live_tup AS live, s.n_dead_tup AS dead,
    greatest(c.reltuples, 0) AS planned
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND s.schemaname !~ '^pg_' AND s.schemaname <> 'information_schema'
), sums AS (
  SELECT root, CASE WHEN bool_and(planned <= 2 * (live + dead) + 50) THEN sum(live)::bigint END AS rows
  FROM leaves GROUP BY root
)
SELECT n.nspname::text, c.relname::text, sums.rows
FROM sums JOIN pg_catalog.pg_class AS c ON c.oid = sums.root JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE sums.rows IS NOT NULL"""
"""How many live rows the statistics count, of a partitioned table the sum; not where they contradict what the planner
was told last: after a crash or a reset they begin at 0, and n_live_tup of a partition's root is always 0."""

FUNCTIONS = """
SELECT p.oid::bigint, n.nspname::text, p.proname::text, p.xmin::text
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
WHERE l.lanname IN ('sql', 'plpgsql') AND p.prokind IN ('f', 'p') AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'pgwitness')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
    AND d.deptype = 'e')
ORDER BY p.oid LIMIT 5000"""

DEFINITIONS = """
SELECT p.oid::bigint, CASE WHEN length(p.prosrc) <= 65536 THEN pg_get_functiondef(p.oid) END, p.proconfig
FROM pg_catalog.pg_proc AS p WHERE p.oid = ANY(%s::oid[])"""
"""Of a body that is kept parsed (BEGIN ATOMIC) the server locks the tables, as a SELECT does, to write it as text."""

VIEWS = """
SELECT n.nspname::text, v.relname::text, bool_and(r.ev_action::text !~ ':(quals|limitCount|limitOffset) [{]'),
  jsonb_agg(DISTINCT jsonb_build_array(m.nspname, b.relname)),
  coalesce(jsonb_agg(DISTINCT jsonb_build_array(m.nspname, b.relname, a.attname))
    FILTER (WHERE a.attname IS NOT NULL), '[]'),
  (SELECT jsonb_agg(o.attname) FROM pg_catalog.pg_attribute AS o
    WHERE o.attrelid = v.oid AND o.attnum > 0 AND NOT o.attisdropped)
FROM pg_catalog.pg_class AS v JOIN pg_catalog.pg_namespace AS n ON n.oid = v.relnamespace
JOIN pg_catalog.pg_rewrite AS r ON r.ev_class = v.oid AND r.ev_type = '1'
JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
  AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
JOIN pg_catalog.pg_class AS b ON b.oid = d.refobjid AND b.relkind IN ('r', 'p', 'v', 'm', 'f')
JOIN pg_catalog.pg_namespace AS m ON m.oid = b.relnamespace
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = b.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
WHERE v.relkind IN ('v', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgwitness')
GROUP BY v.oid, n.nspname, v.relname ORDER BY v.oid LIMIT 5000"""
"""What the rule of a view depends on; a condition anywhere in it, that of a join too, may leave rows out."""

COLUMNS = """
SELECT n.nspname::text, c.relname::text, array_agg(a.attname::text ORDER BY a.attnum)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'pgwitness')
GROUP BY c.oid, n.nspname, c.relname ORDER BY c.oid LIMIT 5000"""

COLUMN_GRANTS = f"""
SELECT n.nspname::text, c.relname::text, jsonb_object_agg(a.attname, {_acl("a.attacl")})
FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_init_privs AS p
  ON p.objoid = c.oid AND p.classoid = 'pg_class'::regclass AND p.objsubid = a.attnum
WHERE a.attacl IS NOT NULL AND a.attacl IS DISTINCT FROM p.initprivs AND NOT a.attisdropped
GROUP BY n.nspname, c.relname"""

SCHEMA_GRANTS = f"""
SELECT 'schema ' || quote_ident(nspname), jsonb_build_object('owner', pg_get_userbyid(nspowner),
  'acl', {_acl("nspacl")})
FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND nspacl IS NOT NULL"""

FUNCTION_GRANTS = f"""
SELECT 'function pg_catalog.' || f.proname || '(' || pg_get_function_identity_arguments(f.oid) || ')',
  jsonb_build_object('acl', {_acl("f.proacl")})
FROM pg_catalog.pg_proc AS f
LEFT JOIN pg_catalog.pg_init_privs AS p ON p.objoid = f.oid AND p.classoid = 'pg_proc'::regclass
WHERE f.pronamespace = 'pg_catalog'::regnamespace AND f.proacl IS DISTINCT FROM p.initprivs"""

TRIGGERS = f"""
SELECT n.nspname::text, c.relname::text, t.tgname::text, jsonb_build_object('enabled', CASE t.tgenabled
    WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' ELSE 'always' END,
  'active', t.tgenabled IN ('O', 'A'), 'type', t.tgtype,
  'function', f.pronamespace::regnamespace || '.'
    || CASE WHEN ours.bodies > 0 THEN '{BEACON}' ELSE quote_ident(f.proname) END,
  'function_md5', coalesce(ours.md5, md5({_plain("f.prosrc")} || coalesce(f.proconfig::text, '') || f.prosecdef::text
    || f.proowner::text)),
  'condition', t.tgqual IS NOT NULL) || CASE WHEN ours.bodies > 0 THEN jsonb_build_object('bodies', ours.bodies)
    ELSE '{{}}' END
FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
LEFT JOIN (
  SELECT o.pronamespace, count(*) AS bodies, md5(string_agg({_plain("o.prosrc")} || coalesce(o.proconfig::text, '')
    || o.prosecdef::text || o.proowner::text || coalesce(o.proacl::text, ''), '' ORDER BY o.proname)) AS md5
  FROM pg_catalog.pg_proc AS o
  WHERE o.pronamespace::regnamespace::text = '{SCHEMA}' AND o.proname = ANY('{{{_SPEAKING}}}') GROUP BY o.pronamespace
) AS ours ON ours.pronamespace = f.pronamespace AND f.proname IN ('{BEACON}', '{BEACON_EACH}')
WHERE NOT t.tgisinternal"""
"""A beacon runs one of two functions, and the collector's job changes which: both are one, with all that they call."""

EVENT_TRIGGERS = f"""
SELECT e.evtname::text, jsonb_build_object('event', e.evtevent, 'owner', pg_get_userbyid(e.evtowner), 'enabled',
  CASE e.evtenabled WHEN 'O' THEN 'origin' WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'replica' ELSE 'always' END,
  'function', f.pronamespace::regnamespace || '.' || quote_ident(f.proname), 'function_md5', md5({_plain("f.prosrc")}),
  'active', e.evtenabled IN ('O', 'A'), 'tags', e.evttags)
FROM pg_catalog.pg_event_trigger AS e JOIN pg_catalog.pg_proc AS f ON f.oid = e.evtfoid"""

PUBLICATIONS = """
SELECT p.pubname::text, jsonb_build_object('owner', pg_get_userbyid(p.pubowner), 'all_tables', p.puballtables,
  'insert', p.pubinsert, 'update', p.pubupdate, 'delete', p.pubdelete, 'truncate', p.pubtruncate,
  'tables', (SELECT coalesce(jsonb_agg(quote_ident(n.nspname) || '.' || quote_ident(c.relname)
      ORDER BY n.nspname, c.relname), '[]')
    FROM pg_catalog.pg_publication_rel AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid))
FROM pg_catalog.pg_publication AS p"""

EXTENSIONS = """
SELECT extname::text, jsonb_build_object('version', extversion, 'schema', extnamespace::regnamespace::text,
  'owner', pg_get_userbyid(extowner)) FROM pg_catalog.pg_extension"""

BEACONS = """
SELECT n.nspname::text, c.relname::text, to_jsonb(r) - 'relation'
FROM pgwitness.covered AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"""
