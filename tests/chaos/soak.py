"""A lake in a bucket for as long as wanted, under kills: `python -m tests.chaos.soak --seconds 3600` (`make soak`).

PostgreSQL, broker and S3 server (moto on loopback) stay; the collector, two workers, two compactors and a sealer are
killed at random moments and started again, each whether or not another one is away. At the end what the books say
is held against the lake, row by row, and the lake is verified where it is, every row of it, against the first
checkpoint. Exits 1 where anything differs; files of no entry, which kills leave and nobody reads, are counted. What
moto cannot show: storage that loses what it confirmed, or answers late from elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from pgwitness.core import config as configuration
from pgwitness.core.config import Config
from pgwitness.demo.servers import FAST_AND_FORGETFUL, Broker, Postgres
from sinks.lake.log import chain
from sinks.lake.log.chain import Entry
from sinks.lake.opening import lake_store
from sinks.seal.verification.findings import Report
from sinks.seal.verification.verify import Wanted, verify
from sinks.sql import query
from sinks.sql.catalogue import connect
from tests.chaos.test_kills import collectors, make, prove
from tests.chaos.workload import Workload
from tests.contract.system import Daemon, System
from tests.servers.s3 import ENVIRONMENT, S3Server, s3_server
from tests.sinks.seal.material import KEY

AWAY_S_MAX = 6.0
"""How long a daemon that was killed stays away."""
BETWEEN_S = 8.0
"""How long it takes on average until the next one is killed."""
CLOSING_S = 120.0


class Bucket(System):
    """A system whose lake is in a bucket."""

    def query(self, question: str) -> list[tuple[Any, ...]]:
        """Ask the lake as `pgwitness sql` does."""
        with connect(lake_store(self.config)) as connection:
            return list(query.ask(connection, question).rows)


def in_bucket(system: System, s3: S3Server, directory: Path) -> Config:
    """Move a configuration's lake, which is not there yet, into a bucket, with a seal."""
    path = system.directory / "pgwitness.toml"
    key = directory / "seal.key"
    key.write_text(KEY.text())
    key.chmod(0o600)
    text = path.read_text()
    lake = f'[lake]\npath = "{s3.bucket()}"\ngrace = "20s"\n'
    text = text.replace("[lake]\n", lake).replace('flush_interval = "500ms"', 'flush_interval = "1s"')
    text = text.replace("[http]\n", "[http]\ncompact_port = 0\nseal_port = 0\n")
    path.write_text(
        f'{text}\n[lake.s3]\nendpoint = "{s3.endpoint}"\n[seal]\nkey = "{key}"\n'
        f'public_key = "{KEY.public().text()}"\nstate_path = "{directory / "memory"}"\n'
    )
    return configuration.load(path)


@contextmanager
def running(directory: Path, seed: int, pace_s: float) -> Iterator[tuple[Bucket, Workload]]:
    """Run the servers, and give the system on them, not started yet, with its workload."""
    os.environ.update(ENVIRONMENT)
    server = Postgres(directory / "postgres", settings=FAST_AND_FORGETFUL)
    server.start()
    try:
        with Broker(directory / "broker") as broker, s3_server() as s3:
            made, workload = make(directory, broker.bootstrap, server.dsn(), "postgres", "soak.", seed)
            workload._pace_s = pace_s
            with Bucket(made.directory, in_bucket(made, s3, directory), made.admin_dsn) as system:
                yield system, workload
    finally:
        server.remove()


def daemons(system: System) -> dict[str, Daemon]:
    """Start everything that is killed."""
    collect, _ = collectors(system)
    found = {"collector": collect, "worker 1": system.worker(1), "worker 2": system.worker(2)}
    for number in (1, 2):
        found[f"compactor {number}"] = system.daemon("lake", "compact", "--every", "3s", name=f"compact-{number}")
    for daemon in found.values():
        daemon.ready()
    found["sealer"] = system.daemon("seal", "--every", "2s", name="seal").ready()
    return found


def kill(found: dict[str, Daemon], seconds: float, random: Random) -> Counter[str]:
    """Kill and start daemons until the time is over; all run at the end. Gives how often each was killed."""
    ends, away, killed = time.monotonic() + seconds, dict[str, float](), Counter[str]()
    upcoming = time.monotonic()
    while time.monotonic() < ends:
        now = time.monotonic()
        for name in [name for name, until in away.items() if until <= now]:
            found[name].start()
            del away[name]
        for name in found.keys() - away.keys():
            assert found[name].running, f"{name} ended by itself:\n{found[name].complaint()}"
        if now >= upcoming and (there := sorted(found.keys() - away.keys())):
            name = random.choice(there)
            found[name].kill()
            killed[name] += 1
            away[name] = now + random.uniform(0.0, AWAY_S_MAX)
            upcoming = now + random.expovariate(1 / BETWEEN_S)
        time.sleep(0.1)
    for name in away:
        found[name].start()
    return killed


def checkpoint(config: Config) -> bytes:
    """Read the checkpoint that is there."""
    return lake_store(config).read("seal/checkpoint") or b""


def log_of(config: Config) -> list[Entry]:
    """Read the log from its beginning."""
    store, found = lake_store(config), list[Entry]()
    while (content := store.read(chain.entry_name(len(found)))) is not None:
        found.append(chain.decode(content, len(found)))
    return found


def verified(config: Config, kept: bytes) -> Report:
    """Verify the lake where it is, every row."""
    store = lake_store(config)
    wanted = Wanted(
        KEY.public(),
        time.time_ns() // 1_000,
        remembered=(("the first", kept),),
        lag_us=int(CLOSING_S * 1e6),
        rows=True,
        root=store.root,
    )
    return verify(store, wanted)


def run(seconds: float, seed: int, pace_s: float, directory: Path) -> dict[str, Any]:
    """Run it, and give what is worth saying. Raise `AssertionError` where books and lake differ."""
    random = Random(seed)
    with running(directory, seed, pace_s) as (system, workload):
        found = daemons(system)
        kept = checkpoint(system.config)
        workload.start()
        killed = kill(found, seconds, random)
        workload.end()
        for daemon in found.values():
            daemon.ready()
        prove(system, workload)  # which ends all of them in order
        system.command("seal")
        report = verified(system.config, kept)
        left = [one for one in report.findings if one.kind == "added" and one.subject.endswith(".parquet")]
        kinds = Counter(type(entry).__name__.lower() for entry in log_of(system.config))
        return {
            "seconds": round(seconds),
            "seed": seed,
            "killed": dict(sorted(killed.items())),
            "transactions": len(workload.transactions()),
            "rows": sum(workload.rows().values()),
            "entries": dict(sorted(kinds.items())),
            "live_files": report.files,
            "sealed_to": report.sealed_to,
            "rows_landed": report.rows,
            "left_by_kills": len(left),
            "findings": [f"{one.kind}: {one.subject}: {one.text}" for one in report.findings if one not in left],
        }


def main() -> int:
    """Read the command line, run, print one object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--pace", type=float, default=1.0, help="seconds between two transactions of a client")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="pgwitness-soak-") as folder:
        done = run(arguments.seconds, arguments.seed, arguments.pace, Path(folder))
    print(json.dumps(done, indent=2))
    return 1 if done["findings"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
