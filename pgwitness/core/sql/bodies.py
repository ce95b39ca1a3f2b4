"""What the code inside a statement does: DO blocks, functions, and texts that a function runs as SQL.

A body in PL/pgSQL is read by PostgreSQL's own parser of that language (through pglast), statement by statement, with
what EXECUTE runs as far as it is written there. What that parser does not take, because it knows no catalogue, is cut
at its semicolons: what a piece parses to counts in full, of the rest its words. Of other languages than these nothing
is known but that they are there (`language …` among the objects).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql.escapes import with_escapes
from pgwitness.core.sql.folding import folded
from pgwitness.core.sql.tree.nodes import Tree
from pgwitness.core.sql.tree.reader import Reader
from pgwitness.core.sql.words import STARTS, read_letters, read_words

DEPTH_MAX = 300
"""Brackets of a tree in each other at most, so that reading it takes a bounded stack wherever it is called from."""
BODIES_DEPTH_MAX = 3
BODY_CHARS_MAX = 256 * 1024
UNKNOWN = "dynamic_name"
"""Stands for what a text made at run time does not tell."""

REACHES = frozenset(
    {
        *(
            "pg_read_file",
            "pg_read_binary_file",
            "pg_ls_dir",
            "lo_import",
            "lo_export",
            "lo_from_bytea",
            "pg_file_write",
        ),
        *("dblink", "dblink_connect", "dblink_exec", "dblink_send_query", "pg_terminate_backend", "set_config"),
        *("pg_reload_conf", "pg_logical_emit_message", "pg_create_logical_replication_slot"),
        *("pg_drop_replication_slot", "pg_logical_slot_get_changes", "pg_logical_slot_peek_changes"),
    }
)
"""Functions that reach beyond the database's tables: where a body calls one, `defines` says so, `pg_read_file()`."""

COMMENTS = {"SQL_COMMENT", "C_COMMENT"}
_BRACKETS = re.compile(r"[\[\]{}]")
_FORMAT = re.compile(r"%(?:\d+\$)?-?\d*([IsL%])")
_HEADERS = tuple(f"CREATE FUNCTION f() RETURNS {kind} LANGUAGE plpgsql AS" for kind in ("void", "trigger", "SETOF x"))
_STATEMENT, _EXPRESSION = 0, 2
_BRANCHES = re.compile(
    r"'(?:PLpgSQL_stmt_(?:if|case|loop|while|fori|fors|forc|foreach_a|exit|dynexecute|dynfors|raise)|exceptions|dynquery)'"
)
"""What may keep some of a function from running, or makes statements at run time."""
_decode = msgspec.json.Decoder().decode
_FAILURES = (parser.ParseError, ValueError, RecursionError, LookupError, TypeError, AttributeError)


def statements_of(tree: str) -> list[Tree]:
    """Decode a tree. Raises `RecursionError` for one that is nested too deeply, at the same depth every time."""
    return [item["stmt"] for item in _bounded(tree).get("stmts", []) if "stmt" in item]


def read_bodies(reader: Reader, depth: int = 0) -> None:
    """Read all bodies that a reader has met into it; those of functions that are only made, as what they define."""
    for body in reader.bodies:
        inner = reader.inner() if body.runs else Reader(wary=reader.wary)
        if body.language in _READERS:
            _READERS[body.language](body.text, inner)
            read_as_it_is = body.runs or body.plain or not reader.wary
            if not read_as_it_is and (other := with_escapes(body.text)) is not None:
                _READERS[body.language](other, inner)
        else:
            if body.runs:
                reader.unread = reader.unread or "it runs code in a language that is not read"
            continue
        if depth < BODIES_DEPTH_MAX:
            read_bodies(inner, depth + 1)
        elif inner.bodies:
            inner.unread = inner.unread or "it runs text in text in text"
        reader.unread = reader.unread or inner.unread
        if body.runs:
            reader.take(inner)
        else:
            reader.define(body.name, inner, body.of_row)
            reader.defines |= inner.defines
            reader.defines |= {f"{name}()": None for name in inner.functions if name.rpartition(".")[2] in REACHES}


