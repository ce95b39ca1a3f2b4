"""Which functions a statement attaches to something that runs them later, unnamed: triggers, operators, casts, types.

Who uses what they are attached to does not write their name: `INSERT` says nothing of a trigger, `a === b` nothing of a
function. So who decides on a statement before it runs looks at what it attaches as if it ran with it. Calls in
defaults, checks, policies, indexes and views stand in the statement that makes those, and are met there as calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pgwitness.core.sql.tree.nodes import Tree

_OF_DEFINITION = frozenset(
    {
        *("procedure", "function", "restrict", "join"),
        *("sfunc", "sfunc1", "finalfunc", "combinefunc", "serialfunc", "deserialfunc"),
        *("msfunc", "minvfunc", "mfinalfunc"),
        *("input", "output", "receive", "send", "typmod_in", "typmod_out", "analyze", "subscript"),
        *("canonical", "subtype_diff", "support"),
        *("start", "gettoken", "end", "lextypes", "headline", "init", "lexize"),
    }
)
"""Options of CREATE OPERATOR, AGGREGATE, TYPE and the like that name a function."""


def attached(kind: str, body: Tree) -> Iterator[list[Tree]]:
    """Give the names of the functions that a statement attaches, as lists of the tree's strings."""
    if kind in _READ:
        yield from (names for names in _READ[kind](body) if names)


def _defined(*keys: str) -> Callable[[Tree], Iterator[list[Tree]]]:
    def read(body: Tree) -> Iterator[list[Tree]]:
        for item in (item for key in keys for item in body.get(key, [])):
            option = item.get("DefElem", {})
            if option.get("defname", "").lower() in _OF_DEFINITION:
                yield _named(option.get("arg", {}))

    return read


def _named(node: Tree) -> list[Tree]:
    """Read a function's name, however the tree writes it: as a type, a list or with its arguments."""
    names: list[Tree] = []
    if "TypeName" in node:
        names = node["TypeName"].get("names", [])
    elif "List" in node:
        names = node["List"].get("items", [])
    elif "ObjectWithArgs" in node:
        names = node["ObjectWithArgs"].get("objname", [])
    elif "String" in node:
        names = [node]
    return names


def _with_arguments(*keys: str) -> Callable[[Tree], Iterator[list[Tree]]]:
    return lambda body: (body[key].get("objname", []) for key in keys if key in body)


def _items(body: Tree) -> Iterator[list[Tree]]:
    """Read the support functions of an operator class."""
    return (item.get("CreateOpClassItem", {}).get("name", {}).get("objname", []) for item in body.get("items", []))


def _names(*keys: str) -> Callable[[Tree], Iterator[list[Tree]]]:
    return lambda body: (body[key] for key in keys if key in body)


def _wrapper(body: Tree) -> Iterator[list[Tree]]:
    for item in body.get("func_options", []):
        yield _named(item.get("DefElem", {}).get("arg", {}))


_READ: dict[str, Callable[[Tree], Iterator[list[Tree]]]] = {
    "CreateTrigStmt": _names("funcname"),
    "CreateEventTrigStmt": _names("funcname"),
    "DefineStmt": _defined("definition"),
    "CreateRangeStmt": _defined("params"),
    "AlterOperatorStmt": _defined("options"),
    "AlterTypeStmt": _defined("options"),
    "CreateFunctionStmt": _defined("options"),
    "AlterFunctionStmt": _defined("actions"),
    "CreateCastStmt": _with_arguments("func"),
    "CreateTransformStmt": _with_arguments("fromsql", "tosql"),
    "CreateOpClassStmt": _items,
    "AlterOpFamilyStmt": _items,
    "CreatePLangStmt": _names("plhandler", "plinline", "plvalidator"),
    "CreateFdwStmt": _wrapper,
    "AlterFdwStmt": _wrapper,
    "CreateConversionStmt": _names("func_name"),
    "CreateAmStmt": _names("handler_name"),
}
