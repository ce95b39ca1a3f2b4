"""Rewrites the names of tables in a statement to those of the views that an audience reads; pure.

What is rewritten, by the places that PostgreSQL's own parser gives:

- the schema of a relation that is read, of a column's full name and of a row's type, where the table has a view;
- `COPY t TO`, which takes no view, to a COPY of the query that it stands for;
- the schema of what is written to, where its view can be written through and no masked column is assigned; else it is
  the table that is meant;
- `GROUP BY` of a primary key, of which a view knows nothing: the other columns that are asked for are added.

A name without a schema needs nothing: the views stand first in the search path. Constants, comments, names of CTEs and
aliases are left as they are, since no place in the tree points at them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec

from collectors.gateway.masking.views import Name, Relation, Views
from collectors.masking.names import quoted
from pgwitness.core.sql.postgres_parser import ParseError, Token, parse_sql_json, scan
from pgwitness.core.sql.tree.nodes import Tree

TEXT_CHARS_MAX: Final = 32 * 1024
"""A longer text is left as it is: to parse it again would hold up every other session."""
_COMMENTS: Final = frozenset({"SQL_COMMENT", "C_COMMENT"})
_READ: Final = frozenset(
    {
        *("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CopyStmt", "ExplainStmt"),
        *("PrepareStmt", "DeclareCursorStmt", "CreateTableAsStmt", "ViewStmt"),
    }
)
"""Statements in which relations are read. In others, such as DDL, a name means what it says."""
_MADE: Final = frozenset({"into", "intoClause", "view"})
"""Where a relation stands that a statement makes."""
_WRITES: Final = {"InsertStmt": "insert", "UpdateStmt": "update", "DeleteStmt": "delete", "MergeStmt": "merge"}


class Edit(NamedTuple):
    """From where to where a text is replaced, in characters, and by what."""

    begin: int
    end: int
    instead: str


def rewrite(text: str, views: Views) -> tuple[Edit, ...]:
    """Return what is to be replaced in a text, in its order; nothing where it cannot be parsed. Never raises."""
    if len(text) > TEXT_CHARS_MAX or not _concerns(text, views):
        return ()
    try:
        tree = msgspec.json.decode(parse_sql_json(text))
        found = _Rewriting(text, views)
        for each in tree.get("stmts", ()):
            found.statement(each.get("stmt", {}))
    except (ParseError, ValueError, RecursionError):
        return ()
    edits = sorted(set(found.edits))
    return tuple(edits) if all(one.end <= other.begin for one, other in pairwise(edits)) else ()


def _concerns(text: str, views: Views) -> bool:
    """Say whether there may be anything to rewrite: most texts name no schema."""
    said = text.lower()
    return any(schema.lower() in said for schema in views.schemas) or "copy" in said or "group" in said


def edited(text: str, edits: tuple[Edit, ...]) -> str:
    """Return a text with what is replaced in it."""
    made: list[str] = []
    at = 0
    for begin, end, instead in edits:
        made += (text[at:begin], instead)
        at = end
    return "".join((*made, text[at:]))


def before(position: int, edits: tuple[Edit, ...]) -> int:
    """Return where in the text as it came a position (from 1) of the rewritten one stands."""
    at, longer = position - 1, 0
    for begin, end, instead in edits:
        if at < begin + longer:
            break
        if at < begin + longer + len(instead):
            return begin + 1
        longer += len(instead) - (end - begin)
    return at - longer + 1


class _Rewriting:
    """One text, and what is replaced in it."""

    def __init__(self, text: str, views: Views) -> None:
        self._text, self._views = text, views
        self.edits: list[Edit] = []
        self._tokens: list[Token] = []
        self._starts: dict[int, int] = {}
        self._place: Callable[[int], int] = int
        self._kept: frozenset[Name] = frozenset()
        """Tables that are written to themselves, and so named by their columns' full names."""
        if not text.isascii():
            encoded = text.encode()
            self._place = lambda byte: len(encoded[:byte].decode())

    def statement(self, node: Tree) -> None:
        """Rewrite a statement of the text."""
        self._kept = frozenset()
        if not _READ.isdisjoint(node):
            self._visit(node)

    def _visit(self, node: Any) -> None:
        if isinstance(node, list):
            for each in node:
                self._visit(each)
        elif isinstance(node, dict):
            for kind, value in node.items():
                if kind in _MADE:
                    continue
                if isinstance(value, dict):
                    self._node(kind, value)
                elif isinstance(value, list):
                    self._visit(value)

    def _node(self, kind: str, value: Tree) -> None:
        if kind == "RangeVar":
            self._relation(value)
        elif kind == "ColumnRef":
            self._column(value)
        elif kind in ("TypeName", "typeName"):
            self._type(value)
        elif kind == "CopyStmt":
            self._copy(value)
        elif kind in _WRITES:
            self._target(_WRITES[kind], value)
        else:
            if kind in ("SelectStmt", "larg", "rarg") and "groupClause" in value:
                self._group(value)
            self._visit(value)

    # -- names -------------------------------------------------------------------------------------------------

    def _relation(self, node: Tree) -> None:
        """Read the view instead of the table."""
        schema = node.get("schemaname")
        if schema is not None and (schema, node.get("relname")) in self._views.relations:
            self._schema(node.get("location", -1), 1 if "catalogname" in node else 0, schema)

    def _column(self, node: Tree) -> None:
        fields = [_name(each) for each in node.get("fields", ())]
        if len(fields) >= 3 and (fields[-3], fields[-2]) in self._views.relations:
            schema, name = str(fields[-3]), str(fields[-2])
            if (schema, name) not in self._kept:
                self._schema(node.get("location", -1), len(fields) - 3, schema)

    def _type(self, node: Tree) -> None:
        names = [_name(each) for each in node.get("names", ())]
        if len(names) >= 2 and (names[-2], names[-1]) in self._views.relations:
            self._schema(node.get("location", -1), len(names) - 2, str(names[-2]))
        self._visit(node.get("typmods"))

    def _schema(self, byte: int, part: int, schema: str) -> None:
        """Replace the schema in a name that begins at a place, of which it is the part of that number."""
        token = self._token(byte, part)
        if token is not None and _folded(self._text[token.start : token.end + 1]) == schema:
            self.edits.append(Edit(token.start, token.end + 1, quoted(self._views.schemas[schema])))

    def _token(self, byte: int, part: int = 0) -> Token | None:
        """Return the word of a dotted name that begins at a place."""
        if not self._tokens:
            self._tokens = [token for token in scan(self._text) if token.name not in _COMMENTS]
            self._starts = {token.start: number for number, token in enumerate(self._tokens)}
        first = self._starts.get(self._place(byte)) if byte >= 0 else None
        return self._tokens[first + 2 * part] if first is not None and first + 2 * part < len(self._tokens) else None

    # -- statements --------------------------------------------------------------------------------------------

    def _copy(self, node: Tree) -> None:
        """Make a COPY of a query of a COPY of a table that is read through a view."""
        relation = node.get("relation")
        self._visit(node.get("query"))
        if not isinstance(relation, dict) or node.get("is_from"):
            return
        schema, name = relation.get("schemaname"), relation.get("relname", "")
        found = self._views.of(schema, name) if schema is not None else self._views.alone(name)
        parts = 1 + ("schemaname" in relation) + ("catalogname" in relation)
        last = self._token(relation.get("location", -1), parts - 1)
        if found is None or last is None:
            return
        shown, end = "*", last.end + 1
        if node.get("attlist"):
            behind = self._tokens[self._starts[last.start] + 1 :]
            closing = next((token for token in behind if token.name == "ASCII_41"), None)
            if closing is None:
                return
            shown, end = self._text[behind[0].end + 1 : closing.start], closing.end + 1
        begin = self._place(relation["location"])
        self.edits += [Edit(begin, begin, f"(SELECT {shown} FROM "), Edit(last.end + 1, end, ")")]
        self._relation(relation)

    def _target(self, write: str, node: Tree) -> None:
        """Write to the view where that can be, else to the table; what else is read is rewritten as ever."""
        target = node.get("relation", {})
        name = (target.get("schemaname"), target.get("relname"))
        relation = self._views.relations.get(name)
        kept = self._kept
        if relation is not None:
            does, assigned = _assigned(write, node, relation)
            if does <= relation.view and assigned.isdisjoint(relation.masked):
                self._relation(target)
            else:
                self._kept |= {name}
        self._visit({kind: value for kind, value in node.items() if kind != "relation"})
        self._kept = kept

    # -- GROUP BY ----------------------------------------------------------------------------------------------

    def _group(self, node: Tree) -> None:
        """Add to a GROUP BY of a primary key what depends on it: no group becomes another one by that."""
        grouped = [(item, place) for item, place in _grouped(node)]
        for alias, relation in self._sources(node.get("fromClause", [])):
            named = {name for item, _ in grouped if (name := _of(item, alias, relation)) is not None}
            if not relation.key or not named.issuperset(relation.key):
                continue
            asked = {name for item in _columns(node) for name in _asked(item, alias, relation)}
            added = [name for name in relation.columns if name in asked - named - relation.unequal]
            places = [place for item, place in grouped if _of(item, alias, relation) in relation.key]
            place = self._token(places[0])
            if added and place is not None:
                names = "".join(f"{quoted(alias)}.{quoted(name)}, " for name in added)
                self.edits.append(Edit(place.start, place.start, names))

    def _sources(self, items: list[Tree]) -> Iterator[tuple[str, Relation]]:
        """Give the tables of a FROM that are read through views, each by the name that it has there."""
        for item in items:
            if (join := item.get("JoinExpr")) is not None:
                yield from self._sources([join.get("larg", {}), join.get("rarg", {})])
            elif (var := item.get("RangeVar")) is not None:
                schema, name = var.get("schemaname"), var.get("relname", "")
                alone = self._views.alone(name) if schema is None else None
                found = alone[1] if alone is not None else self._views.of(schema, name) if schema is not None else None
                if found is not None and "colnames" not in var.get("alias", {}):
                    yield var.get("alias", {}).get("aliasname", name), found


