"""Checks an expression against the schema of actions before it is ever asked.

CEL compares a number with a text without complaint and says that they differ: a policy with such a slip would be silent
for ever. So names, functions and, where they are known, types are checked when a policy is loaded. Values out of maps
(`detail`, `labels`, `object.after`) are of any type.
"""

from __future__ import annotations

import difflib

from detectors.actions import SCHEMA
from detectors.policy.syntax import Node

ROOTS = frozenset(path.partition(".")[0] for path in SCHEMA)
GROUPS = frozenset(path.partition(".")[0] for path in SCHEMA if "." in path)
ANY = "any"
_NUMBERS = {"int", "double"}
_SIZED = {"string", "map"}
_TEXT_TESTS = frozenset({"startsWith", "endsWith", "contains", "matches"})
_CONVERSIONS = {"int": "int", "uint": "int", "double": "double", "string": "string", "bytes": "bytes", "dyn": ANY}
_CONVERSIONS |= {"type": ANY, "timestamp": ANY, "duration": ANY}
FUNCTIONS = tuple(sorted({*_TEXT_TESTS, "size", "has", *_CONVERSIONS}))
"""Functions an expression may call, besides the loops over lists."""


class Checked:
    """What an expression reads: `paths` are names of `SCHEMA`. Made by `check`."""

    def __init__(self) -> None:
        self.paths: set[str] = set()


def check(tree: Node) -> Checked:
    """Check a condition. Raises `ValueError` that names the place and says what there is."""
    checker = _Checker()
    found = checker.type_of(tree, {})
    if found not in ("bool", ANY):
        raise ValueError(f"the result is {found}, not true or false")
    return checker.checked


def names_read(node: Node) -> dict[str, set[str]]:
    """Give the names of `SCHEMA` that a part reads, with the keys that it asks of a map; none where it may be all."""
    found: dict[str, set[str]] = {}
    _read(node, found)
    return found


def _read(node: Node, found: dict[str, set[str]]) -> None:
    path = path_of(node)
    if path is not None:
        found.setdefault(path, set())
        return
    if node.kind == "get" and (holder := path_of(node.args[0])) is not None:
        found.setdefault(holder, set()).add(str(node.value))
        return
    for arg in node.args:
        _read(arg, found)


def path_of(node: Node) -> str | None:
    """Give the name of `SCHEMA` that a node is, None for anything else."""
    if node.kind == "get" and node.args[0].kind == "name":
        path = f"{node.args[0].value}.{node.value}"
    else:
        path = str(node.value) if node.kind == "name" else ""
    return path if path in SCHEMA else None


def near(name: str, known: list[str]) -> str:
    """Say what there is, the likeliest first where a name looks like a slip."""
    close = difflib.get_close_matches(name, known, 3, 0.6)
    return f"did you mean {', '.join(close)}?" if close else f"there is: {', '.join(sorted(known))}"


