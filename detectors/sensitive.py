"""Which sensitive columns a statement names: those that the configuration masks or lists (`privacy`).

A pattern of three names, `public.*.email`, means exactly such columns: schema with schema, table with table. In one of
fewer the first glob spans what is left out, so `*.email` is a column of any table. A statement need not name a column's
schema or table: a table that is left out may be any, a schema that is left out is `public`, or `pg_catalog` where a
name begins as only the server's own do. `*` names every column of its table, but of a table that is known to have
none that is sensitive (`detail.clear`). The server's own catalogues are
sensitive only where a pattern names their schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from pgwitness.core.config import Privacy

CACHE_MAX = 10_000
_SYSTEM = frozenset({"pg_catalog", "information_schema", "pg_toast"})
_PARTS = re.compile(r'((?:"(?:[^"]|"")*"|[^".])+)')


class Sensitive:
    """The patterns `schema.table.column` (globs allowed), and which columns of a statement they mean."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        self._rules = [_rule(pattern) for pattern in self.patterns]
        self._among = lru_cache(maxsize=CACHE_MAX)(self._find)
        text = "\n".join(sorted(self.patterns)).encode("utf-8", "backslashreplace")
        self.fingerprint = hashlib.sha256(text).hexdigest()[:16]
        """Names the patterns, whatever their order."""

    @classmethod
    def of(cls, privacy: Privacy) -> Sensitive:
        """Take `privacy.sensitive`, and every column that a rule of `privacy.mask` does not leave clear."""
        masked = [rule.column for rule in privacy.mask if rule.with_ != "clear"]
        return cls([*privacy.sensitive, *masked])

    def among(self, columns: Sequence[str], relations: Sequence[str], clear: Iterable[str] = ()) -> list[str]:
        """List the sensitive ones of these columns, as the statement names them.

        Tables that are `clear` have no sensitive column: `*` of one names none.
        """
        if not self.patterns or not columns:
            return []
        stars = {f"{table}.*" for table in clear}
        return list(self._among(tuple(column for column in columns if column not in stars), tuple(relations)))

    def _find(self, columns: tuple[str, ...], relations: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column for column in columns if any(self._is(name) for name in _full(column, relations)))

    def _is(self, name: tuple[str, str, str]) -> bool:
        return any(_matches(rule, name) for rule in self._rules)


def _rule(pattern: str) -> tuple[str, ...]:
    """Cut a pattern into schema, table and column; of one with fewer names the first part spans what is left out."""
    return tuple(_names(pattern))


def _matches(rule: tuple[str, ...], name: tuple[str, str, str]) -> bool:
    schema, table, column = name
    *before, last = rule
    if column != "*" and not fnmatchcase(column, last):
        return False
    if len(before) >= 2:
        return fnmatchcase(schema, before[-2]) and fnmatchcase(table, before[-1])
    if schema in _SYSTEM:
        return False
    return bool(before or column != "*") and (not before or fnmatchcase(f"{schema}.{table}", _spanning(before[0])))


def _spanning(glob: str) -> str:
    """`*` is any table of any schema, `customers` one of any schema."""
    return glob if glob.startswith("*") else f"*.{glob}"


def _names(text: str) -> list[str]:
    """Cut a name at its points, but for those between quotes."""
    return ["".join(part) for part in _PARTS.findall(text)] or [text]


def _full(column: str, relations: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Return the full names that a name in a statement may stand for."""
    *table, name = _names(column)
    if table:
        return [(*_table(table), name)]
    return [(*_table(_names(relation)), name) for relation in relations]


def _table(names: list[str]) -> tuple[str, str]:
    if len(names) > 1:
        return names[-2], names[-1]
    return ("pg_catalog" if names[0].startswith("pg_") else "public"), names[0]
