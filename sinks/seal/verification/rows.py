"""Verifies the rows of a lake: that files hold what their digests say, and that what is numbered has no holes.

Records of the topic are landed whole, with a number for each event of one, and a transaction's rows are numbered as the
database committed them: a hole says that rows are missing that the lake never had, or that retention took. What `gap`
events say of holes is listed beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sinks.lake.log import layout
from sinks.lake.log.chain import File
from sinks.lake.rows import digest
from sinks.lake.storage.store import Folder
from sinks.seal.history import History
from sinks.seal.verification.copies import Copy
from sinks.seal.verification.files import THREADS
from sinks.seal.verification.findings import Report

NAMED_MAX = 20
MEMORY_LIMIT = "1GB"

_HOLES = """\
SELECT source, source_offset, max(source_index) + 1 AS expected, count(DISTINCT source_index) AS found
FROM {files}
WHERE source IS NOT NULL AND source_offset IS NOT NULL
GROUP BY ALL HAVING expected <> found ORDER BY ALL LIMIT ?
"""
_TORN = """\
SELECT cluster, "database", xid, lsn, max(ordinal) - min(ordinal) + 1 AS expected, count(DISTINCT ordinal) AS found
FROM {files}
WHERE kind = 'change' AND ordinal IS NOT NULL
GROUP BY ALL HAVING expected <> found ORDER BY ALL LIMIT ?
"""
_TWICE = """\
SELECT event_id, count(*) AS found FROM {files}
GROUP BY ALL HAVING found > 1 ORDER BY ALL LIMIT ?
"""
_GAPS = """\
SELECT cluster, coalesce(operation, detail ->> '$.reason', 'unknown') AS reason, count(*) AS found
FROM {files} WHERE kind = 'gap' GROUP BY ALL ORDER BY ALL
"""
_NUMBERED = 3
"""The version of columns from which on `events` has the numbers."""
_IMAGES = """\
SELECT i.event_id FROM {images} AS i JOIN {files} AS e USING (event_id)
WHERE i.dt IS DISTINCT FROM CAST(e.captured_at AS DATE) ORDER BY ALL LIMIT ?
"""
_COLUMNS = (
    "event_id", "kind", "cluster", "database", "xid", "lsn", "ordinal", "source", "source_offset", "source_index",
    "operation", "detail", "captured_at",
)  # fmt: skip
"""What these questions are about."""


class Vanished(Exception):
    """A file went while rows were read: compaction may have replaced it, and what took its place is to be read."""


def check_rows(lake: Copy, history: History, report: Report) -> None:
    """Read every row of the live files. Call it when the files' hashes are in order. Raise `Vanished`."""
    files = sorted(history.state.live.values(), key=lambda file: file.path)
    with ThreadPoolExecutor(THREADS) as threads:
        for file, why in zip(files, threads.map(lambda one: wrong_rows(lake, one), files), strict=True):
            if why is not None:
                report.found("altered", file.path, why)
    without = sum(file.digest is None for file in files)
    if without:
        report.said(f"{without} files were landed before there were digests of rows: their rows were counted only")
    numbered = [file.path for file in files if file.table == "events" and file.schema_version >= _NUMBERED]
    if numbered:
        try:
            images = [file.path for file in files if file.table == "rows" and layout.is_month(file.path)]
            _number(lake, numbered, images, history, report)
        except (duckdb.Error, FileNotFoundError) as error:
            if not all(lake.has(name) for name in numbered):
                raise Vanished from error
            report.found("unreadable", str(lake.path), f"its numbers could not be read: {error}")


