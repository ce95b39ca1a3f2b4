"""The syntax of CEL, as far as policies use it: a text becomes a tree that the checks and the prefilter can read.

What an expression *means* is for the evaluator to say (`detectors.policy.expressions`); this tree serves to check types
(`detectors.policy.typecheck`) and to find out for which actions a condition cannot hold (`detectors.policy.guards`).
The grammar is that of the CEL specification, without messages (`Type{field: value}`), for which actions have no use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
DEPTH_MAX = 100
PARAMETERS = "parameters"
LOCAL = "local"

_STRING = r"""[rRbB]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_TOKEN = re.compile(
    rf"(?P<space>\s+|//[^\n]*)|(?P<string>{_STRING})|(?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+\.\d+(?:[eE][+-]?\d+)?"
    r"|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+[uU]?)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])|(?P<other>.)",
    re.DOTALL,
)
_LEVELS: tuple[tuple[str, ...], ...] = (("||",), ("&&",), ("==", "!=", "<=", ">=", "<", ">", "in"), ("+", "-"))
_LEVELS += (("*", "/", "%"),)


class Token(NamedTuple):
    """A word of an expression: what sort it is, its text and where it starts."""

    sort: str
    text: str
    at: int


class Node(NamedTuple):
    """A part of an expression.

    `kind` is `literal` (value), `name` (value), `get` (value is the field of args[0]), `index`, `call` (value is the
    function), `method` (likewise, of args[0]), `has`, `loop` (value is macro and variable; args are the list and the
    bodies), `list`, `map` (keys and values in turn), `op` (value is the operator), `not`, `minus`, `choice` (`? :`).
    """

    kind: str
    value: Any
    args: tuple[Node, ...] = ()


def tokens(source: str) -> list[Token]:
    """Cut an expression into its words, without space and comments."""
    found = ((match.lastgroup or "other", match[0], match.start()) for match in _TOKEN.finditer(source))
    return [Token(sort, text, at) for sort, text, at in found if sort != "space"]


def substitute(source: str, parameters: Mapping[str, Any]) -> str:
    """Write the values of `parameters.NAME` into an expression. Raise `ValueError` for one that is not there."""
    words = tokens(source)
    pieces: list[str] = []
    end = 0
    for place, word in enumerate(words):
        if word.text != PARAMETERS or word.sort != "name" or (place and words[place - 1].text == "."):
            continue
        name = words[place + 2] if place + 2 < len(words) and words[place + 1].text == "." else None
        if name is None or name.text not in parameters:
            there = ", ".join(sorted(parameters)) or "none"
            raise ValueError(f"parameters.{name.text if name else ''} is not among the policy's parameters: {there}")
        pieces += [source[end : word.at], json.dumps(parameters[name.text])]
        end = name.at + len(name.text)
    return "".join([*pieces, source[end:]])


def parse(source: str) -> Node:
    """Read an expression. Raise `ValueError` that says what was met, where, and what may have been meant."""
    words = tokens(source)
    for place, word in enumerate(words):
        if meant := _meant(words, place):
            raise ValueError(f"{_where(source, word.at)}: {meant}")
    reader = _Reader(words, source)
    tree = reader.choice(0)
    reader.end()
    return tree


_SLIPS = {"and": "&&", "or": "||", "not": "!", "AND": "&&", "OR": "||", "NOT": "!", "IN": "in", "&": "&&", "|": "||"}
_SLIPS |= {"TRUE": "true", "FALSE": "false", "True": "true", "False": "false", "NULL": "null", "None": "null"}
_METHODS = {"any": "exists", "some": "exists", "every": "all", "includes": "in", "startswith": "startsWith"}
_METHODS |= {"endswith": "endsWith", "match": "matches", "length": "size", "len": "size", "lower": "none"}


def _meant(words: list[Token], place: int) -> str | None:
    """Return what a word stands for that other languages have and CEL does not."""
    word = words[place]
    after = words[place + 1].text if place + 1 < len(words) else ""
    before = words[place - 1].text if place else ""
    if word.sort == "other" and word.text == "=":
        return "write `>=`" if after == ">" else "`=` compares nothing; write `==`"
    if word.text == "<" and after == ">":
        return "write `!=` instead of `<>`"
    if word.sort == "other" and word.text in "'\"":
        return f"the text that begins with {word.text} does not end"
    if before == "." and word.text in _METHODS and after == "(":
        instead = _METHODS[word.text]
        return f"there is no `{word.text}`" + (f"; write `{instead}`" if instead != "none" else "")
    if before != "." and word.text in _SLIPS and not (word.sort == "name" and after in (".", ",")):
        return f"write `{_SLIPS[word.text]}` instead of `{word.text}`"
    return None


