"""The lake as tables of Iceberg, so that Trino, Spark, Athena and others can ask it: files stay where they are.

A table's snapshot names the files that count by the lake's log at one entry, which stands in its properties. Publishing
again follows the log: files that came are added, those that were replaced or retired go, in one snapshot, so that no
row is there twice or not at all. Only metadata is written, to a warehouse beside the lake. One publishes at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NamespaceAlreadyExistsError, NoSuchTableError
from pyiceberg.io.pyarrow import (
    MetricModeTypes,
    MetricsMode,
    StatisticsCollector,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import TableProperties
from pyiceberg.typedef import Record
from pyiceberg.types import LongType
from sqlalchemy.exc import SQLAlchemyError

from pgwitness.core.config import S3
from pgwitness.core.errors import NotInOrder, Retry
from sinks.lake.log.chain import File
from sinks.lake.rows.schema import TABLES
from sinks.lake.storage.store import Folder, Store
from sinks.lake.views.listing import Listing

if TYPE_CHECKING:
    from pyiceberg.table import Table

NAMESPACE = "pgwitness"
BATCH_FILES = 200
"""Files that a snapshot adds where nothing goes: more would make one commit long, and its loss expensive."""
TRIES_MAX = 3
UNWATCHED = MetricsMode(MetricModeTypes.NONE)
LEFT_OUT = {"dt": 1_000_000, "touch": 1_000_001, "touch_before": 1_000_002}
"""Columns of files that no table has: the day of capture stands in files of months alone, and Iceberg knows no numbers
without a sign. The ids are beyond those that a table gives away; without one, a file cannot be read."""


@dataclass(frozen=True)
class Published:
    """What became of a table: files that came and went, what it has now, and the entry of the log it stands for."""

    table: str
    added: int
    removed: int
    files: int
    rows: int
    entry: int


@contextmanager
def opened(
    store: Store, folder: Path, *, uri: str | None = None, warehouse: str | None = None, s3: S3 | None = None
) -> Iterator[Publisher]:
    """Give the publisher of a lake; the catalogue and the warehouse lie in `folder` unless they are named.

    Raise `NotInOrder` where another one is publishing into the folder, or the catalogue cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve()
    settings = {"uri": uri or f"sqlite:///{path}/catalog.db", "warehouse": warehouse or f"file://{path}"}
    if s3 is not None:
        region = s3.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        settings |= {"s3.region": region} | ({"s3.endpoint": s3.endpoint} if s3.endpoint else {})
    root = f"file://{store.path.resolve()}/" if isinstance(store, Folder) else f"{store.path}/"
    with (folder / ".publishing").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotInOrder(f"another export is publishing into {folder}: let it end, then start again") from None
        try:
            catalog = SqlCatalog(NAMESPACE, **settings)
        except SQLAlchemyError as error:
            raise NotInOrder(f"the catalogue {settings['uri'].partition('?')[0]} cannot be opened: {error}") from error
        try:
            yield Publisher(catalog, Listing(store), root)
        finally:
            catalog.close()


