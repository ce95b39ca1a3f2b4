"""Carries out a job: reads files, puts their rows in order, and writes them as new files that no entry names yet.

Memory is bounded by the number of files, not by their size: of each some thousand rows are held. Each file is first
held against its hash in the log, so that nothing that was altered is written anew as if it were evidence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import date
from typing import IO, Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pgwitness.core.errors import Stop
from sinks.lake.compaction.merge import in_order, keys_of, merge
from sinks.lake.compaction.plan import Job, Sizes
from sinks.lake.log import layout, rows_proof
from sinks.lake.log.chain import File
from sinks.lake.log.layout import Level
from sinks.lake.rows import digest, parquet
from sinks.lake.rows.schema import SCHEMA_VERSION, TABLES
from sinks.lake.storage.refusals import Refused
from sinks.lake.storage.store import Grows

BATCH_ROWS_MAX = 8_192
BATCH_ROWS_MIN = 16
HELD_BYTES = 128 * 1024**2
"""About how much is held of all files that are merged, one batch of each."""
GROUP_BYTES = 32 * 1024**2
"""A row group of wide rows is written at this size, before it has as many rows as others."""
READ_BYTES = 64 * 1024
"""How much of a column is read at once: without a limit a whole row group would be, of each file."""
HASHED_BYTES = 1024**2


class Holds(Protocol):
    """What rewriting takes of a store (`sinks.lake.storage.store`)."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading. Raise `FileNotFoundError` when there is none."""

    def begin(self, name: str) -> Grows:
        """Begin a file under a name that nobody else has."""

    def remove(self, name: str) -> None:
        """Remove a file."""


class Altered(Stop):
    """A live file is missing, or not what its entry says: it is left as it is, and whoever operates the lake told."""


def rewrite(store: Holds, job: Job, unique: Callable[[], str], beat: Callable[[], object], sizes: Sizes) -> list[File]:
    """Write the files of a job; gives them, durable and in no entry. Raise `Altered` where an input is not what it was.

    `beat` is called again and again, so that who watches knows that it goes on; whatever it raises ends the work. When
    it fails nothing is left, as far as the operating system lets us.
    """
    for file in job.inputs:
        _check(store, file, beat)
    months = job.level == Level.MONTH
    keys = keys_of(job.table, month=months)
    schema = schema_of(job.table, months=months)
    outputs = _Outputs(store, job, unique, schema, sizes)
    try:
        with ExitStack() as opened:
            for table in merge(list(_sources(store, job, schema, keys, opened)), keys):
                outputs.take(table)
                beat()
        made = outputs.finish()
        _prove(job, made)
    except Exception:
        outputs.abandon()
        raise
    return made


def schema_of(table: str, *, months: bool) -> pa.Schema:
    """Give the columns of a table's files; those of months have the day of capture too."""
    return TABLES[table].append(pa.field("dt", pa.date32())) if months else TABLES[table]


def _prove(job: Job, made: list[File]) -> None:
    """Hold that the new files have the rows of the old ones, by what both add up to."""
    if sum(file.rows for file in made) != job.rows or not rows_proof.same_rows(job.inputs, made):
        raise Altered(
            f"{job.table} of {job.place}: the rows of {job.inputs[0].path} and {len(job.inputs) - 1} more are not "
            "those that their entries say (number or digest): restore them from a copy of the lake"
        )


def _check(store: Holds, file: File, beat: Callable[[], object]) -> None:
    digest = hashlib.sha256()
    try:
        with store.open(file.path) as opened:
            while part := opened.read(HASHED_BYTES):
                digest.update(part)
                beat()
    except FileNotFoundError:
        raise Altered(f"{file.path} is missing: restore it from a copy of the lake") from None
    except Refused:
        raise  # the storage is asked again
    except OSError as error:
        raise _unreadable(file, error) from error
    if digest.hexdigest() != file.sha256:
        raise Altered(f"{file.path} is not what its entry says (SHA-256): restore it from a copy of the lake")