def _where(source: str, at: int) -> str:
    """Name a place by the line and column, and what stands before it."""
    line = source.count("\n", 0, at) + 1
    column = at - source.rfind("\n", 0, at)
    before = " ".join(source[:at].split())[-40:]
    return f"line {line}, column {column}" + (f", after `{before}`" if before else "")


def write(node: Node) -> str:
    """Write a part of an expression as text again: what it reads as, and not always letter by letter what was read."""
    if node.kind == "op":
        return " ".join((_inner(node.args[0], node), str(node.value), _inner(node.args[1], node, right=True)))
    if node.kind == "choice":
        test, yes, no = (_inner(arg, node) for arg in node.args)
        return f"{test} ? {yes} : {no}"
    if node.kind in ("not", "minus"):
        return ("!" if node.kind == "not" else "-") + _inner(node.args[0], node)
    return _WRITERS[node.kind](node)


def _inner(node: Node, outer: Node, *, right: bool = False) -> str:
    """Write a part within another, in brackets where it would be read otherwise."""
    inside, around = _binding(node), _binding(outer)
    text = write(node)
    return f"({text})" if inside < around or (inside == around and (right or outer.kind == "choice")) else text


def _binding(node: Node) -> int:
    """Return how tightly a part holds together: `? :` least, then the operators by their levels, then all else."""
    if node.kind == "op":
        return 1 + next(level for level, signs in enumerate(_LEVELS) if node.value in signs)
    if node.kind in ("not", "minus"):
        return 1 + len(_LEVELS)
    return 0 if node.kind == "choice" else 2 + len(_LEVELS)


def _listed(nodes: Iterable[Node]) -> str:
    return ", ".join(map(write, nodes))


def _written(value: object) -> str:
    """Write a literal; bytes as the numbers they are."""
    if isinstance(value, bytes):
        return 'b"' + "".join(f"\\x{byte:02x}" for byte in value) + '"'
    return json.dumps(value, ensure_ascii=False)


def _loop_text(node: Node) -> str:
    macro, variable = node.value
    return f"{_held(node.args[0])}.{macro}({variable}, {_listed(node.args[1:])})"


def _held(node: Node) -> str:
    """Write what a point or bracket stands behind."""
    text = write(node)
    return text if _binding(node) > 1 + len(_LEVELS) else f"({text})"


_WRITERS: dict[str, Callable[[Node], str]] = {
    "literal": lambda node: _written(node.value),
    "name": lambda node: str(node.value),
    "get": lambda node: f"{_held(node.args[0])}.{node.value}",
    "index": lambda node: f"{_held(node.args[0])}[{write(node.args[1])}]",
    "has": lambda node: f"has({write(node.args[0])})",
    "call": lambda node: f"{node.value}({_listed(node.args)})",
    "method": lambda node: f"{_held(node.args[0])}.{node.value}({_listed(node.args[1:])})",
    "loop": _loop_text,
    "list": lambda node: f"[{_listed(node.args)}]",
    "map": lambda node: (
        "{" + ", ".join(f"{write(k)}: {write(v)}" for k, v in zip(node.args[::2], node.args[1::2], strict=True)) + "}"
    ),
}


def localized(source: str, zone: str) -> str:
    """Write the clock of a zone in the place of `local`."""
    words = tokens(source)
    pieces: list[str] = []
    end = 0
    for place, word in enumerate(words):
        before = words[place - 1].text if place else ""
        after = words[place + 1].text if place + 1 < len(words) else ""
        if (word.sort, word.text) == ("name", LOCAL) and before != "." and after == ".":
            pieces += [source[end : word.at], f"clock[{json.dumps(zone)}]"]
            end = word.at + len(LOCAL)
    return "".join([*pieces, source[end:]])