def read_definition(text: str, *, wary: bool = False) -> tuple[Reader, bool] | None:
    """Read what a function runs, by its whole definition (`pg_get_functiondef`); None where it is not understood.

    `wary` is for who decides by it: a body is then what it is by either setting of `standard_conforming_strings`.
    Also says whether all of it runs whenever the function does: in SQL always, in PL/pgSQL where nothing branches.
    """
    try:
        (statement,) = statements_of(parser.parse_sql_json(text))
        body = statement["CreateFunctionStmt"]
    except _FAILURES:
        return None
    reader = Reader()
    if "sql_body" in body:
        reader.read_body(body["sql_body"])
        return reader, True
    made = Reader()
    made.read(statement)
    if not made.bodies or made.bodies[0].language not in ("sql", "plpgsql"):
        return None
    code = made.bodies[0]
    certain = False
    if code.language == "sql":
        certain = _parsed(code.text, reader)
        if not certain:
            _read_pieces(code.text, reader)
    else:
        try:
            parser.check(folded(code.text).text)
            tree = _bounded(parser.parse_plpgsql_json(text))
        except _FAILURES:
            _read_plpgsql(code.text, reader)
        else:
            _read_nodes(tree, reader)
            certain = _BRANCHES.search(str(tree)) is None
    if wary and not code.plain and (other := with_escapes(code.text)) is not None:
        _READERS[code.language](other, reader)
    read_bodies(reader, 1)
    for names in (reader.relations, reader.columns, reader.whole):
        for name in [name for name in names if UNKNOWN in name]:
            del names[name]
    return reader, certain and reader.unread is None


def _bounded(tree: str) -> Any:
    if len(tree) > 10 * DEPTH_MAX:
        depth = 0
        for bracket in _BRACKETS.findall(tree):
            depth += 1 if bracket in "[{" else -1
            if depth > DEPTH_MAX:
                raise RecursionError
    return _decode(tree)


def _read_sql(text: str, reader: Reader) -> None:
    """Read a text that runs as SQL; of one that does not parse, its pieces and words."""
    text = folded(text).text
    if not _parsed(text, reader):
        _read_pieces(text, reader)


def _parsed(text: str, reader: Reader) -> bool:
    inner = reader.inner()
    try:
        for item in statements_of(parser.parse_sql_json(text)):
            inner.read(item)
    except _FAILURES:
        return False
    reader.take(inner)
    reader.bodies += inner.bodies
    return True


def _read_plpgsql(body: str, reader: Reader) -> None:
    body = folded(body).text
    try:
        parser.check(body)
    except parser.TooCostly as costly:
        _read_costly(body, costly, reader)
        return
    if len(body) > BODY_CHARS_MAX:
        _read_pieces(body, reader)
        return
    quoted = body.replace("'", "''")
    for header in _HEADERS:
        try:
            tree = _bounded(parser.parse_plpgsql_json(f"{header} '{quoted}'"))
        except _FAILURES:
            continue
        _read_nodes(tree, reader)
        return
    _read_pieces(body, reader)


def _read_nodes(tree: Any, reader: Reader) -> None:
    """Read every statement and expression of a PL/pgSQL tree."""
    stack = [tree]
    seen: set[tuple[object, object]] = set()  # the same few expressions come again and again
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack += reversed(item)  # in the order of the text: what is made first is meant later
        elif isinstance(item, dict):
            for kind, body in item.items():
                if kind == "PLpgSQL_expr" and isinstance(body, dict):
                    expression = (body.get("query"), body.get("parseMode"))
                    if expression not in seen:
                        seen.add(expression)
                        _read_expression(body, reader)
                    continue
                if kind in ("PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors") and isinstance(body, dict):
                    _read_dynamic(body.get("query", {}), reader)
                elif isinstance(body, dict) and "dynquery" in body:
                    _read_dynamic(body["dynquery"], reader)
                stack.append(body)