class Publisher:
    """Publishes a lake into a catalogue. `root` is what its files' names begin with there, such as `file:///srv/lake/`."""

    def __init__(self, catalog: SqlCatalog, listing: Listing, root: str) -> None:
        self._catalog = catalog
        self._listing = listing
        self._root = root

    def publish(self, table: str) -> Published:
        """Let a table name the files that count now.

        Raise `NotInOrder` when the lake has a file no more, or one that is not what its entry says, and `Retry` when
        somebody else has published meanwhile: do it again.
        """
        for _ in range(TRIES_MAX):
            self._listing.refresh()
            if self._listing.state.number < 0:
                raise NotInOrder("the lake has no log yet: start a worker on it, which makes it")
            try:
                return self._follow(table)
            except FileNotFoundError as error:
                missing = error  # it may have been replaced at this moment
            except CommitFailedException as error:
                raise Retry(f"somebody else has published {table} at the same time ({error}): do it again") from error
        raise NotInOrder(
            f"the lake has a file no more that its log names ({missing}): `pgwitness doctor` tells which, restore it "
            "from a copy"
        )

    def _follow(self, name: str) -> Published:
        table = self._opened(name)
        live = {self._root + file.path: file for file in self._listing.live() if file.table == name}
        named = [task.file for task in table.scan().plan_files()]
        before = {file.file_path: file for file in named}
        twice = {path for path, times in Counter(file.file_path for file in named).items() if times > 1}
        coming = [live[path] for path in sorted(live.keys() - (before.keys() - twice))]
        going = [before[path] for path in sorted((before.keys() - live.keys()) | twice)]
        entry = self._listing.state
        noted = {"pgwitness.entry": str(entry.number), "pgwitness.entry-sha256": entry.sha256 or ""}
        if going:
            with table.transaction() as commit, commit.update_snapshot(snapshot_properties=noted).overwrite() as update:
                for gone in going:
                    update.delete_data_file(gone)
                for file in coming:
                    update.append_data_file(self._described(table, file))
        else:
            for several in _batches(coming):
                with (
                    table.transaction() as commit,
                    commit.update_snapshot(snapshot_properties=noted).fast_append() as update,
                ):
                    for file in several:
                        update.append_data_file(self._described(table, file))
        now = [task.file for task in table.scan().plan_files()]
        rows = sum(file.record_count for file in now)
        if {file.file_path for file in now} != live.keys() or rows != sum(file.rows for file in live.values()):
            raise Retry(f"the table {name} is not what was published: somebody else writes to it; do it again")
        return Published(name, len(coming), len(going), len(now), rows, entry.number)

    def _opened(self, name: str) -> Table:
        """Open a table, with the columns of this version; make it if need be."""
        with suppress(NamespaceAlreadyExistsError):
            self._catalog.create_namespace(NAMESPACE)
        schema = pa.schema([field for field in TABLES[name] if field.name not in LEFT_OUT])
        try:
            table = self._catalog.load_table(f"{NAMESPACE}.{name}")
        except NoSuchTableError:
            table = self._catalog.create_table(f"{NAMESPACE}.{name}", schema=schema)
        if {field.name for field in table.schema().fields} != set(schema.names):
            with table.update_schema() as update:
                update.union_by_name(schema)
        # A commit that is tried again by itself would add files that somebody else has added meanwhile.
        wanted = {TableProperties.DEFAULT_NAME_MAPPING: _mapping(table), TableProperties.COMMIT_NUM_RETRIES: "0"}
        if not wanted.items() <= table.properties.items():
            with table.transaction() as commit:
                commit.set_properties(wanted)
        return table

    def _described(self, table: Table, file: File) -> DataFile:
        """Describe a file by its footer. Raise `FileNotFoundError` when it is gone, `NotInOrder` when it is another."""
        path = self._root + file.path
        source = table.io.new_input(path)
        with source.open() as opened:
            footer = pq.read_metadata(opened)
        if footer.num_rows != file.rows or (file.bytes and len(source) != file.bytes):
            raise NotInOrder(f"{file.path} is not what its entry says (rows or bytes): restore it from a copy")
        plan = compute_statistics_plan(table.schema(), table.properties)
        plan |= {number: StatisticsCollector(number, LongType(), UNWATCHED, name) for name, number in LEFT_OUT.items()}
        ids = parquet_path_to_id_mapping(table.schema()) | LEFT_OUT
        found = data_file_statistics_from_parquet_metadata(footer, plan, ids).to_serialized_dict()
        for number in LEFT_OUT.values():
            found["column_sizes"].pop(number, None)
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=Record(),
            file_size_in_bytes=len(source),
            sort_order_id=None,
            spec_id=table.metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **found,
        )


def _mapping(table: Table) -> str:
    """Write which column of the files, which have no ids, is which of the table."""
    fields: list[dict[str, Any]] = json.loads(table.schema().name_mapping.model_dump_json())
    return json.dumps([*fields, *({"names": [name], "field-id": number} for name, number in LEFT_OUT.items())])


def _batches(files: list[File]) -> Iterator[list[File]]:
    left = iter(files)
    while several := list(islice(left, BATCH_FILES)):
        yield several
