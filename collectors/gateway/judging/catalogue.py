"""What stands behind the names of a database: views, functions, and the schemas in which a name can be found.

Read as the collector of posture reads it, and held against nothing: a name without a schema may be any relation of that
name, and a call any function of that name, so a statement is judged by all of them. Too much is judged rather than too
little. What a session makes is known as soon as it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import psycopg

from collectors.gateway.judging.standing import Standing, View
from collectors.posture import source
from collectors.posture.functions import read_entry
from pgwitness.core.events import qualified, quote_identifier
from pgwitness.core.sql.tree.facts import Made
from pgwitness.core.sql.tree.stands import Stand

FOLLOWED_MAX: Final = 1_000
"""Functions that are looked into for one statement; who wants more is not known."""
MADE_MAX: Final = 5_000
"""What sessions have made of which is known what it is; of more it is not."""
LISTED_MAX: Final = 5_000
"""So many functions are read of a database (`collectors.posture.queries`)."""
LOCK_TIMEOUT: Final = "1s"
_FULL: Final = re.compile(r'(?:"(?:[^"]|"")*"|[^".]+)\.("(?:[^"]|"")*"|[^".]+)')


class Catalogue(NamedTuple):
    """A database: relations in full by their bare names, functions by their last name, and what stands for what.

    `attached` are functions that something runs unnamed: triggers, defaults, operators, views. `whole` is false where
    more was made than is kept.
    """

    relations: Mapping[str, tuple[str, ...]] = {}
    views: Mapping[str, View] = {}
    functions: Mapping[str, tuple[Made, ...]] = {}
    attached: frozenset[str] = frozenset()
    standing: Standing = Standing()
    whole: bool = True
    system: frozenset[str] = frozenset()
    """Names of functions of the server itself."""

    def unknown(self, names: Iterable[str]) -> bool:
        """Return whether a function of these names may do what is not known, because not all that was made is."""
        if self.whole:
            return False
        return any((last := last_of(name)) not in self.functions and last not in self.system for name in names)

    def meant(self, name: str) -> tuple[str, ...]:
        """Return what a name may mean; what nobody knows is taken to be in `public`, and names of the system stay."""
        if "." in name or name.startswith("pg_"):
            return (name,)
        return self.relations.get(name) or (f"public.{name}",)

    def called(self, names: Iterable[str]) -> Iterator[Made]:
        """Give what functions of these names run, and what those call; a name `.f` is called as a column is read.

        Whether all was followed says `follows`.
        """
        waiting, seen = list(names), set[str]()
        while waiting and len(seen) < FOLLOWED_MAX:
            name = waiting.pop()
            bodies = self.functions.get(last_of(name), ())
            if name in seen or not bodies:
                continue
            seen.add(name)
            for body in bodies:
                if not name.startswith(".") or body.of_row:
                    waiting += [*body.functions, *body.perhaps]
                    yield body

    def runs_attached(self, name: str) -> bool:
        """Return whether something runs a function of this name unnamed, by itself or through others."""
        last = last_of(name)
        if last in self.attached:
            return True
        return any(last in map(last_of, (*body.functions, *body.perhaps)) for body in self.called(self.attached))

    def with_made(self, made: Iterable[Made]) -> Catalogue:
        """Return it with functions that a statement makes."""
        functions = dict(self.functions)
        for body in made:
            name = last_of(body.name)
            if body not in functions.get(name, ()):
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
    calls: dict[str, tuple[str, ...]] = {}
    for schema, name, function in connection.execute(_CALLED_BY_VIEWS):
        view = qualified(str(schema), str(name))
        calls[view] = (*calls.get(view, ()), quote_identifier(str(function)))
    views = {}
    for name, (whole, *lists) in source.views(connection):
        relations, columns, shown = (tuple(map(str, names)) for names in lists if isinstance(names, list))
        views[name] = View(relations, columns, shown, relations if whole is True else (), calls.pop(name, ()))
    views |= {name: View((), (), (), (), functions) for name, functions in calls.items()}
    relations_by: dict[str, list[str]] = {}
    for name in dict.fromkeys((*tables, *views)):
        relations_by.setdefault(_bare(name), []).append(name)
    attached = frozenset(quote_identifier(str(name)) for (name,) in connection.execute(_ATTACHED))
    parts = [
        Stand("child", qualified(*map(str, row[:2])), (qualified(*map(str, row[2:])),))
        for row in connection.execute(_PARTS)
    ]
    return Catalogue(
        {name: tuple(full) for name, full in relations_by.items()},
        views,
        functions := _functions(connection, set(tables)),
        attached,
        Standing(views={name: (view,) for name, view in views.items()}).with_stands(parts, {}),
        sum(map(len, functions.values())) < LISTED_MAX,
        frozenset(str(name) for (name,) in connection.execute(_SYSTEM)),
    )


def _functions(connection: psycopg.Connection[tuple[object, ...]], tables: set[str]) -> dict[str, tuple[Made, ...]]:
    functions: dict[str, tuple[Made, ...]] = {}
    of_row = {row[0] for row in connection.execute(_OF_ROW)}
    found = {one.oid: one for one in source.functions(connection)}
    for definition in source.definitions(connection, list(found)):
        item = read_entry(definition, tables, wary=True)
        if item is not None and definition.oid in found:
            entry, reader = item
            does = [tuple(map(str, names)) for names in entry[1:] if isinstance(names, list)]
            name = last_of(found[definition.oid].name)
            operations, relations, columns, called, whole = does
            made = Made(
                name, operations, relations, columns, called, whole, reader.where,
                definition.oid in of_row, reader.given, tuple(reader.perhaps),
            )  # fmt: skip
            functions[name] = (*functions.get(name, ()), made)
    return functions


_ATTACHED: Final = """
SELECT DISTINCT p.proname::text FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_proc AS p
  ON d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.refobjid
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgwitness') AND d.deptype IN ('n', 'a', 'i')
ORDER BY 1 LIMIT 5000"""
"""Functions on which something depends: what triggers, defaults, checks, operators, views and the like run."""
_SYSTEM: Final = """
SELECT DISTINCT proname::text FROM pg_catalog.pg_proc WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace"""
_PARTS: Final = """
SELECT n.nspname::text, c.relname::text, m.nspname::text, p.relname::text FROM pg_catalog.pg_inherits AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace AS m ON m.oid = p.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') ORDER BY i.inhrelid, i.inhseqno LIMIT 50000"""
_CALLED_BY_VIEWS: Final = """
SELECT DISTINCT n.nspname::text, v.relname::text, p.proname::text FROM pg_catalog.pg_class AS v
JOIN pg_catalog.pg_namespace AS n ON n.oid = v.relnamespace
JOIN pg_catalog.pg_rewrite AS r ON r.ev_class = v.oid AND r.ev_type = '1'
JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
  AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
JOIN pg_catalog.pg_proc AS p ON p.oid = d.refobjid
WHERE v.relkind IN ('v', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgwitness')
ORDER BY 1, 2, 3 LIMIT 5000"""
_OF_ROW: Final = """
SELECT p.oid::bigint FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_type AS t ON t.oid = p.proargtypes[0]
WHERE p.pronargs - p.pronargdefaults <= 1 AND t.typtype IN ('c', 'p', 'd')"""
"""Functions that may be called as a column is read."""


def _bare(name: str) -> str:
    """Return the name of a relation without its schema; a point may stand in quotes."""
    found = _FULL.fullmatch(name)
    return name if found is None else found[1]
