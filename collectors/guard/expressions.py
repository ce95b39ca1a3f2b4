"""Conditions of policies as SQL: CEL in, an expression out, with what is known already worked out; pure.

A part that the database cannot know (the text of a statement, the columns that it reads) is `UNKNOWN`, which is NULL in
SQL: CEL and SQL agree that `false && unknown` is false and `true || unknown` true, so a condition is decided as soon as
what is known decides it. The same function serves to find out for which roles and operations a policy can never hold:
it is asked with their values instead of the names that they have at run time.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from collectors.guard.names import array, text
from detectors.policy.syntax import Node
from detectors.policy.typecheck import path_of


class Sql(Struct, frozen=True):
    """An expression that is evaluated in the database."""

    text: str


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""What the database does not know."""

Value = Any
"""A value of Python (bool, number, text, tuple, dict), an `Sql`, or `UNKNOWN`."""
Facts = Mapping[str, Value]
"""By name of the language of policies (`detectors.vocabulary`)."""

_COMPARES: Final[dict[str, tuple[Callable[[Any, Any], Any], str]]] = {
    "==": (operator.eq, "="),
    "!=": (operator.ne, "<>"),
    "<": (operator.lt, "<"),
    "<=": (operator.le, "<="),
    ">": (operator.gt, ">"),
    ">=": (operator.ge, ">="),
    "+": (operator.add, "+"),
    "-": (operator.sub, "-"),
    "*": (operator.mul, "*"),
}
_ALIKE: Final = re.compile(r"(?:[A-Za-z0-9_ .*+?|^$-]|\((?!\?)|\)|\\\.|\[[A-Za-z0-9_ .^-]+\])*")
"""Patterns that RE2 and PostgreSQL read alike."""
_CLOCKS: Final = {
    "hour": "extract(hour FROM {})::int",
    "minute": "extract(minute FROM {})::int",
    "weekday": "(extract(isodow FROM {})::int - 1)",
    "day": "extract(day FROM {})::int",
    "month": "extract(month FROM {})::int",
    "year": "extract(year FROM {})::int",
    "date": "to_char({}, 'YYYY-MM-DD')",
}
"""What a clock shows, of `date_trunc`-free timestamps; `days_left` is left to those who judge evidence."""


def compiled(node: Node, facts: Facts) -> Value:
    """Return what a condition is with these facts: true or false, an `Sql` of type boolean, or `UNKNOWN`."""
    return _compiled(node, facts, {})


def sql(value: Value, kind: str = "boolean") -> str:
    """Write a value as SQL; `kind` is the type of NULL."""
    if isinstance(value, Sql):
        return value.text
    if value is UNKNOWN:
        return f"NULL::{kind}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{text(value)}::text"
    if isinstance(value, tuple):
        return array(value)
    return str(value)


