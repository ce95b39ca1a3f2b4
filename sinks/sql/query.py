"""Asking the lake: one query in, columns and a stream of rows out; what `pgwitness sql` is made of.

Nothing that a query can say changes the lake or reaches outside of it (`sinks.sql.reading_only`); times come in UTC.
Works on a connection of `sinks.sql.catalogue`, and sees what had landed when the query began.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from pgwitness.core.errors import NotInOrder
from sinks.sql import catalogue
from sinks.sql.reading_only import only_reads

FETCH_ROWS = 1_000
_INSTANT = "TIMESTAMP WITH TIME ZONE"
_ENDLESS = {datetime.max: "infinity", datetime.min: "-infinity"}  # noqa: DTZ901  # so DuckDB gives them
_GONE = re.compile("No files found|No such file")
_RAISED = re.compile(r"^(?:sinks\.lake\.refusals\.)?(?:Refused|[A-Za-z]+Error): (.+)$", re.MULTILINE)
"""What the file system of a bucket raised, in the traceback that DuckDB makes its message of."""


@dataclass(frozen=True)
class Answer:
    """The columns of an answer, told apart where two have one name, and its rows, read as they are asked for."""

    columns: list[str]
    rows: Iterator[tuple[Any, ...]]


def ask(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    *,
    timeout_s: float | None = None,
    values: Sequence[object] = (),
) -> Answer:
    """Run the statements of `query` and give the answer of the last one; `values` stand for its parameters.

    Raises `NotInOrder` when DuckDB refuses it, when it does more than read, and when it takes longer than `timeout_s`:
    until the first row, and likewise for each `FETCH_ROWS` after that.
    """
    with _Limit(connection, timeout_s):
        statements = _statements(connection, query)
        for statement in statements[:-1]:
            connection.execute(statement)
        if statements:
            connection.execute(statements[-1], values or None)
    if not statements or connection.description is None:
        return Answer([], iter(()))
    return Answer(_columns(connection.description), _rows(connection, timeout_s))


def batches(connection: duckdb.DuckDBPyConnection, query: str) -> pa.RecordBatchReader:
    """Run the statements of `query` and return the answer of the last one in batches, with the types it has.

    Raises `NotInOrder` as `ask` does, also while the batches are read.
    """
    with _Limit(connection, None):
        *before, last = _statements(connection, query) or [""]
        for statement in before:
            connection.execute(statement)
        relation = connection.sql(last) if last else None
        if relation is None:
            return pa.RecordBatchReader.from_batches(pa.schema([]), [])
        columns = _columns(relation.description)
        reader = relation.to_arrow_reader(FETCH_ROWS)
    schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, columns, strict=True)])
    return pa.RecordBatchReader.from_batches(schema, _batches(connection, reader, columns))


def _statements(connection: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    """Take a query apart, each statement as it may be run; what has landed by now is seen."""
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise NotInOrder("the query is not text in UTF-8; write what has other bytes as E'\\x..' or chr()") from error
    statements = [only_reads(connection, statement.query) for statement in connection.extract_statements(query)]
    catalogue.refresh(connection)
    return statements


def _columns(description: Sequence[tuple[Any, ...]]) -> list[str]:
    """Name the columns; a name that came before, or that another column has, is told apart by its place."""
    taken, columns = {column[0] for column in description}, dict[str, None]()
    for place, (name, *_) in enumerate(description, 1):
        own = name
        while own in columns or (own != name and own in taken):
            own = f"{own}_{place}"
        columns[own] = None
    return list(columns)


def _batches(
    connection: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader, columns: list[str]
) -> Iterator[pa.RecordBatch]:
    with _Limit(connection, None):
        for batch in reader:
            yield batch.rename_columns(columns)


def _rows(connection: duckdb.DuckDBPyConnection, timeout_s: float | None) -> Iterator[tuple[Any, ...]]:
    instants = [place for place, column in enumerate(connection.description or ()) if str(column[1]) == _INSTANT]
    while True:
        with _Limit(connection, timeout_s):
            rows = connection.fetchmany(FETCH_ROWS)
        if not rows:
            return
        for row in rows:
            yield _with_ends(row, instants) if instants else row


def _with_ends(row: tuple[Any, ...], instants: Sequence[int]) -> tuple[Any, ...]:
    """Write infinity as that; DuckDB gives it as the first or last time that Python has, without a time zone."""
    cells = list(row)
    for place in instants:
        cells[place] = _ENDLESS.get(cells[place], cells[place])
    return tuple(cells)


def in_words(error: duckdb.Error) -> NotInOrder:
    """Return DuckDB's error as ours; of a file that is there no more it says what to do."""
    said = str(error)
    if raised := _RAISED.search(said):
        said = raised[1]
    if (raised or isinstance(error, duckdb.IOException)) and _GONE.search(said):
        return NotInOrder(
            f"{said}\nThe lake has this file no more. Ask again (reopen): it may just have been replaced. If it "
            "stays away, somebody has removed it: `pgwitness doctor` names what is missing, restore it from a copy"
        )
    return NotInOrder(said)


class _Limit:
    """Interrupts what takes too long, and turns DuckDB's errors into ours."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._timer = threading.Timer(timeout_s or 0.0, connection.interrupt)

    def __enter__(self) -> None:
        if self._timeout_s is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._timer.cancel()
        if isinstance(error, duckdb.InterruptException):
            if self._timeout_s is None:
                raise NotInOrder("the query was cancelled") from error
            raise NotInOrder(
                f"the query took longer than {self._timeout_s:g} s; ask for less time, such as dt = current_date"
            ) from error
        if isinstance(error, duckdb.Error):
            raise in_words(error) from error
