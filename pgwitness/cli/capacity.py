"""How much an installation wants, from what it is given to see: cores, processes, partitions, memory, disk. Pure.

`python -m pgwitness.cli.capacity --rows 2000 --people 300` prints it. Each constant is a figure that a bench measured
and docs/explanation/performance.md keeps; a test holds the one against the other. They were measured on machines that
others used too, so a plan is an order of magnitude with room, and no promise.
"""

from __future__ import annotations

import argparse
import math
from typing import Final

from msgspec import Struct

ROW_US: Final = 24.1
"""Microseconds of a core for a changed row in a whole worker, ten to a transaction, with the compiled library."""
ROW_PLAIN_US: Final = 33.0
"""The same where rows are added up in Python."""
STATEMENT_US: Final = 292.0
"""Of a statement of the log or the gateway, in a worker, lake included."""
PASSED_US: Final = 175 / 7
"""Of a statement that passes the gateway: TPC-B's seven, with the compiled library."""
PASSED_PLAIN_US: Final = 502 / 7
"""The same without."""
SHIPPED_US: Final = 13.0
"""Of the same statement in the process that ships."""
EVENT_BYTES: Final = 128.0
"""Bytes of an event in a compacted lake, half of them with row images."""
PROGRAM_MIB, WAITING_MIB, STRANGERS_MIB = 140, 48, 132
"""What a worker has before it knows anybody; what waits to be landed; a room full of strangers."""
PRINCIPAL_KIB: Final = 20
"""Of somebody who acts until they are known."""

USED: Final = 0.5
"""The share of a core that is planned with: a backlog has to be caught up with, and days are not even."""
PARTITIONS_MIN: Final = 4
DAY_S: Final = 86_400


class Load(Struct, frozen=True, kw_only=True):
    """What is to be seen, a second at the busiest hour: changed rows, statements of logs, statements at gateways.

    `people` are principals of every kind who act within a month, `busy` the share of a day that is like its busiest
    hour, `days` how long evidence is kept, `compiled` whether the libraries are there.
    """

    rows: float = 0.0
    statements: float = 0.0
    passed: float = 0.0
    people: int = 100
    clusters: int = 1
    busy: float = 0.33
    days: int = 365
    compiled: bool = True


class Plan(Struct, frozen=True, kw_only=True):
    """What that wants. Partitions are fixed when topics are made, so they are for twice as many workers."""

    worker_cores: float
    workers: int
    raw_partitions: int
    event_partitions: int
    gateway_cores: float
    gateway_processes: int
    worker_mib: int
    lake_gb_a_day: float
    lake_gb: float


def plan(load: Load) -> Plan:
    """Say what a load wants."""
    row, passed = (ROW_US, PASSED_US) if load.compiled else (ROW_PLAIN_US, PASSED_PLAIN_US)
    worker_cores = (load.rows * row + (load.statements + load.passed) * STATEMENT_US) / 1e6
    workers = max(1, math.ceil(worker_cores / USED))
    loop = load.passed * passed / 1e6
    events = (load.rows + load.statements + load.passed) * DAY_S * load.busy
    a_day = events * EVENT_BYTES / 1e9
    return Plan(
        worker_cores=worker_cores,
        workers=workers,
        raw_partitions=max(PARTITIONS_MIN, load.clusters),
        event_partitions=max(PARTITIONS_MIN, 2 ** math.ceil(math.log2(2 * workers))),
        gateway_cores=loop + load.passed * SHIPPED_US / 1e6,
        gateway_processes=math.ceil(loop / USED) if load.passed else 0,
        worker_mib=PROGRAM_MIB + WAITING_MIB + STRANGERS_MIB + math.ceil(load.people / workers * PRINCIPAL_KIB / 1024),
        lake_gb_a_day=a_day,
        lake_gb=a_day * (load.days + 31),  # a month is there twice while it is compacted
    )


def cells(load: Load) -> list[str]:
    """Write a load and its plan as the page's table has them."""
    found = plan(load)
    return [
        f"{load.rows:,.0f}", f"{load.statements:,.0f}", f"{load.passed:,.0f}", f"{load.people:,}",
        f"{found.worker_cores:.2f}", str(found.workers), str(found.event_partitions), str(found.gateway_processes),
        str(found.worker_mib), f"{found.lake_gb_a_day:.2f}", f"{found.lake_gb:,.0f}",
    ]  # fmt: skip


def main() -> None:
    """Print what the load of the command line wants."""
    parser = argparse.ArgumentParser(prog="python -m pgwitness.cli.capacity", description=__doc__)
    for name, kind in (("rows", float), ("statements", float), ("passed", float), ("people", int), ("clusters", int)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Load(), name))
    parser.add_argument("--days", type=int, default=Load().days)
    found = plan(Load(**vars(parser.parse_args())))
    for field in found.__struct_fields__:
        value = getattr(found, field)
        shown = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
        print(f"{field.replace('_', ' '):20} {shown}")


if __name__ == "__main__":
    main()
