"""The demo after its report, kept: everything runs again, the console shows it, and a DELETE waits for a person's word.

The shop is closed; only the pricing agent comes back: when somebody approves what it has asked for, it does that.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg

from pgwitness.approvals.ledger import Ledger, Trust
from pgwitness.approvals.topic import ApprovalsTopic
from pgwitness.core.config import load
from pgwitness.demo import control, office
from pgwitness.demo.clients import Psycopg
from pgwitness.demo.daemons import READY_SECONDS_MAX, Daemon, watching
from pgwitness.demo.report import program
from pgwitness.demo.sealing import CHECKPOINT
from pgwitness.demo.servers import wait_for
from pgwitness.demo.shop import PRICING_AGENT
from pgwitness.demo.stage import Stage
from sinks.console import users
from sinks.console.roles import ROLES

LOOK_S = 1.0
AGAIN_S = 3.0
SEAL_EVERY = "5s"


def keep(stage: Stage, logs: Path, stack: ExitStack) -> tuple[list[str], Callable[[], None]]:
    """Start everything again, with a sealer and the console, and have a DELETE wait.

    Gives what to tell the user, and what waits for Ctrl-C. Raise `Unreachable` when something does not start. `stack`
    ends what was started.
    """
    config = stage.config
    daemons = stack.enter_context(watching(config, logs))
    sealer = Daemon(config, logs / "seal.log", "seal", "--every", SEAL_EVERY)
    stack.callback(sealer.end)
    password, console = serve_console(config, office.APPROVER.name, logs, stack)
    control.ask(stage, control.WAITING)
    place = config.parent
    kept = shlex.quote(str(place / CHECKPOINT))
    lines = [
        f"console: http://{load(config).console.listen}/ as {office.APPROVER.name} with the password {password}",
        f"  her key, to sign with what she decides: {place / office.APPROVER_KEY}",
        "Five things to try: find who deleted the promotions; approve the DELETE that waits; silence a false alarm for",
        "a week; print a report for the auditor; and, in a terminal, prove that nothing was altered:",
        f"  {program()} verify --config {shlex.quote(str(config))} --checkpoint {kept}",
        "Ctrl-C ends it.",
    ]
    return lines, lambda: _wait(stage, [*daemons, sealer, console])


def serve_console(config: Path, name: str, logs: Path, stack: ExitStack) -> tuple[str, Daemon]:
    """Serve the console to one user with every role; gives the password, which nobody has outside of this run."""
    loaded = load(config)
    password = secrets.token_urlsafe(12)
    user = users.User(name=name, roles=list(ROLES), password=users.hashed(password))
    users.change(loaded.console.users_file, lambda _: {name: user})
    daemon = Daemon(config, logs / "console.log", "console")
    stack.callback(daemon.end)
    wait_for(daemon.ready(loaded.http.console_port), READY_SECONDS_MAX, f"it is not ready; see {daemon.log}")
    return password, daemon


def _wait(stage: Stage, daemons: list[Daemon]) -> None:
    """Let the agent do what somebody approves, until Ctrl-C. Raise `Unreachable` when a daemon ends before."""
    loaded = load(stage.config)
    ledger, topic = Ledger(Trust.of(loaded)), ApprovalsTopic(loaded)
    tried_s = 0.0
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(topic):
        while True:
            for daemon in daemons:
                daemon.check()
            if (read := topic.poll(LOOK_S)) is not None:
                ledger.take(read.value, read.offset, read.at_us)
                continue
            states = {one.state(time.time_ns() // 1_000) for one in ledger.requests.values()}
            if "approved" in states and time.monotonic() - tried_s > AGAIN_S:
                tried_s = time.monotonic()
                _come_again(stage)


def _come_again(stage: Stage) -> None:
    client = Psycopg(stage.doors.through(PRICING_AGENT))
    try:
        rows = client.alone(control.WAITING)
        print(f"approved: {PRICING_AGENT.name} came again and deleted {rows} rows", flush=True)
    except psycopg.errors.InsufficientPrivilege:
        pass  # the gateway reads the topic at its own pace
    finally:
        client.close()
