"""How fast the worker lands: a full `raw` topic to Parquet, the worker held to one core.

Transactions of 1, 10, 100 and 10,000 rows in equal shares of rows, each with its verified beacon, by 1, 200 and
10,000 principals who take turns from transaction to transaction. The clock runs from the first record that the worker
reads until every row is in the lake's manifest; the rows are then counted with DuckDB. `rows_per_cpu_s` counts the
processor time of the whole process, start included: what a core gives when nobody else uses it. All packaged
policies and the behaviour model are on. The broker runs on the other cores. The lake commits each second or 100,000
rows: with the default of five seconds the clock would measure how long the last rows wait for company.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
from confluent_kafka import Producer

from pgwitness.codec import BatchBuilder
from pgwitness.config import Config, load
from pgwitness.demo.servers import Broker, free_port
from pgwitness.events import Beacon, Count, Raw, RawHeader, Relation, Transaction, encode_event
from pgwitness.topics import partition_of
from sinks import catalogue
from streams import admin

ROWS = 600_000
SIZES = (1, 10, 100, 10_000)
PART_ROWS = 1_000
PRINCIPALS = (1, 200, 10_000)
ROWS_PER_S_MIN = 40_000
RSS_MIB_MAX = 512
START_US = 1_790_000_000_000_000
TABLE = Relation("public.customers", ["id", "name", "email", "amount", "changed_at"], beacon=True)


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure each number of principals; returns rates, peak memory and the checks."""
    cases = []
    with tempfile.TemporaryDirectory(prefix="pgwitness-bench-") as folder:
        for principals in PRINCIPALS:
            with Broker(Path(folder) / f"broker{principals}") as broker:
                cases.append(_case(Path(folder) / str(principals), broker.bootstrap, principals, int(ROWS * scale)))
    slowest = min(case["rows_per_s"] for case in cases)
    largest = max(case["peak_rss_mib"] for case in cases)
    return {
        "cases": cases,
        "checks": [
            {
                "what": f"worker on one core, {case['principals']} principals",
                "figure": f"{case['rows_per_s']:,.0f} rows/s",
                "limit": f"at least {ROWS_PER_S_MIN:,}",
                "holds": case["rows_per_s"] >= ROWS_PER_S_MIN and case["landed"] == case["distinct"] == case["rows"],
            }
            for case in cases
        ]
        + [
            {
                "what": "worker's peak memory",
                "figure": f"{largest:.0f} MiB",
                "limit": f"at most {RSS_MIB_MAX} MiB",
                "holds": largest <= RSS_MIB_MAX,
            }
        ],
        "rows_per_s_min": slowest,
        "peak_rss_mib": largest,
    }


def _case(folder: Path, bootstrap: str, principals: int, rows: int) -> dict[str, Any]:
    config = _configure(folder, bootstrap)
    admin.apply(config)
    filled = _fill(config, principals, rows)
    port = free_port()
    # `python -m pgwitness worker`, pinned before it imports anything.
    core = max(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{core}}}); from pgwitness.cli import main; main()"
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-c", program, "worker", "--config", str(folder / "pgwitness.toml"), "--port", str(port)],
            stderr=log,
            stdout=log,
        )
        try:
            seconds = _watch(worker, port, filled, folder / "worker.log")
            peak = _peak_mib(worker.pid)
            busy_s = psutil.Process(worker.pid).cpu_times()
        finally:
            worker.terminate()
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
    with catalogue.connect(config.lake.path) as connection:
        answer = connection.execute("SELECT count(*), count(DISTINCT event_id) FROM changes").fetchone()
    assert answer is not None
    return {
        "principals": principals,
        "rows": filled,
        "landed": answer[0],
        "distinct": answer[1],
        "seconds": round(seconds, 2),
        "rows_per_s": round(filled / seconds),
        "rows_per_cpu_s": round(filled / (busy_s.user + busy_s.system)),
        "peak_rss_mib": round(peak),
    }


