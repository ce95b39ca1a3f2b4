"""Verifies the rows of a lake: that files hold what their digests say, and that what is numbered has no holes.

Records of the topic are landed whole, with a number for each event of one, and a transaction's rows are numbered as the
database committed them: a hole says that rows are missing that the lake never had, or that retention took. What `gap`
events say of holes is listed beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sinks.lake.log.chain import File
from sinks.lake.rows import digest
from sinks.seal.history import History
from sinks.seal.verification.files import THREADS
from sinks.seal.verification.findings import Report

NAMED_MAX = 20
MEMORY_LIMIT = "1GB"

_HOLES = """\
SELECT source, source_offset, max(source_index) + 1 AS expected, count(DISTINCT source_index) AS found
FROM read_parquet(?, union_by_name = true, hive_partitioning = false)
WHERE source IS NOT NULL AND source_offset IS NOT NULL
GROUP BY ALL HAVING expected <> found ORDER BY ALL LIMIT ?
"""
_TORN = """\
SELECT cluster, "database", xid, lsn, max(ordinal) - min(ordinal) + 1 AS expected, count(DISTINCT ordinal) AS found
FROM read_parquet(?, union_by_name = true, hive_partitioning = false)
WHERE kind = 'change' AND ordinal IS NOT NULL
GROUP BY ALL HAVING expected <> found ORDER BY ALL LIMIT ?
"""
_TWICE = """\
SELECT event_id, count(*) AS found FROM read_parquet(?, union_by_name = true, hive_partitioning = false)
GROUP BY ALL HAVING found > 1 ORDER BY ALL LIMIT ?
"""
_GAPS = """\
SELECT cluster, coalesce(operation, detail ->> '$.reason', 'unknown') AS reason, count(*) AS found
FROM read_parquet(?, union_by_name = true, hive_partitioning = false) WHERE kind = 'gap' GROUP BY ALL ORDER BY ALL
"""
_NUMBERED = 3
"""The version of columns from which on `events` has the numbers."""


class Vanished(Exception):
    """A file went while rows were read: compaction may have replaced it, and what took its place is to be read."""


def check_rows(lake: Path, history: History, report: Report) -> None:
    """Read every row of the live files. Call it when the files' hashes are in order. Raise `Vanished`."""
    files = sorted(history.state.live.values(), key=lambda file: file.path)
    with ThreadPoolExecutor(THREADS) as threads:
        for file, why in zip(files, threads.map(lambda one: wrong_rows(lake, one), files), strict=True):
            if why is not None:
                report.found("altered", file.path, why)
    without = sum(file.digest is None for file in files)
    if without:
        report.said(f"{without} files were landed before there were digests of rows: their rows were counted only")
    numbered = [str(lake / file.path) for file in files if file.table == "events" and file.schema_version >= _NUMBERED]
    if numbered:
        try:
            _number(numbered, history, report)
        except duckdb.Error as error:
            if not all(Path(name).exists() for name in numbered):
                raise Vanished from error
            report.found("unreadable", str(lake), f"its numbers could not be read: {error}")


def wrong_rows(lake: Path, file: File) -> str | None:
    """Say what of a file's rows is not as its entry says."""
    try:
        parquet = pq.ParquetFile(lake / file.path)
        found, rows = digest.NOTHING, 0
        for group in range(parquet.metadata.num_row_groups):
            table = parquet.read_row_group(group)
            rows += table.num_rows
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
    return None


def _number(files: list[str], history: History, report: Report) -> None:
    # What does not fit into memory is written beside, but not into the folder that whoever verifies stands in.
    with (
        TemporaryDirectory(prefix="pgwitness-verify-") as spill,
        duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": 2, "temp_directory": spill}) as connection,
    ):
        for event_id, found in _ask(connection, _TWICE, files):
            report.found("added", str(event_id), f"the event is there {found} times")
        holes = [
            (f"{source} {offset}", f"of {expected} events of this record {found} are there")
            for source, offset, expected, found in _ask(connection, _HOLES, files)
        ] + [
            (
                f"{cluster} xid {xid}",
                f"of {expected} rows of this transaction ({database}, LSN {_lsn(lsn)}) {found} are there",
            )
            for cluster, database, xid, lsn, expected, found in _ask(connection, _TORN, files)
        ]
        for subject, text in holes:
            if history.retired:
                report.said(f"{subject}: {text}; retention took files, which may have had the others")
            else:
                report.found("gap", subject, text)
        for cluster, reason, found in connection.execute(_GAPS, [files]).fetchall():
            report.said(f"{found} gap events say what is missing of {cluster}: {reason}")


def _ask(connection: duckdb.DuckDBPyConnection, query: str, files: list[str]) -> Iterable[tuple[object, ...]]:
    return connection.execute(query, [files, NAMED_MAX]).fetchall()


def _lsn(lsn: object) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}" if isinstance(lsn, int) else "unknown"
