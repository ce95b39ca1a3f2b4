"""CEL expressions over actions: compiled, checked against the schema, evaluated without surprises.

The evaluator is the Rust crate behind `common-expression-language`; it gives the identifiers an expression reads,
and this module finds which fields of `principal`, `statement`, `object` and `new` those are. An expression that does
not end in true or false is an error of the policy, and an error is a value here, so that nobody forgets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import cel

from detectors.actions import SCHEMA, Action

ROOTS = frozenset(path.partition(".")[0] for path in SCHEMA)
GROUPS = frozenset(path.partition(".")[0] for path in SCHEMA if "." in path)

_TOKEN = re.compile(
    r"""[rRbB]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//[^\n]*|(\w+)|\S""", re.DOTALL
)
_BINDING_MACROS = {"all", "exists", "exists_one", "map", "filter"}


class Expression:
    """One compiled condition. `paths` are the names of `SCHEMA` it reads, `roots` the variables it needs."""

    def __init__(self, source: str) -> None:
        """Compile and check; raises `ValueError` with what is wrong and which names there are."""
        self.source = source
        self._program = cel.compile(source)
        tokens = [match[0] for match in _TOKEN.finditer(source) if not match[0].startswith("//")]
        bound = {
            tokens[i + 3]
            for i in range(len(tokens) - 4)
            if tokens[i] == "." and tokens[i + 1] in _BINDING_MACROS and tokens[i + 2] == "(" and tokens[i + 4] == ","
        }
        if clash := bound & ROOTS:
            raise ValueError(f"{min(clash)!r} is a field of actions; call the loop's variable something else")
        used = [name for name in self._program.variables() if name not in bound]
        if unknown := [name for name in used if name not in ROOTS]:
            raise ValueError(f"unknown name {unknown[0]!r}; there is: {', '.join(sorted(SCHEMA))}")
        self.roots = frozenset(used)
        self.paths = frozenset(self._paths(tokens))

    def _paths(self, tokens: list[str]) -> list[str]:
        paths = [root for root in self.roots if root not in GROUPS]
        for i, token in enumerate(tokens):
            if token not in GROUPS or token not in self.roots or (i and tokens[i - 1] == "."):
                continue
            field = tokens[i + 2] if tokens[i + 1 : i + 2] == ["."] and i + 2 < len(tokens) else None
            path = f"{token}.{field}"
            if field is None or path not in SCHEMA:
                fields = ", ".join(sorted(name for name in SCHEMA if name.startswith(token + ".")))
                raise ValueError(f"{path if field else token!r} is no field of actions; there is: {fields}")
            paths.append(path)
        return paths

    def evaluate(self, context: cel.Context) -> bool | str:
        """Give true or false, or a text that says why it cannot be told."""
        try:
            result = self._program.execute(context)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the evaluator is no Exception, and a finding, not an end
            return f"{type(error).__name__}: {str(error)[:300]}"
        if result is True or result is False:
            return bool(result)
        return f"the result is {type(result).__name__}, not true or false"


class Context:
    """Prepares what a set of expressions reads of an action, and nothing else."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Take the names of `SCHEMA` that are read; a group is given with those of its fields."""
        self._plain: list[tuple[str, str]] = []
        self._grouped: dict[str, list[tuple[str, str]]] = {}
        for path in sorted(set(paths)):
            group, _, name = path.partition(".")
            if name:
                self._grouped.setdefault(group, []).append((name, SCHEMA[path].attribute))
            else:
                self._plain.append((path, SCHEMA[path].attribute))

    def variables(self, action: Action) -> dict[str, object]:
        """Give an action's fields under their names in expressions."""
        values: dict[str, object] = {name: _clean(getattr(action, attribute)) for name, attribute in self._plain}
        for group, fields in self._grouped.items():
            values[group] = {name: _clean(getattr(action, attribute)) for name, attribute in fields}
        return values

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
