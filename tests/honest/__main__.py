"""Runs honest programs beside the whole system, and counts what was raised: `python -m tests.honest [PROGRAM…]`.

Every source is on: WAL with the beacon, log of every statement, statistics, snapshots, sessions. What the topic alerts
tells is put to the program by its role or database, and to the step in whose time it happened. A step may raise one
High at most, of a policy that is true of it, and no Critical. Ends with 1 where more came. `--kind human` runs the
programs as people, who are judged by lower limits than services; `--uncovered` installs nothing in the databases.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from pgwitness.demo.servers import LOOPBACK, Broker, Postgres
from tests.collectors.log_server import SETTINGS, TIMEZONE, pattern
from tests.conftest import write_config
from tests.contract.system import System
from tests.honest.programs import PROGRAMS, TOOLS, Step, installed, missing

BETWEEN_S = 1.5
"""Pause between steps: snapshots and statistics are read every second, and tell what was before."""
QUIET_S = 12.0
"""How long after the last step nothing more comes: what waits for its outcome or the log has been told."""
LOG = {**SETTINGS, "log_destination": "jsonlog", "log_directory": "log", "log_error_verbosity": "verbose"}
SENSITIVE = '[privacy]\nsensitive = ["public.*.email", "public.person.name"]'


class Ran(NamedTuple):
    """A step that has run, in milliseconds."""

    program: str
    step: Step
    start_ms: int
    end_ms: int


def main() -> int:
    """Run, print, and say by the exit code whether what was raised is little and true."""
    parser = argparse.ArgumentParser(prog="python -m tests.honest", description=__doc__)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(PROGRAMS)}; all unless given")
    parser.add_argument("--kind", choices=["service", "human", "unknown"], default="service")
    parser.add_argument("--uncovered", action="store_true", help="no `pgwitness db install`")
    parser.add_argument("--keep", type=Path, help="a new folder, which stays: configuration, lake and logs")
    parser.add_argument("--all", action="store_true", help="print what is below High, too")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.programs or PROGRAMS if installed(PROGRAMS[name])]
    if left := sorted(set(missing()) & set(arguments.programs or PROGRAMS)):
        print(f"left out, for want of `make honest`: {', '.join(left)}", file=sys.stderr)
    with ExitStack() as stack:
        if arguments.keep is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgwitness-honest-")))
        else:
            place = arguments.keep.absolute()
            place.mkdir()
        place.chmod(0o711)
        postgres = stack.enter_context(Postgres(place / "postgres", settings=LOG))
        broker = stack.enter_context(Broker(place))
        system = stack.enter_context(_system(place, postgres, broker, chosen, arguments.kind))
        _prepare(postgres, chosen)
        system.command("topics", "apply")
        if not arguments.uncovered:
            system.command("db", "install", "--dsn", system.admin_dsn)
        installed_ms = time.time_ns() // 1_000_000
        sources = ["stats", "sessions", "log"] if arguments.uncovered else ["wal", "stats", "sessions", "log"]
        system.collect(*sources).ready()
        system.worker().ready()
        system.landed("SELECT count(*) FROM posture", lambda rows: rows != [] and rows[0][0] > 0)
        ran = [Ran("pgwitness", Step(("db", "install")), 0, installed_ms + int(1000 * BETWEEN_S))]
        time.sleep(BETWEEN_S)
        for name in chosen:
            ran += _run(place, postgres, name)
        time.sleep(QUIET_S)
        alerts = system.records("alerts", at_least=0)
    return _report(ran, alerts, everything=arguments.all)


def _system(place: Path, postgres: Postgres, broker: Broker, names: Sequence[str], kind: str) -> System:
    log = f'[clusters.shop.log]\npath = "{pattern(postgres, "jsonlog")}"\ntimezone = "{TIMEZONE}"\ninterval = "100ms"\n'
    dsn = postgres.dsn("pgwitness")
    config = write_config(
        place, broker.bootstrap, dsn, list(names), prefix="honest.", cluster_extra=log, extra=SENSITIVE
    )
    rules = [f"  - {{match: {{role: {name}}}, principal: {name}, kind: {kind}}}\n" for name in names]
    config.identities.file.write_text("rules: []\n" if kind == "unknown" else "rules:\n" + "".join(rules))
    return System(place, config, postgres.dsn())


def _prepare(postgres: Postgres, names: Sequence[str]) -> None:
    """Make each program's role and database."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("CREATE EXTENSION pg_stat_statements")
        admin.execute("CREATE ROLE pgwitness LOGIN SUPERUSER")
        for name in names:
            power = "SUPERUSER" if PROGRAMS[name].superuser else "CREATEDB"
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN " + power).format(sql.Identifier(name)))
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*[sql.Identifier(name)] * 2))


