"""What a statement may be that asks the lake: one that reads its views, and nothing else.

DuckDB's kinds of statements do not tell: in a SELECT a common table expression may be a COPY or a DELETE, a table
function may run text of its own, and a file's name in FROM is read. So DuckDB's own parser gives the statement as a
tree, and what does not stand on the lists below is refused. EXPLAIN, and CREATE of a table or view of one's own, which
lives in memory, are taken apart: what is run is put together from the beginning and a checked SELECT.

DuckDB's settings (`sinks.sql.catalogue.connect`) are the second wall: no path outside the lake, no extensions, no
secrets.
"""

from __future__ import annotations

import json
import re
from typing import Any

import duckdb

from pgwitness.core.errors import NotInOrder
from sinks.lake.views import views

NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""What a query may be made of; COPY, INSERT, UPDATE, DELETE and MERGE are nodes of their own."""
FUNCTIONS = frozenset(
    {
        *("generate_series", "json_each", "json_tree", "range", "repeat", "unnest"),
        *("histogram", "histogram_values", "summary"),
        *("duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_tables", "duckdb_types", "duckdb_views"),
        *("pragma_show", "pragma_table_info", "pragma_version", "pg_timezone_names"),
    }
)
"""DuckDB's own table functions that read no file and run no text; the macros of the catalogue are allowed too."""
SCHEMAS = frozenset({"", "main", "information_schema", "pg_catalog"})
OWN = frozenset(name.lower() for name in re.findall(r"CREATE OR REPLACE (?:VIEW|MACRO) (\w+)", views.views()))
"""The views and macros of the lake: nothing of one's own takes their place, or answers would not be the evidence's."""
_NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_]\w*)'
_OPTION = r"(?:ANALYZE|FORMAT\s+\w+)"
_SPACE = re.compile(r"\A(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_BEGINNING = re.compile(
    rf"""
    (?P<begin>
        EXPLAIN (?: \s+ ANALYZE \b | \s* \( \s* {_OPTION} (?: \s*,\s* {_OPTION} )* \s* \) )?
        | CREATE \s+ (?:OR\s+REPLACE\s+)? (?:(?:TEMP|TEMPORARY)\s+)? (?:TABLE|VIEW) \s+ (?P<name>{_NAME}) \s+ AS \b
    )
    (?P<rest> .+ )""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)
_FILE = re.compile(r"[./*:\\?\[]")


def only_reads(connection: duckdb.DuckDBPyConnection, statement: str) -> str:
    """Give a statement as it may be run; raises `NotInOrder` when it does more than read what the lake's views show."""
    text = _SPACE.sub("", statement, count=1)
    found = _BEGINNING.fullmatch(text)
    if found is None:
        _check(connection, text)
        return text
    if found["name"] is not None and _plain(found["name"]) in OWN:
        raise NotInOrder(f"{found['name']} means what the lake says, for whoever asks: choose another name")
    _check(connection, found["rest"])
    return f"{found['begin']} {found['rest'].strip()}"


def _check(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    row = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [text]).fetchone()
    tree: dict[str, Any] = json.loads(row[0]) if row is not None else {"error": True}
    if tree.get("error"):
        if tree.get("error_type") == "parser":
            raise NotInOrder(f"DuckDB cannot read this: {tree.get('error_message')}")
        raise _refusal(_word(text))
    if len(tree["statements"]) != 1:
        raise _refusal("several statements in one")
    _walk(tree["statements"][0], _macros(connection))


def _plain(name: str) -> str:
    return (name[1:-1].replace('""', '"') if name.startswith('"') else name).lower()


def _macros(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    rows = connection.execute(
        "SELECT function_name FROM duckdb_functions() WHERE function_type = 'table_macro' AND NOT internal"
    ).fetchall()
    return frozenset(name.lower() for (name,) in rows)


def _walk(tree: object, macros: frozenset[str]) -> None:
    """Look at every part of a parsed statement; raises `NotInOrder` at the first that may not be there."""
    parts = [tree]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            _part(part, macros)
            parts += part.values()


def _part(part: dict[str, Any], macros: frozenset[str]) -> None:
    kind = part.get("type")
    if not isinstance(kind, str) or "class" in part:
        return
    if kind.endswith("_NODE") and kind not in NODES:
        raise _refusal(kind.removesuffix("_NODE").removesuffix("_QUERY"))
    if kind == "TABLE_FUNCTION":
        name = str(part["function"]["function_name"]).lower()
        if name not in FUNCTIONS and name not in macros:
            raise NotInOrder(
                f"{name}() is not for evidence: here the lake is read, by its views and macros, and nothing else "
                "(`.tables` lists them)"
            )
    if kind in ("BASE_TABLE", "SHOW_REF"):
        _table(part)


def _table(part: dict[str, Any]) -> None:
    """Refuse the name of a file where one of a view must stand."""
    name, schema = str(part.get("table_name", "")), str(part.get("schema_name", ""))
    if _FILE.search(name) or schema.lower() not in SCHEMAS:
        shown = f"{schema}.{name}" if schema else name
        raise NotInOrder(
            f"{shown!r} is no view of the lake (`.tables` lists them); files are not read by their names here, since "
            "only those count that its log names"
        )


def _word(text: str) -> str:
    return (re.match(r"\w+", text) or [text[:20]])[0].upper()


def _refusal(what: str) -> NotInOrder:
    hint = "`pgwitness sql --json` prints an answer for other programs"
    if what in ("PIVOT", "FROM", "SELECT", "WITH"):
        what, hint = "a PIVOT without its values", "name them: PIVOT … ON operation IN ('insert', 'delete')"
    elif what in ("PRAGMA", "CALL"):
        hint = "DESCRIBE view, SHOW TABLES and SUMMARIZE view tell what there is"
    return NotInOrder(f"{what} is not for evidence: the lake is only read here. {hint}")
