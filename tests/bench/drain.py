"""How fast a backlog in the WAL reaches the broker, against `pg_recvlogical` writing it to a file (limit: half of it).

The backlog is 500,000 row changes in transactions of 1, 10, 100 and 10,000 rows in equal shares of rows, half of them
inserts and half updates, with the beacon installed and two text columns masked. `pg_recvlogical` and `pgwitness
collect wal` drain it in turns, each pass from a slot of its own made before the backlog: from its start, or the slot's
first use, to the last row in the file, or confirmed by the broker. Also measured: the collector's peak memory.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import psycopg
from confluent_kafka.admin import AdminClient, NewTopic

from collectors.installation.install import install
from collectors.wal.database import slot
from pgwitness.core.config import Slot
from pgwitness.core.privacy import write_key
from pgwitness.demo.servers import LOOPBACK, Broker, Postgres, free_port, wait_for

ROWS = 500_000
SIZES = (1, 10, 100, 10_000)
PASSES = 3
RATIO_MIN, RATIO_AIM = 0.5, 0.8
MIB_MAX = 256
SECONDS_MAX = 120.0

TABLE = """
CREATE TABLE customer (
  id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, balance numeric(12, 2), seen timestamptz
)
"""
BACKLOG = """
DO $$
DECLARE first bigint;
BEGIN
  FOR n IN 1..{transactions} LOOP
    first := {base} + ((n - 1) / 2) * {size};
    IF n % 2 = 1 THEN
      INSERT INTO customer SELECT k, 'Customer ' || k % 5000, 'c' || k || '@example.com', k % 1000 + 0.25, now()
        FROM generate_series(first, first + {size} - 1) AS k;
    ELSE
      UPDATE customer SET balance = balance + 1, seen = now() WHERE id BETWEEN first AND first + {size} - 1;
    END IF;
    COMMIT;
  END LOOP;
END $$
"""


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure `PASSES` times in turns; returns rows per second, their ratio, the peak memory, and checks."""
    with tempfile.TemporaryDirectory(prefix="pgwitness-drain-") as folder:
        root = Path(folder)
        root.chmod(0o711)
        settings = {"synchronous_commit": "off", "max_wal_size": "4GB"}
        with Postgres(root / "pg", settings=settings) as postgres, Broker(root / "broker") as broker:
            rows, end = _backlog(postgres, scale)
            peer, ours, peaks = [], [], []
            for number in range(PASSES):
                peer.append(rows / _recvlogical(postgres, f"peer_{number}", end, root / "peer.out"))
                seconds, peak = _collect(postgres, broker, number, rows, root / f"pass{number}")
                ours.append(rows / seconds)
                peaks.append(peak)
    ratio = statistics.median(ours) / statistics.median(peer)
    peak_mib = max(peaks) / 2**20
    return {
        "rows": rows,
        "pg_recvlogical_rows_per_s": [round(value) for value in peer],
        "collect_rows_per_s": [round(value) for value in ours],
        "ratio": round(ratio, 3),
        "peak_rss_mib": round(peak_mib, 1),
        "checks": [
            {
                "what": "collect wal into the broker, of pg_recvlogical into a file",
                "figure": f"{ratio:.2f}",
                "limit": f">= {RATIO_MIN} (aim {RATIO_AIM})",
                "holds": ratio >= RATIO_MIN,
            },
            {
                "what": "peak memory of collect wal",
                "figure": f"{peak_mib:.0f} MiB",
                "limit": f"<= {MIB_MAX} MiB",
                "holds": peak_mib <= MIB_MAX,
            },
        ],
    }


def _backlog(postgres: Postgres, scale: float) -> tuple[int, str]:
    """Prepare the database, make every slot, then write; gives the number of row changes and where the WAL ends."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as sql:
        sql.execute(TABLE)
        install(sql)
        for number in range(PASSES):
            slot.make(sql, f"peer_{number}", Slot())
            slot.make(sql, slot.slot_name(f"ours_{number}", "postgres"), Slot())
        rows = base = 0
        for size in SIZES:
            transactions = max(2, round(ROWS * scale / len(SIZES) / size / 2) * 2)
            sql.execute(BACKLOG.format(transactions=transactions, size=size, base=base))
            rows += transactions * size
            base += transactions * size
        row = sql.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        return rows, row[0]


def _recvlogical(postgres: Postgres, name: str, end: str, file: Path) -> float:
    """Drain with PostgreSQL's own client, with the options the collector uses; gives the seconds."""
    options = ("proto_version=1", "publication_names=pgwitness", "messages=true")
    command = [str(postgres.psql_bin / "pg_recvlogical"), "-d", postgres.dsn(), "-S", name, "--start", "-f", str(file)]
    started = time.perf_counter()
    subprocess.run([*command, "--endpos", end, *(f"-o{option}" for option in options)], check=True)
    return time.perf_counter() - started


def _collect(postgres: Postgres, broker: Broker, number: int, rows: int, folder: Path) -> tuple[float, int]:
    """Drain with `pgwitness collect wal`; gives the seconds from the slot's first use on, and the peak memory."""
    folder.mkdir()
    port = free_port()
    write_key(folder / "privacy.key", bytes(range(32)))
    (folder / "pgwitness.toml").write_text(
        f"""\
[kafka]
bootstrap = "{broker.bootstrap}"
prefix = "pass{number}."
[http]
collect_port = {port}
[clusters.bench]
dsn = "{postgres.dsn()}"
databases = ["postgres"]
slot = {{ name = "ours_{number}" }}
"""
    )
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.create_topics([NewTopic(f"pass{number}.raw", 4, 1)]).values():
        future.result()
    program = Path(sys.executable).with_name("pgwitness")
    command = [str(program), "collect", "wal", "--config", str(folder / "pgwitness.toml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        watched = psutil.Process(process.pid)
        with psycopg.connect(postgres.dsn(), autocommit=True) as sql:
            wait_for(lambda: _active(sql, number) or process.poll() is not None, SECONDS_MAX, "the slot is used")
        started, peak = time.perf_counter(), 0
        while _confirmed(port) < rows:
            peak = max(peak, watched.memory_info().rss)
            if process.poll() is not None or time.perf_counter() - started > SECONDS_MAX:
                raise RuntimeError((folder / "log").read_text()[-2000:])
            time.sleep(0.1)
        return time.perf_counter() - started, peak
    finally:
        process.terminate()
        process.wait(30)


def _active(sql: psycopg.Connection[Any], number: int) -> bool:
    name = slot.slot_name(f"ours_{number}", "postgres")
    row = sql.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (name,)).fetchone()
    return row is not None and bool(row[0])


def _confirmed(port: int) -> float:
    """Read how many row changes the broker has confirmed, from the collector's metrics."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    match = re.search(r'^pgwitness_raw_events_total\{[^}]*source="wal"[^}]*\} (\S+)$', text, re.MULTILINE)
    return float(match[1]) if match else 0.0


if __name__ == "__main__":
    print(json.dumps(run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), indent=2))
