"""What reconciliation needs of memory and time: a day of five million changed rows, a tenth of the transactions unseen.

The lake is made with SQL: 2.5 million transactions of two rows in ten tables, for each a line of the log and one of
pgAudit; and as many again as a tenth of them, begun, written and committed by the log's word alone. Asked are the
statuses, the findings with all their columns and everything, each by a connection as `pgwitness sql` opens it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from sinks.lake.writer import Lake
from tests.sinks.material import enter

TRANSACTIONS = 2_500_000
UNSEEN_SHARE = 0.1
FILES = 40
MIB_MAX = 1_600
"""DuckDB's own limit, and beside it what its allocator, the reader of Parquet and Python hold."""
QUERIES = {
    "statuses": "SELECT status, count(*), sum(rows)::BIGINT FROM reconciliation GROUP BY status ORDER BY status",
    "findings": "SELECT * FROM reconciliation WHERE status <> 'attributed' ORDER BY xid",
    "everything": "SELECT * FROM reconciliation",
}

MAKE = """
CREATE TEMP TABLE transaction AS
SELECT n, n + 1000 AS xid, 1000000 + n * 96 AS lsn, n >= {seen} AS unseen,
    TIMESTAMPTZ '2026-11-22 01:00:00+00'
        + to_microseconds((hash(n) % 1000 + (n % {seen}) * {step_us})::BIGINT) AS moment,
    (hash(n * 7) % 10)::INT AS t, 'db1.example:5432/6b035d50.' || printf('%x', hash(n * 3) % 200) AS session
FROM range({all}) AS r(n);
"""
FILE = """
COPY (
    WITH part AS (
        SELECT *, 'public.table_' || t AS relation,
            'INSERT INTO table_' || t || ' (a, b) VALUES ($1, $2), ($3, $4)' AS statement
        FROM transaction WHERE n % {files} = {number}
    ), common AS (
        SELECT *, 'shop' AS cluster, 'shop' AS database, 'db1.example:5432' AS instance, moment AS occurred_at,
            moment + INTERVAL 50 MILLISECOND AS captured_at, 'service-' || n % 50 AS principal,
            'service' AS principal_kind,
            'app' AS role, 'app-' || n % 50 AS application, 'asserted' AS assurance, 'exact' AS certainty,
            'rule-' || n % 50 AS identity_rule, 2 AS schema_version, '10.0.0.' || n % 50 AS client_addr,
            'success' AS outcome
        FROM part
    ), line AS (
        SELECT c.* EXCLUDE (n, unseen, moment, t, session, relation, statement, lsn, xid),
            'statement' AS kind, 'log' AS binding,
            session AS session_id, 1 AS calls, l.word AS operation,
            CASE WHEN l.word = 'insert' THEN c.xid END AS xid,
            CASE WHEN l.word = 'insert' THEN [relation] ELSE [] END AS relations,
            CASE WHEN l.word = 'insert' THEN statement ELSE upper(l.word) END AS statement,
            CASE WHEN l.word = 'insert' THEN 'f' || t ELSE l.word END AS fingerprint,
            CASE WHEN l.source = 'pgaudit' THEN 2 END AS row_count,
            md5('l' || n || l.place) AS event_id,
            json_object('source', l.source, 'line', n * 4 + l.place, 'operations', [l.word],
                'utility', l.word <> 'insert',
                'audit', CASE WHEN l.source = 'pgaudit' THEN json_object('type', 'SESSION', 'class', 'WRITE', 'command',
                    'INSERT', 'statement_id', n::VARCHAR, 'substatement_id', '1', 'object_name', relation) END)::VARCHAR
                AS detail
        FROM common AS c, (VALUES (0, 'begin', 'duration'), (1, 'insert', 'pgaudit'), (2, 'insert', 'duration'),
            (3, 'commit', 'duration')) AS l(place, word, source)
        WHERE c.unseen OR l.word = 'insert'
    ), change AS (
        SELECT c.* EXCLUDE (n, unseen, moment, t, session, relation, statement), 'change' AS kind, 'beacon' AS binding,
            session AS session_id, r.ordinal, 'insert' AS operation, [relation] AS relations, true AS covered,
            md5('c' || n || r.ordinal) AS event_id, json_object('id', n * 2 + r.ordinal)::VARCHAR AS row_key,
            json_object('transaction', md5('t' || n), 'part', 0)::VARCHAR AS detail
        FROM common AS c, range(2) AS r(ordinal) WHERE NOT c.unseen
    )
    SELECT * EXCLUDE (dt) FROM (
        SELECT * FROM read_parquet('{empty}')
        UNION ALL BY NAME SELECT * FROM change UNION ALL BY NAME SELECT * FROM line)
    ORDER BY captured_at
) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 50000)
"""