def _run(place: Path, postgres: Postgres, name: str) -> list[Ran]:
    """Run a program's steps, one after the other; one that fails fails all."""
    program = PROGRAMS[name]
    folder = place / "programs" / name
    shutil.copytree(program.folder, folder, dirs_exist_ok=True)
    if (TOOLS / "node_modules").exists():
        (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    path = os.pathsep.join([str(postgres.psql_bin), str(TOOLS / "node_modules" / ".bin"), os.environ["PATH"]])
    libpq = {"PGHOST": LOOPBACK, "PGPORT": str(postgres.port), "PGUSER": name, "PGDATABASE": name}
    environment = {**os.environ, **libpq, "PATH": path}
    return [_step(name, step, folder, place, environment) for step in program.steps]


def _step(name: str, step: Step, folder: Path, place: Path, environment: Mapping[str, str]) -> Ran:
    start_ms = time.time_ns() // 1_000_000
    command = [word.format(scratch=place) for word in step.command]
    done = subprocess.run(
        command, cwd=folder, env={**environment, **dict(step.environment)}, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    if done.returncode != 0 and not step.complains:
        raise SystemExit(f"{name}: {' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    time.sleep(BETWEEN_S)
    return Ran(name, step, start_ms, time.time_ns() // 1_000_000)


def _report(ran: Sequence[Ran], alerts: Sequence[dict[str, Any]], *, everything: bool) -> int:
    """Print what each step raised; gives how the program ends."""
    bad = 0
    for one in ran:
        found = _raised(one, alerts)
        loud = [alert for alert in found if alert["severity_id"] >= 4]
        critical = [alert for alert in loud if alert["severity_id"] == 5]
        wrong = [a for a in loud if str(a["unmapped"].get("policy")) not in one.step.may.split()]
        is_bad = bool(critical) or len(loud) > 1 or bool(wrong)
        bad += is_bad
        mark = "NOT" if is_bad else "ok"
        counts = f"{len(critical)} Critical, {len(loud) - len(critical)} High"
        print(f"{mark:4}{one.program}: {' '.join(one.step.command)[:70]}: {counts}")
        for alert in found if everything else loud:
            policy = alert["unmapped"].get("policy") or alert["unmapped"]["detector"]
            print(f"      {alert['severity']:8} {policy} x{alert['count']}: {alert['message'][:300]}")
    print(f"{bad} of {len(ran)} runs raised more than is true of them")
    return 1 if bad else 0


def _raised(one: Ran, alerts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give of each finding that occurred in a step's time the last record that tells of it."""
    found: dict[str, dict[str, Any]] = {}
    for alert in alerts:
        if alert["activity_id"] == 3 or not alert.get("is_alert", True):
            continue
        more = alert["unmapped"]
        mine = one.program in (more.get("principal"), more.get("role"), more.get("database"))
        mine = mine or one.program == "pgwitness" or not (more.get("role") or more.get("database"))
        if mine and one.start_ms <= alert["finding_info"]["last_seen_time"] < one.end_ms:
            found[alert["finding_info"]["uid"]] = alert
    return sorted(found.values(), key=lambda alert: -int(alert["severity_id"]))


if __name__ == "__main__":
    sys.exit(main())
