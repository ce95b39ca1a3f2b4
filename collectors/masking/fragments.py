"""Parts of the queries that look for ways to masked values (`reach`, `running`)."""

from __future__ import annotations

from collectors.masking.names import OWNER

MASKED = """\
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

TO = "CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END"
"""To whom a privilege was granted."""
HAS = "(x.grantee = 0 OR pg_has_role(r.oid, x.grantee, 'USAGE') OR pg_has_role(r.oid, x.grantee, 'MEMBER'))"
"""Whether the audience has what was granted, itself or as a member."""


BELOW = f"""\
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