def _configure(folder: Path, bootstrap: str) -> Config:
    folder.mkdir(parents=True)
    (folder / "identities.yaml").write_text(
        'rules:\n  - match: {role: "svc-*"}\n    principal: "{role}"\n    kind: service\n    peer_group: services\n'
    )
    (folder / "policies").mkdir()
    pack = Path(__file__).parents[2] / "detectors" / "pack"
    for file in pack.glob("*.yaml"):
        (folder / "policies" / file.name).write_bytes(file.read_bytes())
    path = folder / "pgwitness.toml"
    path.write_text(
        f'[kafka]\nbootstrap = "{bootstrap}"\n[worker]\nsession_timeout = "6s"\n[lake]\nflush_interval = "1s"\n'
        '[clusters.shop]\ndsn = "postgresql://localhost/shop"\nlabels = { env = "prod" }\n'
    )
    return load(path)


def _fill(config: Config, principals: int, rows: int) -> int:
    """Write the transactions into raw; returns the number of rows, which is close to `rows`."""
    producer = Producer(config.kafka.client() | {"compression.type": "lz4", "linger.ms": "20"})
    builder = BatchBuilder("bench", msgspec.json.encode(RawHeader("shop", "wal", "localhost:5432")))
    topic, partition = config.kafka.topic("raw"), partition_of("shop", config.topics.raw_partitions)
    total = 0

    def send(payload: bytes | None) -> None:
        while payload is not None:
            try:
                producer.produce(topic, payload, b"shop", partition)
                producer.poll(0)
                return
            except BufferError:
                producer.poll(0.1)

    for number, part in _parts(principals, rows):
        send(builder.add(encode_event(part), part.n_rows))
        total += part.n_rows
        if number % 4_096 == 0:
            send(builder.cut())
    send(builder.cut())
    producer.flush(60)
    return total


def _parts(principals: int, rows: int) -> Iterator[tuple[int, Transaction]]:
    """Make the parts of the transactions, sizes interleaved so that each has its share of rows at any time."""
    share = rows // len(SIZES)
    sizes = [size for size in SIZES if share >= size]
    done = dict.fromkeys(sizes, 0)
    number = 0
    row = 0
    while sizes and min(done.values()) < share:
        size = min(sizes, key=lambda each: done[each] / share)
        done[size] += size
        number += 1
        who = f"svc-{number % principals:05d}"
        beacon = Beacon(who, who, 1_000 + number % principals, START_US, number, "api", "10.0.0.1", 5_000)
        for first in range(0, size, PART_ROWS):
            n_rows = min(PART_ROWS, size - first)
            content = ",".join(_row(first + place, row + place) for place in range(n_rows))
            row += n_rows
            yield (
                number,
                Transaction(
                    captured_at_us=START_US + number * 100,
                    system_id="7300000000000000000",
                    timeline=1,
                    database="shop",
                    lsn=1_000_000 + number,
                    xid=number,
                    committed_at_us=START_US + number * 100,
                    part=first // PART_ROWS,
                    last=first + n_rows == size,
                    first_ordinal=first,
                    n_rows=n_rows,
                    beacons=[beacon],
                    relations=[TABLE],
                    counts=[Count(0, "u", n_rows)],
                    rows=Raw(f"[{content}]".encode()),
                ),
            )


def _row(ordinal: int, row: int) -> str:
    token = f"tok_{row * 2654435761 % 2**64:032x}"
    return (
        f'[{ordinal},"u",0,{{"id":{row}}},["email","amount"],null,{{"id":{row},"name":"{token}",'
        f'"email":"{token}","amount":{row % 1000},"changed_at":"2026-11-22 20:00:00+00"}}]'
    )


def _watch(worker: subprocess.Popen[bytes], port: int, rows: int, log: Path) -> float:
    """Wait until the worker says that all rows are in the lake; returns the seconds since its first record."""
    began: float | None = None
    deadline = time.monotonic() + 60 + rows / 5_000
    while time.monotonic() < deadline and worker.poll() is None:
        now = time.monotonic()
        figures = _scrape(port)
        if began is None and figures.get('pgwitness_worker_batches_total{topic="raw"}', 0) > 0:
            began = now
        if began is not None and figures.get("pgwitness_worker_landed_total", 0) >= rows:
            return now - began
        time.sleep(0.1)
    raise RuntimeError(f"the worker did not land {rows} rows; its log ends:\n{log.read_text()[-2000:]}")


def _scrape(port: int) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("pgwitness_"))
    return {name: float(value) for name, _, value in lines}


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
