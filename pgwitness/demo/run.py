"""The demo from its first server to its last: what is started here ends here, however that happens.

`pgwitness.demo.daemons` has the servers, the collectors and the worker, as real processes.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from pgwitness.core.errors import NotInOrder, Unreachable
from pgwitness.core.runtime import logs
from pgwitness.demo import bearer, configuration, keeping, office, report, tools
from pgwitness.demo.clients import Psycopg
from pgwitness.demo.daemons import Daemon, fresh, prepare, servers, unwinding, watching
from pgwitness.demo.doors import Doors, furnish, make
from pgwitness.demo.helpdesk import ISSUER, Helpdesk
from pgwitness.demo.rules import POLICIES
from pgwitness.demo.scenes import Scene, failed, scenes
from pgwitness.demo.sealing import SETTINGS, Notary
from pgwitness.demo.servers import LOOPBACK, Broker, Postgres, free_port
from pgwitness.demo.shop import CHECKOUT, CITIES, IDENTITIES, NORA, PRICING_AGENT, STUDY_AGENT, Principal, open_shop
from pgwitness.demo.stage import Stage
from pgwitness.demo.watch import Watch
from pgwitness.demo.workload import CUSTOMERS_OF, Ledger, Workload, staff

LAND_SECONDS_MAX = 25.0
SETTLE_SECONDS = 3.0
"""How long collectors go on after the shop has closed: time for alerts that nothing explains to show."""
LOGGED = {
    "logging_collector": "on",
    "log_destination": "jsonlog",
    "log_filename": "postgresql-%Y-%m-%d_%H%M%S.log",
    "log_connections": "receipt,authentication,authorization",
    "log_disconnections": "on",
    "log_min_duration_statement": "0",
    "log_error_verbosity": "verbose",
    "compute_query_id": "on",
    "log_timezone": "UTC",
}
"""What makes the server log every statement, as docs/how-to/server-log.md has it."""
TITLE = "The configuration of the demo; its servers are gone when the demo ends, the lake stays."
CLEAR = ("public.orders.status", "public.tickets.state", "public.shipments.carrier")
MORE = """\
[clusters.shop.labels]
env = "demo"
scope = "pci"
owner = "payments"

[clusters.shop.log]
path = "{place}/postgres/log/*.json"
format = "jsonlog"
timezone = "UTC"

[identities]
claims_keys = "helpdesk.pem"
claims_issuer = "{issuer}"

[console]
listen = "{host}:{port}"

[behaviour]
warmup = "{warmup_ms}ms"
warmup_observations = 20

