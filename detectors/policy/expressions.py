"""CEL expressions over actions: compiled, checked against the schema, evaluated without surprises.

The evaluator is the Rust crate behind `common-expression-language`; `detectors.policy.syntax` reads the same text into
a tree that is checked before (`detectors.policy.typecheck`) and says which actions need not be asked about
(`detectors.policy.guards`). An expression that does not end in true or false is an error of the policy, and an error is
a value here, so that nobody forgets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from detectors.actions import Action
from detectors.bare_import import without_init
from detectors.policy import guards, reads, steps, syntax, typecheck
from detectors.policy.calendars import NONE, Calendars
from detectors.policy.guards import Guard
from detectors.vocabulary import SCHEMA

with without_init("cel"):
    from cel import cel


class Expression:
    """One compiled condition. `paths` are names of `SCHEMA` that it reads, `keys` those of maps, `source` its text.

    `parameters` are the policy's own: `parameters.NAME` stands for their values.
    """

    def __init__(
        self,
        source: str,
        parameters: Mapping[str, object] | None = None,
        kinds: Iterable[str] | None = None,
        zone: str = "UTC",
        calendars: Calendars = NONE,
    ) -> None:
        """Compile and check, for actions of some kinds; raise `ValueError` with what is wrong and what there is.

        `zone` is the time zone of `local`, `calendars` those that `during` may name.
        """
        self.source = syntax.localized(syntax.substitute(source, parameters or {}), zone)
        self.calendars = calendars
        self.tree = syntax.parse(self.source)
        self.paths = frozenset(typecheck.check(self.tree, kinds, calendars.names).paths)
        self._program = _compiled(self.source)
        self.keys = reads.keys_read(self.tree)
        self.products = steps.products(self.tree)
        for pattern in _patterns(self.tree):
            _check_pattern(pattern)

    def guard(self, kind: str) -> Guard:
        """Return what must hold of an action of a kind for this to hold."""
        return guards.guard(self.tree, kind)

    def evaluate(self, context: cel.Context) -> bool | str:
        """Return true or false, or a text that says why it cannot be decided."""
        try:
            result = self._program.execute(context)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the evaluator is no Exception, and a finding, not an end
            return f"{type(error).__name__}: {str(error)[:300]}"
        if result is True or result is False:
            return bool(result)
        return f"the result is {type(result).__name__}, not true or false"


def _compiled(source: str) -> Any:
    try:
        return cel.compile(source)
    except ValueError as error:  # what our own reader takes and the evaluator's does not
        raise ValueError(f"the evaluator cannot read it: {str(error).splitlines()[0]}") from None


def evaluate(source: str, context: cel.Context) -> bool | str | object:
    """Evaluate a part of a checked expression by itself; return its value, or a text that says why there is none."""
    try:
        value: object = cel.compile(source).execute(context)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # as of a whole one
        return f"{type(error).__name__}: {str(error)[:300]}"
    return value


class Context:
    """Prepares what a set of expressions reads of an action, and nothing else."""

    def __init__(self, paths: Iterable[str], keys: reads.Keys | None = None, calendars: Calendars = NONE) -> None:
        """Take the names of `SCHEMA` that are read; a group is given with those of its fields.

        Of a map for which there are `keys`, only these are given. `calendars` are those of the expressions.
        """
        self._calendars = calendars
        self._keys = {name: names for name, names in (keys or {}).items() if names is not None}
        self._plain: list[tuple[str, str]] = []
        self._grouped: dict[str, list[tuple[str, str]]] = {}
        for path in sorted(set(paths)):
            group, _, name = path.partition(".")
            if name:
                self._grouped.setdefault(group, []).append((name, SCHEMA[path].attribute))
            else:
                self._plain.append((path, SCHEMA[path].attribute))

    def variables(self, action: Action) -> dict[str, object]:
        """Return an action's fields under their names in expressions."""
        values: dict[str, object] = {name: self._of(action, attribute) for name, attribute in self._plain}
        for group, fields in self._grouped.items():
            values[group] = {name: self._of(action, attribute) for name, attribute in fields}
        return values

    def _of(self, action: Action, attribute: str) -> object:
        names = self._keys.get(attribute)
        if attribute in reads.TIMES:
            return reads.times(action, attribute, names or (), self._calendars)
        value = getattr(action, attribute)
        return _clean(value if names is None else {name: value[name] for name in names if name in value})

    def of(self, action: Action) -> cel.Context | str:
        """Prepare an action, or say why it cannot be given to the evaluator."""
        try:
            return cel.Context(self.variables(action))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # hostile text must not stop the stream
            return f"{type(error).__name__}: {str(error)[:300]}"


def _clean(value: object) -> object:
    """Bring a value into what the evaluator takes: 64-bit integers, valid text, bounded depth."""
    kind = type(value)
    if kind is bool or kind is float or value is None:
        return value
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return max(-(2**63), min(value, 2**63 - 1))
    if isinstance(value, Mapping):
        return {str(_clean(str(k))): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return str(value)


def _patterns(tree: syntax.Node) -> Iterator[str]:
    """List the regular expressions that stand in an expression."""
    if tree.kind in ("method", "call") and tree.value == "matches" and len(tree.args) == 2:
        pattern = tree.args[1]
        if pattern.kind == "literal" and isinstance(pattern.value, str):
            yield pattern.value
    for arg in tree.args:
        yield from _patterns(arg)


def _check_pattern(pattern: str) -> None:
    try:
        cel.compile("''.matches(p)").execute(cel.Context({"p": pattern}))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"matches: {pattern!r} is no regular expression: {str(error).splitlines()[-1]}") from None
