"""What a command was about where PostgreSQL's event trigger does not say it: read from the client's statement. Pure.

GRANT, REVOKE, ALTER DEFAULT PRIVILEGES and what DROP OWNED revokes come without an object, ATTACH and DETACH name the
parent alone, ALTER EXTENSION … ADD the extension, and a few commands nothing (`pg_event_trigger_ddl_commands()`). The
text of the statement tells it where the command stands in it as it is. Under a DO block, a function or EXECUTE it
does not: then nobody knows, and nothing is said.

Names without a schema are completed where there is only one that they can have: `path` lists the schemas of the
session's search_path that exist, as the event trigger saw them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from pgwitness.core.events import DdlObject, quote_identifier
from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql.tree.nodes import Tree

TEXT_CHARACTERS_MAX = 32_768
"""A longer statement is not in the message."""
OBJECTS_MAX = 100

_PARTITIONS = {"AT_AttachPartition", "AT_DetachPartition", "AT_DetachPartitionFinalize"}
_NOT_TOLD = {"OBJECT_DATABASE", "OBJECT_TABLESPACE", "OBJECT_PARAMETER_ACL", "OBJECT_ROLE"}
"""Grants on these fire no event trigger."""
_RELATIONS = {"OBJECT_TABLE", "OBJECT_SEQUENCE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"}
_WORDS = {"OBJECT_FDW": "foreign-data wrapper", "OBJECT_FOREIGN_SERVER": "server", "OBJECT_LARGEOBJECT": "large object"}
_HARMLESS = {
    "GrantStmt", "GrantRoleStmt", "AlterDefaultPrivilegesStmt", "DropOwnedStmt", "CreateSchemaStmt", "VariableSetStmt",
    "CommentStmt", "CreateRoleStmt", "AlterRoleStmt", "AlterRoleSetStmt", "AlterOwnerStmt", "ViewStmt", "CreateSeqStmt",
    "CreateFunctionStmt", "CreateEnumStmt", "CompositeTypeStmt", "RenameStmt", "CreatePublicationStmt",
    "AlterPublicationStmt", "CreateStatsStmt",
}  # fmt: skip
_ALTERS = {"AlterTableStmt", "AlterObjectSchemaStmt", "RenameStmt"}
_HAS_SCHEMA = re.compile(r'("(?:[^"]|"")*"|[^".]*)\..*', re.DOTALL).fullmatch
_FAILURES = (parser.ParseError, ValueError, RecursionError, LookupError, TypeError, AttributeError)


def unnamed(tag: str, statement: str | None, turn: int, path: Sequence[str]) -> list[DdlObject]:
    """Name the objects of a command that came without any; empty where the statement does not tell for certain.

    A text of several such commands runs them in their order: `turn` says how many of them the transaction has told
    before. Where the text holds anything that may run somebody's code, or undo a part of itself, the command may be
    another one than those that stand there, and nothing is named.
    """
    statements = _statements(statement)
    found = [made for tree in statements if (made := _each(_of_grants(tag, tree, path)))]
    if not found or not all(_runs_nothing(tree) for tree in statements):
        return []
    return found[turn % len(found)]


def besides(tag: str, objects: Sequence[DdlObject], statement: str | None, path: Sequence[str]) -> list[DdlObject]:
    """Name what a command was about besides the objects it came with: the partition, the extension's new member.

    Only where the text is that one command: of several it is not known which of them this is.
    """
    statements = _statements(statement)
    if len(statements) != 1:
        return []
    return _each(_of_others(tag, statements[0], [item.identity for item in objects], path))


def completed(statement: str | None, names: Sequence[str], path: Sequence[str]) -> list[str]:
    """Return relations of a statement, as SQL writes them, their schema where they have none and only one is possible.

    Only where the text runs nobody's code: else the path may be that of a function inside of it.
    """
    if len(path) != 1 or path[0] == "pg_catalog" or not all(_runs_nothing(tree) for tree in _statements(statement)):
        return list(names)
    schema = quote_identifier(path[0])
    return [name if _HAS_SCHEMA(name) or name.startswith("pg_") else f"{schema}.{name}" for name in names]


def looked_for(tag: str, statement: str | None, path: Sequence[str]) -> list[str]:
    """Return the schemas in which the names of an ALTER were looked for, as SQL writes them.

    Only where the text is that one command: a block or a function may have looked in others.
    """
    if not tag.startswith("ALTER ") or len(path) < 2:
        return []
    kinds = [next(iter(tree)) for tree in _statements(statement)]
    return [quote_identifier(schema) for schema in path] if len(kinds) == 1 and kinds[0] in _ALTERS else []


def _runs_nothing(tree: Tree) -> bool:
    """Return whether a statement runs nobody's code and undoes nothing, so that it is told as it stands there."""
    ((kind, body),) = tree.items()
    return kind in _HARMLESS or (kind == "CreateStmt" and "partbound" not in body)


@lru_cache(256)
def _statements(text: str | None) -> tuple[Tree, ...]:
    if text is None or len(text) > TEXT_CHARACTERS_MAX:
        return ()
    try:
        return tuple(item["stmt"] for item in json.loads(parser.parse_sql_json(text)).get("stmts", []))
    except _FAILURES:
        return ()


