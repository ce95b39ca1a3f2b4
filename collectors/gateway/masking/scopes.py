"""Which tables of an audience the names in a query stand for; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from collectors.gateway.masking.views import Relation, Views
from pgwitness.core.sql.tree.nodes import Tree

_FROM = ("fromClause", "usingClause")
_OF_QUERIES = frozenset({*_FROM, "relation", "whereClause", "targetList"})


class Source(NamedTuple):
    """A table as it is called, with what is known of it."""

    schema: str
    name: str
    relation: Relation


@dataclass(frozen=True)
class Scope:
    """What names mean in one query: tables by the names that they have there, then what they mean around it.

    `whole`: nothing else stands in its FROM, so that a column without a table's name is of one of them or from around.
    `ctes` are names that hide tables.
    """

    tables: Mapping[str, Source]
    whole: bool
    ctes: frozenset[str]
    outer: Scope | None = None

    def column(self, node: Tree) -> tuple[Source, str] | None:
        """Return the table and the column that a reference stands for; None where that is none of an audience's."""
        fields = parts(node.get("fields", ()))
        name = fields[-1] if fields else None
        scope: Scope | None = self if name is not None else None
        while scope is not None and name is not None:
            tables = [scope.tables.get(fields[-2] or "")] if len(fields) > 1 else list(scope.tables.values())
            for source in tables:
                if source is not None and name in source.relation.columns:
                    return source, name
            if len(fields) == 1 and not scope.whole:
                return None
            scope = scope.outer
        return None


def nodes(node: Any, views: Views, outer: Scope | None = None) -> Iterator[tuple[str, Tree, Scope | None]]:
    """Give every node of a tree with its kind, and what names mean where it stands."""
    if isinstance(node, list):
        for each in node:
            yield from nodes(each, views, outer)
    elif isinstance(node, dict):
        scope = outer if _OF_QUERIES.isdisjoint(node) else _scope(node, views, outer)
        for kind, value in node.items():
            if isinstance(value, dict):
                yield kind, value, scope
            if isinstance(value, (dict, list)):
                yield from nodes(value, views, scope)


def parts(names: Any) -> list[str | None]:
    """Return the parts of a name; None stands for a star."""
    return [node.get("String", {}).get("sval") for node in names]


def source(var: Tree, views: Views, ctes: frozenset[str] = frozenset()) -> Source | None:
    """Return the table that a relation of a query stands for; None where it is none of an audience's."""
    schema, name = var.get("schemaname"), var.get("relname", "")
    if schema is None:
        alone = views.alone(name) if name not in ctes else None
        return Source(alone[0], name, alone[1]) if alone is not None else None
    found = views.of(schema, name)
    table = next((table for table, shown in views.schemas.items() if shown == schema), schema)
    return Source(table, name, found) if found is not None else None


def _scope(node: Tree, views: Views, outer: Scope | None) -> Scope:
    named = node.get("withClause", {}).get("ctes", ())
    ctes = frozenset(str(each.get("CommonTableExpr", {}).get("ctename")) for each in named)
    ctes |= outer.ctes if outer is not None else frozenset()
    target = node.get("relation")
    items = [item for part in _FROM for item in node.get(part, ())]
    if isinstance(target, dict) and "relname" in target:
        items.append({"RangeVar": target})
    tables: dict[str, Source] = {}
    whole = True
    for item in _flat(items):
        var = item.get("RangeVar", {})
        found, alias = source(var, views, ctes), var.get("alias", {})
        if found is None or "colnames" in alias:
            whole = False
        else:
            tables[alias.get("aliasname", found.name)] = found
    return Scope(tables, whole, ctes, outer)


def _flat(items: list[Tree]) -> Iterator[Tree]:
    for item in items:
        if (join := item.get("JoinExpr")) is not None:
            yield from _flat([join.get("larg", {}), join.get("rarg", {})])
        else:
            yield item
