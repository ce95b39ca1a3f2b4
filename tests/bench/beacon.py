"""What the beacon and the guard cost the source database: pgbench with and without them, as interleaved pairs.

Databases of one server are alike but for the beacon, one has the guard beside it. pgbench is there what an application
is: no policy is about its role, but rows are counted of those whom one limits. The last load is somebody who is
limited, and judged with each statement. A pair is one run on each, and the order changes from pair to
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

from collectors.guard import install as guarding
from collectors.guard.install import Guard
from collectors.guard.wanted import Config, Login
from collectors.installation import install
from collectors.installation.job import Job
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from pgwitness.demo.servers import Postgres, wait_for

WRITES, NOTHINGS = "TPC-B-like writes", "writes that change nothing"
GUARDED, JUDGED = "TPC-B-like writes, with the guard", "TPC-B-like writes of who is judged, with the guard"
LIMITS = {WRITES: 0.85, NOTHINGS: 0.80, GUARDED: 0.80}
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
            for name in ("plain", "beacon", "guarded"):
                _prepare(server, name)
            for name in ("beacon", "guarded"):
                _beacon(server, name)
            _guard(server)
            seconds = max(1, round(SECONDS * scale))
            server.program("psql", "-q", "-d", server.dsn(), "-c", "CHECKPOINT")
            loads = {
                WRITES: _pairs(server, seconds, []),
                NOTHINGS: _pairs(server, seconds, ["-f", str(script)]),
                GUARDED: _pairs(server, seconds, [], "guarded"),
                JUDGED: _pairs(server, seconds, [], "guarded", JUDGED_ROLE),
            }
    return {"loads": loads, "checks": [_check(name, loads[name]) for name in LIMITS]}


JUDGED_ROLE = "bench_agent"
LIMIT = """
id: agents_change_few_rows
title: Agents change few rows
description: An agent works on single records.
severity: high
kinds: [statement]
when: principal.kind == "agent" && statement.operations.exists(o, o in ["update", "delete"])
effect: limit
max_rows: 100
message: "{who} {done:changed|change} rows of {what}"
runbook: Read the agent's task.
tests:
  - {name: an agent, match: true, action: {principal: {kind: agent}, statement: {operations: [delete]}}}
  - {name: a person, match: false, action: {principal: {kind: human}, statement: {operations: [delete]}}}
"""


def _beacon(server: Postgres, name: str) -> None:
    with psycopg.connect(server.dsn(dbname=name)) as connection:
        report = install.install(connection)
        assert report.complete, report.left
    with psycopg.connect(server.dsn(dbname=name), autocommit=True) as connection:
        while Job().step(connection, 0.0):  # as the collector would: tables come into the publication
            pass


def _guard(server: Postgres) -> None:
    """Put the guard beside the beacon, with a limit on the role of an agent."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {JUDGED_ROLE} LOGIN IN ROLE pg_read_all_data, pg_write_all_data")
    wanted = Guard(
        bundle=Bundle(parse(LIMIT, "bench")),
        login=lambda _cluster, _database, role: Login(role, role, "agent" if role == JUDGED_ROLE else "service"),
        config=lambda cluster: Config(cluster=cluster),
        key=bytes(32),
    )
    with psycopg.connect(server.dsn(dbname="guarded")) as connection:
        guarded = guarding.install(connection, "bench", wanted)
        assert guarded.complete, guarded.left


def _prepare(server: Postgres, name: str) -> None:
    server.program("createdb", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", name)
    server.program("pgbench", "-q", "-i", "-s", str(ROWS_SCALE), server.dsn(dbname=name))


def _pairs(
    server: Postgres, seconds: int, load: list[str], other: str = "beacon", role: str = "postgres"
) -> dict[str, Any]:
    runs: dict[str, list[tuple[float, float]]] = {"plain": [], other: []}
    for pair in range(PAIRS):
        for name in ("plain", other) if pair % 2 == 0 else (other, "plain"):
            runs[name].append(_run(server, name, seconds, load, role))
    tps = {name: [rate for rate, _ in measured] for name, measured in runs.items()}
    cpu = {name: [spent for _, spent in measured] for name, measured in runs.items()}
    ratios = [b / p for b, p in zip(tps[other], tps["plain"], strict=True)]
    plain, beacon = statistics.median(tps["plain"]), statistics.median(tps[other])
    return {
        "tps_without": plain,
        "tps_with": beacon,
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "ratio_of_medians": beacon / plain,
        "cpu_us_without": statistics.median(cpu["plain"]),
        "cpu_us_added": statistics.median(b - p for b, p in zip(cpu[other], cpu["plain"], strict=True)),
        "tps": tps,
        "cpu_us": cpu,
    }


def _run(server: Postgres, name: str, seconds: int, load: list[str], role: str) -> tuple[float, float]:
    """Run pgbench once; give transactions a second, and microseconds of processor time that a transaction took.

    The postmaster knows the time of its children when they have ended; pgbench's backends are all that end here but
    for a worker of autovacuum now and then.
    """
    before = _children_s(server)
    output = server.program(
        "pgbench", "-n", "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), *load, server.dsn(dbname=name, user=role)
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
