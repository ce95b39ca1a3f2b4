"""What an error of the server has to do with masks, in one sentence each; pure.

The server's own words stand: the sentence is added as DETAIL or HINT, where the statement has what a view cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from collectors.gateway.masking.scopes import Scope, Source, nodes, parts, source
from collectors.gateway.masking.views import Views
from pgwitness.core.sql.postgres_parser import ParseError, parse_sql_json
from pgwitness.core.sql.tree.nodes import Tree

SYSTEM_COLUMNS: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax"})
_TARGETS: Final = {"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"}


class _Statement:
    """What of a text a view cannot do."""

    def __init__(self, text: str, views: Views) -> None:
        tree = msgspec.json.decode(parse_sql_json(text))
        self.role, self.shown = views.role, views.schemas
        self.reads = not any("SelectStmt" not in each.get("stmt", {}) for each in tree.get("stmts", ()))
        self.sources: list[Source] = []
        self.target: Source | None = None
        self.sampled = self.current = self.returning = self.conflict = self.grouped = self.block = False
        self.system: str | None = None
        self.row: Source | None = None
        self.assigned: str | None = None
        for kind, node, scope in nodes(tree, views):
            self._take(kind, node, scope, views)

    def _take(self, kind: str, node: Tree, scope: Scope | None, views: Views) -> None:
        ctes = scope.ctes if scope is not None else frozenset[str]()
        if kind in ("RangeVar", "relation") and (found := source(node, views, ctes)) is not None:
            self.sources.append(found)
        self.sampled = self.sampled or kind == "RangeTableSample"
        self.current = self.current or kind == "CurrentOfExpr"
        self.conflict = self.conflict or kind == "onConflictClause"
        self.grouped = self.grouped or "groupClause" in node
        self.block = self.block or kind == "DoStmt"
        if kind in _TARGETS:
            self.target = source(node.get("relation", {}), views) or self.target
            self.returning = self.returning or "returningClause" in node or "returningList" in node
            self._assigns(node)
        elif kind == "ColumnRef":
            name = parts(node.get("fields", ()))[-1]
            self.system = name if name in SYSTEM_COLUMNS else self.system
            self._row(node, scope)
        elif kind in ("TypeName", "typeName") and len(names := parts(node.get("names", ()))) > 1:
            var = {"schemaname": names[-2], "relname": names[-1]}
            self.row = source(var, views) or self.row

    def _row(self, node: Tree, scope: Scope | None) -> None:
        """Take up a whole row, as functions and casts take it: a table's name where a column's stands, or `c.f`."""
        fields = parts(node.get("fields", ()))
        while scope is not None:
            found = scope.tables.get(fields[-1] or "") or scope.tables.get(fields[0] or "")
            if found is not None and (len(fields) == 1 or fields[-1] not in (None, *found.relation.columns)):
                self.row = found
            scope = scope.outer

    def _assigns(self, node: Tree) -> None:
        if self.target is None:
            return
        targets = [*(node.get("targetList") or ()), *(node.get("cols") or ())]
        targets += node.get("onConflictClause", {}).get("targetList") or ()
        named = [each.get("ResTarget", {}).get("name") for each in targets]
        self.assigned = next((name for name in named if name in self.target.relation.masked), self.assigned)


def sentence(said: Mapping[str, str], text: str, views: Views) -> str | None:
    """Return what to add to an error of a statement; None where masks have nothing to do with it. Never raises."""
    asked = _SENTENCES.get(said.get("C", ""))
    if asked is None:
        return None
    try:
        return asked(_Statement(text, views), said.get("M", ""))
    except (ParseError, ValueError, RecursionError, LookupError):
        return None


def _table(found: Source) -> str:
    return f"{found.schema}.{found.name}"


def _cannot(statement: _Statement, _: str) -> str | None:
    if statement.sampled:
        return f"TABLESAMPLE takes a table, and {statement.role} reads a view that masks: use WHERE random() < 0.1."
    if statement.current:
        return f"WHERE CURRENT OF takes a table, and {statement.role} has a view that masks: use the key in WHERE."
    if statement.target is not None and statement.assigned is not None:
        return (
            f"{statement.assigned} is masked for {statement.role}, and no view takes a value of it: where the role may"
            f" write it, name the table itself, {_table(statement.target)}, and what follows ON CONFLICT not excluded."
            if statement.conflict
            else f"{statement.assigned} is masked for {statement.role}, and no view takes a value of it: where the role"
            f" may write it, name the table itself, {_table(statement.target)}."
        )
    return None


def _no_column(statement: _Statement, message: str) -> str | None:
    if statement.system is not None and statement.system in message:
        return (
            f"{statement.system} is of the table's own, and {statement.role} reads a view that masks: use the key, or"
            " read the table where the role may."
        )
    return _no_row(statement, message)


def _no_group(statement: _Statement, _: str) -> str | None:
    if not statement.grouped or not statement.sources:
        return None
    return (
        f"{statement.role} reads views that mask, which have no primary key to depend on: name each column in GROUP BY,"
        " or in an aggregate."
    )


def _no_row(statement: _Statement, _: str) -> str | None:
    if statement.row is None:
        return None
    return (
        f"{statement.role} reads {_table(statement.row)} through a view that masks, whose rows have a type of their"
        " own: functions and casts that take the table's rows do not take them; give them the columns."
    )


def _no_conflict(statement: _Statement, _: str) -> str | None:
    if not statement.conflict or statement.target is None:
        return None
    return f"{statement.role} has a view that masks, which has no constraints of its own: name the columns of the key."


def _no_right(statement: _Statement, message: str) -> str | None:
    target = statement.target
    if target is not None and statement.returning:
        return (
            f"RETURNING reads columns of {_table(target)} itself, which {statement.role} may not: leave it away, and"
            " read the view behind it."
        )
    if target is not None and statement.conflict:
        return f"ON CONFLICT reads {_table(target)} itself, which {statement.role} may not: look in the view first."
    if target is not None:
        return (
            f"{statement.role} reads {_table(target)} through a view that masks; to write to the table it needs the"
            " right to, and to read there what WHERE names."
        )
    named = next((one for one in statement.sources if f" {one.name}" in message or f'"{one.name}"' in message), None)
    if named is not None and statement.reads and f" view {named.name}" not in message:
        shown = statement.shown.get(named.schema, "")
        return (
            f"{statement.role} reads {_table(named)} through a view that masks: write {named.name} without a schema,"
            f" and let {shown} stand first in search_path."
        )
    if named is not None:
        return f"{statement.role} reads {_table(named)} through a view that masks, and may do nothing else with it."
    if statement.block:
        return (
            f"{statement.role} reads tables through views that mask: within a block write their names without a schema."
        )
    return None


_SENTENCES: Final[dict[str, Callable[[_Statement, str], str | None]]] = {
    "0A000": _cannot,
    "42703": _no_column,
    "42803": _no_group,
    "42846": _no_row,
    "42883": _no_row,
    "42804": _no_row,
    "42P10": _no_conflict,
    "42501": _no_right,
}


def with_sentence(fields: Mapping[str, str], added: str) -> dict[str, Any]:
    """Return the fields of an error that a sentence changes: its hint where it has none, else its detail, else both."""
    if "H" not in fields:
        return {"H": added}
    if "D" not in fields:
        return {"D": added}
    return {"H": f"{fields['H']} {added}"}
