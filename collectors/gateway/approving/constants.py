"""The constants and parameters of a statement, each with the columns that it is compared with or assigned to; pure.

They are what an approver wants to know and what nobody may read in passing: `collectors.gateway.approving.showing` says
what is shown of each. A constant of which no column is known belongs to none, and is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from pgwitness.core.events import quote_identifier
from pgwitness.core.sql.postgres_parser import parse_sql_json
from pgwitness.core.sql.tree.nodes import Tree, walk
from pgwitness.core.sql.tree.stands import name_of

CONSTANTS_MAX: Final = 50
DEPTH_MAX: Final = 200


class Column(NamedTuple):
    """A column as a statement names it: the tables that it may be of, and its name."""

    tables: tuple[str, ...]
    name: str


class Constant(NamedTuple):
    """A constant; of a parameter `number` says which, and there is no text."""

    kind: str
    """`integer`, `number`, `text`, `bits`, or `parameter`."""
    text: str
    columns: tuple[Column, ...]
    bare: bool
    """It is compared with the column itself, or assigned to it; not with what an expression makes of that."""
    number: int = 0


class Constants(NamedTuple):
    """What stands in a text: its constants in their order, the highest parameter, all tables and operators."""

    found: tuple[Constant, ...]
    highest: int
    tables: tuple[str, ...]
    operators: tuple[str, ...]
    kinds: tuple[str, ...]
    """Of which kind each statement of the text is (`DeleteStmt`)."""
    every: int
    """How many constants a text without literals has a parameter for; some, as those of a type, are not `found`."""


def constants_of(text: str) -> Constants:
    """Find the constants of one statement. Raise `ParseError` or `ValueError` where it cannot be parsed."""
    tree = msgspec.json.decode(parse_sql_json(text))
    found = _Finding(tree)
    found.visit(tree, (), bare=False, depth=0)
    ordered = [constant for _, constant in sorted(found.found.items())]
    return Constants(
        tuple(ordered[:CONSTANTS_MAX]),
        found.highest,
        tuple(dict.fromkeys(found.tables.values())),
        tuple(sorted(found.operators)),
        tuple(kind for each in tree.get("stmts", ()) for kind in each.get("stmt", {})),
        found.every,
    )


class _Finding:
    def __init__(self, tree: Tree) -> None:
        self.found: dict[tuple[int, int], Constant] = {}
        self.highest = self.every = 0
        self.operators: set[str] = set()
        self.tables: dict[str, str] = {}
        """Tables by the names that columns are qualified with."""
        for table in _all(tree, "RangeVar"):
            self._table(table)
        for target in _targets(tree):
            self._table(target)

    def _table(self, node: Tree) -> str:
        name = name_of(node)
        alias = (node.get("alias") or {}).get("aliasname") or node.get("relname") or ""
        self.tables[str(alias)] = name
        return name

    def visit(self, node: Any, columns: tuple[Column, ...], *, bare: bool, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise ValueError("it is nested too deep")
        if isinstance(node, list):
            for each in node:
                self.visit(each, columns, bare=bare, depth=depth + 1)
        elif isinstance(node, dict):
            for kind, value in node.items():
                self._node(kind, value, columns, bare, depth + 1)

    def _node(self, kind: str, value: Any, columns: tuple[Column, ...], bare: bool, depth: int) -> None:
        if kind == "A_Const":
            self._constant(value, columns, bare)
        elif kind == "ParamRef":
            number = int(value.get("number", 0))
            self.highest = max(self.highest, number)
            known = self.found.get((-1, number))
            also = known.columns if known is not None else ()
            whole = bare and (known is None or known.bare)
            every = tuple(dict.fromkeys((*also, *columns)))
            self.found[-1, number] = Constant("parameter", "", every, whole, number)
        elif kind == "typmods":
            self.every += sum(1 for _ in _all(value, "A_Const"))
        elif kind == "A_Expr":
            self._compared(value, columns, depth)
        elif kind in ("SelectStmt", "SubLink"):
            self.visit(value, (), bare=False, depth=depth)
        elif kind == "InsertStmt":
            self._inserted(value, depth)
        elif kind == "UpdateStmt":
            self._assigned(value, depth)
        else:
            through = kind in ("List", "items", "TypeCast", "arg", "A_ArrayExpr", "elements")
            self.visit(value, columns, bare=bare and through, depth=depth)

    def _constant(self, value: Tree, columns: tuple[Column, ...], bare: bool) -> None:
        words = {"ival": "integer", "fval": "number", "sval": "text", "bsval": "bits"}
        for key, kind in words.items():
            if key in value:
                place = (int(value.get("location", 0)), 0)
                self.every += place not in self.found  # one source of several columns stands in the tree for each
                text = str(value[key].get(key, 0 if key == "ival" else ""))
                self.found.setdefault(place, Constant(kind, text, columns, bare))

    def _compared(self, value: Tree, columns: tuple[Column, ...], depth: int) -> None:
        self.operators.update(part.get("String", {}).get("sval", "") for part in value.get("name", ())[-1:])
        left, right = value.get("lexpr"), value.get("rexpr")
        for side, other in ((left, right), (right, left)):
            of = self._columns(other)
            self.visit(side, of or columns, bare=bool(of) and _is_column(other), depth=depth)

    def _assigned(self, value: Tree, depth: int) -> None:
        table = self._table(value.get("relation") or {})
        for each in value.get("targetList", ()):
            target = each.get("ResTarget", {})
            column = Column((table,), str(target.get("name", "")))
            self.visit(target.get("val"), (column,), bare=True, depth=depth)
        rest = {key: part for key, part in value.items() if key != "targetList"}
        self.visit(rest, (), bare=False, depth=depth)

    def _inserted(self, value: Tree, depth: int) -> None:
        table = self._table(value.get("relation") or {})
        names = [str(each.get("ResTarget", {}).get("name", "")) for each in value.get("cols", ())]
        lists = value.get("selectStmt", {}).get("SelectStmt", {}).get("valuesLists", ())
        for row in lists:
            for place, cell in enumerate(row.get("List", {}).get("items", ())):
                # Without a list of columns only the table itself says which it is: all that is known is the table.
                column = (Column((table,), names[place]),) if place < len(names) else ()
                self.visit(cell, column, bare=True, depth=depth)
        rest = {key: part for key, part in value.items() if not (key == "selectStmt" and lists)}
        self.visit(rest, (), bare=False, depth=depth)

    def _columns(self, node: Any) -> tuple[Column, ...]:
        found = []
        for column in _all(node, "ColumnRef"):
            names = [str(part["String"].get("sval", "")) for part in column.get("fields", ()) if "String" in part]
            if not names:
                continue
            tables = tuple(dict.fromkeys(self.tables.values()))
            if len(names) > 1:
                named = ".".join(map(quote_identifier, names[:-1]))
                tables = (self.tables.get(names[-2], named),)
            found.append(Column(tables, names[-1]))
        return tuple(dict.fromkeys(found))


def _is_column(node: Any) -> bool:
    return isinstance(node, dict) and "ColumnRef" in node


def _all(node: Any, kind: str) -> Iterator[Tree]:
    """Give all nodes of a kind."""
    return (item[kind] for item in walk(node) if isinstance(item.get(kind), dict))


def _targets(tree: Tree) -> Iterator[Tree]:
    """Give the tables that are written to, which stand in the tree without a node's name."""
    for kind in ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"):
        for statement in _all(tree, kind):
            relation = statement.get("relation")
            if isinstance(relation, dict):
                yield relation
