"""Why a condition holds of an action or does not: each part of it that is true or false by itself, in words.

The parts are those that `&&`, `||`, `!` and `? :` join; each is evaluated by the evaluator that judges. What stands in
a loop over a list belongs to the loop. Pure; `pgwitness policy try` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from detectors.actions import Action
from detectors.policy import reads, syntax, typecheck
from detectors.policy.expressions import Context, Expression, evaluate
from detectors.policy.syntax import Node
from detectors.vocabulary import SCHEMA
from detectors.wording import show

_JOINS = {"&&": "all of", "||": "one of", "not": "not", "choice": "if, then, else"}


class Part(Struct, frozen=True):
    """One part of a condition: its text, what it is (`yes`, `no`, or why nobody can say), and what it read.

    `joined` says how the parts below make it: `all of`, `one of`, `not` or `if, then, else`; empty where there are
    none. `read` are names of the language with the action's values.
    """

    text: str
    holds: str
    read: dict[str, str] = {}
    joined: str = ""
    parts: tuple[Part, ...] = ()


def explain(condition: Expression, action: Action) -> Part:
    """Explain a condition of one action."""
    context = Context(condition.paths, condition.keys, condition.calendars).of(action)

    def ask(node: Node) -> object:
        return context if isinstance(context, str) else evaluate(syntax.write(node), context)

    return _part(condition.tree, _timed(condition, action), ask)


def _timed(condition: Expression, action: Action) -> Action:
    """Return an action what clocks and calendars say, as far as the condition asks."""
    asked = {name: condition.keys.get(name) or () for name in reads.TIMES}
    said = {name: reads.times(action, name, keys, condition.calendars) for name, keys in asked.items()}
    return replace(action, **said)


def conjuncts(part: Part) -> Iterator[Part]:
    """List what must hold together for a condition to hold."""
    if part.joined != _JOINS["&&"]:
        yield part
        return
    for inner in part.parts:
        yield from conjuncts(inner)


def lacking(part: Part) -> Part | None:
    """Return the one part for lack of which a condition does not hold; None where more than one, or all, are
    lacking."""
    needed = list(conjuncts(part))
    missing = [each for each in needed if each.holds != "yes"]
    return missing[0] if len(missing) == 1 and len(needed) > 1 else None


def _part(node: Node, action: Action, ask: Callable[[Node], object]) -> Part:
    said = ask(node)
    holds = {True: "yes", False: "no"}[said] if isinstance(said, bool) else _failure(str(said))
    name = str(node.value) if node.kind == "op" else node.kind
    if name in _JOINS:
        parts = tuple(_part(arg, action, ask) for arg in _flat(node, name))
        return Part(syntax.write(node), holds, joined=_JOINS[name], parts=parts)
    return Part(syntax.write(node), holds, _values(node, action))


def _failure(said: str) -> str:
    """Return why a part cannot be decided; nobody asks it where what stands before it has decided already."""
    return f"{said.removeprefix('KeyError: ')} is not there" if said.startswith("KeyError: ") else said


def _flat(node: Node, sign: str) -> Iterator[Node]:
    """List what one operator joins: `a && b && c` is one thing of three parts."""
    for arg in node.args:
        if sign in ("&&", "||") and arg.kind == "op" and arg.value == sign:
            yield from _flat(arg, sign)
        else:
            yield arg


def _values(node: Node, action: Action) -> dict[str, str]:
    """Return what a part reads of the action, as it is; of a map only what is asked of it."""
    found: dict[str, str] = {}
    for path, keys in sorted(typecheck.names_read(node).items()):
        value = getattr(action, SCHEMA[path].attribute)
        if not keys:
            found[path] = _said(value)
        for key in sorted(keys):
            if path == "clock":
                found[f'{path}["{key}"]'] = "{date} {hour:02}:{minute:02}".format(**value[key])
            else:
                found[f"{path}.{key}"] = _said(value[key]) if key in value else "not there"
    return found


def _said(value: object) -> str:
    if isinstance(value, str):
        return f'"{show(value)}"' if value else "empty"
    return "empty" if value in ([], {}, ()) else show(value)
