"""`make bench`: every measurement of the project in one run, as a table and as JSON, with what it ran on.

Each module measures one thing against a peer or a limit in the same run and returns a dict; figures are ratios first,
because the machine's speed is not the program's.
`python -m tests.bench drain land` runs some; `--scale 0.1` makes them short.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MEASUREMENTS = (
    "drain",
    "land",
    "rates",
    "latency",
    "long",
    "judge",
    "beacon",
    "log_lines",
    "log_longest",
    "forged",
    "gateway",
)
RESULTS = Path("bench-results")


def main() -> int:
    """Run the named measurements; exit 1 when a limit is not met."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(MEASUREMENTS), help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of the inputs; 1 is what the documentation quotes"
    )
    arguments = parser.parse_args()
    console = Console(stderr=True)
    results: dict[str, Any] = {"machine": machine(), "scale": arguments.scale}
    for name in arguments.names:
        started = time.monotonic()
        console.print(f"measuring {name} …")
        results[name] = importlib.import_module(f"tests.bench.{name}").run(scale=arguments.scale)
        console.print(f"  {time.monotonic() - started:.0f} s")
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    file.write_text(json.dumps(results, indent=2) + "\n")
    console.print(table(results, arguments.names))
    console.print(f"also in {file}")
    print(json.dumps(results))
    return 0 if all(check["holds"] for name in arguments.names for check in results[name]["checks"]) else 1


def machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    packages = ("confluent-kafka", "faust-streaming", "pyarrow", "duckdb", "msgspec", "psycopg", "river")
    model = next((line.split(":", 1)[1].strip() for line in cpu_lines() if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "packages": {name: version(name) for name in packages},
    }


def cpu_lines() -> list[str]:
    """Read what the kernel says of the processor; empty elsewhere than on Linux."""
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(results: dict[str, Any], names: list[str]) -> Table:
    """Lay out the checks: what was measured, against what, and whether it holds."""
    sheet = Table("measurement", "figure", "limit", "holds", title="pgwitness, measured on this machine")
    for name in names:
        for check in results[name]["checks"]:
            sheet.add_row(check["what"], check["figure"], check["limit"], "yes" if check["holds"] else "NO")
    return sheet


if __name__ == "__main__":
    sys.exit(main())
