"""What a judge's checkpoint costs: its size, for how long writing it down stops the stream, how long reading it takes.

So many principals, each with ten relations and statements, two addresses and two hours of windows behind it. The
worker lets a checkpoint come so seldom that all of them take a tenth of its time (`streams.worker.pacing`):
`interval_s`.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from typing import Any

from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.events import Event
from streams.worker.pacing import Pace
from tests.bench.judge import START_US, statement

PRINCIPALS = (1_000, 10_000, 50_000)
ACTIONS_EACH = 40
SPAN_US = 7_200_000_000
INTERVAL_S = 10.0


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure each number of principals; there is no limit but that of the share of time, which holds by design."""
    return {"cases": [case(max(100, int(principals * scale))) for principals in PRINCIPALS], "checks": []}


def case(principals: int) -> dict[str, Any]:
    """Let so many principals become known, then write the judge down and read it again."""
    judge = _judge()
    events = principals * ACTIONS_EACH
    for number in range(events):
        judge.judge(_event(number, principals, SPAN_US // events))
    began = time.process_time()
    data = judge.snapshot()
    written_s = time.process_time() - began
    other = _judge()
    began = time.process_time()
    other.restore(data)
    read_s = time.process_time() - began
    pace = Pace(INTERVAL_S)
    pace.begin([("events", 0)], 0.0)
    pace.took(("events", 0), 0.0, written_s)
    return {
        "principals": principals,
        "mib": round(len(data) / 2**20, 1),
        "compressed_mib": round(len(zlib.compress(data, 1)) / 2**20, 1),
        "bytes_each": len(data) // principals,
        "written_s": round(written_s, 2),
        "read_s": round(read_s, 2),
        "interval_s": round(pace.interval_s, 1),
    }


def _judge() -> Judge:
    return Judge(Bundle.packaged(), labels={"shop": {"env": "prod"}}, behaviour=Behaviour())


def _event(number: int, principals: int, step_us: int) -> Event:
    event = statement(number, principals)
    kind = number // principals % 10
    event.kind = "statement"
    event.occurred_at_us = event.captured_at_us = START_US + number * step_us
    event.binding = "log"
    event.peer_group = "services"
    event.application = "api"
    event.client_addr = f"10.0.{number % 2}.{number % principals % 256}"
    event.relations = [f"public.table_{kind}"]
    event.fingerprint = f"{kind:016x}"
    return event


if __name__ == "__main__":
    print(json.dumps(run(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0), indent=2))