"""


def main(*, seconds: float, folder: Path | None, as_json: bool, stay: bool = False) -> int:
    """Run the demo and print its report; return the exit code. With `stay` it goes on until Ctrl-C, with the console.

    Raise `ConfigurationError` when the folder is in use, `Unreachable` when a server does not start.
    """
    logs.configure("warning")  # what this process does it says itself; its daemons have logs of their own
    kept = folder is not None
    place = fresh(folder or Path(tempfile.mkdtemp(prefix="pgwitness-demo-")))
    tell = report.Narrator(sys.stderr)
    with unwinding():
        try:
            with contextlib.ExitStack() as stack:
                with tell:
                    result, stage = _play(place, seconds, tell, stack)
                    if not stay:
                        stack.close()
                    summary = report.summarize(result)
                if as_json:
                    print(json.dumps(summary), flush=True)
                else:
                    report.show(summary, result, place, kept, stay=stay)
                if stay:
                    with tell:
                        tell("starting everything again, with the console")
                        lines, wait = keeping.keep(stage, place / "logs", stack)
                    print("\n".join(lines), file=sys.stderr if as_json else sys.stdout, flush=True)
                    wait()
        finally:
            if not kept and sys.exc_info()[0] is not None:
                shutil.rmtree(place, ignore_errors=True)
    return 0 if report.in_order(summary) else 1


def _play(
    place: Path, seconds: float, tell: report.Narrator, stack: contextlib.ExitStack
) -> tuple[report.Result, Stage]:
    """Play everything; the servers run on until `stack` ends them."""
    began = time.monotonic()
    tell("starting PostgreSQL 18 and the broker")
    postgres, broker = stack.enter_context(servers(place, LOGGED))
    helpdesk = Helpdesk()
    doors, config = _configure(place, postgres, broker, seconds, helpdesk)
    tell("opening the shop: tables, roles, customers")
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        _trust_loopback(postgres, admin)
        open_shop(postgres.dsn(dbname="shop"), admin)
        furnish(place, doors, admin)
    tell("installing the beacon, the masks and the guard, creating the topics")
    prepare(config, postgres.dsn())
    tell("starting the gateway, the collectors and the worker")
    daemons = stack.enter_context(watching(config, place / "logs"))
    watch = Watch(config)
    stack.callback(watch.stop)
    watch.start()
    ledger = Ledger()
    stage = Stage(doors, postgres.psql_bin / "psql", ledger, config, tools.furnish(place, doors))
    if bearer.available():
        stack.enter_context(bearer.handing_over(lambda: helpdesk.login(PRICING_AGENT)))
    workload = Workload(staff(doors, stage.psql, ledger), ledger)
    stack.callback(workload.stop)
    notary = Notary(config)
    planted, begun_ms = _work(workload, stage, seconds, tell)
    seen = _seen(doors, stage)
    notary.seal()
    tell("waiting until everything has landed")
    _landed(place / "lake", ledger, planted, watch, daemons)
    for daemon in daemons:
        daemon.end()
    watch.stop()
    tell("compacting and sealing the lake, and altering a copy of it")
    notary.compact()
    notary.show()
    problems = [f"{type(error).__name__}: {error}" for error in workload.errors]
    result = report.Result(
        time.monotonic() - began,
        place / "lake",
        ledger,
        planted,
        begun_ms,
        watch,
        problems,
        notary.result,
        stage.refusals,
        seen,
        stage.told,
    )
    return result, stage


def _seen(doors: Doors, stage: Stage) -> list[dict[str, object]]:
    """Let a service and the analyst ask the same, beside the agent by MCP; gives what each of them saw."""
    rows: list[dict[str, object]] = []
    for who in (CHECKOUT, NORA):
        client = Psycopg(doors.through(who))
        found = client.all(CUSTOMERS_OF, {"c": CITIES[0]})
        client.close()
        rows += [_row(who, row) for row in found]
    return [*rows, *(_row(STUDY_AGENT, row) for told in stage.told for row in told.rows)]


def _row(who: Principal, cells: Sequence[object]) -> dict[str, object]:
    return dict(zip(("who", "id", "name", "email", "city"), (who.name, *cells), strict=True))


def _trust_loopback(postgres: Postgres, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    """Let connections in from all of 127.0.0.0/8, so that one scene can come from an address of its own."""
    with (postgres.data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 127.0.0.0/8 trust\n")
    admin.execute("SELECT pg_reload_conf()")


def _configure(
    place: Path, postgres: Postgres, broker: Broker, seconds: float, helpdesk: Helpdesk
) -> tuple[Doors, Path]:
    from detectors.policy.files import packaged_files
    from pgwitness.core.privacy import KEY_BYTES, write_key

    doors, gateway = make(place, postgres.port, helpdesk)
    warmup_ms = int(seconds * 1000 * 0.3)
    more = MORE.format(place=place, issuer=ISSUER, warmup_ms=warmup_ms, host=LOOPBACK, port=free_port())
    more += gateway + office.furnish(place) + SETTINGS
    path = configuration.write(place, postgres, broker, title=TITLE, clear=CLEAR, flush_interval="2s", more=more)
    (place / "helpdesk.pem").write_text(helpdesk.public_key)
    (place / "identities.yaml").write_text(IDENTITIES)
    (place / "policies").mkdir()
    for name, text in {**packaged_files(), "shop.yaml": POLICIES}.items():
        (place / "policies" / name).write_text(text)
    write_key(place / "privacy.key", secrets.token_bytes(KEY_BYTES))
    return doors, path


def _work(
    workload: Workload, stage: Stage, seconds: float, tell: report.Narrator
) -> tuple[list[Scene], dict[str, int]]:
    """Let the shop work for so many seconds; after more than half of them, one misbehaviour after the other."""
    planned, late = [scene for scene in scenes() if scene.early], [scene for scene in scenes() if not scene.early]
    begin, end = time.monotonic(), time.monotonic() + seconds
    first, gap_s = begin + 0.2 * seconds, 0.0
    begun_ms: dict[str, int] = {}
    begun = 0
    planted: list[Scene] = []
    workload.start()
    pause = threading.Event()
    # A busy machine takes longer over the scenes: none of them is left out for that.
    while ((now := time.monotonic()) < end or planned or late) and not workload.errors:
        if not planned and late:
            planned, late, first = late, [], max(now, begin + 0.55 * seconds)
            gap_s, begun = 0.35 * seconds / len(planned), len(planted)
        rows = f"{workload.ledger.rows:,} rows committed"
        if planned and now >= first + gap_s * (len(planted) - begun):
            scene = planned.pop(0)
            tell(f"the shop is open: {rows}; {scene.who.name}: {scene.title}")
            begun_ms[scene.id] = time.time_ns() // 1_000_000
            try:
                scene.play(stage)
                planted.append(scene)
            except (psycopg.Error, Unreachable, OSError) as error:
                raise NotInOrder(f"the scene {scene.id} could not be played: {failed(error)}") from error
        elif not planted:
            tell(f"the shop is open: {rows}; everybody behaves, habits are learned", passing=True)
        pause.wait(0.1)
    workload.stop()
    return planted, begun_ms


def _landed(lake: Path, ledger: Ledger, planted: list[Scene], watch: Watch, daemons: list[Daemon]) -> None:
    """Wait until every committed row is in the lake and every misbehaviour raised its alert, or time is up."""
    began = time.monotonic()
    pause = threading.Event()
    while (waited_s := time.monotonic() - began) < LAND_SECONDS_MAX:
        for daemon in daemons:
            daemon.check()
        alerts = [alert for _, alert in watch.alerts()]
        missed = [scene for scene in planted if scene.policies and not any(scene.explains(alert) for alert in alerts)]
        if waited_s >= SETTLE_SECONDS and not missed and report.landed_rows(lake) >= ledger.rows:
            return
        pause.wait(0.5)