def _each(objects: Iterator[DdlObject]) -> list[DdlObject]:
    try:
        return list(dict.fromkeys(objects))[:OBJECTS_MAX]
    except _FAILURES:
        return []


def _of_grants(tag: str, tree: Tree, path: Sequence[str]) -> Iterator[DdlObject]:
    ((kind, body),) = tree.items()
    if kind == "GrantStmt" and tag == ("GRANT" if body.get("is_grant") else "REVOKE"):
        yield from _granted(body, path)
    elif kind == "AlterDefaultPrivilegesStmt" and tag == "ALTER DEFAULT PRIVILEGES":
        yield from _defaults(body)
    elif kind == "DropOwnedStmt" and tag == "DROP OWNED":
        for item in body.get("roles", []):
            role = item["RoleSpec"]
            yield DdlObject("role", quote_identifier(role["rolename"]) if "rolename" in role else "current_user")
    elif kind == "CreateSchemaStmt" and tag == "CREATE SCHEMA":
        inside = [body["schemaname"]] if "schemaname" in body else []
        for element in body.get("schemaElts", []):
            yield from _granted(element["GrantStmt"], inside) if "GrantStmt" in element else ()


def _granted(body: Tree, path: Sequence[str]) -> Iterator[DdlObject]:
    what = body.get("objtype", "")
    word = _word(what)
    if what in _NOT_TOLD:
        return
    for item in body.get("objects", []):
        if body.get("targtype") == "ACL_TARGET_ALL_IN_SCHEMA":
            yield DdlObject(f"all {word}s in schema", _written(_names(item)))
        else:
            yield _object(what, item, path)


def _defaults(body: Tree) -> Iterator[DdlObject]:
    word = f"{_word(body['action'].get('objtype', ''))}s"
    options = {item["DefElem"]["defname"]: item["DefElem"]["arg"]["List"]["items"] for item in body.get("options", [])}
    schemas = [quote_identifier(_names(item)[-1]) for item in options.get("schemas", [])]
    if not schemas:
        yield DdlObject("default privileges", word)
    for schema in schemas:
        yield DdlObject("default privileges", f"{word} in schema {schema}")


def _of_others(tag: str, tree: Tree, named: Sequence[str], path: Sequence[str]) -> Iterator[DdlObject]:
    ((kind, body),) = tree.items()
    if kind == "AlterTableStmt" and tag in ("ALTER TABLE", "ALTER INDEX"):
        what = "OBJECT_INDEX" if tag == "ALTER INDEX" else "OBJECT_TABLE"
        parent = quote_identifier(body["relation"]["relname"])
        for item in body.get("cmds", []):
            command = item["AlterTableCmd"]
            if command.get("subtype") in _PARTITIONS and any(name.endswith(f".{parent}") for name in named):
                yield _object(what, {"RangeVar": command["def"]["PartitionCmd"]["name"]}, path)
    elif kind == "AlterTableMoveAllStmt" and not named:
        yield DdlObject("tablespace", quote_identifier(body["orig_tablespacename"]))
    elif kind == "AlterExtensionContentsStmt" and tag == "ALTER EXTENSION":
        yield _object(body.get("objtype", ""), body["object"], path)


def _object(what: str, item: Tree, path: Sequence[str]) -> DdlObject:
    if "RangeVar" in item:
        body = item["RangeVar"]
        names = [body[key] for key in ("schemaname", "relname") if key in body]
    else:
        names = _names(item)
    if what in {"OBJECT_SCHEMA", "OBJECT_LANGUAGE", "OBJECT_FDW", "OBJECT_FOREIGN_SERVER", "OBJECT_LARGEOBJECT"}:
        return DdlObject(_word(what), _written(names))
    name = _written(_completed(names, path))
    if "ObjectWithArgs" in item and not item["ObjectWithArgs"].get("args_unspecified"):
        given = item["ObjectWithArgs"].get("objargs", [])
        name += f"({','.join(_type(argument) for argument in given)})"
    return DdlObject(_word(what), name, name if what in _RELATIONS else None)


def _completed(names: list[str], path: Sequence[str]) -> list[str]:
    """Put the schema in front of a name where no other can be meant; those of `pg_catalog` come before any path."""
    alone = len(names) == 1 and len(path) == 1 and path[0] != "pg_catalog" and not names[0].startswith("pg_")
    return [path[0], *names] if alone else names[-2:]


def _word(what: str) -> str:
    return _WORDS.get(what) or what.removeprefix("OBJECT_").lower().replace("_", " ")


def _type(argument: Tree) -> str:
    body = argument.get("TypeName", argument)
    names = [item["String"]["sval"] for item in body.get("names", [])]
    array = "[]" if "arrayBounds" in body else ""
    return _written(names[1:] if names[:1] == ["pg_catalog"] else names) + array


def _names(item: Tree) -> list[str]:
    """Read a name however the tree writes it."""
    if "List" in item:
        return [part for inner in item["List"].get("items", []) for part in _names(inner)]
    for kind, key in (("ObjectWithArgs", "objname"), ("TypeName", "names")):
        if kind in item:
            return [part for inner in item[kind].get(key, []) for part in _names(inner)]
    body = next(iter(item.values()))
    value = body.get("sval", body.get("ival", body.get("fval", "")))
    return [str(value)]


def _written(names: Sequence[str]) -> str:
    return ".".join(name if name.isdigit() else quote_identifier(name) for name in names if name)
