"""How many instructions the beacon takes of the server for a transaction, counted by valgrind's callgrind.

Counting does not mind a busy machine. One backend of PostgreSQL in single-user mode runs transactions that are written
as text, TPC-B-like (four writes and a read) and an update that changes nothing, over copies of one data folder, with
the beacon and without. A count is the difference between a long run and a short one, so that starting and ending stand
in neither; two counts of the same differ by up to 3 thousand.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from collectors.installation import install
from collectors.installation.job import Job
from pgwitness.demo.servers import Postgres
from pgwitness.demo.servers.account import reachable, system_user
from pgwitness.demo.servers.process import plain_environment

SHORT, LONG = 20, 80
"""Transactions of the two runs."""
LIMIT = 171_600
"""A tenth more than the triggers of the release before the beacon said what it wrote (156 thousand by this count)."""


def run(scale: float = 1.0) -> dict[str, Any]:
    """Count both loads; `scale` stretches the number of transactions."""
    if shutil.which("valgrind") is None:
        return {"checks": [_check("no valgrind here, nothing counted", 0)]}
    with tempfile.TemporaryDirectory(prefix="pgwitness-bench-") as folder:
        place = Path(folder)
        place.chmod(0o711)
        server = Postgres(place / "postgres")
        for name in ("plain", "beacon"):
            _prepare(server, name)
        server.stop()
        counts = {
            load: {name: _count(server, place, name, load, scale) for name in ("plain", "beacon")}
            for load in ("TPC-B-like", "changes nothing")
        }
    return {
        "counts": counts,
        "checks": [_check(load, found["beacon"] - found["plain"]) for load, found in counts.items()],
    }


def _prepare(server: Postgres, name: str) -> None:
    server.start()
    server.program("createdb", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", name)
    server.program("pgbench", "-q", "-i", "-s", "1", server.dsn(dbname=name))
    if name == "beacon":
        with psycopg.connect(server.dsn(dbname=name), autocommit=True) as connection:
            report = install.install(connection)
            assert report.complete, report.left
            while Job().step(connection, 0.0):
                pass


def _count(server: Postgres, place: Path, name: str, load: str, scale: float) -> int:
    """Give the instructions that one transaction takes."""
    runs = [round(n * scale) or n for n in (SHORT, LONG)]
    short, long = (_instructions(server, place, name, _transactions(load, n)) for n in runs)
    return (long - short) // (runs[1] - runs[0])


def _transactions(load: str, number: int) -> str:
    chance = random.Random(1)  # the same for every run
    if load == "changes nothing":
        return "UPDATE pgbench_accounts SET abalance = abalance WHERE false\n" * number
    lines = []
    for _ in range(number):
        account, teller, delta = chance.randint(1, 100_000), chance.randint(1, 10), chance.randint(-5000, 5000)
        lines += [
            "BEGIN",
            f"UPDATE pgbench_accounts SET abalance = abalance + {delta} WHERE aid = {account}",
            f"SELECT abalance FROM pgbench_accounts WHERE aid = {account}",
            f"UPDATE pgbench_tellers SET tbalance = tbalance + {delta} WHERE tid = {teller}",
            f"UPDATE pgbench_branches SET bbalance = bbalance + {delta} WHERE bid = 1",
            "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)"
            f" VALUES ({teller}, 1, {account}, {delta}, CURRENT_TIMESTAMP)",
            "COMMIT",
        ]
    return "\n".join(lines) + "\n"


def _instructions(server: Postgres, place: Path, name: str, script: str) -> int:
    """Run a script in single-user mode over a copy of the data folder, and give what callgrind counted."""
    user = system_user()
    copy, counted = place / "copy", place / "counted"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(server.place, copy)
    counted.touch()
    if user is not None:
        for path in (copy, counted, *copy.rglob("*")):
            shutil.chown(path, user.pw_uid, user.pw_gid)
    copy.chmod(0o700)
    program = str(reachable(server.bin, user) / "postgres")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counted}", program, "--single", "-D", str(copy)]
    owner = {"user": user.pw_uid, "group": user.pw_gid} if user else {}
    done = subprocess.run(  # type: ignore[call-overload]
        [*command, "-c", "shared_preload_libraries=", name],
        input=script, capture_output=True, text=True, cwd="/", check=False,
        env={**plain_environment(), "TMPDIR": str(copy)}, **owner,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr, done.stderr
    return next(int(line.split()[1]) for line in counted.read_text().splitlines() if line.startswith("summary:"))


def _check(load: str, added: int) -> dict[str, Any]:
    return {
        "what": f"beacon: {load}, instructions a transaction that it adds",
        "figure": f"{added:,}",
        "limit": f"at most {LIMIT:,} for four writes",
        "holds": added <= LIMIT,
    }
