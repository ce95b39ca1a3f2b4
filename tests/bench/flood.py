"""Hostile names: ten million principals, applications, roles, addresses, relations and statements, one after the other.

`make flood`. Each event of the first stretch is of somebody else and names everything anew, at some length; one in
20,000 has names of a megabyte. They go through a judge with all packaged policies and models. In the second stretch
as many patient principals as a judge remembers, and half as many again, act as often as it takes to be known, each
with values of its own. A third one goes through the fold: sessions, statements of the log and transactions with
beacons that nobody saw before. What the process held at most is printed for each.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Raw

from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.events import (
    Beacon,
    Count,
    Event,
    LogPlace,
    Position,
    RawBatch,
    RawEvent,
    RawHeader,
    Relation,
    Session,
    Statement,
    Transaction,
)
from streams.fold.fold import Fold
from streams.identity.identities import Identities

NAMES = 10_000_000
START_US = 1_790_000_000_000_000
STEP_US = 1_000
LONG_EACH = 20_000
LONG = "x" * 1_000_000
WIDE = "n" * 40
ACTIONS_EACH = 31
JUDGE_MIB_MAX = 512
"""What strangers may make a judge hold."""
FOLD_MIB_MAX = 512
IDENTITIES = 'rules:\n  - match: {application: "*"}\n    principal: "{application}"\n    kind: service\n'


def stranger(number: int) -> Event:
    """Make an event of somebody nobody has seen, who does what nobody has done; every eighth is a statement."""
    name = f"{number}-{LONG if number % LONG_EACH == 0 else WIDE}"
    at_us = START_US + number * STEP_US
    event = Event(
        kind="statement" if number % 8 == 0 else "change",
        event_id=f"{number:032x}",
        at=Position(0, number, 0),
        occurred_at_us=at_us,
        captured_at_us=at_us,
        cluster="shop",
        database="shop",
        principal=f"principal-{name}",
        principal_kind="service",
        peer_group=f"group-{name}" if number % 3 == 0 else None,
        binding="beacon",
        certainty="exact",
        role=f"role-{name}",
        application=f"application-{name}",
        client_addr=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
    )
    if event.kind == "change":
        event.operation = "delete"
        event.relation_table = [Relation(f"public.{name}")]
        event.counts = [Count(0, "d", 5_000 if number % 100 == 0 else 1)]
        event.n_rows = event.row_count = event.counts[0].rows
    else:
        event.operation = "select"
        event.relations = [f"public.{name}"]
        event.columns = [f"public.{name}.id"]
        event.statement = f"SELECT id FROM {name}"
        event.fingerprint = f"{number:016x}"
        event.calls, event.row_count = 1, 5_000 if number % 400 == 0 else 1
        event.detail = {"operations": ["select"], "where": "n/a", "functions": [], "note": name}
    return event


def patient(number: int, principals: int) -> Event:
    """Make an event of one of so many principals who take turns, each time with something new."""
    event = stranger(number)
    who = number % principals
    event.principal = f"patient-{who}"
    event.role, event.peer_group = f"patient-{who}", None
    return event


def run(scale: float = 1.0) -> dict[str, Any]:
    """Let the strangers come, then the patient ones; returns what the process held and the checks."""
    names = max(1_000, int(NAMES * scale))
    judge = Judge(Bundle.packaged(), labels={"shop": {"env": "prod"}}, behaviour=Behaviour())
    judge.judge(stranger(0))
    before = rss_mib()
    figures: dict[str, Any] = {"names": names, "start_mib": before}
    figures["strangers"] = _stretch(judge, (stranger(number) for number in range(1, names)), before)
    principals = int(Settings().principals_max * min(1.0, 10 * scale) * 1.5)
    events = (patient(names + number, principals) for number in range(principals * ACTIONS_EACH))
    figures["patient"] = _stretch(judge, events, before) | {"principals": principals}
    checks = [_check("strangers in a judge", figures["strangers"]["grown_mib"], JUDGE_MIB_MAX)]
    del judge
    figures["fold"] = _fold(names // 10)
    checks.append(_check("strangers in the fold", figures["fold"]["grown_mib"], FOLD_MIB_MAX))
    return figures | {"checks": checks}


def _check(what: str, grown_mib: int, limit: int) -> dict[str, Any]:
    return {
        "what": f"memory that {what} take",
        "figure": f"{grown_mib} MiB",
        "limit": f"at most {limit} MiB",
        "holds": grown_mib <= limit,
    }


def _stretch(judge: Judge, events: Iterable[Event], before: int) -> dict[str, Any]:
    began = time.process_time()
    number = 0
    for number, event in enumerate(events, 1):
        judge.judge(event)
        if number % 1_000_000 == 0:
            print(f"  {number:,} events, {rss_mib()} MiB", file=sys.stderr, flush=True)
    seconds = time.process_time() - began
    return {"events": number, "grown_mib": peak_mib() - before, "us_each": round(seconds / max(1, number) * 1e6, 1)}


def _fold(names: int) -> dict[str, Any]:
    fold = Fold(0, Identities.parse(IDENTITIES), 2_000_000)
    before = rss_mib()
    peak = before
    for offset in range(names // 100):
        events = [event for number in range(offset * 100, offset * 100 + 100) for event in _raw(number)]
        fold.apply(offset, RawBatch(1, "flood", RawHeader("shop", "wal", "db:5432"), events))
        peak = max(peak, rss_mib()) if offset % 100 == 0 else peak
    return {"events": names * 3, "grown_mib": peak - before, "checkpoint_mib": len(fold.snapshot()) >> 20}


def _raw(number: int) -> list[RawEvent]:
    name = f"{number}-{LONG if number % LONG_EACH == 0 else WIDE}"
    at_us = START_US + number * STEP_US
    facts: dict[str, Any] = {"role": f"r{name}", "application": f"a{name}", "client_addr": f"c{name}"}
    session = Session(
        captured_at_us=at_us,
        operation="connect",
        occurred_at_us=at_us,
        pid=number,
        backend_start_us=at_us,
        database=f"d{name}",
        xid=number,
        **facts,
    )
    statement = Statement(
        captured_at_us=at_us,
        place=LogPlace(f"log-{name}", number),
        format="jsonlog",
        source="duration",
        occurred_at_us=at_us,
        pid=number,
        session_start_us=at_us,
        database=f"d{name}",
        xid=number % 2**32,
        statement=f"INSERT INTO t{number} VALUES ($1)",
        duration_ms=1.0,
        **facts,
    )
    beacon = Beacon(f"s{name}", f"r{name}", number, at_us, number, f"a{name}", f"c{name}", 1, claim=name)
    part = Transaction(
        captured_at_us=at_us,
        system_id=f"y{name}",
        timeline=1,
        database=f"d{name}",
        lsn=number + 1,
        xid=number,
        committed_at_us=at_us,
        n_rows=1,
        beacons=[beacon] if number % 2 else [],
        relations=[Relation(f"public.{name}", ["id"])],
        counts=[Count(0, "i", 1)],
        rows=Raw(b'[[0,"i",0,{"id":1},null,null,{"id":1}]]'),
    )
    return [session, statement, part]


def rss_mib() -> int:
    """Give what this process holds now."""
    return _status("VmRSS")


def peak_mib() -> int:
    """Give the most that this process has held."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) >> 10


if __name__ == "__main__":
    found = run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
    print(json.dumps(found, indent=2))
    sys.exit(0 if all(check["holds"] for check in found["checks"]) else 1)
