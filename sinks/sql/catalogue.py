"""Opens a lake for reading: a DuckDB that has the views, that can read the lake and nothing else."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from pgwitness.core.errors import NotInOrder, Unreachable
from sinks.lake.log.chain import State
from sinks.lake.rows import parquet
from sinks.lake.rows.schema import TABLES
from sinks.lake.storage.files import ROWS
from sinks.lake.storage.refusals import Refused
from sinks.lake.storage.store import Folder, Store, at
from sinks.lake.views import views
from sinks.lake.views.listing import BY_BUCKET, NOTHING_STANDS, PARTS, STANDING, Listing, empty_file, old_empty_file
from sinks.sql import ready, spill

if TYPE_CHECKING:
    from sinks.sql.bucket import Bucket

MEMORY_LIMIT = "1GB"
SPILL_LIMIT = "20GB"
"""What a query may keep on disk while it runs, beside its memory: a day of five million rows needs some of it."""


def _pattern(folder: str) -> str:
    """Write a folder's name so that a glob takes it as it is."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in folder)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def connect(
    lake: Path | Store, *, memory_limit: str = MEMORY_LIMIT, spill_limit: str = SPILL_LIMIT
) -> duckdb.DuckDBPyConnection:
    """Open a lake for reading: an in-memory DuckDB with the views, times in UTC, and no way out of the lake's folder.

    What does not fit into `memory_limit` waits in a temporary folder that only this user may enter and that goes with
    the connection, up to `spill_limit`.

    Raises `NotInOrder` when there is no lake at `lake`, saying what to do, and `Unreachable` when its storage does not
    answer.
    """
    store = at(lake)
    with _sentences():
        if not any(store.has(file) for file in (empty_file("events"), old_empty_file("events"))):
            raise NotInOrder(
                f"there is no evidence lake at {store.path}: a worker makes it when it starts (`pgwitness worker`); "
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
    spilled, remove = spill.make()
    weakref.finalize(connection, remove)
    with _sentences():
        source = _of_folder(store, spilled) if isinstance(store, Folder) else _of_bucket(store, spilled, connection)
    # DuckDB compares paths both as a query writes them and as they are on disk.
    allowed = ", ".join(_text(f"{path}") for path in (source.folder, source.pattern, f"{spilled}/"))
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute(f"SET temp_directory = {_text(str(spilled))}")
    connection.execute(f"SET max_temp_directory_size = {_text(spill_limit)}")
    connection.execute("SET enable_external_access = false")
    connection.execute(views.HEAD)
    _opened[connection] = source
    for part in PARTS:  # nothing but these is opened while the views are made
        nothing = [source.empty[empty_file(part.table)]]
        _set(connection, part.variable, nothing)
        if part in BY_BUCKET:
            _set(connection, BY_BUCKET[part], [nothing])
    _set(connection, STANDING, NOTHING_STANDS)
    try:
        ready.make(connection, views.views(), spilled)
    except duckdb.IOException:
        connection.close()
        raise
    refresh(connection, at_once=True)
    connection.execute("SET lock_configuration = true")
    return connection


@dataclass(frozen=True)
class _Source:
    """What a connection reads: the lake's folder, also as a pattern; its files, and where those without rows are."""

    folder: str
    pattern: str
    listing: Listing
    empty: dict[str, str]
    bucket: Bucket | None = None

    def show(self) -> None:
        """Let the bucket's file system have the files that count."""
        if self.bucket is not None:
            self.bucket.show(self.listing.live())

    def at(self, file: str) -> str:
        """Give the place of a file as DuckDB is to open it."""
        return self.empty.get(file, self.pattern + file)


_opened: weakref.WeakKeyDictionary[duckdb.DuckDBPyConnection, _Source] = weakref.WeakKeyDictionary()
"""What connections of this process read."""
_still: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
"""Those that do not see what lands now."""


def _of_folder(store: Folder, beside: Path) -> _Source:
    folder = f"{store.path.resolve()}/"
    empty = {empty_file(table): _empty(store.path, table, beside) for table in TABLES}
    return _Source(folder, _pattern(folder), Listing(store.path), empty)


def _of_bucket(store: Store, beside: Path, connection: duckdb.DuckDBPyConnection) -> _Source:
    from sinks.lake.storage.objects import Objects
    from sinks.sql.bucket import Bucket

    assert isinstance(store, Objects)
    folder, bucket = f"{store.path}/", Bucket(store)
    connection.register_filesystem(bucket)
    empty = {empty_file(table): _own_empty(table, beside) for table in TABLES}
    try:
        store.has(empty_file(ROWS))
    except Refused:
        empty[empty_file(ROWS)] = folder + empty_file(ROWS)  # which cannot be opened, like all row images
    return _Source(folder, folder, Listing(store), empty, bucket)


def _empty(lake: Path, table: str, beside: Path) -> str:
    """Name the file that carries a table's columns; where no worker has written it as this version does, make one."""
    file = lake.resolve() / empty_file(table)
    kept_from_us = not os.access(lake / table, os.X_OK) and (table == ROWS or (lake / table).exists())
    return _pattern(f"{file}") if kept_from_us or file.exists() else _own_empty(table, beside)


def _own_empty(table: str, beside: Path) -> str:
    own = beside / empty_file(table)
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(parquet.encode(TABLES[table].empty_table()))
    return _pattern(f"{own}")


def refresh(connection: duckdb.DuckDBPyConnection, *, at_once: bool = False) -> None:
    """Let a connection of `connect` see what has landed since it was opened, or last refreshed.

    Raises `NotInOrder` when the operating system or the storage does not let it read the lake's log.
    """
    if connection in _still:
        return
    source = _opened[connection]
    with _sentences():
        changed = source.listing.refresh()
    if changed or at_once:
        source.show()
        for name, files in source.listing.lists().items():
            _set(connection, name, [source.at(file) for file in files])
        _set(connection, STANDING, source.listing.standing())
        for name, lists in source.listing.lists_by_bucket().items():
            _set(connection, name, [[source.at(file) for file in files] for files in lists])


def state(connection: duckdb.DuckDBPyConnection) -> State:
    """Give what the lake's log amounts to as a connection of `connect` sees it: by it answers can be dated."""
    return _opened[connection].listing.state


@contextmanager
def still(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let several queries of a connection see one state of the lake, what had landed when this began."""
    refresh(connection)
    _still.add(connection)
    try:
        yield
    finally:
        _still.discard(connection)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, Refused) and error.unreachable:
            raise Unreachable(f"the lake cannot be reached ({error}): {error.advice}") from error
        advice = error.advice if isinstance(error, Refused) else "look at the rights of this user and at the disk"
        raise NotInOrder(f"the lake's log could not be read ({error}): {advice}") from error


def _set(connection: duckdb.DuckDBPyConnection, name: str, value: list[str] | list[list[str]] | str) -> None:
    connection.execute(f"SET VARIABLE {name} = ?", [value])
