"""What the functions of a database run, so that a statement that calls one is known by what it reads and writes.

The bodies of functions and procedures in SQL and PL/pgSQL are read as they are made or changed (by the version of their
row in `pg_proc`), a few hundred a look, and what PostgreSQL's parser says of them is sent: never a text. No event comes
of it. Not read are the functions of extensions, of the system and of pgwitness itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from pgwitness.core.events import Posture, quote_identifier
from pgwitness.core.sql.bodies import read_definition
from pgwitness.core.sql.tree.reader import Reader

LISTED_MAX = 200
NAMES_MAX, CHARS_MAX = 100, 4_000
"""What is told of one function: names, and their characters; of one with more nothing is."""
READ_MAX = 300
"""Bodies read in one look."""

Entry = list[object]
"""Whether all of it runs, operations, relations, columns, functions it calls, relations of which it reads every row."""


class Found(NamedTuple):
    """A function as it is in the catalogue: its name in full, and the version of its row."""

    oid: int
    name: str
    version: str


class Definition(NamedTuple):
    """Its text, and the schemas of its own `SET search_path`."""

    oid: int
    text: str | None
    path: tuple[str, ...] | None


class Functions:
    """What was sent last, by database; functions of one name are told together."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, tuple[Found, Entry | None]]] = {}
        self._sent: dict[str, dict[str, Entry]] = {}

    def again(self) -> None:
        """Send everything the next time."""
        self._sent.clear()

    def changed(
        self,
        database: str,
        found: Iterable[Found],
        define: Callable[[list[int]], Iterable[Definition]],
        tables: set[str],
        clock_us: Callable[[], int],
        captured_at_us: int,
    ) -> Iterator[Posture]:
        """Make the records of what is new; `define` gives definitions, `clock_us` is the server's clock."""
        before = self._known.get(database, {})
        listed = {item.oid: item for item in found}
        known = {oid: before[oid] for oid, item in listed.items() if oid in before and before[oid][0] == item}
        for definition in define([oid for oid in listed if oid not in known][:READ_MAX]):
            if definition.oid in listed:
                known[definition.oid] = listed[definition.oid], entry(definition, tables)
        self._known[database] = known
        at_us = clock_us()
        told = _by_name(known.values())
        sent = self._sent.get(database, {})
        # What has been made anew and could not be read yet is not what it was.
        gone = [name for name in sent if name not in told]
        news = sorted((name, item) for name, item in told.items() if sent.get(name) != item)
        self._sent[database] = told
        for part, begin in enumerate(range(0, max(len(news), len(gone)), LISTED_MAX), 1):
            end = begin + LISTED_MAX
            after: dict[str, object] = {"at_us": at_us, "runs": dict(news[begin:end]), "gone": gone[begin:end]}
            yield Posture(
                captured_at_us=captured_at_us,
                object_type="functions",
                name=f"functions {part}",
                change="found",
                database=database,
                after=after,
            )


def entry(definition: Definition, tables: set[str]) -> Entry | None:
    """Return what a function runs; None where that is not known, or too much."""
    found = read_entry(definition, tables)
    return None if found is None else found[0]


def read_entry(definition: Definition, tables: set[str], *, wary: bool = False) -> tuple[Entry, Reader] | None:
    """Return what a function runs, and the reader that has read it; None where that is not known, or too much.

    `wary` is for who decides by it (`read_definition`).
    """
    read = read_definition(definition.text, wary=wary) if definition.text is not None else None
    if read is None:
        return None
    reader, certain = read
    full = {name: _in_path(name, definition.path, tables) for name in reader.relations}
    columns = [_column(name, full) for name in reader.columns]
    lists = [list(reader.operations), list(full.values()), columns, list(reader.functions)]
    lists.append([full.get(name, name) for name in reader.whole])
    if (
        any(len(names) > NAMES_MAX for names in lists)
        or sum(len(name) for names in lists for name in names) > CHARS_MAX
    ):
        return None
    return [certain, *lists], reader


def _by_name(known: Iterable[tuple[Found, Entry | None]]) -> dict[str, Entry]:
    told: dict[str, Entry] = {}
    unknown: set[str] = set()
    for found, item in known:
        if item is None:
            unknown.add(found.name)
        elif found.name not in told:
            told[found.name] = item
        else:  # which of them a call means, its arguments say
            other = told[found.name]
            told[found.name] = [False, *(_union(other[at], item[at]) for at in range(1, 6))]
    return {name: item for name, item in told.items() if name not in unknown}


def _union(one: object, other: object) -> list[str]:
    assert isinstance(one, list)
    assert isinstance(other, list)
    return list(dict.fromkeys([*one, *other]))


def _in_path(name: str, path: tuple[str, ...] | None, tables: set[str]) -> str:
    """Return a relation's full name by the function's own path; without one it is the caller's that counts."""
    return next((full for schema in path or () if (full := f"{schema}.{name}") in tables), name)


def _column(column: str, full: Mapping[str, str]) -> str:
    table, _, name = column.rpartition(".")
    return f"{full[table]}.{name}" if table in full else column


def path_of(config: Iterable[str] | None) -> tuple[str, ...] | None:
    """Read the schemas of a function's own `SET search_path`; None where it has none."""
    for setting in config or ():
        name, _, value = setting.partition("=")
        if name == "search_path":
            words = (word.strip() for word in value.split(","))
            return tuple(
                quote_identifier(word[1:-1].replace('""', '"')) if word.startswith('"') else word
                for word in words
                if word
            )
    return None
