"""What the gateway costs whoever connects through it: pgbench directly, through pgbouncer and through the gateway.

The gateway is the daemon as it is deployed: every statement judged, on the spool before it is forwarded, and shipped to
a broker meanwhile. pgbouncer (Debian's package, in session mode, which is what the gateway does too) is the peer; where
it is not installed that is said and its ratios are left out. A round runs all ways one after the other, so that a
machine that grows busy meets each; figures are medians over rounds. Beside the rates stands the processor time of the
process in the middle, which a busy machine disturbs less.

Then: the latency that is added at half of the gateway's load, what idle sessions hold, and a long answer, read whole
from the socket so that the client's own work does not hide the gateway's.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from collectors.gateway.wire import backend, frontend
from pgwitness.core.privacy import write_key
from pgwitness.demo.servers import LOOPBACK, Broker, Postgres, free_port, wait_for
from tests.bench.latency import daemon, pgwitness
from tests.servers.pgbouncer import PgBouncer, program

ROLE, PASSWORD, DATABASE = "bench", "not-a-secret", "bench"
CLIENTS = 8
ROUNDS = 5
SECONDS = 4.0
ROWS_SCALE = 10
LOADS = {
    "simple": ["-S", "-M", "simple"],
    "prepared": ["-S", "-M", "prepared"],
    "TPC-B": ["-M", "simple"],
}
LIMITS = {"simple": 0.6, "prepared": 0.7, "TPC-B": 0.85}
AIMS = {"simple": 0.8, "prepared": 0.9, "TPC-B": 0.85}
"""Of pgbouncer's transactions a second."""
ADDED_MS_MAX = 2.0
IDLE, IDLE_MIB_MAX = 1_000, 200
ANSWER_MB, ROW_BYTES = 1_000, 100
ANSWER_RATIO_MIN, ANSWER_GROWTH_MIB_MAX = 0.5, 32
READY_S_MAX = 60.0
_TPS = re.compile(r"tps = ([\d.]+) \(without initial connection time\)")
_DONE = re.compile(r"transactions actually processed: (\d+)")
READY = backend.ready("I")


@dataclass
class Way:
    """A way to the server: where it is, and the process in the middle, of which there is none to the server itself."""

    name: str
    port: int
    process: psutil.Process | None = None

    def dsn(self) -> str:
        """Where a client connects."""
        return f"postgresql://{ROLE}:{PASSWORD}@{LOOPBACK}:{self.port}/{DATABASE}?sslmode=disable"


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure all; `scale` shortens each run, the answer and the number of idle sessions."""
    with tempfile.TemporaryDirectory(prefix="pgwitness-gateway-") as folder, ExitStack() as stack:
        root = Path(folder)
        root.chmod(0o711)
        settings = {"max_connections": str(IDLE + 100), "max_wal_size": "4GB", "fsync": "off"}
        server = stack.enter_context(Postgres(root / "postgres", settings=settings))
        broker = stack.enter_context(Broker(root / "broker"))
        _prepare(server)
        direct = Way("direct", server.port)
        ways = [direct, *stack.enter_context(_pgbouncer(root, server))]
        gateway = stack.enter_context(_gateway(root, server, broker))
        ways.append(gateway)
        idle = _idle(gateway, max(50, round(IDLE * scale)))
        seconds = max(1, round(SECONDS * scale))
        loads = {name: _rounds(server, ways, seconds, load) for name, load in LOADS.items()}
        added = _latency(root, server, [direct, gateway], loads["simple"], max(5, round(20 * scale)))
        answer = _answer([direct, gateway], ANSWER_MB * scale)
    results: dict[str, Any] = {"loads": loads, "latency": added, "idle": idle, "answer": answer}
    return {**results, "checks": _checks(loads, added, idle, answer)}


# -- what runs ------------------------------------------------------------------------------------------------------


def _prepare(server: Postgres) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("SET password_encryption = 'scram-sha-256'")
        admin.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        admin.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
    server.program("pgbench", "-q", "-i", "-s", str(ROWS_SCALE), server.dsn(ROLE, DATABASE))


@contextmanager
def _pgbouncer(root: Path, server: Postgres) -> Iterator[list[Way]]:
    if program() is None:
        print("pgbouncer is not installed (Debian: apt-get install pgbouncer): measured without it", file=sys.stderr)
        yield []
        return
    with PgBouncer(root / "pgbouncer", server, [ROLE], pool=CLIENTS + 2, mode="session") as pooler:
        yield [Way("pgbouncer", pooler.port, psutil.Process(pooler.pid))]


@contextmanager
def _gateway(root: Path, server: Postgres, broker: Broker) -> Iterator[Way]:
    """Run the daemon in a folder of its own, with what a deployment has."""
    place = root / "gateway"
    place.mkdir()
    pgwitness(place, "init", str(place))
    (place / "privacy.key").unlink(missing_ok=True)
    write_key(place / "privacy.key", b"bench" * 8)
    port = free_port()
    (place / "pgwitness.toml").write_text(
        f'[kafka]\nbootstrap = "{broker.bootstrap}"\n'
        f'[clusters.bench]\ndsn = "{server.dsn()}"\ndatabases = ["{DATABASE}"]\n'
        f'[gateway]\nlisten = "{LOOPBACK}:{port}"\nconnections_max = {IDLE + 100}\n'
        f'[gateway.databases."*"]\ncluster = "bench"\n'
        f'upstream = "host={LOOPBACK} port={server.port} sslmode=disable"\n'
    )
    pgwitness(place, "topics", "apply")
    process = daemon(place, "gateway", "--port", "0")
    try:
        way = Way("gateway", port, psutil.Process(process.pid))
        wait_for(lambda: _answers(way), READY_S_MAX, "the gateway")
        yield way
    finally:
        process.terminate()
        psutil.wait_procs([process], timeout=20)
        if process.is_running():
            process.kill()


def _answers(way: Way) -> bool:
    assert way.process is not None
    assert way.process.is_running(), "the gateway has ended"
    try:
        with psycopg.connect(way.dsn(), connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False


# -- transactions a second ------------------------------------------------------------------------------------------


def _rounds(server: Postgres, ways: list[Way], seconds: int, load: list[str]) -> dict[str, Any]:
    """Run a load on each way in turns, in another order each round."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    spent: dict[str, list[float]] = {way.name: [] for way in ways if way.process is not None}
    for number in range(ROUNDS):
        turn = number % len(ways)
        for way in ways[turn:] + ways[:turn]:
            before = _spent_s(way)
            output = server.program(
                "pgbench", "-n", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), *load, way.dsn()
            )  # fmt: skip
            rates[way.name].append(_found(_TPS, output))
            if way.process is not None:
                spent[way.name].append((_spent_s(way) - before) * 1e6 / _found(_DONE, output))
    ratios = {
        name: statistics.median(g / peer for g, peer in zip(rates["gateway"], rates[name], strict=True))
        for name in rates
        if name != "gateway"
    }
    return {
        "tps": {name: round(statistics.median(found)) for name, found in rates.items()},
        "cpu_us": {name: round(statistics.median(found), 1) for name, found in spent.items()},
        "of": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "all_tps": rates,
        "all_cpu_us": spent,
    }


