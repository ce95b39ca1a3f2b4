"""Writes the answer of a query into a file: CSV, Parquet or JSON, by the file's ending.

The file is there whole or not at all, its user's alone; nothing is written into the lake.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING

from pgwitness.cli.output import to_json
from pgwitness.core.errors import NotInOrder

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from sinks.sql.query import Answer

ENDINGS = (".csv", ".parquet", ".json")
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\w.,: ]*$)")
"""How a formula of a spreadsheet begins (OWASP, CSV injection); `-5` and `-infinity` are none."""


def outside(path: Path, lake: PurePath) -> None:
    """Raise `NotInOrder` for a file in the lake's folder."""
    if isinstance(lake, Path) and path.expanduser().resolve().is_relative_to(lake.resolve()):
        raise NotInOrder(f"{path} lies in the lake, where nobody writes but its worker; name another folder")


def check(path: Path, lake: PurePath) -> None:
    """Raise `NotInOrder` where no answer may be written to: another ending, inside of the lake, no such folder."""
    if path.suffix.lower() not in ENDINGS:
        raise NotInOrder(f"{path}: by its ending a file is written as .csv, .parquet or .json; name it so")
    place = path.expanduser().resolve()
    outside(path, lake)
    if not place.parent.is_dir():
        raise NotInOrder(f"{place.parent} is no folder; make it, or name another")


def write(connection: duckdb.DuckDBPyConnection, query: str, path: Path, lake: PurePath) -> int:
    """Ask `query` and write its answer to `path`; return the number of rows.

    Raises `NotInOrder` as `check` does, as `sinks.sql.query` does, and when the file cannot be written.
    """
    from sinks.sql import query as asking

    check(path, lake)
    path = path.expanduser()
    written = _WRITERS.get(path.suffix.lower())
    try:
        if written is None:
            reader = asking.batches(connection, query)
            with whole(path) as file:
                return _parquet(reader, file)
        answer = asking.ask(connection, query)
        with whole(path) as file:
            return written(answer, file)
    except OSError as error:
        raise NotInOrder(f"{path} could not be written: {error.strerror or error}") from error


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Give a file that takes the name `path` once everything is in it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _csv(answer: Answer, file: IO[bytes]) -> int:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    out = csv.writer(text)
    out.writerow(map(_cell, answer.columns))
    rows = 0
    for row in answer.rows:
        out.writerow(map(_cell, row))
        rows += 1
    text.flush()
    text.detach()
    return rows


def _cell(value: object) -> object:
    """Write a value so that a spreadsheet shows it: a text that it would take for a formula gets an apostrophe.

    Names of applications, roles and relations are chosen by those whom the evidence is about.
    """
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    return to_json(value) if isinstance(value, list | dict) else value


def _json(answer: Answer, file: IO[bytes]) -> int:
    rows = 0
    for row in answer.rows:
        file.write((",\n" if rows else "[\n").encode() + to_json(dict(zip(answer.columns, row, strict=True))).encode())
        rows += 1
    file.write(b"\n]\n" if rows else b"[]\n")
    return rows


def _parquet(reader: pa.RecordBatchReader, file: IO[bytes]) -> int:
    import pyarrow.parquet as pq

    rows = 0
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


_WRITERS = {".csv": _csv, ".json": _json}