class _Reader:
    """A reader by recursive descent, one method a level of the grammar."""

    def __init__(self, words: list[Token], source: str) -> None:
        self._words = words
        self._source = source
        self._at = 0

    def _wrong(self, what: str, place: int | None = None) -> ValueError:
        """Make the error that says what is wrong at a word, the present one by default."""
        number = self._at if place is None else place
        at = self._words[number].at if number < len(self._words) else len(self._source)
        return ValueError(f"{_where(self._source, at)}: {what}")

    def _met(self, place: int) -> str:
        return f"`{self._words[place].text}`" if place < len(self._words) else "the end"

    def _peek(self) -> str:
        return self._words[self._at].text if self._at < len(self._words) else ""

    def _take(self, text: str | None = None) -> Token:
        if self._at >= len(self._words) or (text is not None and self._peek() != text):
            wanted = f"`{text}`" if text is not None else "a value"
            raise self._wrong(f"{wanted} was expected, met {self._met(self._at)}")
        self._at += 1
        return self._words[self._at - 1]

    def end(self) -> None:
        if self._at < len(self._words):
            raise self._wrong(f"{self._met(self._at)} was not expected; conditions are joined by `&&` or `||`")

    def choice(self, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise ValueError("nested too deeply")
        test = self._level(0, depth)
        if self._peek() != "?":
            return test
        self._take("?")
        yes = self.choice(depth + 1)
        self._take(":")
        return Node("choice", None, (test, yes, self.choice(depth + 1)))

    def _level(self, level: int, depth: int) -> Node:
        if level == len(_LEVELS):
            return self._unary(depth)
        left = self._level(level + 1, depth)
        while self._peek() in _LEVELS[level]:
            sign = self._take().text
            left = Node("op", sign, (left, self._level(level + 1, depth)))
        return left

    def _unary(self, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise ValueError("nested too deeply")
        if self._peek() in ("!", "-"):
            kind = "not" if self._take().text == "!" else "minus"
            return Node(kind, None, (self._unary(depth + 1),))
        return self._member(depth)

    def _member(self, depth: int) -> Node:
        node = self._primary(depth)
        while self._peek() in (".", "["):
            if self._take().text == "[":
                node = Node("index", None, (node, self.choice(depth + 1)))
                self._take("]")
                continue
            name = self._name()
            if self._peek() != "(":
                node = Node("get", name, (node,))
            elif name in MACROS:
                node = self._loop(name, node, depth)
            else:
                node = Node("method", name, (node, *self._arguments("(", ")", depth)))
        return node

    def _loop(self, macro: str, over: Node, depth: int) -> Node:
        self._take("(")
        variable = self._name()
        bodies = []
        while self._peek() == ",":
            self._take(",")
            bodies.append(self.choice(depth + 1))
        self._take(")")
        if not bodies or len(bodies) > (2 if macro == "map" else 1):
            raise self._wrong(f'{macro} takes a variable and a condition, as in relations.exists(r, r == "a.b")')
        return Node("loop", (macro, variable), (over, *bodies))

    def _name(self) -> str:
        word = self._take()
        if word.sort != "name":
            raise self._wrong(f"a name was expected, met {self._met(self._at - 1)}", self._at - 1)
        return word.text

    def _arguments(self, first: str, last: str, depth: int) -> list[Node]:
        self._take(first)
        found: list[Node] = []
        while self._peek() != last:
            if found:
                self._take(",")
                if self._peek() == last:
                    break
            found.append(self.choice(depth + 1))
        self._take(last)
        return found

    def _primary(self, depth: int) -> Node:
        word = self._words[self._at] if self._at < len(self._words) else Token("other", "", 0)
        if word.text == "(":
            self._take("(")
            node = self.choice(depth + 1)
            self._take(")")
            return node
        if word.text == "[":
            return Node("list", None, tuple(self._arguments("[", "]", depth)))
        if word.text == "{":
            return self._map(depth)
        self._take()
        if word.sort == "string":
            return Node("literal", _text(word.text))
        if word.sort == "number":
            return Node("literal", _number(word.text))
        if word.text in ("true", "false", "null"):
            return Node("literal", {"true": True, "false": False, "null": None}[word.text])
        if word.sort != "name":
            raise self._wrong(f"a value was expected, met {self._met(self._at - 1)}", self._at - 1)
        if self._peek() != "(":
            return Node("name", word.text)
        arguments = tuple(self._arguments("(", ")", depth))
        if word.text == "has":
            if len(arguments) != 1 or arguments[0].kind != "get":
                raise self._wrong("has() takes one field, as in has(labels.scope)")
            return Node("has", None, arguments)
        return Node("call", word.text, arguments)

    def _map(self, depth: int) -> Node:
        self._take("{")
        found: list[Node] = []
        while self._peek() != "}":
            if found:
                self._take(",")
            found.append(self.choice(depth + 1))
            self._take(":")
            found.append(self.choice(depth + 1))
        self._take("}")
        return Node("map", None, tuple(found))


def _number(text: str) -> int | float:
    digits = text.rstrip("uU")
    if digits[:2].lower() == "0x":
        return int(digits, 16)
    return int(digits) if digits.isdecimal() else float(digits)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|([0-7]{3})|(.))", re.DOTALL)


def _text(literal: str) -> str | bytes:
    start = re.match(r"[rRbB]*", literal)
    prefix = start[0].lower() if start else ""
    body = literal[len(prefix) :]
    quote = 3 if body[:3] in ("'''", '"""') else 1
    body = body[quote:-quote]
    if "r" not in prefix:
        body = _ESCAPE.sub(_unescaped, body)
    return body.encode("utf-8", "backslashreplace") if "b" in prefix else body


def _unescaped(match: re.Match[str]) -> str:
    number = match[1] or match[2] or match[3]
    if number or match[4]:
        code = int(number, 16) if number else int(match[4], 8)
        return chr(code) if code < 0x110000 else "\ufffd"
    return _ESCAPES.get(match[5], match[5])