def _sources(
    store: Holds, job: Job, schema: pa.Schema, keys: tuple[str, ...], opened: ExitStack
) -> Iterator[Iterator[pa.Table]]:
    """Give each sorted file, and what landed as one more: that is little enough to be sorted in memory."""
    landed = [file for file in job.inputs if layout.level_of(file.path) == Level.LANDED]
    sources = max(len(job.inputs) - len(landed), 1)
    tables = [table for file in landed for table in _tables(store, file, schema, sources)]
    if tables:
        yield iter([in_order(pa.concat_tables(tables).combine_chunks(), keys)])
    for file in job.inputs:
        if file not in landed:
            read = _tables(store, file, schema, sources)
            opened.callback(read.close)
            yield read


def _tables(store: Holds, file: File, schema: pa.Schema, sources: int) -> Any:
    try:
        with store.open(file.path) as opened, pq.ParquetFile(opened, pre_buffer=False, buffer_size=READ_BYTES) as found:
            for batch in found.iter_batches(batch_rows(found.metadata, len(schema), sources)):
                yield _aligned(pa.Table.from_batches([batch]), file, schema)
    except Refused:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: File, error: Exception) -> Altered:
    """Say that one file cannot be read: others are compacted all the same."""
    return Altered(f"{file.path} could not be read ({error}): look at the disk, and restore it from a copy of the lake")


def batch_rows(metadata: pq.FileMetaData, columns: int, sources: int) -> int:
    """Give how many rows of a file to hold, so that as many of each of `sources` files fit into memory.

    What a file says of its bytes is without those that dictionaries save; a column takes some bytes in any case.
    """
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=0.0)
    held = HELD_BYTES / max(sources, 1) / (3 * widest + 16 * columns)
    return int(min(max(held, BATCH_ROWS_MIN), BATCH_ROWS_MAX))


