"""How a parse tree writes names and values, and how they are read from it; any node of it is a `Tree`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgwitness.core.events import quote_identifier

Tree = dict[str, Any]


def walk(node: Any) -> Iterator[Tree]:
    """Give a node and all nodes below it, in no order that means anything. Takes no stack, however deep they are."""
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            yield item
            waiting += item.values()


def string(item: Tree) -> str:
    """Return the text of a `String` node; empty for any other."""
    return str(item.get("String", {}).get("sval", ""))


def name_of(item: Any) -> list[str]:
    """Read a possibly qualified name, however the tree writes it."""
    if isinstance(item, dict) and "List" in item:
        return [string(part) for part in item["List"].get("items", [])]
    return [string(item)] if isinstance(item, dict) and "String" in item else []


def dotted(names: list[Tree]) -> str:
    """Return a qualified name as SQL writes it, without the schema `pg_catalog`."""
    parts = [string(name) for name in names]
    return ".".join(quoted(part) for part in (parts[1:] if parts[:1] == ["pg_catalog"] else parts))


def quoted(name: str) -> str:
    """Return a part of a name as SQL writes it; `*` stays."""
    return quote_identifier(name) if name and name != "*" else name


def text_of(arg: Tree) -> str | None:
    """Give a string that stands as an argument, with a cast or without."""
    text = arg.get("TypeCast", {}).get("arg", arg).get("A_Const", {}).get("sval", {}).get("sval")
    return text if isinstance(text, str) else None


def is_null(arg: Tree) -> bool:
    """Say whether NULL stands as an argument, with a cast or without."""
    return arg.get("TypeCast", {}).get("arg", arg).get("A_Const", {}).get("isnull") is True


def is_constant(arg: Tree) -> bool:
    """Say whether a value that is no string stands as an argument: a number, a truth value, NULL."""
    return "A_Const" in arg.get("TypeCast", {}).get("arg", arg)
