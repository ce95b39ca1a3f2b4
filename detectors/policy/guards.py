"""What must hold for a condition to hold, so that a policy need not be asked about what it cannot match.

A guard is read out of the expression's tree and never guessed: when it does not hold, the condition is false whatever
else the action says. In CEL `a && b` is false as soon as one of them is, even where the other cannot be evaluated, so a
guard of either holds for both. Everything that is not understood has no guard, and its policy is always asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import NamedTuple

from detectors.policy.syntax import Node
from detectors.vocabulary import SCHEMA

RUNS = "statement.operations"
LISTS = frozenset(name for name, field in SCHEMA.items() if field.type.startswith("list"))
NUMBERS = frozenset(name for name, field in SCHEMA.items() if field.type == "int")


class Guard(NamedTuple):
    """The condition can only hold where all of this does.

    `possible` false: never. `operations`: the action's `operation` is one of these. `runs`: one of these is among
    `statement.operations`. None: nothing is known. `filled`: these lists, by their names in `SCHEMA`, hold something.
    `least`: these numbers are at least so high.
    """

    possible: bool = True
    operations: frozenset[str] | None = None
    runs: frozenset[str] | None = None
    filled: frozenset[str] = frozenset()
    least: tuple[tuple[str, int], ...] = ()

    def lets(self, operation: str, runs: Iterable[str], filled: Set[str]) -> bool:
        """Return whether an action with this operation, these of its statement, and these lists may match."""
        if not self.possible or (self.operations is not None and operation not in self.operations):
            return False
        return self.filled <= filled and (self.runs is None or not self.runs.isdisjoint(runs))


OPEN = Guard()
NEVER = Guard(possible=False)


def guard(tree: Node, kind: str) -> Guard:
    """Return what must hold of an action of this kind."""
    return _guard(tree, kind)


def _guard(node: Node, kind: str) -> Guard:
    if node.kind == "literal" and node.value is False:
        return NEVER
    if node.kind == "op" and node.value == "&&":
        return _both(*(_guard(arg, kind) for arg in node.args))
    if node.kind == "op" and node.value == "||":
        return _either(*(_guard(arg, kind) for arg in node.args))
    if node.kind == "op" and node.value in ("==", "!=", "in"):
        return _comparison(node, kind)
    if node.kind == "op" and node.value in (">=", ">"):
        return _number(node)
    if node.kind == "choice":
        decided = _decided(node.args[0], kind)
        return OPEN if decided is None else _guard(node.args[1 if decided else 2], kind)
    if node.kind == "not":
        decided = _decided(node, kind)
        return NEVER if decided is False else OPEN
    if node.kind == "loop":
        return _loop(node)
    return OPEN


def _decided(node: Node, kind: str) -> bool | None:
    """Return what a condition is for every action of a kind; None when that depends on the action."""
    if node.kind == "literal":
        return bool(node.value) if isinstance(node.value, bool) else None
    if node.kind == "not":
        inner = _decided(node.args[0], kind)
        return None if inner is None else not inner
    if node.kind != "op":
        return None
    if node.value in ("&&", "||"):
        left, right = (_decided(arg, kind) for arg in node.args)
        strong = bool(node.value == "||")
        if strong in (left, right):
            return strong
        return None if None in (left, right) else not strong
    values = _values(node, Node("name", "kind"))
    return None if values is None else (kind in values) != bool(node.value == "!=")


def _values(node: Node, asked: Node) -> frozenset[str] | None:
    """Return the texts that something is compared with, by `==`, `!=` or `in`."""
    if node.kind != "op" or node.value not in ("==", "!=", "in"):
        return None
    left, right = node.args
    if node.value != "in" and right == asked:
        left, right = right, left
    if left != asked:
        return None
    items = right.args if right.kind == "list" and node.value == "in" else (right,)
    if (right.kind == "list") != (node.value == "in"):
        return None
    if not all(item.kind == "literal" and isinstance(item.value, str) for item in items):
        return None
    return frozenset(item.value for item in items)


def _comparison(node: Node, kind: str) -> Guard:
    decided = _decided(node, kind)
    if decided is not None:
        return OPEN if decided else NEVER
    if node.value == "!=":
        return OPEN
    operations = _values(node, Node("name", "operation"))
    if operations is not None:
        return Guard(operations=operations)
    if node.value != "in" or (name := _list(node.args[1])) is None:
        return OPEN
    word = node.args[0]
    if name == RUNS and word.kind == "literal" and isinstance(word.value, str):
        return Guard(runs=frozenset({word.value}))
    return Guard(filled=frozenset({name}))


def _loop(node: Node) -> Guard:
    """`statement.operations.exists(o, o in [...])` needs one of these; of other loops nothing is known."""
    macro, variable = node.value
    body = node.args[1]
    name = _list(node.args[0])
    if macro not in ("exists", "exists_one") or name is None:
        return OPEN
    values = _values(body, Node("name", variable)) if name == RUNS and body.value != "!=" else None
    return Guard(filled=frozenset({name})) if values is None else Guard(runs=values)


def _list(node: Node) -> str | None:
    """Return the name of a list of the action."""
    if node.kind == "get" and node.args[0].kind == "name":
        name = f"{node.args[0].value}.{node.value}"
    else:
        name = str(node.value) if node.kind == "name" else ""
    return name if name in LISTS else None


def _number(node: Node) -> Guard:
    """`rows >= 10` and `size(sensitive) > 0`; of a choice of numbers, the least."""
    left, right = node.args
    least = _least(right)
    if least is None:
        return OPEN
    if node.value == ">":
        least += 1
    if left.kind == "name" and left.value in NUMBERS:
        return Guard(least=((left.value, least),))
    if left.kind == "call" and left.value == "size" and least > 0 and (name := _list(left.args[0])) is not None:
        return Guard(filled=frozenset({name}))
    return OPEN


def _least(node: Node) -> int | None:
    if node.kind == "choice":
        both = [_least(arg) for arg in node.args[1:]]
        return None if None in both else min(number for number in both if number is not None)
    if node.kind == "literal" and isinstance(node.value, int) and not isinstance(node.value, bool):
        return node.value
    return None


def _both(left: Guard, right: Guard) -> Guard:
    if not left.possible or not right.possible:
        return NEVER
    operations = _narrower(left.operations, right.operations)
    runs = left.runs if right.runs is None else right.runs if left.runs is None else min(left.runs, right.runs, key=len)
    least = dict(left.least)
    for name, number in right.least:
        least[name] = max(number, least.get(name, number))
    return Guard(
        operations is None or bool(operations), operations, runs, left.filled | right.filled, tuple(least.items())
    )


def _narrower(left: frozenset[str] | None, right: frozenset[str] | None) -> frozenset[str] | None:
    if left is None or right is None:
        return right if left is None else left
    return left & right


def _either(left: Guard, right: Guard) -> Guard:
    if not left.possible or not right.possible:
        return left if left.possible else right
    other = dict(right.least)
    least = tuple((name, min(number, other[name])) for name, number in left.least if name in other)
    wider = (_wider(left.operations, right.operations), _wider(left.runs, right.runs))
    return Guard(True, *wider, left.filled & right.filled, least)


def _wider(left: frozenset[str] | None, right: frozenset[str] | None) -> frozenset[str] | None:
    return None if left is None or right is None else left | right
