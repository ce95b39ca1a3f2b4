"""Which names of a database stand for others: renamed relations, schemas and columns, views, parents and their parts.

What sessions of the gateway do to names is kept for as long as the gateway runs, so a label that names a table goes on
to hold when it has another name. A part of a table is read with it, and whoever reads a part reads of the whole; what
another part holds he does not read. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Final, NamedTuple

from pgwitness.core.sql.tree.stands import Stand

STEPS_MAX: Final = 2_000
"""Names that are followed for one statement."""
UP: Final = 1
DOWN: Final = 2
_TEMP: Final = "pg_temp."


class View(NamedTuple):
    """What a view reads: relations, their columns as `schema.table.column`; `shown` are its own columns.

    `whole` are the relations of which all rows come through, `functions` what it calls.
    """

    relations: tuple[str, ...]
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    whole: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()

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


class Standing(NamedTuple):
    """Names that stand for others, each in full; what was made without a schema stands under its bare name."""

    renamed: Mapping[str, tuple[str, ...]] = {}
    """Relations by what they are called, and what they were."""
    schemas: Mapping[str, tuple[str, ...]] = {}
    columns: Mapping[str, Mapping[str, tuple[str, ...]]] = {}
    """By relation and what a column is called."""
    parents: Mapping[str, tuple[str, ...]] = {}
    children: Mapping[str, tuple[str, ...]] = {}
    views: Mapping[str, tuple[View, ...]] = {}

    def with_stands(self, stands: Iterable[Stand], meant: Mapping[str, tuple[str, ...]]) -> Standing:
        """Return it with what statements have made stand; `meant` gives what names without a schema may mean."""
        made = Standing(
            dict(self.renamed), dict(self.schemas), dict(self.columns), dict(self.parents), dict(self.children),
            dict(self.views),
        )  # fmt: skip
        for stand in stands:
            names = _in_full([stand.name], meant, new=True) if stand.sort != "column" else [stand.name]
            behind = list(stand.behind) if stand.sort == "schema" else _in_full(stand.behind, meant)
            if stand.sort == "view":
                columns = tuple(full for column in stand.columns for full in _column(column, meant))
                view = View(tuple(behind), columns, stand.shown, (), stand.functions)
                for name in names:
                    _add(made.views, name, (view,))
            elif stand.sort == "column":
                for relation in behind:
                    columns_of = dict(made.columns.get(relation, {}))
                    _add(columns_of, stand.name, stand.columns)
                    made.columns[relation] = columns_of  # type: ignore[index]
            elif stand.sort == "child":
                for name in names:
                    _add(made.parents, name, behind)
                for parent in behind:
                    _add(made.children, parent, names)
            else:
                into = made.schemas if stand.sort == "schema" else made.renamed
                _add(into, stand.name if stand.sort == "schema" else names[0], behind)
                for name in names[1:] if stand.sort == "relation" else ():
                    _add(into, name, behind)
        return made

    def behind(self, relations: Iterable[str], columns: Iterable[str]) -> tuple[dict[str, set[str]], set[str], bool]:
        """Return what is read where relations and columns of them are named: columns by relation, and functions.

        The last says whether all was followed.
        """
        asked: dict[str, set[str]] = {name: set() for name in relations}
        for column in columns:
            relation, point, last = column.rpartition(".")
            if point:
                asked.setdefault(relation, set()).add(last)
        ways = dict.fromkeys(asked, UP | DOWN)
        functions = set[str]()
        queue = deque(asked)
        steps = 0
        while queue and steps < STEPS_MAX:
            steps += 1
            name = queue.popleft()
            for other, names, way in [*self._others(name, asked[name], ways[name], functions)]:
                known, before = asked.setdefault(other, set()), ways.get(other, 0)
                if names <= known and before | way == before:
                    continue
                known |= names
                ways[other] = before | way
                queue.append(other)
        return asked, functions, not queue

    def whole(self, name: str) -> Iterator[str]:
        """Give the relations of which every row comes where every row of one is read."""
        bare = name.rpartition(".")[2]
        for each in dict.fromkeys((name, bare)):
            yield from self.renamed.get(each, ())
            yield from self.children.get(each, ())
            for view in self.views.get(each, ()):
                yield from view.whole

    def _others(self, name: str, asked: set[str], way: int, functions: set[str]) -> Iterator[tuple[str, set[str], int]]:
        """Give what one name stands for: relation, columns, and in which direction it is followed."""
        bare = name.rpartition(".")[2]
        columns = self.columns.get(name, {})
        was = {before for column in asked for before in columns.get(column, ())}
        if was - asked:
            yield name, was, way
        for each in dict.fromkeys((name, bare)):
            for other in self.renamed.get(each, ()):
                yield other, set(asked), way
            if way & UP:
                for other in self.parents.get(each, ()):
                    yield other, set(asked), UP
            if way & DOWN:
                for other in self.children.get(each, ()):
                    yield other, set(asked), DOWN
            for view in self.views.get(each, ()):
                functions.update(view.functions)
                behind: dict[str, set[str]] = {other: set() for other in view.relations}
                for column in view.behind(asked):
                    relation, _, last = column.rpartition(".")
                    behind.setdefault(relation, set()).add(last)
                for other, names in behind.items():
                    yield other, names, UP | DOWN
        schema, point, last = name.rpartition(".")
        for other in self.schemas.get(schema, ()) if point else ():
            yield f"{other}.{last}", set(asked), way


def _add(known: Mapping[str, tuple[object, ...]], name: str, more: Iterable[object]) -> None:
    assert isinstance(known, dict)
    known[name] = tuple(dict.fromkeys((*known.get(name, ()), *more)))


def _in_full(names: Iterable[str], meant: Mapping[str, tuple[str, ...]], *, new: bool = False) -> list[str]:
    """Give names in full; one that is `new` and has no schema may be in any, and stands under its bare name."""
    found: list[str] = []
    for name in names:
        if "." in name:
            found.append(name)
        else:
            found += [name] if new else [name, *(meant.get(name) or (f"public.{name}",))]
    return list(dict.fromkeys(found))


def _column(column: str, meant: Mapping[str, tuple[str, ...]]) -> list[str]:
    table, point, last = column.rpartition(".")
    return [f"{full}.{last}" for full in _in_full([table], meant)] if point else []