def make(lake: Path, transactions: int) -> int:
    """Make the lake; gives the number of transactions that only the log has."""
    Lake(lake).prepare()
    unseen = round(transactions * UNSEEN_SHARE)
    folder = lake / "events" / "dt=2026-11-22"
    folder.mkdir()
    empty = lake / "events" / "dt=0001-01-01" / "empty.parquet"
    step_us = 72_000_000_000 // transactions
    with duckdb.connect(config={"threads": 2, "memory_limit": "4GB"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(MAKE.format(seen=transactions, all=transactions + unseen, step_us=step_us))
        for number in range(FILES):
            target = folder / f"part-{number:03}.parquet"
            connection.execute(FILE.format(files=FILES, number=number, empty=empty, target=target))
            enter(lake, target)
    return unseen


def ask(lake: Path, query: str) -> dict[str, Any]:
    """Ask in a process of its own; gives the rows, seconds of processor time, its peak memory, or what went wrong."""
    program = [sys.executable, "-m", "tests.bench.reconcile", str(lake), query]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {"error": done.stderr.strip().splitlines()[-1]}


def answer(lake: Path, query: str) -> dict[str, Any]:
    """Ask here, and take the rows a batch at a time."""
    from sinks.sql.catalogue import connect

    connection = connect(lake)
    begin, cpu = time.perf_counter(), time.process_time()
    try:
        cursor = connection.execute(query)
        rows, first = 0, []
        while batch := cursor.fetchmany(10_000):
            first = first or batch[:6]
            rows += len(batch)
    except duckdb.Error as error:
        return {"error": str(error).splitlines()[0]}
    return {
        "rows": rows,
        "seconds": round(time.perf_counter() - begin, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "first": [[str(value) for value in row] for row in first],
    }


def run(scale: float = 1.0) -> dict[str, Any]:
    """Make the day, ask each question, and check that there is an answer within the limits."""
    transactions = max(20_000, round(TRANSACTIONS * scale))
    results: dict[str, Any] = {"transactions": transactions, "checks": []}
    with tempfile.TemporaryDirectory(prefix="pgwitness-reconcile-") as folder:
        lake = Path(folder) / "lake"
        unseen = make(lake, transactions)
        expected = {"statuses": 2, "findings": unseen, "everything": transactions + unseen}
        for name, query in QUERIES.items():
            results[name] = found = ask(lake, query)
            # At the end of the day some have not had the time to be missed.
            holds = abs(found.get("rows", 0) - expected[name]) <= 0.01 * unseen and found["peak_mib"] <= MIB_MAX
            results["checks"].append(
                {
                    "what": f"reconciliation of {2 * transactions:,} rows, {name}",
                    "figure": found.get("error") or f"{found['cpu_s']} s of processor time, {found['peak_mib']} MiB",
                    "limit": f"an answer within {MIB_MAX} MiB",
                    "holds": holds,
                }
            )
    return results


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(answer(Path(sys.argv[1]), sys.argv[2])))
    else:
        print(json.dumps(run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), indent=2))