class _Checker:
    def __init__(self) -> None:
        self.checked = Checked()

    def type_of(self, node: Node, variables: dict[str, str]) -> str:
        """Give the type of a part, in the words of `SCHEMA`, `any` where it cannot be known."""
        method = getattr(self, f"_{node.kind}")
        found: str = method(node, variables)
        return found

    def _literal(self, node: Node, variables: dict[str, str]) -> str:
        names = {bool: "bool", int: "int", float: "double", str: "string", bytes: "bytes", type(None): "null"}
        return names[type(node.value)]

    def _name(self, node: Node, variables: dict[str, str]) -> str:
        name = node.value
        if name in variables:
            return variables[name]
        if name in GROUPS:
            raise ValueError(f"{name!r} is no field of actions by itself; there is: {_fields(name)}")
        if name not in SCHEMA:
            raise ValueError(f"unknown name {name!r}; {near(name, sorted(SCHEMA))}")
        self.checked.paths.add(name)
        return SCHEMA[name].type

    def _get(self, node: Node, variables: dict[str, str]) -> str:
        (holder,) = node.args
        if holder.kind == "name" and holder.value in GROUPS and holder.value not in variables:
            path = f"{holder.value}.{node.value}"
            if path not in SCHEMA:
                raise ValueError(f"{path!r} is no field of actions; there is: {_fields(holder.value)}")
            self.checked.paths.add(path)
            return SCHEMA[path].type
        found = self.type_of(holder, variables)
        if found not in ("map", ANY):
            raise ValueError(f"{_said(holder)} is {found} and has no field {node.value!r}")
        return ANY

    def _has(self, node: Node, variables: dict[str, str]) -> str:
        self.type_of(node.args[0], variables)
        return "bool"

    def _index(self, node: Node, variables: dict[str, str]) -> str:
        holder, place = (self.type_of(arg, variables) for arg in node.args)
        if holder.startswith("list of"):
            if place not in ("int", ANY):
                raise ValueError(f"{_said(node.args[0])} is {holder}; its places are numbers")
            return holder.removeprefix("list of ")
        if holder not in ("map", ANY):
            raise ValueError(f"{_said(node.args[0])} is {holder} and has no places")
        return ANY

    def _list(self, node: Node, variables: dict[str, str]) -> str:
        found = {self.type_of(arg, variables) for arg in node.args}
        return f"list of {found.pop()}" if len(found) == 1 else f"list of {ANY}"

    def _map(self, node: Node, variables: dict[str, str]) -> str:
        for arg in node.args:
            self.type_of(arg, variables)
        return "map"

    def _not(self, node: Node, variables: dict[str, str]) -> str:
        self._truth(node.args[0], variables)
        return "bool"

    def _minus(self, node: Node, variables: dict[str, str]) -> str:
        found = self.type_of(node.args[0], variables)
        if found not in _NUMBERS | {ANY}:
            raise ValueError(f"- before {_said(node.args[0])}, which is {found}")
        return found

    def _choice(self, node: Node, variables: dict[str, str]) -> str:
        self._truth(node.args[0], variables)
        yes, no = (self.type_of(arg, variables) for arg in node.args[1:])
        return yes if yes == no else "double" if {yes, no} <= _NUMBERS else ANY

    def _op(self, node: Node, variables: dict[str, str]) -> str:
        sign = node.value
        if sign in ("&&", "||"):
            for arg in node.args:
                self._truth(arg, variables)
            return "bool"
        left, right = (self.type_of(arg, variables) for arg in node.args)
        if sign == "in":
            return self._within(node, left, right)
        if sign in ("==", "!="):
            if not _alike(left, right) and "null" not in (left, right):
                raise ValueError(f"{_said(node.args[0])} is {left} and is compared with {right}: it never is")
            return "bool"
        if sign in ("<", "<=", ">", ">="):
            if not _alike(left, right) or left in ("bool", "map") or left.startswith("list"):
                raise ValueError(f"{_said(node.args[0])} is {left} and cannot be {sign} {right}")
            return "bool"
        if not _alike(left, right) or (sign != "+" and not {left, right} <= _NUMBERS | {ANY}):
            raise ValueError(f"{left} {sign} {right} cannot be computed")
        return "double" if "double" in (left, right) else left if left != ANY else right

    def _within(self, node: Node, left: str, right: str) -> str:
        if right.startswith("list of"):
            if not _alike(left, right.removeprefix("list of ")):
                raise ValueError(f"{_said(node.args[0])} is {left} and never in a {right}")
        elif right not in ("map", ANY):
            raise ValueError(f"`in` asks a list or map, {_said(node.args[1])} is {right}")
        return "bool"

    def _loop(self, node: Node, variables: dict[str, str]) -> str:
        macro, variable = node.value
        if variable in ROOTS:
            raise ValueError(f"{variable!r} is a field of actions; call the loop's variable something else")
        over = self.type_of(node.args[0], variables)
        if over not in ("map", ANY) and not over.startswith("list of"):
            raise ValueError(f"{macro} goes through lists, {_said(node.args[0])} is {over}")
        inside = variables | {
            variable: over.removeprefix("list of ") if over.startswith("list") else "string" if over == "map" else ANY
        }
        if macro != "map":
            self._truth(node.args[1], inside)
            return over if macro == "filter" else "bool"
        *conditions, body = node.args[1:]
        for condition in conditions:
            self._truth(condition, inside)
        return f"list of {self.type_of(body, inside)}"

    def _method(self, node: Node, variables: dict[str, str]) -> str:
        return self._call(node, variables)

    def _call(self, node: Node, variables: dict[str, str]) -> str:
        name = node.value
        found = [self.type_of(arg, variables) for arg in node.args]
        if name in _TEXT_TESTS:
            if len(found) != 2 or not set(found) <= {"string", ANY}:
                raise ValueError(f"{name} asks a text for a text, not {' for '.join(found)}")
            return "bool"
        if name == "size" and len(found) == 1:
            if found[0] not in _SIZED | {ANY} and not found[0].startswith("list"):
                raise ValueError(f"{_said(node.args[0])} is {found[0]} and has no size")
            return "int"
        if name in _CONVERSIONS and len(found) == 1:
            return _CONVERSIONS[name]
        raise ValueError(f"unknown function {name!r} of {len(found)}; there is: {', '.join(FUNCTIONS)}")

    def _truth(self, node: Node, variables: dict[str, str]) -> None:
        found = self.type_of(node, variables)
        if found not in ("bool", ANY):
            raise ValueError(f"{_said(node)} is {found}, not true or false")


def _alike(left: str, right: str) -> bool:
    if ANY in (left, right) or left == right or {left, right} <= _NUMBERS:
        return True
    both = left.startswith("list of") and right.startswith("list of")
    return both and _alike(left.removeprefix("list of "), right.removeprefix("list of "))


def _fields(group: str) -> str:
    return ", ".join(sorted(name for name in SCHEMA if name.startswith(group + ".")))


def _said(node: Node) -> str:
    if node.kind == "name":
        return f"`{node.value}`"
    if node.kind == "get" and node.args[0].kind == "name":
        return f"`{node.args[0].value}.{node.value}`"
    return repr(node.value) if node.kind == "literal" else "what stands there"
