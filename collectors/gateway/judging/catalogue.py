"""What stands behind the names of a database: views, functions, and the schemas in which a name can be found.

Read as the collector of posture reads it, and held against nothing: a name without a schema may be any relation of that
name, and a call any function of that name, so a statement is judged by all of them. Too much is judged rather than too
little. What a session makes is known as soon as it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Final, NamedTuple

import psycopg

from collectors.posture import source
from collectors.posture.functions import entry
from pgwitness.core.sql.parsetree import Made

FOLLOWED_MAX: Final = 100
"""Views and functions that are looked into for one statement."""
MADE_MAX: Final = 1_000
LOCK_TIMEOUT: Final = "1s"
_FULL: Final = re.compile(r'(?:"(?:[^"]|"")*"|[^".]+)\.("(?:[^"]|"")*"|[^".]+)')


class View(NamedTuple):
    """What a view reads: relations, their columns as `schema.table.column`; `shown` are its own columns.

    `whole` are the relations of which all rows come through.
    """

    relations: tuple[str, ...]
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    whole: tuple[str, ...] = ()

    def behind(self, asked: Set[str]) -> list[str]:
        """Return the columns behind some of its own; of one that has another name all that it may be."""
        if not asked or "*" in asked:
            return list(self.columns) if asked else []
        names = {column: column.rpartition(".")[2] for column in self.columns}
        named = [column for column, name in names.items() if name in asked]
        if asked <= set(names.values()):
            return named
        hidden = [column for column, name in names.items() if name not in self.shown]
        return [*named, *(hidden or self.columns)]


class Catalogue(NamedTuple):
    """A database: relations in full by their bare names, what views read by full name, functions by their last name."""

    relations: Mapping[str, tuple[str, ...]] = {}
    views: Mapping[str, View] = {}
    functions: Mapping[str, tuple[Made, ...]] = {}

    def meant(self, name: str) -> tuple[str, ...]:
        """Return what a name may mean; what nobody knows is taken to be in `public`, and names of the system stay."""
        if "." in name or name.startswith("pg_"):
            return (name,)
        return self.relations.get(name) or (f"public.{name}",)

    def called(self, names: Iterable[str]) -> Iterator[Made]:
        """Give what functions of these names run, and what those call."""
        waiting, seen = [last_of(name) for name in names], set[str]()
        while waiting and len(seen) < FOLLOWED_MAX:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            for body in self.functions.get(name, ()):
                waiting += [last_of(inner) for inner in body.functions]
                yield body

    def with_made(self, made: Iterable[Made]) -> Catalogue:
        """Return it with functions that a statement makes."""
        functions = dict(self.functions)
        for body in made:
            name = last_of(body.name)
            if body not in functions.get(name, ()) and len(functions) < MADE_MAX + len(self.functions):
                functions[name] = (*functions.get(name, ()), body)
        return self._replace(functions=functions)


EMPTY: Final = Catalogue()


def last_of(name: str) -> str:
    """Return a function's name without its schema."""
    return name.rpartition(".")[2]


def read(connection: psycopg.Connection[tuple[object, ...]]) -> Catalogue:
    """Read a database's catalogue. Raise `psycopg.Error`."""
    connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'".encode())
    tables = [name for name, _ in source.columns(connection)]
    views = {}
    for name, (whole, *lists) in source.views(connection):
        relations, columns, shown = (tuple(map(str, names)) for names in lists if isinstance(names, list))
        views[name] = View(relations, columns, shown, relations if whole is True else ())
    relations_by: dict[str, list[str]] = {}
    for name in (*tables, *views):
        relations_by.setdefault(_bare(name), []).append(name)
    functions: dict[str, tuple[Made, ...]] = {}
    found = {one.oid: one for one in source.functions(connection)}
    for definition in source.definitions(connection, list(found)):
        item = entry(definition, set(tables))
        if item is not None and definition.oid in found:
            does = [tuple(map(str, names)) for names in item[1:] if isinstance(names, list)]
            name = last_of(found[definition.oid].name)
            operations, relations, columns, called, whole = does
            made = Made(name, operations, relations, columns, called, whole)
            functions[name] = (*functions.get(name, ()), made)
    return Catalogue({name: tuple(full) for name, full in relations_by.items()}, views, functions)


def _bare(name: str) -> str:
    """Return the name of a relation without its schema; a point may stand in quotes."""
    found = _FULL.fullmatch(name)
    return name if found is None else found[1]