def _spent_s(way: Way) -> float:
    if way.process is None:
        return 0.0
    times = way.process.cpu_times()
    return float(times.user + times.system)


def _found(pattern: re.Pattern[str], output: str) -> float:
    found = pattern.search(output)
    assert found is not None, output
    return float(found[1])


# -- latency ----------------------------------------------------------------------------------------------------------


def _latency(root: Path, server: Postgres, ways: list[Way], simple: dict[str, Any], seconds: int) -> dict[str, Any]:
    """Hold half of what the gateway can do, on each way in turns; milliseconds of a transaction as pgbench logs them.

    What a transaction waits for its turn in pgbench's schedule is not in it.
    """
    rate = max(1, simple["tps"]["gateway"] // 2)
    logs = root / "logs"
    logs.mkdir()
    logs.chmod(0o777)
    took: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(3):
        for way in ways:
            prefix = logs / f"{way.name}{number}"
            server.program(
                "pgbench", "-n", "-S", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), "-R", str(rate),
                "-l", f"--log-prefix={prefix}", way.dsn(),
            )  # fmt: skip
            for file in logs.glob(f"{prefix.name}.*"):
                lines = (line.split() for line in file.read_text().splitlines())
                took[way.name] += [(int(line[2]) - int(line[6])) / 1000 for line in lines]
    cuts = {name: statistics.quantiles(found, n=100) for name, found in took.items()}
    return {
        "rate_tps": rate,
        "p50_ms": {name: round(cut[49], 3) for name, cut in cuts.items()},
        "p99_ms": {name: round(cut[98], 3) for name, cut in cuts.items()},
    }


# -- memory -----------------------------------------------------------------------------------------------------------


def _idle(gateway: Way, sessions: int) -> dict[str, Any]:
    """Open so many sessions that ask nothing; MiB of the process before and with them."""
    assert gateway.process is not None
    before = gateway.process.memory_info().rss / 2**20
    with ExitStack() as stack:
        for _ in range(sessions):
            stack.enter_context(psycopg.connect(gateway.dsn(), autocommit=True))
        mib = gateway.process.memory_info().rss / 2**20
    return {
        "sessions": sessions,
        "mib_before": round(before, 1),
        "mib": round(mib, 1),
        "kib_a_session": round((mib - before) * 1024 / sessions, 1),
    }


