"""What judging costs: microseconds an event, for one-row transactions, statements and ten actions a transaction.

All packaged policies and the behaviour model are on. `first sight` is the time while principals are new, `ordinary`
when their habits are known. The budget is that of the worker: 40,000 one-row transactions a second on one core leave
25 µs for everything, of which judging may take 8. `windows of 30 actions` spreads them over time, so that windows
close and the models learn: their share of an action's cost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.events import Count, Event, Position, Relation
from pgwitness.core.units import Duration

START_US = 1_790_000_000_000_000
BUDGET_US = 8.0
STATEMENT_BUDGET_US = 100.0
WINDOWS_BUDGET_US = 15.0
_TABLE = [Relation(f"public.table_{number}", ["id"]) for number in range(10)]


def change(number: int, principals: int, actions: int = 1) -> Event:
    """Make an ordinary transaction of one of so many principals."""
    who = number % principals
    return Event(
        kind="change",
        event_id=f"{number:032x}",
        at=Position(0, number, 0),
        occurred_at_us=START_US + number * 100,
        captured_at_us=START_US + number * 100,
        cluster="shop",
        database="shop",
        principal=f"service-{who}",
        principal_kind="service",
        peer_group="services",
        binding="beacon",
        certainty="exact",
        assurance="role_only",
        role="app",
        application="api",
        client_addr=f"10.0.{who // 256 % 256}.{who % 256}",
        operation="update",
        relation_table=_TABLE,
        counts=[Count(relation, "u", 1) for relation in range(actions)],
        n_rows=actions,
        detail={"owner": "payments"},
    )


def statement(number: int, principals: int) -> Event:
    """Make the ordinary statistics of one statement, whose facts the fold has filled in."""
    return Event(
        kind="query_stats",
        event_id=f"{number:032x}",
        at=Position(0, number, 0),
        occurred_at_us=START_US + number * 100,
        captured_at_us=START_US + number * 100,
        cluster="shop",
        database="shop",
        principal=f"service-{number % principals}",
        principal_kind="service",
        binding="stats",
        certainty="weak",
        role="app",
        operation="select",
        relations=["public.orders"],
        statement="SELECT * FROM orders WHERE id = $1",
        calls=10,
        row_count=10,
        detail={"operations": ["select"], "where": "n/a"},
    )


def spaced(number: int) -> Event:
    """Make the change of one of fifty principals, such that each makes thirty in the time of a shortest window."""
    event = change(number, 50)
    event.occurred_at_us = event.captured_at_us = START_US + number * 200_000
    return event


def run(scale: float = 1.0) -> dict[str, Any]:
    """Measure; figures in microseconds, the best of three where habits are known."""
    figures: dict[str, float] = {}
    for principals in (1, 200, 10_000):
        figures |= measure(f"one row, {principals} principals", lambda n, p=principals: change(n, p), principals, scale)
    figures |= measure("windows of 30 actions", spaced, 2_000, scale)
    figures |= measure("ten relations", lambda n: change(n, 200, 10), 200, scale * 0.2)
    figures |= measure("statement", lambda n: statement(n, 200), 200, scale * 0.2)
    worst = max(us for name, us in figures.items() if name.startswith("one row") and name.endswith("ordinary"))
    of_statement = figures["statement, ordinary"]
    windows = figures["windows of 30 actions, ordinary"]
    return {
        "figures_us": figures,
        "checks": [
            check("one-row transaction", worst, BUDGET_US),
            check("one-row transaction with its share of windows", windows, WINDOWS_BUDGET_US),
            check("statement", of_statement, STATEMENT_BUDGET_US),
        ],
    }


def check(what: str, figure_us: float, limit_us: float) -> dict[str, Any]:
    """Say whether a figure keeps within its limit."""
    return {"what": what, "figure": f"{figure_us} µs", "limit": f"{limit_us} µs", "holds": figure_us < limit_us}


def measure(name: str, make: Callable[[int], Event], principals: int, scale: float) -> dict[str, float]:
    """Time events while principals are new and after."""
    settings = Settings(warmup=Duration(0.01), warmup_observations=10)
    judge = Judge(Bundle.packaged(), labels={"shop": {"env": "prod"}}, behaviour=Behaviour(settings))
    new = [make(number) for number in range(max(2_000, principals * 11))]
    first = _time(judge, new)
    # Time goes on from one stretch to the next: the same events again would be late ones, for which no window closes.
    length = max(1_000, int(50_000 * scale))
    starts = [len(new) + length * number for number in range(3)]
    known = [[make(number) for number in range(start, start + length)] for start in starts]
    return {f"{name}, first sight": first, f"{name}, ordinary": min(_time(judge, events) for events in known)}


def _time(judge: Judge, events: list[Event]) -> float:
    began = time.perf_counter()
    for event in events:
        judge.judge(event)
    return round((time.perf_counter() - began) / len(events) * 1e6, 2)


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
