"""Whether a WHERE chooses rows by what they hold, read from the parser's tree (as JSON gives it).

`DELETE … WHERE true`, `1 = 1`, `id = id` or `$1 = $2` touch every row as surely as no WHERE at all; so do `NOT (id <>
id)`, `id IN (SELECT id FROM the same table)` and `id IS NOT NULL`, where the column is a row's own by its name (`id`,
`uuid`, `pk`) or the server's (`ctid`). What this cannot see is a condition that happens to hold for all rows there are
(`id > 0`): the row count tells that.
"""

from __future__ import annotations

from typing import Any

from pgwitness.core.sql.tree.nodes import Tree, walk

_TRUE_OF_ITSELF = {"=", "<=", ">=", "~~", "~~*", "@>", "<@"}
_FALSE_OF_ITSELF = {"<>", "<", ">", "!~~", "!~~*"}
_LIKE = {"~~", "~~*"}
_NEVER_NULL = {"id", "uuid", "pk", "oid", "ctid", "xmin", "tableoid"}
_STORED = {"ColumnRef", "CurrentOfExpr"}


def judge_where(clause: Tree | None, target: Tree | None = None) -> str:
    """Say of a WHERE: `none` (there is none), `useless` (it may hold for every row) or `present`.

    One that by its constants holds for no row, as programs send it to learn of columns (`WHERE 1 = 0`), is `present`.
    `target` is the table that is written to, as the tree has it (`RangeVar`).
    """
    if clause is None:
        return "none"
    if _false(clause):
        return "present"
    return "useless" if _useless(clause, target or {}) else "present"


def holds_for_none(clause: Tree | None) -> bool:
    """Say whether a condition holds for no row, by its constants alone."""
    return clause is not None and _false(clause)


def _useless(node: Tree, target: Tree) -> bool:
    if not _reads(node):
        return True
    match next(iter(node.items())):
        case ("BoolExpr", {"boolop": "AND_EXPR", "args": args}):
            return all(_useless(arg, target) for arg in args)
        case ("BoolExpr", {"boolop": "OR_EXPR", "args": args}):
            return any(_useless(arg, target) for arg in args) or _complementary(args)
        case ("BoolExpr", {"boolop": "NOT_EXPR", "args": [arg]}):
            return _never(arg, target)
        case ("NullTest", {"nulltesttype": "IS_NOT_NULL", "arg": arg}):
            return _column(arg) in _NEVER_NULL
        case ("SubLink", {"subLinkType": "ANY_SUBLINK", "subselect": {"SelectStmt": inner}} as body):
            return _all_of(body.get("testexpr"), inner, target)
        case ("A_Expr", {"kind": "AEXPR_BETWEEN", "rexpr": {"List": {"items": [low, high]}}} as body):
            return same(body.get("lexpr"), low) and same(body.get("lexpr"), high)
        case ("A_Expr", {"kind": "AEXPR_OP" | "AEXPR_LIKE" | "AEXPR_ILIKE", "name": name} as body):
            return _holds(_last(name), body.get("lexpr"), body.get("rexpr"))
        case ("A_Expr", {"kind": "AEXPR_NOT_DISTINCT"} as body):
            return same(body.get("lexpr"), body.get("rexpr"))
        case ("A_Expr", {"kind": "AEXPR_IN", "rexpr": {"List": {"items": items}}} as body):
            return any(same(body.get("lexpr"), item) for item in items)
        case _:
            return False


def _never(node: Tree, target: Tree) -> bool:
    """Say whether a condition holds for no row (that has a value there): what NOT makes of it holds for all."""
    if _false(node):
        return True
    match next(iter(node.items())):
        case ("BoolExpr", {"boolop": "NOT_EXPR", "args": [arg]}):
            return _useless(arg, target)
        case ("BoolExpr", {"boolop": "OR_EXPR", "args": args}):
            return all(_never(arg, target) for arg in args)
        case ("BoolExpr", {"boolop": "AND_EXPR", "args": args}):
            return any(_never(arg, target) for arg in args)
        case ("NullTest", {"nulltesttype": "IS_NULL", "arg": arg}):
            return _column(arg) in _NEVER_NULL
        case ("A_Expr", {"kind": "AEXPR_OP" | "AEXPR_LIKE" | "AEXPR_ILIKE", "name": name} as body):
            return _last(name) in _FALSE_OF_ITSELF and same(body.get("lexpr"), body.get("rexpr"))
        case ("A_Expr", {"kind": "AEXPR_DISTINCT"} as body):
            return same(body.get("lexpr"), body.get("rexpr"))
        case _:
            return False


