"""What the beacon costs the source database: pgbench with and without it, as interleaved pairs.

Two databases of one server are alike but for the beacon. A pair is one run on each, and the order changes from pair to
pair, so that a machine that grows busy meets both; the figure is the median of the pairs' ratios. TPC-B-like is four
writes and one read in a transaction; the other load is an update that changes nothing, which must not take a
transaction id. Settings are PostgreSQL's own (fsync on), so that a commit costs what it costs.
"""

from __future__ import annotations

import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from collectors.beacon import install
from pgwitness.demo.servers import Postgres

LIMIT = 0.10
"""What the beacon may cost at most, as a share of transactions per second."""
PAIRS = 7
SECONDS = 2.0
ROWS_SCALE = 10
CLIENTS = 4
NOTHING = "UPDATE pgbench_accounts SET abalance = abalance WHERE false;\n"
_TPS = re.compile(r"tps = ([\d.]+) \(without initial connection time\)")


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
            seconds = max(1, round(SECONDS * scale))
            server.program("psql", "-q", "-d", server.dsn(), "-c", "CHECKPOINT")
            loads = {
                "TPC-B-like writes": _pairs(server, seconds, []),
                "writes that change nothing": _pairs(server, seconds, ["-f", str(script)]),
            }
    return {"loads": loads, "checks": [_check(name, load) for name, load in loads.items()]}


def _prepare(server: Postgres, name: str) -> None:
    server.program("createdb", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", name)
    server.program("pgbench", "-q", "-i", "-s", str(ROWS_SCALE), server.dsn(dbname=name))


def _pairs(server: Postgres, seconds: int, load: list[str]) -> dict[str, Any]:
    tps: dict[str, list[float]] = {"plain": [], "beacon": []}
    for pair in range(PAIRS):
        for name in ("plain", "beacon") if pair % 2 == 0 else ("beacon", "plain"):
            tps[name].append(_tps(server, name, seconds, load))
    plain, beacon = statistics.median(tps["plain"]), statistics.median(tps["beacon"])
    return {
        "tps_without": plain,
        "tps_with": beacon,
        "ratio": statistics.median(b / p for b, p in zip(tps["beacon"], tps["plain"], strict=True)),
        "ratio_of_medians": beacon / plain,
        "runs": tps,
    }


def _tps(server: Postgres, name: str, seconds: int, load: list[str]) -> float:
    output = server.program(
        "pgbench", "-n", "-c", str(CLIENTS), "-j", "2", "-T", str(seconds), *load, server.dsn(dbname=name)
    )
    found = _TPS.search(output)
    assert found is not None, output
    return float(found[1])


def _check(name: str, load: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": f"beacon: {name}, transactions per second with it to without",
        "figure": f"{load['ratio']:.3f} ({load['tps_with']:,.0f} to {load['tps_without']:,.0f})",
        "limit": f"at least {1 - LIMIT:.2f}",
        "holds": load["ratio"] >= 1 - LIMIT,
    }
