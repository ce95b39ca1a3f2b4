"""Runs the files on both servers side by side, with pgwitness at work on one of them, and compares what was printed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct

from pgwitness.demo.servers import Broker, wait_for
from tests.conftest import DEBIAN_BIN, write_config
from tests.contract.system import Daemon, System
from tests.twin.differences import unexplained
from tests.twin.server import DATABASE, FILES, Twin

FIRST = "test_setup"
"""Makes the tables that the other files work on."""
CAUGHT_UP_SECONDS_MAX = 120.0


class Outcome(Struct, frozen=True):
    """What one file gave: the lines printed without us, the changed lines that nothing explains, how long it took."""

    name: str
    lines: int
    unexplained: list[str]
    seconds: float


def every_file(version: int) -> list[str]:
    """Name all files that there are for a version; `make regress` brings them."""
    return sorted(path.stem for path in (FILES / str(version) / "sql").glob("*.sql"))


def programs(version: int) -> Path | None:
    """Give the folder of a version's programs, none for those of the wheel."""
    return DEBIAN_BIN if version == 15 else None


class Pair:
    """Both servers, and pgwitness on one of them: installed, its collector running."""

    def __init__(self, without: Twin, with_us: Twin, system: System, collector: Daemon) -> None:
        self.without = without
        self.with_us = with_us
        self.system = system
        self.collector = collector

    def run(self, names: Sequence[str]) -> Iterator[Outcome]:
        """Run the files in their order, each on both servers at the same time."""
        with ThreadPoolExecutor(2) as pool:
            for name in (FIRST, *(name for name in names if name != FIRST)):
                began = time.monotonic()
                plain, ours = pool.map(lambda twin: twin.run(name), (self.without, self.with_us))  # noqa: B023
                found = unexplained(name, plain, ours)
                yield Outcome(name, len(plain), found, time.monotonic() - began)

    def caught_up(self) -> None:
        """Wait until the collector has confirmed all that the files wrote."""
        with psycopg.connect(self.with_us.dsn, autocommit=True) as admin:
            row = admin.execute("SELECT pg_current_wal_lsn()").fetchone()
            assert row is not None

            def confirmed() -> bool:
                assert self.collector.running, self.collector.complaint()
                found = admin.execute(
                    "SELECT bool_and(confirmed_flush_lsn >= %s) FROM pg_replication_slots WHERE database = %s",
                    [row[0], DATABASE],
                ).fetchone()
                return found is not None and found[0] is True

            wait_for(confirmed, CAUGHT_UP_SECONDS_MAX, "the collector to confirm all WAL", every_s=0.5)

    def raw(self) -> list[dict[str, Any]]:
        """Give every event that the collector sent, of all records of `raw`."""
        return [event for record in self.system.records("raw") for event in record.get("events", [])]


@contextmanager
def pair(folder: Path, version: int, broker: Broker, prefix: str) -> Iterator[Pair]:
    """Start both servers in a folder, install on one and start its collector."""
    folder.chmod(0o755)
    places = [folder / name for name in ("without", "with")]
    for place in places:
        place.mkdir()
        place.chmod(0o755)
    with Twin(places[0], version, programs(version)) as without, Twin(places[1], version, programs(version)) as with_us:
        configuration = folder / "pgwitness"
        dsn = with_us.dsn.replace("postgres@", "pgwitness@")
        config = write_config(configuration, broker.bootstrap, dsn, [DATABASE], prefix=prefix)
        with System(configuration, config, with_us.dsn) as system:
            system.prepare()
            collector = system.collect("wal").ready()
            yield Pair(without, with_us, system, collector)
