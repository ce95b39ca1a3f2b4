"""Ways to masked values through what runs of others for an audience: functions, triggers, rules, checks, policies.

Each is a query behind `fragments.MASKED`, with the columns of `reach.Way`. What a body does is not known, only guessed
from its words: a function that takes tables by names without a schema is led to a temporary table of the audience's
own, which stands before every other schema unless the function's `search_path` names `pg_temp`.
"""

from __future__ import annotations

from collectors.masking.fragments import BELOW, HAS, TO
from collectors.masking.names import SCHEMA

_NOT_OURS = f"NOT IN ('pg_catalog', 'information_schema', 'pgwitness', '{SCHEMA}')"


def _reads(role: str) -> str:
    """Write whether a role may read a masked column, or what shows one."""
    return f"""(EXISTS (SELECT FROM masked AS m WHERE has_column_privilege({role}, m.relid, m.attnum, 'SELECT'))
        OR EXISTS (SELECT FROM below AS b JOIN pg_class AS v ON v.oid = b.relid AND v.relkind IN ('v', 'm')
            WHERE has_any_column_privilege({role}, v.oid, 'SELECT')))"""


def _writes(relation: str) -> str:
    """Write whether the audience `r` may change rows of a relation."""
    return f"""(has_table_privilege(r.oid, {relation}, 'DELETE, TRUNCATE')
        OR has_any_column_privilege(r.oid, {relation}, 'INSERT')
        OR has_any_column_privilege(r.oid, {relation}, 'UPDATE'))"""


_LOOSE = r"""(NOT EXISTS (SELECT FROM unnest(p.proconfig) AS o (v) WHERE o.v LIKE 'search_path=%%pg_temp%%')
    AND p.prosrc ~* ('\m(insert\s+into|update|join|(?<!distinct\s)from)\s+(only\s+)?'
        '("[^"]+"|[a-z_]\w*\M)(?!\s*[.(])|\mexecute\M'))"""
"""Whether a function `p` takes a relation by a name for which a temporary one can stand."""
_BIND = (
    """'ALTER FUNCTION ' || p.oid::regprocedure || ' SET search_path = ' || quote_ident(pn.nspname) || ', pg_temp'"""
)

_SETTING_CAST = "':resulttype (1082|1083|1114|1184|1186|1266|790|142) :resultcollid'"
"""What the tree of an expression has where it reads a text as a time, an amount or XML, which hangs on settings."""

DEFINERS = f"""{BELOW}\
, definer (oid, proowner) AS MATERIALIZED (
    SELECT p.oid, p.proowner FROM pg_proc AS p
    WHERE p.prosecdef AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
    UNION SELECT a.aggfnoid::oid, q.proowner FROM pg_aggregate AS a JOIN pg_proc AS q ON q.prosecdef
        AND q.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
            a.aggminvtransfn, a.aggmfinalfn)
), called (first, runner) AS (
    SELECT d.oid, d.proowner FROM definer AS d JOIN pg_proc AS p ON p.oid = d.oid
        JOIN pg_namespace AS n ON n.oid = p.pronamespace, audience AS r
    WHERE n.nspname {_NOT_OURS} AND has_function_privilege(r.oid, d.oid, 'EXECUTE')
        AND has_schema_privilege(r.oid, n.oid, 'USAGE')
    UNION SELECT c.first, d.proowner FROM called AS c JOIN pg_roles AS o ON o.oid = c.runner AND NOT o.rolsuper
        JOIN definer AS d ON has_function_privilege(c.runner, d.oid, 'EXECUTE')
)
SELECT 'function ' || p.oid::regprocedure, 'it runs with the rights of ' || f.runner || ', who may read masked columns',
    'REVOKE EXECUTE ON FUNCTION ' || p.oid::regprocedure || ' FROM '
        || coalesce((SELECT string_agg(DISTINCT {TO}, ', ') FROM aclexplode(p.proacl) AS x
            WHERE x.privilege_type = 'EXECUTE' AND {HAS}), 'PUBLIC')
FROM (SELECT c.first, min(pg_get_userbyid(c.runner)) AS runner FROM called AS c WHERE {_reads("c.runner")}
    GROUP BY c.first) AS f JOIN pg_proc AS p ON p.oid = f.first, audience AS r"""
"""Functions of definer's rights, those behind aggregates and those that others of them call."""

NOTIFIES = r"""
, telling (oid, proname) AS (
    SELECT p.oid, p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'pgwitness')
        AND p.prosrc ~* '\mnotify\M|\mpg_notify\M|^triggered_change_notification$'
    UNION SELECT p.oid, p.proname FROM telling AS t JOIN pg_proc AS p ON t.proname ~ '^\w+$'
        AND p.prosrc ~* ('\m' || t.proname || '\M')
)
SELECT t.name, 'its trigger ' || quote_ident(g.tgname) || ' notifies, and everybody may listen',
    'let ' || g.tgfoid::regproc || ' notify without values of the row'
FROM tables AS t JOIN pg_trigger AS g ON g.tgrelid = t.relid AND NOT g.tgisinternal
    JOIN telling AS f ON f.oid = g.tgfoid"""
