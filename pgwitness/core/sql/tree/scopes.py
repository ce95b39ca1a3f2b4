"""What a name means at one place of a statement: common table expressions that are visible there, tables by alias.

Scopes are followed as SQL has them: the name of a CTE hides a table only where the CTE is visible. Inside itself
it is not, so `WITH users AS (SELECT * FROM users) …` still reads the table `users`.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from pgwitness.core.sql.tree.nodes import Tree, quoted, string

TEMPORARY = "pg_temp"
"""The schema under which temporary tables are named here; PostgreSQL's own alias of it."""


class Scope:
    """What names mean at one place of a statement: visible CTEs, and tables by alias."""

    def __init__(self, outer: Scope | None = None, temporary: Set[str] = frozenset()) -> None:
        self.ctes: set[str] = set(outer.ctes) if outer else set()
        self.outer = outer
        self.temporary: Set[str] = outer.temporary if outer else temporary
        """Names of tables that the text has made as temporary ones before: alone, they mean those."""
        self.tables: dict[str, str | None] = {}
        self.joined: set[str] = set()
        """Names of joins, which hide those of their tables."""
        self.join_columns: set[str] = set()
        """Columns that a join gave another name; of which of its tables they are, no text tells."""
        self.renamed: dict[str, str] = {}
        """Columns that a FROM gave another name (`AS c(i, e)`), and their table: which they are, no text tells."""

    def table(self, alias: str) -> str | None:
        """Return the table behind an alias, of this place or one around it; None where it is none or unknown."""
        scope: Scope | None = self
        while scope is not None:
            if alias in scope.tables:
                return scope.tables[alias]
            scope = scope.outer
        return None

    def column(self, name: str) -> str | None:
        """Return the table of a column that a FROM gave this name; None for one that keeps its own."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.renamed:
                return scope.renamed[name]
            scope = scope.outer
        return None

    def joins(self, alias: str) -> bool:
        """Return whether an alias names a join, and so all of its tables."""
        return alias in self.joined or (self.outer is not None and self.outer.joins(alias))

    def join_renames(self, column: str) -> bool:
        """Return whether a join gave one of its columns this name."""
        return column in self.join_columns or (self.outer is not None and self.outer.join_renames(column))

    def knows(self, alias: str) -> bool:
        """Return whether something in a FROM has this name, a table or not."""
        return alias in self.tables or (self.outer is not None and self.outer.knows(alias))


def add_tables(clause: Any, scope: Scope) -> None:
    """Note in a scope what a FROM names, by alias."""
    for join in _joins(clause):
        scope.joined |= {join[name].get("aliasname", "") for name in ("alias", "join_using_alias") if name in join}
        scope.join_columns |= {string(item) for item in join.get("alias", {}).get("colnames", [])}
    for body in ranges(clause):
        alias = body.get("alias", {}).get("aliasname")
        if "relname" not in body:
            scope.tables[alias or f"?{len(scope.tables)}"] = None
        elif "schemaname" not in body and body["relname"] in scope.ctes:
            scope.tables[alias or body["relname"]] = None
        else:
            table = ".".join(quoted(part) for part in name_in(body, scope))
            scope.tables[alias or body["relname"]] = table
            scope.renamed |= {string(item): table for item in body.get("alias", {}).get("colnames", [])}


def _joins(clause: Any) -> Iterator[Tree]:
    """List the joins of a FROM."""
    if isinstance(clause, list):
        for item in clause:
            yield from _joins(item)
    elif isinstance(clause, dict):
        for join in [body for kind, body in clause.items() if kind == "JoinExpr"]:
            yield join
            yield from _joins([join.get("larg"), join.get("rarg")])


def ranges(clause: Any) -> Iterator[Tree]:
    """List the tables, subqueries and functions of a FROM, through its joins."""
    if isinstance(clause, list):
        for item in clause:
            yield from ranges(item)
    elif isinstance(clause, dict):
        for kind, body in clause.items():
            if kind in {"RangeVar", "RangeSubselect", "RangeFunction", "RangeTableFunc", "JsonTable"}:
                yield body
            elif kind == "JoinExpr":
                yield from ranges([body.get("larg"), body.get("rarg")])
            elif kind == "RangeTableSample":
                yield from ranges(body.get("relation"))


def name_in(body: Tree, scope: Scope) -> list[str]:
    """Give a relation's name as it is written; of one that is or was made as temporary table, in `pg_temp`."""
    if "schemaname" not in body and (body.get("relpersistence") == "t" or body.get("relname") in scope.temporary):
        return [TEMPORARY, body["relname"]]
    return [body[key] for key in ("schemaname", "relname") if key in body]
