"""A backlog for the worker: a full `raw` topic to Parquet, the worker held to one core; `land` and `rates` measure it.

The clock runs from the first record that the worker reads until every row is in the log of the lake; the rows are then
counted with DuckDB. `per_cpu_s` counts the processor time of the whole process, start included: what a core gives when
nobody else uses it. All packaged policies and the behaviour models are on. The broker runs on the other cores. The lake
commits each second or 100,000 rows: with the default of a minute the clock would measure how long the last rows
wait for company.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import psutil
from confluent_kafka import Producer
from msgspec import Raw

from pgwitness.core.codec import BatchBuilder
from pgwitness.core.config import Config, load
from pgwitness.core.events import Beacon, Count, RawEvent, RawHeader, Relation, Transaction, encode_event
from pgwitness.core.topics import partition_of
from pgwitness.demo.servers import Broker, free_port
from sinks.sql import catalogue
from streams.kafka import admin

START_US = 1_790_000_000_000_000
RSS_MIB_MAX = 512
CUT_EACH = 4_096
"""Transactions, or statements, after which a batch is cut whatever its size."""
TABLE = Relation("public.customers", ["id", "name", "email", "amount", "changed_at"], beacon=True)
PROFILE = "PGWITNESS_BENCH_PROFILE"
"""Where py-spy is to write what the worker spends its time on, one file a case; nothing when it is not set."""


def measure(folder: Path, source: str, events: Iterable[tuple[RawEvent, int]], view: str) -> dict[str, Any]:
    """Let a worker work through events, each with its number of rows; they are counted in a view of the lake."""
    with Broker(folder.with_name(f"{folder.name}-broker")) as broker:
        config = configure(folder, broker.bootstrap)
        admin.apply(config)
        filled = fill(config, source, events)
        return _work(folder, config, filled, view)


def _work(folder: Path, config: Config, filled: int, view: str) -> dict[str, Any]:
    port = free_port()
    # `python -m pgwitness worker`, pinned before it imports anything.
    core = max(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, {{{core}}}); from pgwitness.cli import main; main()"
    command = [sys.executable, "-c", program, "worker", "--config", str(folder / "pgwitness.toml"), "--port", str(port)]
    profile = os.environ.get(PROFILE)
    if profile:
        command = ["py-spy", "record", "-f", "raw", "-o", f"{profile}-{folder.name}.txt", "--", *command]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, stderr=log, stdout=log)
        try:
            seconds = _watch(worker, port, filled, folder / "worker.log")
            process = psutil.Process(worker.pid)
            process = next(iter(process.children()), process)  # py-spy's child, if that is there
            peak = peak_mib(process.pid)
            busy_s = process.cpu_times()
            process.terminate()
        finally:
            if not profile:
                worker.terminate()
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
    with catalogue.connect(config.lake.path) as connection:
        answer = connection.execute(f"SELECT count(*), count(DISTINCT event_id) FROM {view}").fetchone()
        alerts = connection.execute("SELECT count(*) FROM alerts").fetchone()
    assert answer is not None
    assert alerts is not None
    return {
        "rows": filled,
        "landed": answer[0],
        "distinct": answer[1],
        "alerts": alerts[0],
        "seconds": round(seconds, 2),
        "per_s": round(filled / seconds),
        "per_cpu_s": round(filled / (busy_s.user + busy_s.system)),
        "peak_rss_mib": round(peak),
    }


def whole(case: dict[str, Any]) -> bool:
    """Say whether everything landed, once."""
    return bool(case["landed"] == case["distinct"] == case["rows"])


def configure(folder: Path, bootstrap: str) -> Config:
    """Write a worker's configuration: a principal each role, all packaged policies."""
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


def fill(config: Config, source: str, events: Iterable[tuple[RawEvent, int]]) -> int:
    """Write events into raw; returns the number of rows in them."""
    producer = Producer(config.kafka.client() | {"compression.type": "lz4", "linger.ms": "20"})
    builder = BatchBuilder("bench", msgspec.json.encode(RawHeader("shop", source, "localhost:5432")))
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

    for number, (event, n_rows) in enumerate(events, 1):
        send(builder.add(encode_event(event), n_rows))
        total += n_rows
        if number % CUT_EACH == 0:
            send(builder.cut())
    send(builder.cut())
    producer.flush(60)
    return total


def part_of(
    number: int, who: str, pid: int, at_us: int, content: str, n_rows: int, first: int = 0, *, last: bool = True
) -> Transaction:
    """Make a part of a transaction of updates, with its verified beacon."""
    return Transaction(
        captured_at_us=at_us,
        system_id="7300000000000000000",
        timeline=1,
        database="shop",
        lsn=1_000_000 + number,
        xid=number,
        committed_at_us=at_us,
        part=first // 1_000,
        last=last,
        first_ordinal=first,
        n_rows=n_rows,
        beacons=[Beacon(who, who, pid, START_US, number, "api", "10.0.0.1", 5_000)],
        relations=[TABLE],
        counts=[Count(0, "u", n_rows)],
        rows=Raw(f"[{content}]".encode()),
    )


def row(ordinal: int, place: int) -> str:
    """Make one row as the collector writes it."""
    token = f"tok_{place * 2654435761 % 2**64:032x}"
    return (
        f'[{ordinal},"u",0,{{"id":{place}}},["email","amount"],null,{{"id":{place},"name":"{token}",'
        f'"email":"{token}","amount":{place % 1000},"changed_at":"2026-11-22 20:00:00+00"}}]'
    )


def _watch(worker: subprocess.Popen[bytes], port: int, rows: int, log: Path) -> float:
    """Wait until the worker says that all rows are in the lake; returns the seconds since its first record."""
    began: float | None = None
    deadline = time.monotonic() + 60 + rows / 500
    while time.monotonic() < deadline and worker.poll() is None:
        now = time.monotonic()
        figures = _scrape(port)
        if began is None and figures.get('pgwitness_worker_batches_total{topic="raw"}', 0) > 0:
            began = now
        if began is not None and figures.get("pgwitness_worker_landed_total", 0) >= rows:
            return now - began
        time.sleep(0.25)  # on the worker's core each look costs it some milliseconds
    raise RuntimeError(f"the worker did not land {rows} rows; its log ends:\n{log.read_text()[-2000:]}")


def _scrape(port: int) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("pgwitness_"))
    return {name: float(value) for name, _, value in lines}


def peak_mib(pid: int) -> float:
    """Give the most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
