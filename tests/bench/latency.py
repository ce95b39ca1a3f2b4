"""How long from a commit to its alert, with 1,000 transactions a second going on (limit: p99 under a second).

pgbench holds the rate with its own TPC-B-like transactions; beside it an agent deletes a hundred rows five times a
second, which a policy calls a mass change. The delay is the alert's timestamp in Kafka (this machine's clock)
minus the commit's, which the WAL carries. Also measured: the peak memory of the collector and of the worker.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg
from confluent_kafka import Consumer

from pgwitness.core.privacy import write_key
from pgwitness.demo.servers import Broker, Postgres

RATE_TPS = 1_000
PROBES_PER_S = 5
ROWS_PER_PROBE = 100
TABLES = 60
"""Probes take turns with so many tables: of one finding, only the first ten repeats are told one by one."""
LIMIT_MS = 1_000
COLLECTOR_MIB_MAX, WORKER_MIB_MAX = 256, 512
READY_S_MAX = 60.0


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure for a minute (times `scale`); returns milliseconds and checks."""
    seconds = max(10, round(60 * scale))
    with tempfile.TemporaryDirectory(prefix="pgwitness-latency-") as folder:
        root = Path(folder)
        postgres, broker = Postgres(root / "pg"), Broker(root / "broker")
        postgres.start()
        broker.start()
        daemons: list[psutil.Popen] = []
        try:
            write_configuration(root, postgres, broker)
            prepare(root, postgres)
            daemons = [daemon(root, "worker"), daemon(root, "collect", "wal", "sessions")]
            wait_until_alerting(root, broker, postgres)
            load = pgbench(postgres, "-n", "-R", str(RATE_TPS), "-c", "8", "-T", str(seconds), "bench")
            probes = probe(postgres, seconds)
            report = load.communicate(timeout=60)[0]
            delays, commits = delays_ms(broker, probes)
            memory = {name: peak_mib(process) for name, process in zip(("worker", "collector"), daemons, strict=True)}
        finally:
            for process in daemons:
                process.terminate()
            psutil.wait_procs(daemons, timeout=20)
            for process in daemons:
                if process.is_running():
                    process.kill()
            broker.stop()
            postgres.stop()
    return summary(delays, commits, memory, achieved_tps(report), seconds)


def summary(delays: list[float], commits: int, memory: dict[str, float], tps: float, seconds: int) -> dict[str, Any]:
    """Put the figures and their limits together."""
    cuts = statistics.quantiles(delays, n=100) if len(delays) > 1 else [float("inf")] * 99
    p50, p99 = cuts[49], cuts[98]
    return {
        "seconds": seconds,
        "rate_tps": tps,
        "probes": commits,
        "alerts": len(delays),
        "latency_ms": {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(max(delays, default=0.0), 1)},
        "peak_mib": memory,
        "checks": [
            {
                "what": f"commit to alert at {tps:.0f} transactions/s",
                "figure": f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, {len(delays)} of {commits} alerts",
                "limit": f"p99 < {LIMIT_MS} ms",
                "holds": p99 < LIMIT_MS and len(delays) == commits,
            },
            {
                "what": "peak memory, collector (wal and sessions)",
                "figure": f"{memory['collector']:.0f} MiB",
                "limit": f"{COLLECTOR_MIB_MAX} MiB",
                "holds": memory["collector"] <= COLLECTOR_MIB_MAX,
            },
            {
                "what": "peak memory, worker",
                "figure": f"{memory['worker']:.0f} MiB",
                "limit": f"{WORKER_MIB_MAX} MiB",
                "holds": memory["worker"] <= WORKER_MIB_MAX,
            },
        ],
    }


def write_configuration(root: Path, postgres: Postgres, broker: Broker) -> None:
    """Write what the daemons read: one cluster, one database, the packaged policies."""
    pgwitness(root, "init", str(root))
    (root / "privacy.key").unlink(missing_ok=True)
    write_key(root / "privacy.key", b"bench" * 8)
    (root / "pgwitness.toml").write_text(
        f'[kafka]\nbootstrap = "{broker.bootstrap}"\n'
        f'[clusters.bench]\ndsn = "{postgres.dsn("postgres", "postgres")}"\ndatabases = ["bench"]\n'
        "[http]\ncollect_port = 0\nworker_port = 0\n"
    )
    (root / "identities.yaml").write_text(
        "rules:\n  - id: probe\n    match: {application: probe}\n    principal: probe\n    kind: agent\n"
    )