def _answer(ways: list[Way], megabytes: float) -> dict[str, Any]:
    """Ask for a long answer on each way in turns; MB a second, and by how much the gateway's process grew at most."""
    rows = max(1, round(megabytes * 1e6 / (ROW_BYTES + 11)))
    query = f"SELECT repeat('x', {ROW_BYTES}) FROM generate_series(1, {rows})"
    speeds: dict[str, list[float]] = {way.name: [] for way in ways}
    spent: list[float] = []
    growth = 0.0
    for _ in range(3):
        for way in ways:
            before, peak = _spent_s(way), _peak_mib(way, begin=True)
            size, seconds = _read_whole(way, query)
            speeds[way.name].append(size / 1e6 / seconds)
            if way.process is not None:
                growth = max(growth, _peak_mib(way) - peak)
                spent.append((_spent_s(way) - before) / (size / 1e9))
    ratios = [g / d for g, d in zip(speeds["gateway"], speeds["direct"], strict=True)]
    return {
        "megabytes": round(megabytes),
        "mb_a_second": {name: round(statistics.median(found)) for name, found in speeds.items()},
        "of_direct": round(statistics.median(ratios), 3),
        "cpu_s_a_gb": round(statistics.median(spent), 2),
        "growth_mib": round(growth, 1),
    }


def _read_whole(way: Way, query: str) -> tuple[int, float]:
    """Send a query on a connection that libpq has opened, and read its answer without looking at it."""
    buffer, size, tail = bytearray(1 << 20), 0, b""
    with (
        psycopg.connect(way.dsn(), autocommit=True) as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as sock,
    ):
        sock.settimeout(None)
        began = time.perf_counter()
        sock.sendall(frontend.query(query))
        while not tail.endswith(READY):
            count = sock.recv_into(buffer)
            assert count, "the connection has ended in the midst of the answer"
            size += count
            tail = (tail + buffer[max(0, count - len(READY)) : count])[-len(READY) :]
        return size, time.perf_counter() - began


def _peak_mib(way: Way, *, begin: bool = False) -> float:
    """Return the peak of a process's memory, in MiB; `begin` counts anew. Linux; elsewhere what it is now."""
    if way.process is None:
        return 0.0
    place = Path(f"/proc/{way.process.pid}")
    if not place.exists():
        return float(way.process.memory_info().rss) / 2**20
    if begin:
        (place / "clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", (place / "status").read_text())
    assert found is not None
    return int(found[1]) / 1024


# -- limits -----------------------------------------------------------------------------------------------------------


def _checks(
    loads: dict[str, Any], added: dict[str, Any], idle: dict[str, Any], answer: dict[str, Any]
) -> list[dict[str, Any]]:
    checks = []
    for name, load in loads.items():
        if (ratio := load["of"].get("pgbouncer")) is None:
            continue
        tps, cpu = load["tps"], load["cpu_us"]
        checks.append(
            {
                "what": f"gateway: pgbench {name}, of pgbouncer's transactions a second",
                "figure": f"{ratio:.2f} ({tps['gateway']:,} to {tps['pgbouncer']:,}; {cpu['gateway']:.0f} to"
                f" {cpu['pgbouncer']:.0f} µs of processor; {load['of']['direct']:.2f} of direct)",
                "limit": f"at least {LIMITS[name]} (aim {AIMS[name]})",
                "holds": ratio >= LIMITS[name],
            }
        )
    p99 = added["p99_ms"]
    at_thousand = idle["mib_before"] + idle["kib_a_session"] * IDLE / 1024
    return [
        *checks,
        {
            "what": f"gateway: latency p99 added at {added['rate_tps']:,} transactions a second, half of its load",
            "figure": f"{p99['gateway'] - p99['direct']:.2f} ms ({p99['gateway']:.2f} to {p99['direct']:.2f})",
            "limit": f"under {ADDED_MS_MAX:.0f} ms",
            "holds": p99["gateway"] - p99["direct"] < ADDED_MS_MAX,
        },
        {
            "what": f"gateway: memory with {IDLE:,} idle sessions, from {idle['sessions']:,}",
            "figure": f"{at_thousand:.0f} MiB ({idle['kib_a_session']:.0f} KiB a session)",
            "limit": f"under {IDLE_MIB_MAX} MiB",
            "holds": at_thousand < IDLE_MIB_MAX,
        },
        {
            "what": f"gateway: an answer of {answer['megabytes']:,} MB, of direct speed",
            "figure": f"{answer['of_direct']:.2f} ({answer['mb_a_second']['gateway']} to"
            f" {answer['mb_a_second']['direct']} MB/s; {answer['growth_mib']:.0f} MiB more)",
            "limit": f"at least {ANSWER_RATIO_MIN}, at most {ANSWER_GROWTH_MIB_MAX} MiB more",
            "holds": answer["of_direct"] >= ANSWER_RATIO_MIN and answer["growth_mib"] <= ANSWER_GROWTH_MIB_MAX,
        },
    ]


if __name__ == "__main__":
    print(run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
