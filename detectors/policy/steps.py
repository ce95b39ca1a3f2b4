"""How much work an expression is for one action: loops within loops multiply the lengths of the action's lists.

The evaluator has no budget of its own, and a client decides how many relations and columns a statement names: of a
thousand each, one condition with a loop in a loop took five seconds. So the product of the lengths is looked at first,
and what is more than `STEPS_MAX` is not asked: the policy has failed for that action, which is an alert, not a silence.
One loop by itself is bounded by the lists, a thousand names each, and is not counted. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from detectors.actions import Action
from detectors.policy.guards import LISTS
from detectors.policy.syntax import Node
from detectors.vocabulary import SCHEMA

STEPS_MAX = 10_000
"""At some 5 µs a step: what a policy may take of the worker's time for one action."""
UNKNOWN_LENGTH = 100
"""Taken for the length of a list that is no field of actions."""
TOO_MUCH = f"the statement names so much that this would take more than {STEPS_MAX:,} steps"

Product = tuple[str | int, ...]
"""Lists of the action, by attribute, and lengths that the expression itself has: how often something is looked at."""


def products(tree: Node) -> tuple[Product, ...]:
    """Return of every loop in a loop what its steps are the product of."""
    return tuple(dict.fromkeys(_products(tree, ())))


def steps(found: Iterable[Product], action: Action) -> int:
    """Return how many steps these are for an action."""
    return sum(
        math.prod(factor if isinstance(factor, int) else len(getattr(action, factor)) for factor in product)
        for product in found
    )


def _products(node: Node, outer: Product) -> Iterator[Product]:
    if node.kind == "loop":
        over, *bodies = node.args
        inner = (*outer, _length(over))
        if outer:
            yield inner
        yield from _products(over, outer)
        for body in bodies:
            yield from _products(body, inner)
        return
    if node.kind == "op" and node.value == "in" and outer and isinstance(length := _length(node.args[1]), str):
        yield (*outer, length)
    for arg in node.args:
        yield from _products(arg, outer)


def _length(node: Node) -> str | int:
    if node.kind == "list":
        return max(1, len(node.args))
    if node.kind == "get" and node.args[0].kind == "name":
        name = f"{node.args[0].value}.{node.value}"
    else:
        name = str(node.value) if node.kind == "name" else ""
    return SCHEMA[name].attribute if name in LISTS else UNKNOWN_LENGTH
