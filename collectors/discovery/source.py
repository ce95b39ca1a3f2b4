"""Asks a database for its columns, and for the shares of values that have a form. The shell of discovery.

Reads only: the catalogues, what ANALYZE has kept, and of tables that were never analysed the first rows, unless some of
them are on another server. Each statement has a timeout and all of them together a budget; what they do not reach is
judged by its name and type alone. Names are sent back in the bytes in which they came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import psycopg
from msgspec.structs import replace

from collectors.discovery import queries
from collectors.discovery.columns import Column, Shares
from collectors.texts import keep_texts, shown, statement

Connection = psycopg.Connection[tuple[Any, ...]]

TABLES_AT_ONCE = 500
VALUES = 25
"""Of the commonest values of a column, and of its spread, so many are looked at."""
ROWS = 200
"""Of a table that was never analysed so many rows are looked at."""
STATEMENT_S_MAX = 10.0
SAMPLE_S_MAX = 2.0
_PLAIN = {"text", "number", "json"}


_Answer = list[tuple[Any, ...]] | str | None
"""Rows, the SQLSTATE of an error, or nothing where it took too long or a lock was held."""


class Asked(NamedTuple):
    """What a database said: its columns, with the type that each was declared with, and what could not be looked at.

    `unread` tables the role may not read, or not all rows of them, `late` ones are slow or locked, and of `failed` ones
    a look at the values ended with an error, whose SQLSTATE stands beside the name: its message might quote a value.
    `elsewhere` are tables with partitions or children on other servers, which are not asked.
    """

    columns: list[Column]
    declared: dict[tuple[str, str, str], str]
    generated: frozenset[tuple[str, str, str]]
    unread: list[str]
    late: list[str]
    failed: dict[str, str]
    elsewhere: list[str]


class _Table(NamedTuple):
    oid: int
    relkind: str
    columns: list[Column]
    sampled: list[bool]
    remote: bool

    @property
    def name(self) -> str:
        return shown(f"{self.columns[0].schema}.{self.columns[0].table}")


def ask(connection: Connection, budget_s: float, clock: Callable[[], float] = time.monotonic) -> Asked:
    """Ask a database, for not much longer than `budget_s`.

    Raises `psycopg.Error` when its catalogues cannot be read or the connection is lost.
    """
    end = clock() + budget_s
    keep_texts(connection)
    connection.execute(queries.SETTINGS)
    _limit(connection, max(budget_s, 1.0))
    rows = connection.execute(queries.COLUMNS).fetchall()
    declared = {_place(row): row[13] for row in rows}
    generated = frozenset(_place(row) for row in rows if row[12])
    tables = [_table(oid, list(group)) for oid, group in groupby(rows, key=lambda row: row[0])]
    look = _Look(connection, end, clock)
    stored = [table for table in tables if table.relkind in {"r", "p", "m"}]
    for begin in range(0, len(stored), TABLES_AT_ONCE):
        look.at_statistics(stored[begin : begin + TABLES_AT_ONCE])
    done = {*look.late, *look.failed}
    unseen = [table for table in stored if table.oid not in look.known and table.name not in done]
    for table in unseen:
        if not table.remote:
            look.at_rows(table)
    elsewhere = [table.name for table in unseen if table.remote]
    unread = [t.name for t in stored if not all(column.readable for column in t.columns)]
    columns = [column for table in tables for column in _with(table, look.known.get(table.oid, {}))]
    return Asked(columns, declared, generated, unread, look.late, look.failed, elsewhere)


def _place(row: tuple[Any, ...]) -> tuple[str, str, str]:
    return shown(row[1]), shown(row[2]), shown(row[3])


def _table(oid: int, rows: list[tuple[Any, ...]]) -> _Table:
    columns = [
        Column(
            schema=row[1],
            table=row[2],
            name=row[3],
            type=row[5],
            category=row[6],
            view=row[7] in {"v", "m"},
            key=row[9],
            labelled=row[10],
            readable=row[11],
        )
        for row in rows
    ]
    return _Table(oid, rows[0][7], columns, [row[8] for row in rows], rows[0][14])


def _with(table: _Table, known: dict[str, tuple[Shares, bool]]) -> Iterator[Column]:
    for column in table.columns:
        shares, few = known.get(column.name, (None, False))
        names = shown(column.schema), shown(column.table), shown(column.name)
        yield replace(column, schema=names[0], table=names[1], name=names[2], shares=shares, few=few)


class _Look:
    """Looks at values until `end`; `known` are the shares by table and column."""

    def __init__(self, connection: Connection, end: float, clock: Callable[[], float]) -> None:
        self._connection, self._end, self._clock = connection, end, clock
        self.known: dict[int, dict[str, tuple[Shares, bool]]] = {}
        self.late: list[str] = []
        self.failed: dict[str, str] = {}

    def at_statistics(self, tables: list[_Table]) -> None:
        """Look at what ANALYZE has kept of tables; where one of them fails, the others are looked at without it."""
        parameters = {"roots": [table.oid for table in tables], "values": VALUES}
        rows = self._within(queries.STATISTICS, parameters, STATEMENT_S_MAX)
        if isinstance(rows, str) and len(tables) > 1:
            self.at_statistics(tables[: len(tables) // 2])
            self.at_statistics(tables[len(tables) // 2 :])
            return
        for root, name, seen, *counts, few in self._answered(rows, tables):
            hits = dict(zip(queries.FORMS, counts, strict=True))
            self.known.setdefault(root, {})[name] = (Shares(seen, hits, "statistics"), bool(few))

    def at_rows(self, table: _Table) -> None:
        """Look at the first rows of a table."""
        chosen = [
            column
            for column, plain in zip(table.columns, table.sampled, strict=True)
            if plain and column.readable and column.kind in _PLAIN
        ]
        if not chosen:
            return
        name = f"{_quoted(chosen[0].schema)}.{_quoted(chosen[0].table)}"
        rows = self._within(queries.sample(name, [_quoted(column.name) for column in chosen], ROWS), None, SAMPLE_S_MAX)
        for place, seen, *counts in self._answered(rows, [table]):
            hits = dict(zip(queries.FORMS, counts, strict=True))
            self.known.setdefault(table.oid, {})[chosen[place].name] = (Shares(seen, hits, "sample"), False)

    def _answered(self, rows: _Answer, tables: list[_Table]) -> list[tuple[Any, ...]]:
        """Return the rows, none where the tables were late or failed, which is kept."""
        if rows is None:
            self.late += [table.name for table in tables]
        elif isinstance(rows, str):
            self.failed |= {table.name: rows for table in tables}
        else:
            return rows
        return []

    def _within(self, query: str, parameters: Any, seconds_max: float) -> _Answer:
        """Ask under a timeout. Raises `psycopg.Error` when the connection is lost."""
        seconds = min(self._end - self._clock(), seconds_max)
        if seconds <= 0:
            return None
        try:
            _limit(self._connection, seconds)
            return self._connection.execute(statement(self._connection, query), parameters).fetchall()
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            return None
        except psycopg.Error as error:
            if self._connection.closed or error.sqlstate is None:
                raise
            return error.sqlstate


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _limit(connection: Connection, seconds: float) -> None:
    connection.execute("SELECT set_config('statement_timeout', %s, false)", [f"{max(int(seconds * 1000), 1)}ms"])