"""Triggers that notify, themselves or by another function that they name."""

_TRIGGERS = f"""{BELOW}\
, fired AS (
    SELECT c.oid AS relid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, g.tgname, g.tgfoid
    FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = g.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_proc AS p ON p.oid = g.tgfoid JOIN pg_namespace AS pn ON pn.oid = p.pronamespace, audience AS r
    WHERE NOT g.tgisinternal AND pn.nspname NOT IN ('pg_catalog', 'pgwitness', 'pgwitness_guard')
        AND (c.oid IN (SELECT relid FROM tables) OR p.prosecdef AND {_reads("p.proowner")}) AND {_writes("c.oid")}
)
"""
"""Triggers of whoever, on tables that the audience may write to, whose functions see masked values."""

RAISES = rf"""{_TRIGGERS}
SELECT t.name, 'the audience may write to it, and its trigger ' || quote_ident(t.tgname) || ' raises',
    'let ' || t.tgfoid::regproc || ' raise without values of the row'
FROM fired AS t JOIN pg_proc AS p ON p.oid = t.tgfoid WHERE p.prosrc ~* '\mraise\M'"""

TRIGGERS = f"""{_TRIGGERS}
SELECT t.name, 'the audience may write to it, and its trigger ' || quote_ident(t.tgname)
        || ' takes tables by their name alone, for which a temporary table of the audience may stand', {_BIND}
FROM fired AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS pn ON pn.oid = p.pronamespace
WHERE {_LOOSE}"""

RULES = f"""{BELOW}
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'the audience may write to it, and its rule '
        || quote_ident(w.rulename) || ' runs on masked values, with its owner''s rights',
    'DROP RULE ' || quote_ident(w.rulename) || ' ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
FROM pg_rewrite AS w JOIN pg_class AS c ON c.oid = w.ev_class JOIN pg_namespace AS n ON n.oid = c.relnamespace,
    audience AS r
WHERE w.ev_type <> '1' AND {_writes("c.oid")} AND EXISTS (SELECT FROM pg_depend AS d
    WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
        AND ((d.refobjid, d.refobjsubid) IN (SELECT m.relid, m.attnum FROM masked AS m)
            OR d.refobjid IN (SELECT b.relid FROM below AS b JOIN pg_class AS v ON v.oid = b.relid
                AND v.relkind IN ('v', 'm'))))"""

CHECKS = f"""\
SELECT t.name, 'the audience may write to it, and ' || quote_ident(k.conname) || CASE WHEN k.convalidated
        THEN ' reads a text by settings that the audience may change' ELSE ' was never checked for rows that are there'
        END || ': where it raises, it quotes one',
    CASE WHEN k.convalidated THEN 'give the column the type that ' || quote_ident(k.conname) || ' reads it as'
        ELSE 'ALTER TABLE ' || t.name || ' VALIDATE CONSTRAINT ' || quote_ident(k.conname) END
FROM tables AS t JOIN pg_constraint AS k ON k.conrelid = t.relid AND k.contype = 'c' AND k.conkey && t.numbers
    AND (NOT k.convalidated OR k.conbin::text ~ {_SETTING_CAST}),
    audience AS r WHERE has_any_column_privilege(r.oid, t.relid, 'UPDATE')"""

_POLICIES = """\
FROM tables AS t JOIN pg_policy AS y ON y.polrelid = t.relid AND y.polcmd IN ('r', '*')
    JOIN pg_class AS c ON c.oid = t.relid AND c.relrowsecurity
WHERE EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_policy'::regclass AND d.objid = y.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.relid AND d.refobjsubid = ANY (t.numbers))"""

POLICIES = f"""\
SELECT t.name, 'its policy ' || quote_ident(y.polname) || ' reads a masked text by settings that the audience may'
    || ' change: where it raises, it quotes the value', 'give the column the type that the policy reads it as'
{_POLICIES} AND y.polqual::text ~ {_SETTING_CAST}
UNION
SELECT o.name, 'its policy ' || quote_ident(o.polname) || ' gives a masked column to ' || p.oid::regprocedure
    || ', which takes tables by their name alone, for which a temporary table of the audience may stand', {_BIND}
FROM (SELECT t.name, y.polname, y.oid {_POLICIES}) AS o
    JOIN pg_depend AS d ON d.classid = 'pg_policy'::regclass AND d.objid = o.oid AND d.refclassid = 'pg_proc'::regclass
    JOIN pg_proc AS p ON p.oid = d.refobjid JOIN pg_namespace AS pn ON pn.oid = p.pronamespace
WHERE {_LOOSE}"""

POLICY_GUESSES = f"""\
SELECT t.name, 'its policy ' || quote_ident(y.polname) || ' compares a masked column with a setting, which the'
    || ' audience may set to a guess: whether a row comes tells it', 'let the policy look at a clear column'
{_POLICIES} AND pg_get_expr(y.polqual, y.polrelid) ~ 'current_setting'"""
