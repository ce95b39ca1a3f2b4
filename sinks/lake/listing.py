"""Which files of a lake count: those that its manifest's entries name, and no other.

A file that somebody puts beside them, or a copy under another name, is in no entry and is never read. `Listing` reads
entries once, since they never change; `variable_sql` does the same in SQL, for a DuckDB that has only `views.sql`. A
file that was committed and not yet published is read a moment later; one that was published and is gone is `missing`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
from msgspec import Struct

from sinks.lake.schema import TABLES

EMPTY_DAY = "1970-01-01"
_DAY = re.compile(r"dt=\d{4}-\d{2}-\d{2}")


class _File(Struct, frozen=True):
    table: str
    path: str
    staged: str = ""


class _Entry(Struct, frozen=True):
    """What is needed of `sinks.lake.manifest.Entry`, whatever its version."""

    files: list[_File]


_decoder = msgspec.json.Decoder(_Entry)


def empty_file(table: str) -> str:
    """Name the file without rows that every table has: it carries the columns where no other file does yet."""
    return f"{table}/dt={EMPTY_DAY}/empty.parquet"


def variable(table: str) -> str:
    """Name the variable of DuckDB that holds a table's files."""
    return f"pgwitness_{table}"


class Listing:
    """The files of a lake, as its manifest grows. Not for several threads.

    `damaged` names entries that cannot be read or that name what they may not, `missing` files that an entry names and
    that are neither published nor staged.
    """

    def __init__(self, lake: Path) -> None:
        self._lake = lake.resolve()
        self._entries: set[str] = set()
        self._there: dict[str, list[str]] = {table: [] for table in TABLES}
        self._awaited: list[_File] = []
        self.damaged: list[str] = []
        self.missing: list[str] = []

    def refresh(self) -> bool:
        """Read the entries that are new; gives whether any table has other files than before."""
        new = [name for name in sorted(self._names()) if name not in self._entries]
        for name in new:
            self._entries.add(name)
            self._read(name)
        before = sum(map(len, self._there.values()))
        awaited, self._awaited, self.missing = self._awaited, [], []
        for file in awaited:
            if (self._lake / file.path).exists():
                self._there[file.table].append(file.path)
            else:
                self._awaited.append(file)
                if not (self._lake / "_staging" / file.staged).exists():
                    self.missing.append(file.path)
        return sum(map(len, self._there.values())) != before

    def files(self, table: str) -> list[str]:
        """List a table's files, relative to the lake; the one without rows comes first."""
        return [empty_file(table), *sorted(self._there[table])]

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._lake / "events" / "_manifest") as found:
                return [one.name for one in found if one.name.endswith(".json")]
        except FileNotFoundError:
            return []

    def _read(self, name: str) -> None:
        try:
            files = _decoder.decode((self._lake / "events" / "_manifest" / name).read_bytes()).files
        except (msgspec.DecodeError, OSError):
            self.damaged.append(name)
            return
        own = [file for file in files if _is_own(file, name.removesuffix(".json"))]
        if len(own) != len(files):
            self.damaged.append(name)
        self._awaited += own


def _is_own(file: _File, stem: str) -> bool:
    """Whether a file has the place that its entry gives it: no entry can bring in what lies elsewhere."""
    table, _, rest = file.path.partition("/")
    day, _, name = rest.partition("/")
    return table == file.table in TABLES and _DAY.fullmatch(day) is not None and name == f"{stem}.parquet"


def variable_sql(table: str) -> str:
    """Write the statement that lists a table's files, for DuckDB started in the lake's folder.

    `views.sql` is among what it reads because a pattern that matches nothing is an error there.
    """
    return f"""\
SET VARIABLE {variable(table)} = list_prepend('{empty_file(table)}', (
    SELECT coalesce(list(path ORDER BY path), []) FROM (
        SELECT filename, unnest(from_json(content, '{{"files":[{{"table":"VARCHAR","path":"VARCHAR"}}]}}').files,
            recursive := true)
        FROM (
            SELECT filename, try(decode(content)) AS content
            FROM read_blob(['events/_manifest/*.json', 'views.sql']) WHERE suffix(filename, '.json')
        )
        WHERE json_valid(content)
    )
    WHERE "table" = '{table}' AND path LIKE '{table}/dt=____-__-__/%'
        AND parse_filename(path, true) = parse_filename(filename, true)
        AND path IN (SELECT regexp_extract(file, '[^/]+/[^/]+/[^/]+$') FROM glob('{table}/dt=*/*.parquet'))
));
"""
