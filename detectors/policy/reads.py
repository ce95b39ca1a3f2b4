"""What an expression reads of an action: which keys of its maps, and a key under which its answer can be remembered.

An expression that names `detail.x` depends on nothing else in `detail`. So the evaluator need not be given the rest,
and actions that are equal in what is read have equal answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec

from detectors.actions import Action
from detectors.policy.calendars import NONE, Calendars
from detectors.policy.syntax import Node
from detectors.vocabulary import SCHEMA

_encode = msgspec.json.Encoder(order="sorted").encode
_MAPS = {field.attribute for field in SCHEMA.values() if field.type == "map"}

Keys = dict[str, frozenset[str] | None]
"""By the attribute of a map, the keys that are read of it; None when that may be all of them."""


def keys_read(tree: Node) -> Keys:
    """Return the keys that an expression reads of the action's maps."""
    found: dict[str, set[str] | None] = {}
    _walk(tree, found)
    return {attribute: None if keys is None else frozenset(keys) for attribute, keys in found.items()}


def joined(all_keys: Iterable[Keys]) -> Keys:
    """Return the keys that several expressions read together."""
    found: Keys = {}
    for keys in all_keys:
        for attribute, names in keys.items():
            known = found.get(attribute, frozenset())
            found[attribute] = None if names is None or known is None else known | names
    return found


def _walk(node: Node, found: dict[str, set[str] | None]) -> None:
    asked = _asked(node)
    if asked is not None and (attribute := _map(node.args[0])) is not None:
        keys = found.setdefault(attribute, set())
        if keys is not None:
            keys.add(asked)
    elif (attribute := _map(node)) is not None:
        found[attribute] = None
    else:
        for arg in node.args:
            _walk(arg, found)


def _asked(node: Node) -> str | None:
    """Return the name that a node asks of a map: `detail.x`, `detail["x"]`."""
    if node.kind == "get":
        return str(node.value)
    place = node.args[1] if node.kind == "index" else None
    return place.value if place is not None and place.kind == "literal" and isinstance(place.value, str) else None


TIMES = frozenset({"clock", "during"})
"""Attributes whose values are computed, for the names that are asked for."""


def times(action: Action, attribute: str, names: Iterable[str], calendars: Calendars) -> dict[str, object]:
    """Return what clocks and calendars say of an action, where it does not bring it."""
    held: Mapping[str, object] = getattr(action, attribute)
    computed = calendars.value(attribute, [name for name in names if name not in held], action.occurred_at_us)
    return {**computed, **{name: held[name] for name in names if name in held}}


def _map(node: Node) -> str | None:
    """Return the attribute of a map of the action, where a node is its name."""
    if node.kind == "get" and node.args[0].kind == "name":
        name = f"{node.args[0].value}.{node.value}"
    else:
        name = str(node.value) if node.kind == "name" else ""
    field = SCHEMA.get(name)
    return field.attribute if field is not None and field.type == "map" else None


def key_maker(paths: Iterable[str], keys: Keys, calendars: Calendars = NONE) -> Callable[[Action], bytes]:
    """Make the function that gives a key of everything that is read of an action, as short as any other."""
    attributes = sorted({SCHEMA[path].attribute for path in paths})
    plain = [name for name in attributes if name not in _MAPS]
    maps = [(name, keys.get(name)) for name in attributes if name in _MAPS]
    take: Callable[[Action], Iterable[Any]] = attrgetter(*plain) if len(plain) > 1 else _few(plain)

    def key(action: Action) -> bytes:
        values: list[object] = [*take(action)]
        for name, names in maps:
            if name in TIMES:
                values.append(times(action, name, names or (), calendars))
                continue
            held: Mapping[str, object] = getattr(action, name)
            if names is not None and held:
                held = {name: held[name] for name in names if name in held}
            values.append(held)
        return short(values)

    return key


def _few(names: list[str]) -> Callable[[Action], Iterable[Any]]:
    return lambda action: [getattr(action, name) for name in names]


def short(values: object) -> bytes:
    """Return 16 bytes that stand for values, whatever they are."""
    try:
        data = _encode(values)
    except (ValueError, TypeError, OverflowError):  # numbers and texts that no JSON can say
        data = repr(values).encode("utf-8", "backslashreplace")
    return blake2b(data, digest_size=16).digest()
