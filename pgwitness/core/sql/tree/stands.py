"""Which names a statement makes stand for others: renamed tables and columns, views, parents and partitions.

What is known of a name (a label, a policy's relation) would else be left behind by `ALTER TABLE … RENAME`. Names are as
the statement writes them; who keeps what is found here knows the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pgwitness.core.events import quote_identifier
from pgwitness.core.sql.tree.nodes import Tree

Sort = Literal["relation", "schema", "column", "child", "view"]


class Stand(NamedTuple):
    """A name that stands for others from now on.

    `relation` and `schema`: what was `behind` is called `name` now. `column`: of `behind`, a relation, `name` is what
    `columns` was. `child`: `name` is a part of `behind`. `view`: `name` shows `columns` of the relations `behind`, in
    columns of its own that are called `shown`, and calls `functions`.
    """

    sort: Sort
    name: str
    behind: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()


_RELATIONS = frozenset({"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"})


def stands(kind: str, body: Tree) -> Iterator[Stand]:
    """Give the names that a statement makes stand for others; of views `view` tells."""
    if kind == "RenameStmt":
        yield from _renamed(body)
    elif kind == "AlterObjectSchemaStmt" and body.get("objectType") in _RELATIONS:
        relation, schema = body.get("relation", {}), body.get("newschema", "")
        moved = name_of({**relation, "schemaname": schema})
        yield Stand("relation", moved, (name_of(relation),))
    elif kind in ("CreateStmt", "CreateForeignTableStmt"):
        made = body.get("base", body)
        for parent in made.get("inhRelations", []):
            yield Stand("child", name_of(made.get("relation", {})), (name_of(parent.get("RangeVar", {})),))
    elif kind == "AlterTableStmt":
        yield from _taken_in(body)


def view(name: Tree, target_list: list[Tree], names: list[str], reads: tuple[tuple[str, ...], ...]) -> Stand:
    """Tell of a view, of which a query gives the columns; `reads` are relations, columns and functions of that."""
    shown = [quote_identifier(column) for column in names] or [_shown(item) for item in target_list]
    relations, columns, functions = reads
    return Stand("view", name_of(name), relations, columns, tuple(filter(None, shown)), functions)


def name_of(relation: Tree) -> str:
    """Write a relation's name as a statement writes it (the tree's `RangeVar`)."""
    parts = [relation[key] for key in ("schemaname", "relname") if key in relation]
    return ".".join(quote_identifier(part) for part in parts)


def _renamed(body: Tree) -> Iterator[Stand]:
    sort, new = body.get("renameType"), quote_identifier(body.get("newname", ""))
    relation = body.get("relation", {})
    if sort in _RELATIONS and relation:
        yield Stand("relation", name_of({**relation, "relname": body.get("newname", "")}), (name_of(relation),))
    elif sort == "OBJECT_SCHEMA":
        yield Stand("schema", new, (quote_identifier(body.get("subname", "")),))
    elif sort == "OBJECT_COLUMN" and relation:
        yield Stand("column", new, (name_of(relation),), (quote_identifier(body.get("subname", "")),))


def _taken_in(body: Tree) -> Iterator[Stand]:
    for item in body.get("cmds", []):
        command = item.get("AlterTableCmd", {})
        given = command.get("def", {})
        if command.get("subtype") == "AT_AddInherit":
            yield Stand("child", name_of(body.get("relation", {})), (name_of(given.get("RangeVar", {})),))
        elif command.get("subtype") == "AT_AttachPartition":
            part = given.get("PartitionCmd", {}).get("name", {})
            yield Stand("child", name_of(part), (name_of(body.get("relation", {})),))


def _shown(item: Tree) -> str:
    """Give the name of a column of an answer; empty where no text tells it."""
    target = item.get("ResTarget", {})
    if "name" in target:
        return quote_identifier(target["name"])
    fields = target.get("val", {}).get("ColumnRef", {}).get("fields", [])
    name = fields[-1].get("String", {}).get("sval", "") if fields else ""
    return quote_identifier(name) if name else ""