def _grouped(node: Tree) -> Iterator[tuple[Tree, int]]:
    """Give the columns that a query is grouped by, and where; a number stands for what is shown in that place."""
    shown = node.get("targetList", [])
    for item in node.get("groupClause", ()):
        if (column := item.get("ColumnRef")) is not None:
            yield column, column.get("location", -1)
        elif (number := item.get("A_Const", {}).get("ival", {}).get("ival")) is not None and 0 < number <= len(shown):
            column = shown[number - 1].get("ResTarget", {}).get("val", {}).get("ColumnRef")
            if column is not None:
                yield column, item["A_Const"].get("location", -1)


_AGGREGATES: Final = frozenset(
    {
        *("count", "sum", "avg", "min", "max", "array_agg", "string_agg", "json_agg", "jsonb_agg", "json_object_agg"),
        *("jsonb_object_agg", "xmlagg", "bool_and", "bool_or", "every", "any_value", "bit_and", "bit_or", "bit_xor"),
        *("stddev", "stddev_pop", "stddev_samp", "variance", "var_pop", "var_samp", "range_agg", "range_intersect_agg"),
        *("corr", "covar_pop", "covar_samp", "regr_slope", "regr_intercept", "regr_r2", "regr_count"),
    }
)


def _aggregates(call: Tree) -> bool:
    marks = ("agg_star", "agg_distinct", "agg_order", "agg_filter", "agg_within_group")
    names = call.get("funcname") or [{}]
    return _name(names[-1]) in _AGGREGATES or any(mark in call for mark in marks)


