"""What must hold for a condition to hold, so that a policy need not be asked about what it cannot match.

A guard is read out of the expression's tree and never guessed: when it does not hold, the condition is false whatever
else the action says. In CEL `a && b` is false as soon as one of them is, even where the other cannot be evaluated, so a
guard of either holds for both. Everything that is not understood has no guard, and its policy is always asked.
"""

from __future__ import annotations

from typing import NamedTuple

from detectors.syntax import Node


class Guard(NamedTuple):
    """The condition can only hold where all of this does.

    `possible` false: never. `operations`: the action's `operation` is one of these. `runs`: one of these is among
    `statement.operations`. None: nothing is known.
    """

    possible: bool = True
    operations: frozenset[str] | None = None
    runs: frozenset[str] | None = None

    def lets(self, operation: str, runs: list[str]) -> bool:
        """Say whether an action with this operation, and these of its statement, may match."""
        if not self.possible or (self.operations is not None and operation not in self.operations):
            return False
        return self.runs is None or not self.runs.isdisjoint(runs)


OPEN = Guard()
NEVER = Guard(possible=False)


def guard(tree: Node, kind: str) -> Guard:
    """Give what must hold of an action of this kind."""
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
    """Say what a condition is for every action of a kind; None when that depends on the action."""
    if node.kind == "literal":
        return bool(node.value) if isinstance(node.value, bool) else None
    if node.kind == "not":
        inner = _decided(node.args[0], kind)
        return None if inner is None else not inner
    if node.kind != "op":
        return None
    if node.value in ("&&", "||"):
        left, right = (_decided(arg, kind) for arg in node.args)
        strong = node.value == "||"
        if strong in (left, right):
            return strong
        return None if None in (left, right) else not strong
    values = _values(node, Node("name", "kind"))
    return None if values is None else (kind in values) != (node.value == "!=")


def _values(node: Node, asked: Node) -> frozenset[str] | None:
    """Give the texts that something is compared with, by `==`, `!=` or `in`."""
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
    listed = Node("get", "operations", (Node("name", "statement"),))
    if node.value == "in" and node.args[1] == listed:
        word = node.args[0]
        if word.kind == "literal" and isinstance(word.value, str):
            return Guard(runs=frozenset({word.value}))
    return OPEN


def _loop(node: Node) -> Guard:
    """`statement.operations.exists(o, o in [...])` needs one of these; of other loops nothing is known."""
    macro, variable = node.value
    over, body = node.args[0], node.args[1]
    if macro not in ("exists", "exists_one") or over != Node("get", "operations", (Node("name", "statement"),)):
        return OPEN
    values = _values(body, Node("name", variable)) if body.value != "!=" else None
    return OPEN if values is None else Guard(runs=values)


def _both(left: Guard, right: Guard) -> Guard:
    if not left.possible or not right.possible:
        return NEVER
    operations = _narrower(left.operations, right.operations)
    runs = left.runs if right.runs is None else right.runs if left.runs is None else min(left.runs, right.runs, key=len)
    return Guard(operations is None or bool(operations), operations, runs)


def _narrower(left: frozenset[str] | None, right: frozenset[str] | None) -> frozenset[str] | None:
    if left is None or right is None:
        return right if left is None else left
    return left & right


def _either(left: Guard, right: Guard) -> Guard:
    if not left.possible or not right.possible:
        return left if left.possible else right
    return Guard(True, _wider(left.operations, right.operations), _wider(left.runs, right.runs))


def _wider(left: frozenset[str] | None, right: frozenset[str] | None) -> frozenset[str] | None:
    return None if left is None or right is None else left | right
