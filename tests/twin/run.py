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
from tests.twin.differences import LEFT_OUT, unexplained
from tests.twin.server import DATABASE, FILES, Twin

FIRST = "test_setup"
"""Makes the tables that the other files work on."""
TOUCHED = (
    "alter_generic", "alter_table", "arrays", "case", "cluster", "collate", "combocid", "compression",
    "constraints", "copy", "copy2", "copydml", "create_am", "create_index", "create_misc", "create_procedure",
    "create_role", "create_schema", "create_table", "create_table_like", "create_type", "create_view", "delete",
    "dependency", "domain", "drop_if_exists", "enum", "errors", "event_trigger", "explain", "fast_default",
    "foreign_data", "foreign_key", "generated", "generated_stored", "generated_virtual", "guc", "identity",
    "indexing", "inherit", "insert", "insert_conflict", "largeobject", "lock", "matview", "merge", "misc",
    "namespace", "object_address", "partition_info", "partition_prune", "plancache", "plpgsql", "polymorphism",
    "portals", "prepare", "prepared_xacts", "privileges", "psql", "publication", "reloptions", "replica_identity",
    "returning", "rowsecurity", "rowtypes", "rules", "sanity_check", "security_label", "select_into", "sequence",
    "stats", "subscription", "tablesample", "temp", "transactions", "triggers", "truncate", "typed_table",
    "updatable_views", "update", "vacuum", "with", "without_overlaps", "write_parallel", "xml",
)  # fmt: skip
"""The files whose area pgwitness can touch: DDL, writes, triggers, transactions, rights, publications, catalogues."""
LONG = frozenset({
    "constraints", "create_index", "domain", "fast_default", "foreign_data", "foreign_key", "indexing", "inherit",
    "partition_prune", "plpgsql", "updatable_views",
})  # fmt: skip
"""A third of the time, and no difference that would need explaining on either version: `make twin` runs them."""
CAUGHT_UP_SECONDS_MAX = 120.0


class Outcome(Struct, frozen=True):
    """What one file gave: the lines printed without us, the changed lines that nothing explains, how long it took."""

    name: str
    lines: int
    unexplained: list[str]
    seconds: float


def every_file(version: int) -> list[str]:
    """Name all files of a version that can be compared; `make regress` brings them."""
    names = {path.stem for path in (FILES / str(version) / "sql").glob("*.sql")}
    return sorted(names - set(LEFT_OUT))


def touched_files(version: int) -> list[str]:
    """Name the files of a version whose area we can touch; not every version has all of them."""
    there = set(every_file(version))
    return [name for name in TOUCHED if name in there]


def sampled_files(version: int) -> list[str]:
    """Name the files that `make test` runs: those whose area we can touch, but for the longest."""
    return [name for name in touched_files(version) if name not in LONG]


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
