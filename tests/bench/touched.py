"""Who touched this record, in a large lake: `python -m tests.bench.touched 1e6 1e7`.

Makes sorted files of `events` as compaction leaves them (by principal and time, row groups of 20,000), asks `touched`
for records of 0, 1, 10 and 100 events that lie apart from each other, and prints seconds, and bytes an event. Beside
it in the same run, for as many rows: the same question by the key alone, without the number of the record.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from sinks.lake.log.chain import File, Land, Range, State
from sinks.lake.log.on_store import Log
from sinks.lake.log.protocol import Attempt
from sinks.lake.rows import parquet
from sinks.lake.rows.schema import EVENTS, SCHEMA_VERSION
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.writer import Lake
from sinks.sql import query
from sinks.sql.catalogue import connect

FILE_ROWS = 500_000
DAY = "2026-09-21"
RECORDS = {"none": 0, "1": 1, "10": 10, "100": 100}
"""Records of `public.orders` that are asked for, by their keys: how often each was changed."""
RUNS = 3

EVENTS_OF_A_FILE = """
SELECT md5(i::VARCHAR) || '-' || i % 3 AS event_id,
    CASE WHEN i % 10 < 8 THEN 'change' WHEN i % 10 = 8 THEN 'statement' ELSE 'session' END AS kind,
    to_timestamp(1790000000 + i / 1000.0) AS occurred_at, to_timestamp(1790000000.1 + i / 1000.0) AS captured_at,
    'shop' AS cluster, 'db:5432' AS instance, 'shop' AS database, 'agent:' || hash(i // 70) % 5000 AS principal,
    'agent' AS principal_kind, 'human:' || hash(i // 70) % 500 AS on_behalf_of, 'beacon' AS binding,
    'exact' AS certainty, 'asserted' AS assurance, 'agents' AS identity_rule, 'app' AS role, 'app' AS effective_role,
    'agent-' || hash(i // 70) % 5000 AS application, '10.0.0.7' AS client_addr, 'scram-sha-256' AS auth_method,
    'db:5432/6a00' || hash(i // 70) % 100000 AS session_id, hash(i // 70) % 60000 AS client_port,
    i // 70 % 30000 AS pid, 1000 + i // 3 AS xid, 94489280612 + i // 3 * 100 AS lsn, i % 3 AS ordinal,
    CASE i % 10 WHEN 8 THEN 'select' WHEN 9 THEN 'connect' ELSE ['insert', 'update', 'delete'][1 + i % 3] END
        AS operation,
    [name] AS relations, [name || '.status'] AS columns,
    CASE WHEN i % 10 = 8 THEN 'SELECT * FROM t WHERE a' || i % 200 || ' = $1' END AS statement,
    CASE WHEN i % 10 < 8 THEN '{{"id":' || id || '}}' END AS row_key,
    CASE WHEN i % 10 < 8 THEN ['status'] END AS changed, hash(i) % 1000 / 1000.0 AS anomaly,
    []::VARCHAR[] AS policies, 'success' AS outcome, 4 AS schema_version, true AS covered,
    'pgwitness.events-0' AS source, i // 500 AS source_offset, i % 500 AS source_index, name AS relation,
    CASE WHEN i % 10 < 8 THEN md5_number_lower(strlen(name) || ':' || name || ',' || strlen(id) || ':' || id || ',')
    END AS touch
FROM (
    -- What is read is another relation: how many reads there are of the one that is asked for is not what is measured.
    SELECT i, CASE WHEN i % 10 = 8 THEN 'public.t' || i % 19 WHEN hits IS NOT NULL THEN 'public.orders'
        ELSE ['public.orders', 'public.lines', 'public.stock'][1 + (hash(i) % 3)::BIGINT] END AS name,
        coalesce(hits, 1000 + hash(i) % 2000000)::VARCHAR AS id
    FROM range({first}, {last}) AS r(i) LEFT JOIN planted USING (i)
)
ORDER BY principal, occurred_at
"""
PLANTED = """
CREATE TABLE planted AS SELECT n * ({events} // hits) // 10 * 10 + place AS i, hits
FROM (VALUES (1, 1), (10, 3), (100, 5)) AS records(hits, place), range(100) AS r(n) WHERE n < hits
"""


def make(lake: Path, events: int) -> int:
    """Make a lake of so many events; gives the bytes of its files."""
    Lake(lake).prepare()
    folder = lake / "events" / f"dt={DAY}"
    folder.mkdir()
    files = []
    with duckdb.connect(config={"threads": 2, "memory_limit": "4GB"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(PLANTED.format(events=events))
        for first in range(0, events, FILE_ROWS):
            rows = EVENTS_OF_A_FILE.format(first=first, last=min(first + FILE_ROWS, events))
            connection.execute(f"CREATE OR REPLACE TABLE made AS {rows}")
            names = {name for name, *_ in connection.execute("DESCRIBE made").fetchall()}
            columns = ", ".join(name if name in names else f"NULL AS {name}" for name in EVENTS.names)
            table = connection.sql(f"SELECT {columns} FROM made").to_arrow_table().cast(EVENTS)
            path = folder / f"day-{first:010}.parquet"
            with path.open("wb") as sink, parquet.writer(sink, EVENTS) as writer:
                writer.write_table(table, row_group_size=parquet.SORTED_ROW_GROUP_ROWS)
            size = path.stat().st_size
            files.append(File("events", str(path.relative_to(lake)), table.num_rows, size, "", SCHEMA_VERSION))
    _enter(lake, files)
    return sum(file.bytes for file in files)


def _enter(lake: Path, files: list[File]) -> None:
    log = Log(Folder(lake, Files()))
    log.refresh()

    def propose(state: State) -> Land:
        ranges = [Range("made", 0, 0, 1, [])]
        return Land(number=state.number + 1, predecessor=state.sha256, at_us=0, ranges=ranges, files=files)

    log.append(propose, Attempt())
    log.publish()


def seconds(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[float, float, int]:
    """Ask some times; gives the shortest time, the least processor time, and the number of rows."""
    best, least, rows = float("inf"), float("inf"), 0
    for _ in range(RUNS):
        start, used = time.perf_counter(), time.process_time()
        rows = sum(1 for _ in query.ask(connection, text).rows)
        best, least = min(best, time.perf_counter() - start), min(least, time.process_time() - used)
    return best, least, rows


def main() -> None:
    """Print the table."""
    print(f"{'events':>12} {'bytes/event':>12} {'asked':>26} {'rows':>5} {'s':>7} {'s of a core':>12}")
    for size in sys.argv[1:] or ["1e6", "1e7"]:
        events = int(float(size))
        with tempfile.TemporaryDirectory(prefix="pgwitness-bench-") as folder:
            lake = Path(folder) / "lake"
            each = make(lake, events) / events
            start, used = time.perf_counter(), time.process_time()
            connection = connect(lake)
            list(query.ask(connection, "SELECT 1 FROM events LIMIT 1").rows)
            opened = time.perf_counter() - start, time.process_time() - used
            print(f"{events:>12,} {each:>12.1f} {'open, first row':>26} {1:>5} {opened[0]:>7.3f} {opened[1]:>12.3f}")
            questions = {f"touched, {name}": f"FROM touched('public.orders', {key})" for name, key in RECORDS.items()}
            questions["touched, four columns, 100"] = (
                "SELECT occurred_at, principal, operation, how FROM touched('public.orders', 100)"
            )
            questions["touched, object, 100"] = "FROM touched('public.orders', '{\"id\": 100}')"
            questions["by key alone, 100"] = (
                "FROM events WHERE list_contains(relations, 'public.orders')"
                " AND json_extract_string(row_key, '$.*') = ['100']"
            )
            for name, text in questions.items():
                best, least, rows = seconds(connection, text)
                print(f"{events:>12,} {each:>12.1f} {name:>26} {rows:>5} {best:>7.3f} {least:>12.3f}", flush=True)
            connection.close()
    print(f"on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
