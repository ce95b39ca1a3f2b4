"""What the beacon costs the source database: pgbench with and without it, as interleaved pairs.

Two databases of one server are alike but for the beacon. A pair is one run on each, and the order changes from pair to
pair, so that a machine that grows busy meets both; the figure is the median of the pairs' ratios, and its quartiles
tell how far to trust it. TPC-B-like is four writes and one read in a transaction; the other load is an update that
changes nothing, which must not take a transaction id. Settings are PostgreSQL's own (fsync on), so that a commit costs
what it costs.

The time on the processor that the server's backends took for a transaction is reported beside it: a busy machine
disturbs that less than the rate, and it tells the beacon's cost from the disk's.
"""

from __future__ import annotations

import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import psutil
import psycopg

from collectors.installation import install
from collectors.installation.job import Job
from pgwitness.demo.servers import Postgres, wait_for

WRITES, NOTHINGS = "TPC-B-like writes", "writes that change nothing"
LIMITS = {WRITES: 0.85, NOTHINGS: 0.80}
"""What is to be left of the transactions per second, as a share."""
PAIRS = 15
SECONDS = 2.0
ROWS_SCALE = 10
CLIENTS = 4
NOTHING = "UPDATE pgbench_accounts SET abalance = abalance WHERE false;\n"
EXIT_SECONDS_MAX = 10.0
"""How long backends may take to end behind pgbench."""
_TPS = re.compile(r"tps = ([\d.]+) \(without initial connection time\)")
_DONE = re.compile(r"transactions actually processed: (\d+)")


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure both loads; `scale` stretches the length of each run."""
    with tempfile.TemporaryDirectory(prefix="pgwitness-bench-") as folder:
        place = Path(folder)
        place.chmod(0o711)
        script = place / "nothing.sql"
        script.write_text(NOTHING)
        script.chmod(0o644)
        with Postgres(place / "postgres", settings={"max_wal_size": "4GB"}) as server:
            for name in ("plain", "beacon"):
                _prepare(server, name)
            with psycopg.connect(server.dsn(dbname="beacon")) as connection:
                report = install.install(connection)
                assert report.complete, report.left
            with psycopg.connect(server.dsn(dbname="beacon"), autocommit=True) as connection:
                while Job().step(connection, 0.0):  # as the collector would: tables come into the publication
                    pass
            seconds = max(1, round(SECONDS * scale))
            server.program("psql", "-q", "-d", server.dsn(), "-c", "CHECKPOINT")
            loads = {
                WRITES: _pairs(server, seconds, []),
                NOTHINGS: _pairs(server, seconds, ["-f", str(script)]),
            }
    return {"loads": loads, "checks": [_check(name, load) for name, load in loads.items()]}


def _prepare(server: Postgres, name: str) -> None:
    server.program("createdb", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", name)
    server.program("pgbench", "-q", "-i", "-s", str(ROWS_SCALE), server.dsn(dbname=name))


def _pairs(server: Postgres, seconds: int, load: list[str]) -> dict[str, Any]:
    runs: dict[str, list[tuple[float, float]]] = {"plain": [], "beacon": []}
    for pair in range(PAIRS):
        for name in ("plain", "beacon") if pair % 2 == 0 else ("beacon", "plain"):
            runs[name].append(_run(server, name, seconds, load))
    tps = {name: [rate for rate, _ in measured] for name, measured in runs.items()}
    cpu = {name: [spent for _, spent in measured] for name, measured in runs.items()}
    ratios = [b / p for b, p in zip(tps["beacon"], tps["plain"], strict=True)]
    plain, beacon = statistics.median(tps["plain"]), statistics.median(tps["beacon"])
    return {
        "tps_without": plain,
        "tps_with": beacon,
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "ratio_of_medians": beacon / plain,
        "cpu_us_without": statistics.median(cpu["plain"]),
        "cpu_us_added": statistics.median(b - p for b, p in zip(cpu["beacon"], cpu["plain"], strict=True)),
        "tps": tps,
        "cpu_us": cpu,
    }


def _run(server: Postgres, name: str, seconds: int, load: list[str]) -> tuple[float, float]:
    """Run pgbench once; give transactions a second, and microseconds of processor time that a transaction took.

    The postmaster knows the time of its children when they have ended; pgbench's backends are all that end here but
    for a worker of autovacuum now and then.
    """
    before = _children_s(server)
    output = server.program(
        "pgbench", "-n", "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), *load, server.dsn(dbname=name)
    )
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        wait_for(lambda: _gone(connection, name), EXIT_SECONDS_MAX, "pgbench's backends to end")
    spent = _children_s(server) - before
    rate, done = _TPS.search(output), _DONE.search(output)
    assert rate is not None, output
    assert done is not None, output
    return float(rate[1]), spent * 1e6 / int(done[1])


def _gone(connection: psycopg.Connection[Any], name: str) -> bool:
    row = connection.execute(
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend')",
        [name],
    ).fetchone()
    return row is not None and bool(row[0])


def _children_s(server: Postgres) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return float(times.children_user + times.children_system)


def _check(name: str, load: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": f"beacon: {name}, transactions per second with it to without",
        "figure": f"{load['ratio']:.3f} ({load['tps_with']:,.0f} to {load['tps_without']:,.0f};"
        f" {load['cpu_us_added']:+.1f} µs on {load['cpu_us_without']:.0f} µs of processor time)",
        "limit": f"at least {LIMITS[name]:.2f}",
        "holds": load["ratio"] >= LIMITS[name],
    }
