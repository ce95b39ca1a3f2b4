"""Opens a lake for reading: a DuckDB that has the views, that can read the lake and nothing else."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import duckdb

from pgwitness.core.errors import NotInOrder
from sinks.lake import parquet, views
from sinks.lake.files import ROWS
from sinks.lake.listing import BY_BUCKET, PARTS, Listing, empty_file, old_empty_file
from sinks.lake.schema import TABLES
from sinks.sql import spill

MEMORY_LIMIT = "1GB"
SPILL_LIMIT = "20GB"
"""What a query may keep on disk while it runs, beside its memory: a day of five million rows needs some of it."""


def _pattern(folder: str) -> str:
    """Write a folder's name so that a glob takes it as it is."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in folder)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def connect(
    lake: Path, *, memory_limit: str = MEMORY_LIMIT, spill_limit: str = SPILL_LIMIT
) -> duckdb.DuckDBPyConnection:
    """Open a lake for reading: an in-memory DuckDB with the views, times in UTC, and no way out of the lake's folder.

    What does not fit into `memory_limit` waits in a temporary folder that only this user may enter and that goes with
    the connection, up to `spill_limit`.

    Raises `NotInOrder` when there is no lake at `lake`, saying what to do.
    """
    if not any((lake / file).exists() for file in (empty_file("events"), old_empty_file("events"))):
        raise NotInOrder(
            f"there is no evidence lake at {lake}: a worker makes it when it starts (`pgwitness worker`); "
            "if it is elsewhere, set lake.path"
        )
    connection = duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "threads": 2,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    folder = f"{lake.resolve()}/"
    spilled, remove = spill.make()
    weakref.finalize(connection, remove)
    empty = {empty_file(table): _empty(lake, table, spilled) for table in TABLES}
    # DuckDB compares paths both as a query writes them and as they are on disk.
    allowed = ", ".join(_text(f"{path}") for path in (folder, _pattern(folder), f"{spilled}/"))
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute(f"SET temp_directory = {_text(str(spilled))}")
    connection.execute(f"SET max_temp_directory_size = {_text(spill_limit)}")
    connection.execute("SET enable_external_access = false")
    connection.execute(views.HEAD)
    _opened[connection] = (_pattern(folder), Listing(lake), empty)
    for part in PARTS:  # nothing but these is opened while the views are made
        nothing = [empty[empty_file(part.table)]]
        _set(connection, part.variable, nothing)
        if part in BY_BUCKET:
            _set(connection, BY_BUCKET[part], [nothing])
    for statement in duckdb.extract_statements(views.views()):
        try:
            connection.execute(statement)
        except duckdb.IOException:
            if "VIEW changes" not in statement.query:
                connection.close()
                raise
    refresh(connection, at_once=True)
    connection.execute("SET lock_configuration = true")
    return connection


_opened: weakref.WeakKeyDictionary[duckdb.DuckDBPyConnection, tuple[str, Listing, dict[str, str]]]
_opened = weakref.WeakKeyDictionary()
"""The lakes that connections of this process read: folder as a pattern, files, and those that have no rows."""


def _empty(lake: Path, table: str, beside: Path) -> str:
    """Name the file that carries a table's columns; where no worker has written it as this version does, make one."""
    file = lake.resolve() / empty_file(table)
    kept_from_us = not os.access(lake / table, os.X_OK) and (table == ROWS or (lake / table).exists())
    if kept_from_us or file.exists():
        return _pattern(f"{file}")
    own = beside / empty_file(table)
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(parquet.encode(TABLES[table].empty_table()))
    return _pattern(f"{own}")


def refresh(connection: duckdb.DuckDBPyConnection, *, at_once: bool = False) -> None:
    """Let a connection of `connect` see what has landed since it was opened, or last refreshed.

    Raises `NotInOrder` when the operating system does not let it read the lake's log.
    """
    folder, listing, empty = _opened[connection]
    try:
        changed = listing.refresh()
    except OSError as error:
        raise NotInOrder(
            f"the lake's log could not be read ({error}): look at the rights of this user and at the disk"
        ) from error
    if changed or at_once:
        for name, files in listing.lists().items():
            _set(connection, name, [empty.get(file, folder + file) for file in files])
        for name, lists in listing.lists_by_bucket().items():
            _set(connection, name, [[empty.get(file, folder + file) for file in files] for files in lists])


def _set(connection: duckdb.DuckDBPyConnection, name: str, files: list[str] | list[list[str]]) -> None:
    connection.execute(f"SET VARIABLE {name} = ?", [files])
