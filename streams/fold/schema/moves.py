"""What became of a relation's name when DDL renamed it or put it into another schema. Pure.

The event trigger shows the name afterwards alone; the one before stands in the text, often without its schema. A rename
keeps the schema, so that one is known; where a table came from into another schema is known where one schema alone had
that name. Under a DO block or a function the text shows neither: then a name that nobody knew before is taken for the
one relation that the text names beside it. `streams.fold.schema.relations` and `streams.fold.shares` go on from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pgwitness.core.events import Ddl, quote_identifier
from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql.tree.nodes import Tree

TAGS = frozenset({"ALTER TABLE", "ALTER VIEW", "ALTER MATERIALIZED VIEW", "ALTER FOREIGN TABLE"})
FULL = re.compile(r'((?:"(?:[^"]|"")*"|[^".])+)\.((?:"(?:[^"]|"")*"|[^".])+)')
_MOVES = re.compile(r"\b(?:RENAME|SCHEMA)\b", re.IGNORECASE)
_RENAMED = frozenset({"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"})
_FAILURES = (parser.ParseError, ValueError, RecursionError, LookupError, TypeError, AttributeError)


class Moved(NamedTuple):
    """Relations with their names before and after, in full, and names without a schema that may mean others now."""

    pairs: list[tuple[str, str]]
    doubtful: list[str]


NOTHING = Moved([], [])


def moved(command: Ddl, known: Callable[[str], set[str]]) -> Moved:
    """Return what a command did to names; `known` gives the schemas that have a name, before it."""
    text = command.statement or ""
    if command.tag not in TAGS:
        return NOTHING
    trees = _statements(text)
    if any(_is_alter(tree) for tree in trees) and _MOVES.search(text) is None:
        return NOTHING
    news = [found for item in command.objects if item.relation and (found := FULL.fullmatch(item.relation))]
    pairs: list[tuple[str, str]] = []
    doubtful: list[str] = []
    for schema, name in ((new[1], new[2]) for new in news):
        said = [was for tree in trees for was in _before(tree, schema, name)]
        if not said and not any(_is_alter(tree) for tree in trees):
            said = _beside(command.relations, schema, name, known)
        for old_schema, old in said:
            place = old_schema or first(command.path, old, known)
            schemas = {place} if place else known(old) - {schema}
            if len(schemas) == 1:
                pairs += [(f"{one}.{old}", f"{schema}.{name}") for one in schemas]
            else:
                doubtful.append(old)
    return Moved(pairs, doubtful)


def schema_renamed(command: Ddl) -> tuple[str, str] | None:
    """Return the names of a schema before and after, where the text has them."""
    names = {item.identity for item in command.objects if item.type == "schema"}
    for tree in _statements(command.statement or ""):
        body = tree.get("RenameStmt", {})
        if body.get("renameType") == "OBJECT_SCHEMA" and quote_identifier(body["newname"]) in names:
            return quote_identifier(body["subname"]), quote_identifier(body["newname"])
    return None


def first(path: Sequence[str], name: str, known: Callable[[str], set[str]]) -> str | None:
    """Return the schema of a path in which the server found a name."""
    schemas = known(name)
    return next((schema for schema in path if schema in schemas), None)


def attached(command: Ddl, known: Callable[[str], set[str]]) -> tuple[str, str] | None:
    """Return a table and the one that an ATTACH PARTITION has put below it, in full."""
    named = {found[2]: item.relation for item in command.objects if (found := FULL.fullmatch(item.relation or ""))}
    trees = _statements(command.statement or "") if command.tag == "ALTER TABLE" else []
    for body in (tree["AlterTableStmt"] for tree in trees if "AlterTableStmt" in tree):
        for item in body.get("cmds", []):
            below = item.get("AlterTableCmd", {}).get("def", {}).get("PartitionCmd", {}).get("name")
            if item.get("AlterTableCmd", {}).get("subtype") == "AT_AttachPartition" and below is not None:
                parent, child = (named.get(quote_identifier(each["relname"])) for each in (body["relation"], below))
                if child is None and (name := quote_identifier(below["relname"])):
                    written = below.get("schemaname")
                    schema = quote_identifier(written) if written else first(command.path, name, known)
                    child = f"{schema}.{name}" if schema else None
                if parent is not None and child is not None:
                    return parent, child
    return None


def _before(tree: Tree, schema: str, name: str) -> Iterator[tuple[str, str]]:
    """Return the schema, empty where it is not written, and the name of what a statement made into `schema.name`."""
    ((kind, body),) = tree.items()
    relation = body.get("relation", {})
    old, written = quote_identifier(relation.get("relname", "")), relation.get("schemaname")
    if kind == "RenameStmt" and body.get("renameType") in _RENAMED and quote_identifier(body["newname"]) == name:
        if written is None or quote_identifier(written) == schema:
            yield schema, old
    elif kind == "AlterObjectSchemaStmt" and old == name and quote_identifier(body["newschema"]) == schema:
        yield quote_identifier(written) if written else "", old


def _is_alter(tree: Tree) -> bool:
    """Return whether a statement shows by itself what it alters."""
    return next(iter(tree)) in ("RenameStmt", "AlterObjectSchemaStmt", "AlterTableStmt")


def _beside(names: Sequence[str], schema: str, name: str, known: Callable[[str], set[str]]) -> list[tuple[str, str]]:
    """Return what a block that names one relation has made into a name that nobody knew."""
    if schema in known(name):
        return []
    found = set()
    for written in names:
        full = FULL.fullmatch(written)
        place, old = (full[1], full[2]) if full is not None else (schema, written)
        if place in known(old):
            found.add((place, old))
    return list(found) if len(found) == 1 else []


def _statements(text: str) -> list[Tree]:
    try:
        return [item["stmt"] for item in json.loads(parser.parse_sql_json(text)).get("stmts", [])]
    except _FAILURES:
        return []
