"""One transaction of ten million rows: the collector's peak memory (limit: 256 MiB), and that every row goes through.

It is the worst case for a collector that waits for the transaction's beacon: a single INSERT, whose beacon follows its
last row, so that all of it goes through the spool on disk.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import psycopg

from pgwitness.demo.servers import Broker, Postgres, free_port
from tests.bench.latency import COLLECTOR_MIB_MAX, daemon, logs, peak_mib, pgwitness, write_configuration

ROWS = 10_000_000
ROWS_PER_S_MIN = 5_000
"""Slower than this and the run is given up: a bound on the wait, no measurement."""


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure; returns rows, seconds, peak memory and the highest the spool stood."""
    rows = max(10_000, int(ROWS * scale))
    with tempfile.TemporaryDirectory(prefix="pgwitness-long-") as folder:
        root = Path(folder)
        port = free_port()
        with Postgres(root / "pg", settings={"max_wal_size": "8GB"}) as postgres, Broker(root / "broker") as broker:
            write_configuration(root, postgres, broker)
            with psycopg.connect(postgres.dsn("postgres", "postgres"), autocommit=True) as connection:
                connection.execute("CREATE DATABASE bench")
            with psycopg.connect(postgres.dsn("postgres", "bench"), autocommit=True) as connection:
                connection.execute("CREATE TABLE ledger (id bigint PRIMARY KEY, owner text, note text, amount numeric)")
            pgwitness(root, "topics", "apply")
            pgwitness(root, "db", "install")
            collector = daemon(root, "collect", "wal", "--port", str(port))
            try:
                wait_until_streaming(root, postgres)
                with psycopg.connect(postgres.dsn("postgres", "bench"), autocommit=True) as connection:
                    connection.execute(
                        "INSERT INTO ledger SELECT n, 'owner ' || n %% 1000, 'note number ' || n, n * 0.01"
                        " FROM generate_series(1, %s) AS n",
                        (rows,),
                    )
                began = time.monotonic()
                spool = wait(root, port, rows, began + 60 + rows / ROWS_PER_S_MIN)
                seconds = time.monotonic() - began
                memory = peak_mib(collector)
            finally:
                collector.terminate()
                psutil.wait_procs([collector], timeout=20)
    return {
        "rows": rows,
        "seconds_after_commit": round(seconds, 1),
        "rows_per_s": round(rows / seconds),
        "peak_mib": round(memory, 1),
        "spool_mib": round(spool / 2**20, 1),
        "checks": [
            {
                "what": f"peak memory of the collector, one transaction of {rows:,} rows",
                "figure": f"{memory:.0f} MiB (spool on disk {spool / 2**20:.0f} MiB)",
                "limit": f"{COLLECTOR_MIB_MAX} MiB",
                "holds": memory <= COLLECTOR_MIB_MAX,
            }
        ],
    }


def wait_until_streaming(root: Path, postgres: Postgres) -> None:
    """Wait until the slot is read: what was committed before it was made is none of its business."""
    deadline = time.monotonic() + 60
    query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
    with psycopg.connect(postgres.dsn("postgres", "postgres"), autocommit=True) as connection:
        while connection.execute(query).fetchone() != (1,):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the collector does not stream:\n{logs(root)}")
            time.sleep(0.1)


def wait(root: Path, port: int, rows: int, deadline: float) -> float:
    """Wait until the broker has confirmed every row; gives the highest size of the spool that was seen, in bytes."""
    highest = 0.0
    while True:
        figures = scrape(port)
        highest = max(highest, figures.get("pgwitness_wal_spool_bytes", 0.0))
        if figures.get("pgwitness_raw_events_total{wal}", 0.0) >= rows:
            return highest
        if time.monotonic() > deadline:
            raise RuntimeError(f"not every row came through: {figures}\n{logs(root)}")
        time.sleep(0.25)


def scrape(port: int) -> dict[str, float]:
    """Read the collector's metrics; of raw events, those of the WAL."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    figures: dict[str, float] = {}
    for line in lines:
        name, _, value = line.rpartition(" ")
        if name.startswith("pgwitness_wal_spool_bytes"):
            figures["pgwitness_wal_spool_bytes"] = float(value)
        elif name.startswith("pgwitness_raw_events_total") and 'source="wal"' in name:
            figures["pgwitness_raw_events_total{wal}"] = float(value)
    return figures


if __name__ == "__main__":
    print(json.dumps(run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), indent=2))