def _compiled(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    if node.kind == "literal":
        return node.value if isinstance(node.value, bool | int | float | str) else UNKNOWN
    if node.kind == "name" and node.value in variables:
        return variables[node.value]
    path = path_of(node)
    if path is not None:
        return facts.get(path, UNKNOWN)
    known = _PARTS.get(node.kind)
    return known(node, facts, variables) if known is not None else UNKNOWN


def _op(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    left, right = (_compiled(arg, facts, variables) for arg in node.args)
    if node.value in ("&&", "||"):
        return _joined(left, right, strong=node.value == "||")
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    if node.value == "in":
        return _within(left, right)
    if node.value not in _COMPARES:
        return UNKNOWN
    compare, sign = _COMPARES[node.value]
    if not _is_sql(left, right):
        try:
            return compare(left, right)
        except TypeError:
            return UNKNOWN
    if isinstance(left, dict) or isinstance(right, dict):
        return UNKNOWN
    if node.value == "+" and (isinstance(left, str) or isinstance(right, str)):
        sign = "||"
    return Sql(f"({sql(left)} {sign} {sql(right)})")


def _is_sql(*values: Value) -> bool:
    return any(isinstance(value, Sql) for value in values)


def _joined(left: Value, right: Value, *, strong: bool) -> Value:
    """Join two conditions: by `||` where `strong` is true, by `&&` where it is false, as Kleene has it."""
    if left is strong or right is strong:
        return strong
    if isinstance(left, bool):
        return right
    if isinstance(right, bool):
        return left
    if left is UNKNOWN and right is UNKNOWN:
        return UNKNOWN
    return Sql(f"({sql(left)} {'OR' if strong else 'AND'} {sql(right)})")


def _within(item: Value, holder: Value) -> Value:
    if isinstance(holder, dict):
        return item in holder if isinstance(item, str) else UNKNOWN
    if isinstance(holder, tuple):
        if not _is_sql(item, *holder):
            return item in holder
        return Sql(f"({sql(item)} = ANY (ARRAY[{', '.join(map(sql, holder))}]))") if holder else False
    return Sql(f"({sql(item)} = ANY ({sql(holder)}))")


def _not(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    inner = _compiled(node.args[0], facts, variables)
    if isinstance(inner, Sql):
        return Sql(f"(NOT {inner.text})")
    return not inner if isinstance(inner, bool) else UNKNOWN


def _minus(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    inner = _compiled(node.args[0], facts, variables)
    if isinstance(inner, Sql):
        return Sql(f"(- {inner.text})")
    return -inner if isinstance(inner, int | float) else UNKNOWN


def _choice(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    test, yes, no = (_compiled(arg, facts, variables) for arg in node.args)
    if isinstance(test, bool):
        return yes if test else no
    if test is UNKNOWN:
        return UNKNOWN
    return Sql(f"(CASE WHEN {sql(test)} THEN {sql(yes)} WHEN NOT {sql(test)} THEN {sql(no)} END)")


def _has(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    holder, name = node.args[0].args[0], node.args[0].value
    found = _compiled(holder, facts, variables)
    return name in found if isinstance(found, dict) else UNKNOWN


def _get(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    if node.args[0].kind == "index" and path_of(node.args[0].args[0]) == "clock":
        zone = node.args[0].args[1].value
        shown = _CLOCKS.get(node.value)
        return Sql(shown.format(f"(now() AT TIME ZONE {text(str(zone))})")) if shown else UNKNOWN
    holder = _compiled(node.args[0], facts, variables)
    return holder.get(node.value, UNKNOWN) if isinstance(holder, dict) else UNKNOWN


def _index(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    holder, key = (_compiled(arg, facts, variables) for arg in node.args)
    if isinstance(holder, dict) and isinstance(key, str):
        return holder.get(key, UNKNOWN)
    if isinstance(holder, tuple) and isinstance(key, int) and 0 <= key < len(holder):
        return holder[key]
    if isinstance(holder, Sql) and isinstance(key, int) and not isinstance(key, bool):
        return Sql(f"({holder.text})[{key + 1}]")
    return UNKNOWN


def _list(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    items = tuple(_compiled(arg, facts, variables) for arg in node.args)
    return UNKNOWN if any(item is UNKNOWN for item in items) else items


def _loop(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    macro, variable = node.value
    over = _compiled(node.args[0], facts, variables)
    if macro not in ("exists", "all") or over is UNKNOWN:
        return UNKNOWN
    strong = macro == "exists"
    if isinstance(over, tuple | dict):
        found: Value = not strong
        for item in over:
            found = _joined(found, _compiled(node.args[1], facts, {**variables, variable: item}), strong=strong)
        return found
    # Numbered by depth: a loop within a loop may use the same name for its variable.
    column = f"item{len(variables)}"
    body = _compiled(node.args[1], facts, {**variables, variable: Sql(f"{column}.v")})
    if body is (not strong):
        return body
    met = "bool_or(one.b)" if strong else "bool_or(NOT one.b)"
    return Sql(
        f"(SELECT CASE WHEN {met} THEN {sql(strong)} WHEN bool_or(one.b IS NULL) OR {over.text} IS NULL THEN NULL"
        f" ELSE {sql(not strong)} END FROM (SELECT {sql(body)} AS b FROM unnest({over.text}) AS {column} (v)) AS one)"
    )


def _method(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    values = [_compiled(arg, facts, variables) for arg in node.args]
    if any(value is UNKNOWN for value in values):
        return UNKNOWN
    if node.value == "size":
        return _size(values[0])
    if len(values) != 2 or not all(isinstance(value, str | Sql) for value in values):
        return UNKNOWN
    subject, part = values
    if node.value == "matches":
        return _matches(subject, part)
    if isinstance(subject, str) and isinstance(part, str):
        found = {"startsWith": subject.startswith, "endsWith": subject.endswith, "contains": subject.__contains__}
        return found[node.value](part) if node.value in found else UNKNOWN
    one, other = sql(subject), sql(part)
    forms = {
        "startsWith": f"starts_with({one}, {other})",
        "endsWith": f"(right({one}, length({other})) = {other})",
        "contains": f"(strpos({one}, {other}) > 0)",
    }
    return Sql(forms[node.value]) if node.value in forms else UNKNOWN


def _matches(subject: Value, pattern: Value) -> Value:
    if not isinstance(pattern, str) or not _ALIKE.fullmatch(pattern):
        return UNKNOWN
    if isinstance(subject, str):
        return re.search(pattern, subject) is not None
    return Sql(f"({sql(subject)} ~ {text(pattern)})")


def _call(node: Node, facts: Facts, variables: Mapping[str, Value]) -> Value:
    if node.value != "size" or len(node.args) != 1:
        return UNKNOWN
    value = _compiled(node.args[0], facts, variables)
    return UNKNOWN if value is UNKNOWN else _size(value)


def _size(value: Value) -> Value:
    if isinstance(value, Sql):
        # Of run-time values lists alone are asked for their size: what has a name there is an array or short.
        return Sql(f"cardinality({value.text})") if value.text in LISTS else Sql(f"length({value.text})")
    return len(value) if isinstance(value, str | tuple | dict) else UNKNOWN


LISTS: Final = frozenset({"the_operations", "the_relations", "the_written"})
"""Names of lists at run time."""

_PARTS: Final[dict[str, Callable[[Node, Facts, Mapping[str, Value]], Value]]] = {
    "op": _op,
    "not": _not,
    "minus": _minus,
    "choice": _choice,
    "has": _has,
    "get": _get,
    "index": _index,
    "list": _list,
    "loop": _loop,
    "method": _method,
    "call": _call,
}