def prepare(root: Path, postgres: Postgres) -> None:
    """Make the tables and install what a source needs."""
    with psycopg.connect(postgres.dsn("postgres", "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench")
    pgbench(postgres, "-i", "-q", "-s", "10", "bench").communicate(timeout=120)
    with psycopg.connect(postgres.dsn("postgres", "bench"), autocommit=True) as connection:
        connection.execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
        for number in range(TABLES + 1):  # one more, for warming up
            connection.execute(
                f"CREATE TABLE probe_{number} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)"
            )
    pgwitness(root, "topics", "apply")
    pgwitness(root, "db", "install")


def pgwitness(root: Path, *arguments: str) -> None:
    """Run a command of pgwitness to its end; its output is shown when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pgwitness", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pgwitness {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def daemon(root: Path, *arguments: str) -> psutil.Popen:
    """Start a daemon of pgwitness."""
    with (root / f"{arguments[0]}.log").open("ab") as log:
        return psutil.Popen([sys.executable, "-m", "pgwitness", *arguments], cwd=root, stdout=log, stderr=log)


def pgbench(postgres: Postgres, *arguments: str) -> subprocess.Popen[str]:
    """Start pgbench on the server."""
    where = ["-h", "127.0.0.1", "-p", str(postgres.port), "-U", "postgres"]
    return subprocess.Popen(
        [str(postgres.bin / "pgbench"), *where, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def delete_some(connection: psycopg.Connection[Any], number: int) -> None:
    """Insert rows into a table and delete them all: one transaction each."""
    table = f"probe_{number}"
    with connection.transaction():
        connection.execute(f"INSERT INTO {table} (note) SELECT 'x' FROM generate_series(1, {ROWS_PER_PROBE})")
    with connection.transaction():
        connection.execute(f"DELETE FROM {table}")


def logs(root: Path) -> str:
    """Give the end of what the daemons logged."""
    return "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in sorted(root.glob("*.log")))


def wait_until_alerting(root: Path, broker: Broker, postgres: Postgres) -> None:
    """Probe until the first alert comes out at the other end; what comes before is warm-up."""
    deadline = time.monotonic() + READY_S_MAX
    with psycopg.connect(postgres.dsn("postgres", "bench"), autocommit=True, application_name="probe") as connection:
        while not alerts(broker, wait_s=1.0):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no alert after a minute; the daemons said:\n{logs(root)}")
            delete_some(connection, TABLES)


def probe(postgres: Postgres, seconds: int) -> list[int]:
    """Probe at a steady rate; returns when each began, microseconds since the epoch."""
    began: list[int] = []
    with psycopg.connect(postgres.dsn("postgres", "bench"), autocommit=True, application_name="probe") as connection:
        start = time.monotonic()
        for number in range(seconds * PROBES_PER_S):
            time.sleep(max(0.0, start + number / PROBES_PER_S - time.monotonic()))
            began.append(time.time_ns() // 1_000)
            delete_some(connection, number % TABLES)
    return began


def delays_ms(broker: Broker, probes: list[int]) -> tuple[list[float], int]:
    """Match alerts to probes by commit time; gives the delays and how many probes there were."""
    deadline = time.monotonic() + 30
    while True:
        found = {
            commit_ms: stamp_ms - commit_ms
            for stamp_ms, value in alerts(broker, wait_s=2.0)
            if (commit_ms := value["finding_info"]["last_seen_time"]) * 1_000 >= probes[0] - 1_000
            and "probe" in json.dumps(value)
            and "delete" in json.dumps(value).lower()
        }
        if len(found) >= len(probes) or time.monotonic() > deadline:
            return list(found.values()), len(probes)


def alerts(broker: Broker, wait_s: float) -> list[tuple[int, dict[str, Any]]]:
    """Read the whole alerts topic with a bare client: (Kafka's timestamp in ms, the alert)."""
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": f"probe-{time.time_ns()}", "auto.offset.reset": "earliest"}
    )
    try:
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        consumer.assign([TopicPartition("pgwitness.alerts", 0, OFFSET_BEGINNING)])
        found: list[tuple[int, dict[str, Any]]] = []
        while (message := consumer.poll(wait_s)) is not None:
            if message.error() is None:
                found.append((message.timestamp()[1], json.loads(message.value() or b"{}")))
        return found
    finally:
        consumer.close()


def peak_mib(process: psutil.Popen) -> float:
    """Give a process's highest resident size so far, by the kernel's own account (VmHWM)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def achieved_tps(report: str) -> float:
    """Read the rate that pgbench says it reached."""
    return next((float(line.split("=")[1].split()[0]) for line in report.splitlines() if line.startswith("tps")), 0.0)


if __name__ == "__main__":
    print(json.dumps(run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), indent=2))
