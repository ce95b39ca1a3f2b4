"""Whether a statement reads all rows of a table, and what it names of a row as a whole, from the parser's tree.

The log has no row counts, so what a SELECT took is often not known; that it chose nothing is. A SELECT is *whole* when
it has no LIMIT, no WHERE that chooses (`pgwitness.core.sql.tree.whereclause`), and does not give one summed-up row
only. Which literals stand in it makes no difference, so all statements of one shape agree. A condition that happens to
hold for all rows there are (`id > 0`) is not seen here: the number of rows tells that, where something counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgwitness.core.sql.tree.nodes import Tree, string, walk
from pgwitness.core.sql.tree.whereclause import holds_for_none, judge_where

_SUMS = frozenset(
    {
        *("count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor"),
        *("stddev", "stddev_pop", "stddev_samp", "variance", "var_pop", "var_samp", "corr", "regr_slope"),
        *("percentile_cont", "percentile_disc", "mode", "any_value"),
    }
)
"""Aggregates of which one value comes; of others, as `json_agg`, come all the values that they take."""


_SCALAR = frozenset({"pg_cancel_backend", "pg_terminate_backend"})
"""Functions that are no aggregates, and whose calls are told."""


def reads_whole(select: Tree) -> bool:
    """Say whether a SELECT (the tree's `SelectStmt`) gives something of every row of what it reads from."""
    if "fromClause" not in select or select.get("op", "SETOP_NONE") != "SETOP_NONE":
        return False
    if not select.get("limitCount", {}).get("A_Const", {}).get("isnull", "limitCount" not in select):
        return False
    sources = select["fromClause"]
    only = sources[0].get("RangeVar") if len(sources) == 1 else None
    if judge_where(select.get("whereClause"), only) == "present":
        return False
    targets = [item.get("ResTarget", {}).get("val", {}) for item in select.get("targetList", [])]
    return "groupClause" in select or not all(_sums_up(target) for target in targets)


def _sums_up(target: Tree) -> bool:
    """Say whether a column of the answer is one value made of all rows, or a constant."""
    target = target.get("TypeCast", {}).get("arg", target)
    call = target.get("FuncCall")
    if call is None:
        return "A_Const" in target or "ParamRef" in target
    name = call.get("funcname", [{}])[-1].get("String", {}).get("sval", "")
    return name in _SUMS and "over" not in call


def gives_nothing(select: Tree) -> bool:
    """Say whether a SELECT gives no row by what stands in it, and so runs none of its functions: LIMIT 0, WHERE false.

    An aggregate gives a row of none: of a SELECT with a condition that holds for no row, no function may be one.
    """
    if _zero(select.get("limitCount")):
        return True
    if not holds_for_none(select.get("whereClause")) or "havingClause" in select:
        return False
    return _calls(select.get("targetList", [])) <= _SCALAR


def _zero(count: Tree | None) -> bool:
    return "ival" in (constant := (count or {}).get("A_Const", {})) and not constant["ival"].get("ival", 0)


def _calls(node: Any) -> set[str]:
    """Name the functions that are called in an expression."""
    return {".".join(string(part) for part in item["funcname"]) for item in walk(node) if "funcname" in item}


def copied(body: Tree) -> Iterator[str]:
    """Name the columns of a COPY of a table, `*` for all; the caller knows in which direction they go."""
    listed = [str(item.get("String", {}).get("sval", "")) for item in body.get("attlist", [])]
    yield from listed or ["*"]