def _read_expression(body: Tree, reader: Reader) -> None:
    query, mode = str(body.get("query", "")), body.get("parseMode", _STATEMENT)
    if mode == _STATEMENT:
        if not _parsed(query, reader):
            _read_pieces(query, reader)
        return
    inner = reader.inner()
    value = query if mode == _EXPRESSION else query.partition("=")[2]
    if not _parsed(f"SELECT {value}", inner):
        _read_pieces(query, reader)
        return
    if not inner.relations and tuple(inner.operations) == ("select",):
        inner.operations.clear()  # `x + 1` reads nothing
    reader.take(inner)


def _read_dynamic(expression: Tree, reader: Reader) -> None:
    """Read what EXECUTE runs, as far as the text says; what is made at run time is `UNKNOWN`."""
    query = str(expression.get("PLpgSQL_expr", {}).get("query", ""))
    reader.operations.setdefault("execute_dynamic")
    given, reader.given = reader.given, True
    try:
        (tree,) = statements_of(parser.parse_sql_json(f"SELECT {query}"))
        text = _written(tree["SelectStmt"]["targetList"][0]["ResTarget"]["val"])
    except _FAILURES:
        return
    reader.given = given or text.strip().startswith(UNKNOWN)
    inner = reader.inner()
    _read_sql(text, inner)
    for names in (inner.relations, inner.columns, inner.whole, inner.written):
        for name in [name for name in names if UNKNOWN in name]:
            del names[name]
    reader.take(inner)
    reader.bodies += inner.bodies


def _written(node: Tree) -> str:
    """Write the text that an expression makes, with `UNKNOWN` in the place of what only run time knows."""
    if "A_Const" in node:
        return str(node["A_Const"].get("sval", {}).get("sval", UNKNOWN))
    operation = node.get("A_Expr")
    if operation is not None and operation["name"][-1]["String"]["sval"] == "||":
        return _written(operation["lexpr"]) + _written(operation["rexpr"])
    call = node.get("FuncCall")
    if call is not None:
        name, args = call["funcname"][-1]["String"]["sval"], call.get("args", [])
        if name == "format" and args:
            return _FORMAT.sub(lambda match: "%" if match[1] == "%" else UNKNOWN, _written(args[0]))
        if name in ("concat", "concat_ws"):
            return (" " if name == "concat_ws" else "").join(map(_written, args[name == "concat_ws" :]))
    return _written(node["TypeCast"]["arg"]) if "TypeCast" in node else UNKNOWN


def _read_pieces(body: str, reader: Reader) -> None:
    """Read the pieces between semicolons, each from the first word that begins a statement."""
    for piece in _pieces(body, reader):
        begin = next((index for index, item in enumerate(piece) if item.name in STARTS), None)
        if begin is None:
            continue
        if not _parsed(body[piece[begin].start : piece[-1].end + 1], reader):
            read_words(piece[begin:], reader)


def _read_costly(body: str, costly: parser.TooCostly, reader: Reader) -> None:
    reader.unread = str(costly)
    read_letters(body, reader)


def _pieces(body: str, reader: Reader) -> Iterator[list[parser.Token]]:
    try:
        tokens = [token for token in parser.scan(body) if token.name not in COMMENTS]
    except parser.TooCostly as costly:
        _read_costly(body, costly, reader)
        return
    except (parser.ParseError, ValueError):
        reader.operations.setdefault("do_unreadable")
        return
    piece: list[parser.Token] = []
    for token in tokens:
        if token.name == "ASCII_59":
            yield piece
            piece = []
        else:
            piece.append(token)
    yield piece


_READERS = {"sql": _read_sql, "plpgsql": _read_plpgsql}
"""What reads a body, by its language."""
