"""`pgwitness sql`: DuckDB on the evidence lake, as one query or as a shell."""

from __future__ import annotations

import sys
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import click

from pgwitness.cli.evidence import Recorder
from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit, say
from pgwitness.core.errors import NotInOrder

if TYPE_CHECKING:
    import duckdb

    from pgwitness.cli.output import Row


@click.command(short_help="Ask the evidence lake with SQL.")
@click.argument("query", required=False)
@click.option("--output", type=click.Path(path_type=Path), help="Write the answer to a .csv, .parquet or .json file.")
@json_option
@common
def sql(query: str | None, output: Path | None, as_json: bool, config_path: Path) -> None:
    """Ask the evidence lake with SQL; without QUERY, a shell (or the queries on stdin, when that is no terminal).

    That it was asked is evidence too: a `control` event, where the broker can be reached.
    """
    config = configuration(config_path)

    from pgwitness.cli import sql_files
    from sinks.lake.opening import lake_store
    from sinks.sql.catalogue import connect

    if output is not None:
        sql_files.check(output, config.lake.path)
    connection = connect(lake_store(config))
    recorder = Recorder(config)
    try:
        if query is None and output is None and sys.stdin.isatty():
            from pgwitness.cli.sql_shell import Shell

            Shell(connection, config.lake.path, recorder, as_json).run()
        elif output is not None:
            _write(connection, recorder, _typed() if query is None else query, output, config.lake.path)
        else:
            _answer(connection, recorder, _typed() if query is None else query, as_json)
    finally:
        recorder.close()


def _typed() -> str:
    """Read the query from stdin; raises `NotInOrder` when it is no text."""
    try:
        return click.get_binary_stream("stdin").read().decode()
    except UnicodeDecodeError as error:
        raise NotInOrder(f"what came on stdin is not text in UTF-8 (byte {error.start}); save it as UTF-8") from error


def _answer(connection: duckdb.DuckDBPyConnection, recorder: Recorder, query: str, as_json: bool) -> None:
    """Answer one query and write down that it was asked."""
    with recorder.asking(query):
        rows = ask(connection, query)
    if sys.stderr.isatty() and (gone := retired(connection)) is not None:
        say(gone)
    emit(rows, as_json=as_json, empty="no rows", paged=True)


def retired(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Say what answers lack because retention took it; None where it took nothing."""
    from sinks.sql.catalogue import state

    found = [one for one in state(connection).retired.values() if one.table != "rows"]
    if not found:
        return None
    first, last = min(one.first_day for one in found), max(one.last_day for one in found)
    rows = sum(one.rows for one in found)
    return f"retention took {rows} rows of {first} to {last}, which no answer has: `FROM retired` says which, and why"


def ask(connection: duckdb.DuckDBPyConnection, query: str, rows_max: int | None = None) -> list[Row]:
    """Run a query and return its rows by column name; of several statements, the last one's.

    Raises `NotInOrder` with DuckDB's own words.
    """
    from itertools import islice

    from sinks.sql import query as lake

    answer = lake.ask(connection, query)
    return [dict(zip(answer.columns, row, strict=True)) for row in islice(answer.rows, rows_max)]


def _write(connection: duckdb.DuckDBPyConnection, recorder: Recorder, query: str, output: Path, lake: PurePath) -> None:
    """Write the answer to one query into a file, and write down that it was asked."""
    from pgwitness.cli import sql_files

    with recorder.asking(query):
        rows = sql_files.write(connection, query, output, lake)
    say(f"{rows} rows into {output}")
