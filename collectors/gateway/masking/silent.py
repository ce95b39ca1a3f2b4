"""Finds what a view would answer otherwise than its table, and not say so; pure.

A masked column that is compared with what it can never be finds nothing; ONLY leaves no row of a child table out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from collectors.gateway.masking.scopes import Scope, nodes, parts, source
from collectors.gateway.masking.views import Views
from detectors.gatekeeper import Verdict
from pgwitness.core.privacy import TOKEN_PREFIX
from pgwitness.core.sql.postgres_parser import ParseError, parse_sql_json
from pgwitness.core.sql.tree.nodes import Tree

TEXT_CHARS_MAX: Final = 32 * 1024
_COMPARING: Final = frozenset({"=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~", "~*", "!~", "!~*"})
_SAME: Final = frozenset({"lower", "upper", "btrim", "ltrim", "rtrim"})
"""Functions that make of a value one that is as sensitive."""


MASKED: Final = "masked"
"""Stands where a policy's id would, for what is refused because a view would answer it wrongly, and not say so."""


_LEAVE: Final = "Leave the condition out: no row has a value there."


_ONLY: Final = re.compile(r"\b(?:only|copy)\b", re.IGNORECASE)


class Silent(NamedTuple):
    """A masked column that is compared with a constant of no token, or a table of which ONLY is asked for.

    `name` with its schema; `how` the column is masked, or `only`.
    """

    name: str
    how: str


def silent(text: str, views: Views) -> Silent | None:
    """Return the first of these in a text; None where there is none, or the text cannot be parsed. Never raises."""
    if len(text) > TEXT_CHARS_MAX:
        return None
    if ("'" not in text or views.masked.search(text) is None) and _ONLY.search(text) is None:
        return None
    try:
        tree = msgspec.json.decode(parse_sql_json(text))
        return next(_all(tree, views), None)
    except (ParseError, ValueError, RecursionError):
        return None


def refusal(found: Silent, views: Views, bundle: str) -> Verdict:
    """Return the refusal of what was found; `bundle` names the policies that are in force."""
    if found.how == "only":
        return Verdict(
            effect="deny",
            policies=[MASKED],
            message=f"{views.role} reads {found.name} through a view that masks, of which there is no ONLY, nor COPY",
            why="Rows of child tables and partitions would be among the answer, which would not say so.",
            hint="Leave ONLY out, or copy a query, and tell the rows by a column.",
            bundle=bundle,
        )
    shown = "a token" if found.how == "token" else "null"
    return Verdict(
        effect="deny",
        policies=[MASKED],
        message=f"{found.name} is masked for {views.role}, and is compared with what it never is: it is {shown}",
        why="The comparison would find nothing, whatever is stored, and not say so.",
        hint=f"Who may asks pgwitness token {found.name} for the token of a value." if found.how == "token" else _LEAVE,
        bundle=bundle,
    )


def _all(tree: Tree, views: Views) -> Iterator[Silent]:
    for kind, node, scope in nodes(tree, views):
        if (var := _only(kind, node)) is not None:
            only = source(var, views, scope.ctes if scope is not None else frozenset())
            if only is not None and only.relation.parent:
                yield Silent(f"{only.schema}.{only.name}", "only")
        if kind != "A_Expr" or scope is None or not _compares(node):
            continue
        for side, other in (("lexpr", "rexpr"), ("rexpr", "lexpr")):
            found = _masked(node.get(side), scope)
            if found is not None and any(_is_none(value, found) for value in _constants(node.get(other))):
                yield found


def _only(kind: str, node: Tree) -> Tree | None:
    """Return a relation of which the rows of its children are left out: by ONLY, or as COPY does."""
    if kind == "CopyStmt":
        found = node.get("relation")
        return found if isinstance(found, dict) and not node.get("is_from") else None
    return node if kind in ("RangeVar", "relation") and "relname" in node and not node.get("inh") else None


def _compares(node: Tree) -> bool:
    return parts(node.get("name", ()))[-1:] != [None] and (
        node.get("kind") in ("AEXPR_IN", "AEXPR_BETWEEN", "AEXPR_DISTINCT", "AEXPR_NOT_DISTINCT")
        or parts(node.get("name", ()))[-1] in _COMPARING
    )


def _masked(node: Any, scope: Scope) -> Silent | None:
    """Return the masked column that a side of a comparison is, within casts and functions that leave it what it is."""
    while isinstance(node, dict):
        if (column := node.get("ColumnRef")) is not None:
            found = scope.column(column)
            how = found[0].relation.masked.get(found[1]) if found is not None else None
            if found is None or how not in ("token", "null"):
                return None
            source, name = found
            return Silent(f"{source.schema}.{source.name}.{name}", how)
        cast, call = node.get("TypeCast"), node.get("FuncCall", {})
        if cast is not None:
            node = cast.get("arg")
        elif parts(call.get("funcname", ()))[-1:] and parts(call["funcname"])[-1] in _SAME:
            node = (call.get("args") or [None])[0]
        else:
            return None
    return None


def _constants(node: Any) -> Iterator[str]:
    """Give the texts that a side of a comparison consists of."""
    if isinstance(node, list):
        for each in node:
            yield from _constants(each)
    elif isinstance(node, dict):
        value = node.get("A_Const", {}).get("sval")
        if isinstance(value, dict):
            yield str(value.get("sval", ""))
        for kind in ("List", "A_ArrayExpr", "TypeCast"):
            inside = node.get(kind, {})
            yield from _constants(inside.get("items") or inside.get("elements") or inside.get("arg"))
        call = node.get("FuncCall", {})
        if parts(call.get("funcname", ()))[-1:] and parts(call["funcname"])[-1] in _SAME:
            yield from _constants(call.get("args"))


def _is_none(value: str, column: Silent) -> bool:
    """Say whether a text is no token, nor a list or a pattern of tokens."""
    return column.how != "token" or not value.lstrip("{^\"'").startswith(TOKEN_PREFIX)