def _aligned(table: pa.Table, file: File, schema: pa.Schema) -> pa.Table:
    """Give a table the columns of today, empty where it has none, and the day where it stands in the path."""
    columns = []
    for field in schema:
        if field.name == "dt" and not layout.is_month(file.path):
            day = date.fromisoformat(file.days[0])
            columns.append(pa.repeat(pa.scalar(day, pa.date32()), table.num_rows))
        elif field.name in table.column_names:
            columns.append(table.column(field.name).cast(field.type))
        else:
            columns.append(pa.nulls(table.num_rows, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


class _Outputs:
    """The files that a job gives, one after the other, or side by side where they are buckets."""

    def __init__(self, store: Holds, job: Job, unique: Callable[[], str], schema: pa.Schema, sizes: Sizes) -> None:
        self._store = store
        self._job = job
        self._unique = unique
        self._schema = schema
        self._sizes = sizes
        self._open: dict[tuple[str, int], _Output] = {}
        self._made: list[File] = []

    def take(self, table: pa.Table) -> None:
        """Take rows that come behind those that were taken."""
        for kind, part in by_kind(table, self._job.apart):
            if kind or self._job.buckets < 2:
                self._add((kind, 0), part)
            else:
                for bucket, rows in split(part, self._job.buckets):
                    self._add((kind, bucket), rows)

    def _add(self, key: tuple[str, int], table: pa.Table) -> None:
        output = self._open.get(key)
        if output is None:
            output = self._open[key] = _Output(self._store, self._job.table, self._path(*key), self._schema)
        output.add(table)
        if output.bytes >= self._sizes.file_bytes:
            self._made.append(output.finish())
            del self._open[key]

    def _path(self, kind: str, bucket: int) -> str:
        job = self._job
        if job.level != Level.MONTH:
            return layout.day_path(job.table, job.place, job.level, self._unique())
        named = (bucket, job.buckets) if job.buckets and not kind else None
        return layout.month_path(job.table, job.place, named, self._unique(), kind or None)

    def finish(self) -> list[File]:
        """Make everything durable, and say what there is."""
        for key in sorted(self._open):
            self._made.append(self._open[key].finish())
        self._open = {}
        return self._made

    def abandon(self) -> None:
        """Remove what was written."""
        for output in self._open.values():
            output.abandon()
        remove(self._store, self._made)


def remove(store: Holds, files: Iterable[File]) -> None:
    """Remove files that no entry names nor can name; what the operating system keeps is removed another time."""
    for file in files:
        try:
            store.remove(file.path)
        except OSError:
            continue


def by_kind(table: pa.Table, apart: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Part the events of some kinds from all others, which come under no name."""
    if not apart:
        yield "", table
        return
    kinds = pc.fill_null(table.column("kind"), "")
    for kind in apart:
        if (part := table.filter(pc.equal(kinds, kind))).num_rows:
            yield kind, part
    if (rest := table.filter(pc.invert(pc.is_in(kinds, pa.array(apart, pa.string()))))).num_rows:
        yield "", rest


def split(table: pa.Table, buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """Part rows by the buckets of their principals."""
    found = table.column("principal").combine_chunks().dictionary_encode()
    numbers = np.array([layout.bucket_of(name, buckets) for name in found.dictionary.to_pylist()] + [0])
    rows = numbers[found.indices.fill_null(len(numbers) - 1).to_numpy()]
    present = np.unique(rows)
    if len(present) == 1:
        yield int(present[0]), table
        return
    for bucket in present:
        yield int(bucket), table.take(pa.array(np.flatnonzero(rows == bucket)))


class _Output:
    """A file that grows by whole row groups; `bytes` is how much of it is written."""

    def __init__(self, store: Holds, table: str, path: str, schema: pa.Schema) -> None:
        self._table, self._path = table, path
        self._growing = store.begin(path)
        self._waiting: list[pa.Table] = []
        self._rows = self._rows_waiting = self._bytes_waiting = 0
        self._digest = digest.NOTHING
        self._sink = _Hashing(self._growing)
        self._writer = parquet.writer(cast(IO[bytes], self._sink), schema)

    @property
    def bytes(self) -> int:
        return self._sink.bytes

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._rows_waiting += table.num_rows
        self._bytes_waiting += table.nbytes
        if self._bytes_waiting >= GROUP_BYTES:
            self._write(self._rows_waiting)
        elif self._rows_waiting >= parquet.SORTED_ROW_GROUP_ROWS:
            whole = self._rows_waiting - self._rows_waiting % parquet.SORTED_ROW_GROUP_ROWS
            self._write(whole)

    def _write(self, rows: int) -> None:
        together = pa.concat_tables(self._waiting).combine_chunks()
        self._writer.write_table(together.slice(0, rows), row_group_size=parquet.SORTED_ROW_GROUP_ROWS)
        self._digest += digest.of(together.slice(0, rows), self._table)
        self._rows += rows
        self._rows_waiting -= rows
        self._waiting = [together.slice(rows)] if self._rows_waiting else []
        self._bytes_waiting = sum(table.nbytes for table in self._waiting)

    def finish(self) -> File:
        if self._rows_waiting:
            self._write(self._rows_waiting)
        self._writer.close()
        self._growing.finish()
        sha256, added_up = self._sink.sha256, str(self._digest)
        return File(self._table, self._path, self._rows, self._sink.bytes, sha256, SCHEMA_VERSION, added_up)

    def abandon(self) -> None:
        self._sink.abandoned = True
        self._growing.abandon()
        with suppress(Exception):
            self._writer.close()


class _Hashing:
    """What a Parquet writer writes into: hashed and counted on its way."""

    closed = False

    def __init__(self, into: Grows) -> None:
        self._into = into
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.abandoned = False

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, content: Any) -> int:
        taken = bytes(content)
        if self.abandoned:
            return len(taken)
        self._into.write(taken)
        self._digest.update(taken)
        self.bytes += len(taken)
        return len(taken)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        """Do nothing: the file is made durable when it is whole."""

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
