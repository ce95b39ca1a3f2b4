"""`pgwitness sql`: DuckDB on the evidence lake, as one query or as a shell."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgwitness.cli.evidence import Recorder
from pgwitness.cli.options import common, configuration, json_option
from pgwitness.cli.output import emit, say
from pgwitness.core.errors import NotInOrder

if TYPE_CHECKING:
    import duckdb

    from pgwitness.cli.output import Row

HELP = """\
A query ends with `;`. Views: events, changes, ddl, statements, query_stats, sessions, posture, control, gaps,
alerts, coverage, reconciliation, statement_coverage. Macros: touched('schema.table', key), timeline('principal').
Rows that are too wide stand one below the other; what is cut ends in … and the number of letters that are missing.
.tables lists the views, .columns VIEW its columns, .help shows this, .quit or Ctrl-D ends."""


@click.command(short_help="Ask the evidence lake with SQL.")
@click.argument("query", required=False)
@json_option
@common
def sql(query: str | None, as_json: bool, config_path: Path) -> None:
    """Ask the evidence lake with SQL; without QUERY, a shell (or the queries on stdin, when that is no terminal).

    That it was asked is evidence too: a `control` event, where the broker can be reached.
    """
    config = configuration(config_path)

    from sinks.sql.catalogue import connect

    connection = connect(config.lake.path)
    recorder = Recorder(config)
    try:
        if query is None and sys.stdin.isatty():
            _shell(connection, recorder, as_json)
        else:
            _answer(connection, recorder, query or sys.stdin.read(), as_json)
    finally:
        recorder.close()


def _answer(connection: duckdb.DuckDBPyConnection, recorder: Recorder, query: str, as_json: bool) -> None:
    """Answer one query and write down that it was asked."""
    try:
        rows = ask(connection, query)
    except NotInOrder:
        recorder.query(query, "failure")
        raise
    recorder.query(query, "success")
    emit(rows, as_json=as_json, empty="no rows", paged=True)


def ask(connection: duckdb.DuckDBPyConnection, query: str) -> list[Row]:
    """Run a query and give its rows by column name; of several statements, the last one's.

    Raises `NotInOrder` with DuckDB's own words.
    """
    from sinks.sql import query as lake

    answer = lake.ask(connection, query)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def _shell(connection: duckdb.DuckDBPyConnection, recorder: Recorder, as_json: bool) -> None:
    import atexit
    import readline

    history = Path("~/.pgwitness_history").expanduser()
    with contextlib.suppress(OSError):  # the first time there is none, and a shell without history is still one
        readline.read_history_file(history)
    atexit.register(_keep_history, history)
    readline.parse_and_bind("tab: complete")
    say("DuckDB on the evidence lake; .help shows what there is")
    pending = ""
    while True:
        try:
            line = input("     ...> " if pending else "evidence> ")
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            pending = ""
            say("")
            continue
        if not pending and line.strip().startswith("."):
            if line.strip() in (".quit", ".exit"):
                return
            _dot(connection, line.strip(), as_json)
            continue
        pending = f"{pending}\n{line}" if pending else line
        if not pending.strip():
            pending = ""
        elif pending.rstrip().endswith(";"):
            try:
                _answer(connection, recorder, pending, as_json)
            except NotInOrder as error:
                say(str(error))
            pending = ""


def _keep_history(path: Path) -> None:
    import readline

    try:
        readline.set_history_length(1_000)
        readline.write_history_file(path)
        path.chmod(0o600)
    except OSError:
        return  # a home that cannot be written to costs the history, nothing else


def _dot(connection: duckdb.DuckDBPyConnection, line: str, as_json: bool) -> None:
    if line == ".help":
        say(HELP)
    elif line == ".tables":
        emit(ask(connection, TABLES), as_json=as_json)
    elif line.startswith(".columns "):
        view = line.split(maxsplit=1)[1].replace("'", "''")
        emit(ask(connection, COLUMNS.format(view=view)), as_json=as_json, empty=f"no view {view}; .tables lists them")
    else:
        say(f"{line}: unknown; .help shows what there is")


TABLES = """
SELECT table_name AS view, count(*) AS columns
FROM information_schema.columns WHERE table_schema = 'main' GROUP BY table_name ORDER BY table_name
"""
COLUMNS = """
SELECT column_name AS "column", data_type AS type
FROM information_schema.columns WHERE table_schema = 'main' AND table_name = '{view}' ORDER BY ordinal_position
"""
