"""Which sensitive columns a statement names: those that the configuration masks or lists (`privacy`).

A statement need not name a column's schema or table: what is left out may be any, a schema that is left out is
`public`. `*` names every column of its table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from pgwitness.config import Privacy

CACHE_MAX = 10_000


class Sensitive:
    """The patterns `schema.table.column` (globs allowed), and which columns of a statement they mean."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        self._among = lru_cache(maxsize=CACHE_MAX)(self._find)

    @classmethod
    def of(cls, privacy: Privacy) -> Sensitive:
        """Take `privacy.sensitive`, and every column that a rule of `privacy.mask` does not leave clear."""
        masked = [rule.column for rule in privacy.mask if rule.with_ != "clear"]
        return cls([*privacy.sensitive, *masked])

    def among(self, columns: Sequence[str], relations: Sequence[str]) -> list[str]:
        """List the sensitive ones of these columns, as the statement names them."""
        if not self.patterns or not columns:
            return []
        return list(self._among(tuple(columns), tuple(relations)))

    def _find(self, columns: tuple[str, ...], relations: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column for column in columns if any(self._is(name) for name in _full(column, relations)))

    def _is(self, name: str) -> bool:
        if not name.endswith(".*"):
            return any(fnmatchcase(name, pattern) for pattern in self.patterns)
        tables = (pattern.rpartition(".")[0] for pattern in self.patterns)
        return any(fnmatchcase(name[:-2], table) for table in tables if table)


def _full(column: str, relations: tuple[str, ...]) -> list[str]:
    """Give the full names that a name in a statement may stand for."""
    dots = column.count(".")
    if dots == 0:
        return [f"{_table(relation)}.{column}" for relation in relations]
    table, _, name = column.rpartition(".")
    return [f"{_table(table)}.{name}"]


def _table(name: str) -> str:
    return name if "." in name else f"public.{name}"
