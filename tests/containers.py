"""Finds what could grow: every container and every text that an object holds, however deep."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

CONTAINERS = (dict, list, set, tuple, deque, frozenset)
CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def held(root: object, *, without: tuple[object, ...] = ()) -> Iterator[tuple[str, object]]:
    """Give everything that an object holds, with the types on the way to it, but no code and nothing `without`."""
    seen = {id(root), *map(id, without)}
    waiting: list[tuple[str, object]] = [(type(root).__name__, root)]
    while waiting:
        path, holder = waiting.pop()
        yield path, holder
        for item in gc.get_referents(holder):
            if id(item) not in seen and not isinstance(item, CODE):
                seen.add(id(item))
                waiting.append((f"{path[-200:]} > {type(item).__name__}", item))


def beyond(root: object, *, items_max: int, chars_max: int, without: tuple[object, ...] = ()) -> list[tuple[int, str]]:
    """Give the containers with more items, and the texts with more characters or bytes: how many, and where."""
    found = []
    for path, item in held(root, without=without):
        if (isinstance(item, CONTAINERS) and len(item) > items_max) or (
            isinstance(item, str | bytes) and len(item) > chars_max
        ):
            found.append((len(item), path))
    return sorted(found, reverse=True)


def longest(root: object, *, without: tuple[object, ...] = ()) -> tuple[int, str]:
    """Give the length of the longest text, in characters or bytes, and where it stands."""
    return max((len(item), path) for path, item in held(root, without=without) if isinstance(item, str | bytes))
