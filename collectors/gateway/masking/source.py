"""Reads from a database's catalogue which views an audience has, and what they show of which table."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg

from collectors.gateway.masking.views import How, Name, Relation, Views
from collectors.masking.names import MARK, OWNER, PADS
from pgwitness.core.sql.postgres_parser import ParseError, parse_sql_json

LOCK_TIMEOUT = "1s"
_VIEWS = """\
SELECT c.oid, n.nspname::text, c.relname::text, pg_get_viewdef(c.oid) FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND obj_description(n.oid, 'pg_namespace') LIKE %(mark)s
    AND has_schema_privilege(%(role)s, n.oid, 'USAGE') AND has_table_privilege(%(role)s, c.oid, 'SELECT')
ORDER BY 2, 3"""

_TABLES = """\
SELECT DISTINCT r.ev_class, n.nspname::text, t.relname::text, EXISTS (SELECT FROM pg_inherits AS h
        WHERE h.inhparent = t.oid),
    ARRAY(SELECT a.attname::text FROM pg_index AS i, unnest(i.indkey) AS k (number) JOIN pg_attribute AS a
        ON a.attnum = k.number WHERE i.indrelid = t.oid AND a.attrelid = t.oid AND i.indisprimary ORDER BY a.attnum),
    ARRAY(SELECT a.attname::text FROM pg_attribute AS a JOIN pg_type AS y ON y.oid = a.atttypid
        WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT EXISTS (SELECT FROM pg_opclass AS o
            JOIN pg_am AS m ON m.oid = o.opcmethod WHERE o.opcdefault AND m.amname IN ('btree', 'hash')
                AND (o.opcintype IN (y.oid, y.typbasetype) OR y.typcategory IN ('A', 'E', 'R', 'S')
                    OR y.typtype IN ('c', 'd')))),
    array_remove(ARRAY[
        CASE WHEN has_any_column_privilege(%(role)s, t.oid, 'INSERT') THEN 'insert' END,
        CASE WHEN has_any_column_privilege(%(role)s, t.oid, 'UPDATE') THEN 'update' END,
        CASE WHEN has_table_privilege(%(role)s, t.oid, 'DELETE') THEN 'delete' END], NULL),
    array_remove(ARRAY[
        CASE WHEN has_any_column_privilege(%(role)s, r.ev_class, 'INSERT')
            AND has_any_column_privilege(%(owner)s, t.oid, 'INSERT') THEN 'insert' END,
        CASE WHEN has_any_column_privilege(%(role)s, r.ev_class, 'UPDATE')
            AND has_any_column_privilege(%(owner)s, t.oid, 'UPDATE') THEN 'update' END,
        CASE WHEN has_table_privilege(%(role)s, r.ev_class, 'DELETE')
            AND has_table_privilege(%(owner)s, t.oid, 'DELETE') THEN 'delete' END], NULL)
FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
JOIN pg_class AS t ON t.oid = d.refobjid AND t.relkind IN ('r', 'p')
JOIN pg_namespace AS n ON n.oid = t.relnamespace
WHERE r.ev_class = ANY (%(views)s) AND n.nspname || '.' || t.relname <> %(pads)s"""


def read(connection: psycopg.Connection[tuple[Any, ...]], role: str) -> Views:
    """Read the views of a role; none where the database has no such role. Raise `psycopg.Error`."""
    nothing = Views(role=role, schemas={}, relations={})
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'".encode())
        # What the catalogue writes as SQL is then qualified but for PostgreSQL's own.
        connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
            return nothing
        parameters: dict[str, Any] = {"role": role, "mark": f"{MARK}%", "owner": OWNER, "pads": PADS}
        views = connection.execute(_VIEWS, parameters).fetchall()
        if not views:
            return nothing
        tables = connection.execute(_TABLES, parameters | {"views": [row[0] for row in views]}).fetchall()
    by_view = {row[0]: row[1:] for row in tables if row[2] in {view[2] for view in views if view[0] == row[0]}}
    schemas: dict[str, str] = {}
    relations: dict[Name, Relation] = {}
    for oid, view_schema, name, definition in views:
        if oid not in by_view:
            continue
        schema, _, parent, key, unequal, table, view = by_view[oid]
        shown = shown_by(definition)
        schemas[schema] = view_schema
        relations[schema, name] = Relation(
            columns=tuple(shown),
            masked={column: how for column, how in shown.items() if how is not None},
            key=tuple(key),
            unequal=frozenset(unequal),
            parent=parent,
            table=frozenset(table),
            view=frozenset(view),
        )
    return Views(role=role, schemas=schemas, relations=relations)


def shown_by(definition: str) -> dict[str, How | None]:
    """Return what a view shows, by column: None as it is, else how; nothing where it cannot be read."""
    try:
        tree = msgspec.json.decode(parse_sql_json(definition))
        targets = [item["ResTarget"] for item in tree["stmts"][0]["stmt"]["SelectStmt"]["targetList"]]
    except (ParseError, ValueError, LookupError):
        return {}
    found: dict[str, How | None] = {}
    for target in targets:
        value = target.get("val", {})
        fields = [each.get("String", {}).get("sval") for each in value.get("ColumnRef", {}).get("fields", ())]
        name = target.get("name") or (fields[-1] if fields else "")
        found[name] = None if fields else _how(value)
    return found


def _how(value: dict[str, Any]) -> How:
    if _has(value, "sha256"):
        return "token"
    constant = value.get("TypeCast", {}).get("arg", {}).get("A_Const", {})
    return "null" if constant.get("isnull") else "other"


def _has(node: Any, function: str) -> bool:
    if isinstance(node, list):
        return any(_has(each, function) for each in node)
    if not isinstance(node, dict):
        return False
    names = node.get("FuncCall", {}).get("funcname", ())
    return any(each.get("String", {}).get("sval") == function for each in names) or any(
        _has(value, function) for value in node.values()
    )