def wrong_rows(lake: Copy, file: File) -> str | None:
    """Say what of a file's rows is not as its entry says."""
    try:
        with lake.open(file.path) as opened, pq.ParquetFile(opened) as parquet:
            found, rows, misdated = digest.NOTHING, 0, 0
            for group in range(parquet.metadata.num_row_groups):
                table = parquet.read_row_group(group)
                rows += table.num_rows
                misdated += _misdated(table)
                if file.digest is not None:
                    found += digest.of(table, file.table)
    except FileNotFoundError as error:
        raise Vanished(file.path) from error
    except (OSError, pa.ArrowException, TypeError) as error:
        return f"its rows cannot be read: {error}"
    if rows != file.rows:
        return f"it has {rows} rows, its entry says {file.rows}"
    if file.digest is not None and str(found) != file.digest:
        return "its rows do not add up to the digest in its entry"
    if misdated:
        return f"{misdated} of its rows stand under another day than that of their capture"
    return None


def _misdated(table: pa.Table) -> int:
    """Count rows of a month whose day is not that of capture: the day is in no digest, and questions go by it."""
    if "dt" not in table.column_names or "captured_at" not in table.column_names:
        return 0
    day = pc.floor_temporal(table["captured_at"], unit="day").cast(pa.date32())
    return int(pc.sum(pc.not_equal(table["dt"], day).fill_null(True)).as_py() or 0)


def _number(lake: Copy, files: list[str], images: list[str], history: History, report: Report) -> None:
    # What does not fit into memory is written beside, but not into the folder that whoever verifies stands in.
    with (
        TemporaryDirectory(prefix="pgwitness-verify-") as spill,
        duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": 2, "temp_directory": spill}) as connection,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        source = _source(connection, lake, "numbered", files, _COLUMNS)
        if images:
            shown = _source(connection, lake, "images", images, ("event_id", "dt"))
            for (event_id,) in _ask(connection, _IMAGES.replace("{images}", shown), source):
                report.found("altered", str(event_id), "its row image stands under another day than its event")
        for event_id, found in _ask(connection, _TWICE, source):
            report.found("added", str(event_id), f"the event is there {found} times")
        holes = [
            (f"{source} {offset}", f"of {expected} events of this record {found} are there")
            for source, offset, expected, found in _ask(connection, _HOLES, source)
        ] + [
            (
                f"{cluster} xid {xid}",
                f"of {expected} rows of this transaction ({database}, LSN {_lsn(lsn)}) {found} are there",
            )
            for cluster, database, xid, lsn, expected, found in _ask(connection, _TORN, source)
        ]
        for subject, text in holes:
            if history.retired:
                report.said(f"{subject}: {text}; retention took files, which may have had the others")
            else:
                report.found("gap", subject, text)
        for cluster, reason, found in connection.execute(_GAPS.format(files=source)).fetchall():
            report.said(f"{found} gap events say what is missing of {cluster}: {reason}")


def _source(
    connection: duckdb.DuckDBPyConnection, lake: Copy, name: str, files: list[str], columns: Sequence[str]
) -> str:
    """Give what DuckDB reads the rows of these files from: themselves, or a table where it cannot open them."""
    if isinstance(lake, Folder):
        connection.execute(f"SET VARIABLE {name} = ?", [[str(lake.path / file) for file in files]])
        return f"read_parquet(getvariable('{name}'), union_by_name = true, hive_partitioning = false)"
    for file in files:
        with lake.open(file) as opened, pq.ParquetFile(opened) as parquet:
            for batch in parquet.iter_batches(columns=list(columns)):
                _insert(connection, name, pa.Table.from_batches([batch]))
    return name


def _insert(connection: duckdb.DuckDBPyConnection, name: str, batch: pa.Table) -> None:
    connection.register("batch", batch)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} AS SELECT * FROM batch LIMIT 0")
    connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM batch")
    connection.unregister("batch")


def _ask(connection: duckdb.DuckDBPyConnection, query: str, files: str) -> Iterable[tuple[object, ...]]:
    return connection.execute(query.format(files=files), [NAMED_MAX]).fetchall()


def _lsn(lsn: object) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}" if isinstance(lsn, int) else "unknown"