def _false(node: Tree) -> bool:
    """Say whether constants alone make a condition false or null: of anything else nobody knows what it will be."""
    match next(iter(node.items())):
        case ("BoolExpr", {"boolop": "AND_EXPR", "args": args}):
            return any(_false(arg) for arg in args)
        case ("BoolExpr", {"boolop": "OR_EXPR", "args": args}):
            return all(_false(arg) for arg in args)
        case ("BoolExpr", {"boolop": "NOT_EXPR", "args": [{"A_Const": {"boolval": {"boolval": True}}}]}):
            return True
        case ("A_Const", {"isnull": True} | {"boolval": {}} as constant):
            return not constant.get("boolval", {}).get("boolval", False)
        case ("A_Expr", {"kind": "AEXPR_OP", "name": [{"String": {"sval": "="}}]} as body):
            left, right = _integer(body.get("lexpr")), _integer(body.get("rexpr"))
            return left is not None and right is not None and left != right
        case _:
            return False


def _integer(node: Any) -> int | None:
    """Give a whole number that stands as a constant; of 0 the tree leaves the value out."""
    constant = node.get("A_Const", {}) if isinstance(node, dict) else {}
    return int(constant["ival"].get("ival", 0)) if "ival" in constant else None


def _all_of(tested: Any, inner: Tree, target: Tree) -> bool:
    """`id IN (SELECT id FROM t)` on `t` itself, without a condition of its own, chooses nothing."""
    sources = inner.get("fromClause", [])
    if len(sources) != 1 or not {"whereClause", "limitCount", "havingClause", "groupClause"}.isdisjoint(inner):
        return False
    source = sources[0].get("RangeVar", {})
    names = [source.get(key) for key in ("schemaname", "relname")]
    if not source.get("relname") or names != [target.get(key) for key in ("schemaname", "relname")]:
        return False
    chosen = [item.get("ResTarget", {}).get("val") for item in inner.get("targetList", [])]
    return len(chosen) == 1 and _column(tested) == _column(chosen[0]) != ""


def _column(node: Any) -> str:
    """Give the name of a column, without its table; empty for anything else."""
    fields = node.get("ColumnRef", {}).get("fields", []) if isinstance(node, dict) else []
    return str(fields[-1].get("String", {}).get("sval", "")) if fields else ""


def _holds(operator: str, left: Any, right: Any) -> bool:
    if operator in _LIKE and isinstance(right, dict):
        pattern = right.get("A_Const", {}).get("sval", {}).get("sval", "")
        if pattern and not pattern.strip("%"):
            return True
    return operator in _TRUE_OF_ITSELF and same(left, right)


def _last(names: list[Tree]) -> str:
    return str(names[-1].get("String", {}).get("sval", "")) if names else ""


def _complementary(args: list[Tree]) -> bool:
    """`x IS NULL OR x IS NOT NULL` holds for every row."""
    tests = [arg["NullTest"] for arg in args if "NullTest" in arg]
    nulls = [test.get("arg") for test in tests if test.get("nulltesttype") == "IS_NULL"]
    others = [test.get("arg") for test in tests if test.get("nulltesttype") == "IS_NOT_NULL"]
    return any(same(one, other) for one in nulls for other in others)


def _reads(node: Any) -> bool:
    """Say whether an expression depends on anything stored: a column, a table or a cursor's place."""
    return any(not _STORED.isdisjoint(item) or "relname" in item for item in walk(node))


def same(one: Any, other: Any) -> bool:
    """Say whether two expressions are equal but for their place in the text. Takes no stack, however deep they are."""
    stack = [(one, other)]
    while stack:
        left, right = stack.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            keys = {key for key in left if not key.endswith("location")}
            if keys != {key for key in right if not key.endswith("location")}:
                return False
            stack += [(left[key], right[key]) for key in keys]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            stack += list(zip(left, right, strict=True))
        elif left != right:
            return False
    return True
