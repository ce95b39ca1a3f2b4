"""Checks an expression against the schema of actions before it is ever asked.

CEL compares a number with a text without complaint and says that they differ: a policy with such a slip would be silent
for ever. So names, functions, types and, where they can be listed, values are checked when a policy is loaded, for the
kinds of actions it is about. What `detail` can hold of each kind says `detectors.policy.details`, which values occur
`detectors.policy.occurring`. Values out of other maps (`labels`, `object.after`) are of any type.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from detectors.policy import details, occurring
from detectors.policy.calendars import CLOCK, zone
from detectors.policy.details import Shape
from detectors.policy.reads import TIMES
from detectors.policy.syntax import Node, write
from detectors.vocabulary import SCHEMA

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


class Known(str):
    """A type in the words of `SCHEMA`; of a map with known names, or a list of such, its `shape`.

    `path` is the name of `SCHEMA` whose value, or one of whose items, this is.
    """

    path: str = ""
    shape: Shape | None = None


def _known(word: str, path: str = "", shape: Shape | None = None) -> Known:
    made = Known(word)
    made.path, made.shape = path, shape
    return made


class _Placed(ValueError):
    """What is wrong, with the part of the expression in which it stands."""


def check(tree: Node, kinds: Iterable[str] | None = None, calendars: Iterable[str] = ()) -> Checked:
    """Check a condition. Raise `ValueError` that names the place and says what there is.

    `kinds` are those of the actions it is about; without them what `detail` holds and which values occur stays open.
    `calendars` are the names that `during` knows.
    """
    checker = _Checker(None if kinds is None else tuple(kinds), sorted(calendars))
    found = checker.type_of(tree, {})
    if found not in ("bool", ANY):
        raise ValueError(f"the result is {found}, not true or false")
    return checker.checked


def names_read(node: Node) -> dict[str, set[str]]:
    """Return the names of `SCHEMA` that a part reads, with the keys that it asks of a map; none where it may be all."""
    found: dict[str, set[str]] = {}
    _read(node, found)
    return found


def _read(node: Node, found: dict[str, set[str]]) -> None:
    path = path_of(node)
    if path is not None:
        found.setdefault(path, set())
        return
    holder = path_of(node.args[0]) if node.kind in ("get", "index") else None
    asked = node.value if node.kind == "get" else node.args[1].value if node.kind == "index" else None
    if holder is not None and isinstance(asked, str):
        found.setdefault(holder, set()).add(asked)
        return
    for arg in node.args:
        _read(arg, found)


def path_of(node: Node) -> str | None:
    """Return the name of `SCHEMA` that a node is, None for anything else."""
    if node.kind == "get" and node.args[0].kind == "name":
        path = f"{node.args[0].value}.{node.value}"
    else:
        path = str(node.value) if node.kind == "name" else ""
    return path if path in SCHEMA else None


def near(name: str, known: list[str]) -> str:
    """Return what there is, the likeliest first where a name looks like a slip."""
    close = difflib.get_close_matches(name, known, 3, 0.6)
    return f"did you mean {', '.join(close)}?" if close else f"there is: {', '.join(sorted(known))}"


PLACE_CHARS_MAX = 100
"""Characters of the part of an expression that an error quotes."""
_PLACES = frozenset({"op", "not", "loop", "call", "method", "has", "choice", "index"})
"""Parts that are long enough to be quoted."""


def _said_of(name: str) -> str:
    """Return what a word that is no field may have been meant as."""
    close = difflib.get_close_matches(name, sorted(SCHEMA), 3, 0.6)
    ends = [path for path in SCHEMA if path.rpartition(".")[2] == name]
    if close or ends:
        return f"did you mean {', '.join(dict.fromkeys([*ends, *close]))}?"
    return f'it is no field of actions; a text stands in quotes: "{name}"'


class _Checker:
    def __init__(self, kinds: tuple[str, ...] | None, calendars: list[str]) -> None:
        self.checked = Checked()
        self._calendars = calendars
        self._kinds = kinds

    def type_of(self, node: Node, variables: dict[str, str]) -> str:
        """Return the type of a part, in the words of `SCHEMA`, `any` where it cannot be known."""
        method = getattr(self, f"_{node.kind}")
        try:
            found: str = method(node, variables)
        except _Placed:
            raise
        except ValueError as error:
            if node.kind not in _PLACES:
                raise
            place = write(node)
            short = place if len(place) <= PLACE_CHARS_MAX else place[:PLACE_CHARS_MAX] + " …"
            raise _Placed(f"in `{short}`: {error}") from None
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
            raise ValueError(f"unknown name {name!r}; {_said_of(str(name))}")
        if name in TIMES:
            asked = 'clock["Europe/Berlin"].hour' if name == "clock" else "during.freeze"
            raise ValueError(f"`{name}` is asked by a name that stands there, as in {asked}")
        self.checked.paths.add(name)
        return _known(SCHEMA[name].type, name)

    def _get(self, node: Node, variables: dict[str, str]) -> str:
        (holder,) = node.args
        if holder.kind == "name" and holder.value in GROUPS and holder.value not in variables:
            path = f"{holder.value}.{node.value}"
            if path not in SCHEMA:
                raise ValueError(f"{path!r} is no field of actions; there is: {_fields(holder.value)}")
            self.checked.paths.add(path)
            return _known(SCHEMA[path].type, path)
        if holder.kind == "name" and holder.value in TIMES and holder.value not in variables:
            return self._time(str(holder.value), str(node.value))
        found = self.type_of(holder, variables)
        if found not in ("map", ANY):
            raise ValueError(f"{_said(holder)} is {found} and has no field {node.value!r}")
        return self._field(holder, found, str(node.value))

    def _time(self, path: str, name: str) -> str:
        """Return the type of what a clock or calendar says. Raise `ValueError` for one that there is not."""
        self.checked.paths.add(path)
        if path == "clock":
            zone(name)
            return _shaped(CLOCK)
        if name not in self._calendars:
            there = near(name, self._calendars) if self._calendars else "there is no calendars.yaml by the policies"
            raise ValueError(f"no calendar is named {name!r}; {there}")
        return "bool"

    def _field(self, holder: Node, found: str, name: str) -> str:
        """Return the type of a map's field. Raise `ValueError` where it is known not to be there."""
        if isinstance(found, Known) and found.path == "detail" and self._kinds is not None:
            shape = details.found(self._kinds, name)
            if shape is None:
                there = sorted({known for kind in self._kinds for known in details.DETAILS.get(kind, {})})
                raise ValueError(f"no {' or '.join(self._kinds)} has detail.{name}; {near(name, there)}")
            return _shaped(shape)
        if isinstance(found, Known) and isinstance(found.shape, dict):
            if name not in found.shape:
                raise ValueError(f"{_said(holder)} has no field {name!r}; {near(name, sorted(found.shape))}")
            return _shaped(found.shape[name])
        return ANY

    def _has(self, node: Node, variables: dict[str, str]) -> str:
        self.type_of(node.args[0], variables)
        return "bool"

    def _index(self, node: Node, variables: dict[str, str]) -> str:
        first, asked = node.args
        if first.kind == "name" and first.value in TIMES and asked.kind == "literal" and isinstance(asked.value, str):
            return self._time(str(first.value), asked.value)
        holder, place = (self.type_of(arg, variables) for arg in node.args)
        if holder.startswith("list of"):
            if place not in ("int", ANY):
                raise ValueError(f"{_said(node.args[0])} is {holder}; its places are numbers")
            return _item(holder)
        if holder not in ("map", ANY):
            raise ValueError(f"{_said(node.args[0])} is {holder} and has no places")
        named = asked.kind == "literal" and isinstance(asked.value, str)
        return self._field(node.args[0], holder, asked.value) if named else ANY

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
            self._occurs(left, node.args[1])
            self._occurs(right, node.args[0])
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
            if node.args[1].kind == "list":
                for item in node.args[1].args:
                    self._occurs(left, item)
            self._occurs(right, node.args[0])
        elif right not in ("map", ANY):
            raise ValueError(f"`in` asks a list or map, {_said(node.args[1])} is {right}")
        return "bool"

    def _occurs(self, found: str, asked: Node) -> None:
        """Raise `ValueError` for a literal that what it is compared with never is."""
        if asked.kind == "literal" and isinstance(found, Known) and found.path and self._kinds is not None:
            said = occurring.never(found.path, asked.value, self._kinds)
            if said is not None:
                raise ValueError(said)

    def _loop(self, node: Node, variables: dict[str, str]) -> str:
        macro, variable = node.value
        if variable in ROOTS:
            raise ValueError(f"{variable!r} is a field of actions; call the loop's variable something else")
        over = self.type_of(node.args[0], variables)
        if over not in ("map", ANY) and not over.startswith("list of"):
            raise ValueError(f"{macro} goes through lists, {_said(node.args[0])} is {over}")
        inside = variables | {variable: _item(over) if over.startswith("list") else "string" if over == "map" else ANY}
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


def _shaped(shape: Shape) -> Known:
    return _known(details.word(shape), shape=shape)


def _item(found: str) -> str:
    """Return the type of a list's items."""
    word = found.removeprefix("list of ")
    if not isinstance(found, Known):
        return word
    return _known(word, found.path, found.shape[0] if isinstance(found.shape, list) else None)


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