def _columns(node: Tree) -> Iterator[Tree]:
    """Give every column that a query shows, sorts by or selects groups by, outside of aggregates.

    What an aggregate takes need not be grouped by, and must not where a name means another table than is thought here.
    """
    waiting: list[Any] = [node.get(part) for part in ("targetList", "havingClause", "sortClause", "distinctClause")]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            for kind, value in found.items():
                if kind == "ColumnRef":
                    yield value
                elif kind != "SelectStmt" and not (kind == "FuncCall" and _aggregates(value)):
                    waiting.append(value)


def _of(column: Tree, alias: str, relation: Relation) -> str | None:
    """Return which column of a table a reference is, by the table's name in its query; None where it is another's."""
    fields = [_name(each) for each in column.get("fields", ())]
    name = fields[-1] if fields else None
    if name is None or name not in relation.columns or (len(fields) > 1 and fields[-2] != alias):
        return None
    return name


def _asked(column: Tree, alias: str, relation: Relation) -> tuple[str, ...]:
    fields = [_name(each) for each in column.get("fields", ())]
    if fields and fields[-1] is None:
        return relation.columns if len(fields) == 1 or fields[-2] == alias else ()
    name = _of(column, alias, relation)
    return (name,) if name is not None else ()


def _assigned(write: str, node: Tree, relation: Relation) -> tuple[set[str], set[str]]:
    """Return what a statement does with its target, and which columns it assigns."""
    does, assigned = {write}, _names(node.get("targetList"))
    if write == "insert":
        assigned = _names(node.get("cols")) or (set(relation.columns) if "selectStmt" in node else set())
        conflict = node.get("onConflictClause", {})
        if conflict.get("action") == "ONCONFLICT_UPDATE":
            does.add("update")
            assigned |= _names(conflict.get("targetList"))
    elif write == "merge":
        does = set()
        for each in node.get("mergeWhenClauses", ()):
            clause = each.get("MergeWhenClause", {})
            command = str(clause.get("commandType", "")).removeprefix("CMD_").lower()
            if command in ("insert", "update", "delete"):
                does.add(command)
                named = _names(clause.get("targetList"))
                everything = command == "insert" and "values" in clause
                assigned |= named or (set(relation.columns) if everything else set())
    return does, assigned


def _names(targets: Any) -> set[str]:
    return {str(each["ResTarget"].get("name")) for each in targets or () if "ResTarget" in each}


def _name(node: Tree) -> str | None:
    """Return a part of a name; None stands for a star."""
    found = node.get("String", {}).get("sval")
    return found if isinstance(found, str) else None


def _folded(word: str) -> str | None:
    """Return the name that a word of a text is; None for one with escapes."""
    if word.startswith('"'):
        return word[1:-1].replace('""', '"')
    return None if word[:2].lower() == "u&" else "".join(c.lower() if c.isascii() else c for c in word)
