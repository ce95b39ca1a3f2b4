"""Events to judge: ordinary ones, hostile ones, and streams of both, all from a seed."""

from __future__ import annotations

from random import Random
from typing import Any

from pgwitness.core.events import Count, Event, Position, Relation

START_US = 1_790_000_000_000_000
SECOND_US = 1_000_000

HOSTILE = [
    "",
    "\0",
    "'; DROP TABLE events; --",
    "{principal.name}{0}{__class__}",
    "%s%n" * 10,
    "\u202e\u0000\ufffd\U0001f600",
    "a" * 100_000,
    '"' * 500,
    "?shop?app",
    "\n\r\t",
    "null",
    "../../etc/passwd",
]
"""Texts that a client can choose; lone surrogates are not among them, because JSON in UTF-8 cannot carry them."""


def change(number: int, operation: str = "u", rows: int = 1, relation: str = "public.orders", **facts: Any) -> Event:
    """Make the change of one transaction, a tenth of a second after the one before."""
    at_us = START_US + number * SECOND_US // 10
    base: dict[str, Any] = {
        "kind": "change",
        "event_id": f"{number:032x}",
        "at": Position(0, number, 0),
        "occurred_at_us": at_us,
        "captured_at_us": at_us + 40_000,
        "cluster": "shop",
        "instance": "db.example:5432",
        "database": "shop",
        "principal": "checkout",
        "principal_kind": "service",
        "binding": "beacon",
        "certainty": "exact",
        "assurance": "role_only",
        "role": "shop_app",
        "application": "checkout",
        "client_addr": "10.0.0.5",
        "relation_table": [Relation(relation, ["id"], beacon=True)],
        "counts": [Count(0, operation, rows)],
        "n_rows": rows,
        "outcome": "success",
    }
    return Event(**(base | facts))


def event(number: int, kind: str, **facts: Any) -> Event:
    """Make an event of any other kind."""
    at_us = START_US + number * SECOND_US // 10
    base: dict[str, Any] = {
        "kind": kind,
        "event_id": f"{number:032x}",
        "at": Position(0, number, 0),
        "occurred_at_us": at_us,
        "captured_at_us": at_us + 40_000,
        "cluster": "shop",
        "database": "shop",
    }
    return Event(**(base | facts))


def day(seed: int, length: int = 600) -> list[Event]:
    """Make an ordinary stretch of work with a few misdeeds in it."""
    random = Random(seed)
    events = []
    for number in range(length):
        who = random.choice(["checkout", "shipping", "ada", None])
        facts: dict[str, Any] = {"principal": who, "role": who or "shared", "peer_group": random.choice([None, "team"])}
        roll = random.random()
        if roll < 0.02:
            events.append(change(number, "d", random.randrange(1, 20_000), **facts))
        elif roll < 0.05:
            facts |= {"client_addr": f"10.9.9.{random.randrange(4)}", "application": random.choice(["a", "b"])}
            events.append(change(number, **facts))
        elif roll < 0.2:
            rows = random.choice([1, 5, 5_000])
            detail = {"operations": ["select"], "where": "n/a"}
            stats = {"operation": "select", "relations": ["public.customers"], "calls": 1, "row_count": rows}
            events.append(event(number, "query_stats", statement="SELECT 1", detail=detail, **stats))
        elif roll < 0.3:
            session = {"binding": "activity", "client_addr": "10.0.0.5", "application": "x", **facts}
            events.append(event(number, "session", operation="connect", **session))
        elif roll < 0.32:
            events += parts(number, facts)
        else:
            events.append(change(number, random.choice("iu"), random.randrange(1, 5), **facts))
    return events


def week(seed: int, length: int = 2_500) -> list[Event]:
    """Make a week in which windows close: six principals of one team, four minutes apart, with a few misdeeds."""
    random = Random(seed)
    events = []
    for number in range(length):
        at_us = START_US + number * 240 * SECOND_US
        who = f"member-{random.randrange(6)}"
        facts: dict[str, Any] = {"principal": who, "role": who, "peer_group": "team"}
        facts |= {"occurred_at_us": at_us - random.randrange(2 * SECOND_US), "captured_at_us": at_us}
        relation = random.choice(["public.orders"] * 20 + ["public.tickets", f"scratch.t{random.randrange(50)}"])
        if random.random() < 0.5:
            read = {"operation": "select", "relations": [relation], "columns": ["id"], "fingerprint": relation}
            counted = {"calls": random.randrange(1, 40), "row_count": random.choice([5, 50, 500])}
            detail = {"operations": ["select"], "where": "n/a"}
            events.append(event(number, "query_stats", statement="SELECT 1", detail=detail, **read, **counted, **facts))
        else:
            rows = random.randrange(1, 9) if random.random() < 0.99 else 20_000
            events.append(change(number, random.choice("iud"), rows, relation, **facts))
    return events


def parts(number: int, facts: dict[str, Any]) -> list[Event]:
    """Make a transaction of three parts."""
    return [
        change(number, "d", 1_000, part=part, last=part == 2, first_ordinal=part * 1_000, **facts) for part in range(3)
    ]


def hostile(seed: int, length: int = 300) -> list[Event]:
    """Make events whose every text, number and list was chosen by an enemy."""
    random = Random(seed)

    def text() -> str:
        return random.choice(HOSTILE) + random.choice(["", str(random.random())])

    events = []
    for number in range(length):
        kind = random.choice(["change", "query_stats", "session", "posture", "control", "gap", "ddl", "statement"])
        big = random.choice([0, -1, 2**62, 1, 100])
        names = ("principal", "on_behalf_of", "peer_group", "role", "effective_role", "application", "client_addr")
        facts: dict[str, Any] = {name: random.choice([None, text()]) for name in names}
        facts |= {
            "cluster": text(),
            "database": text(),
            "operation": text(),
            "binding": random.choice(["beacon", "activity", "none", "stats"]),
            "relations": [text() for _ in range(random.randrange(30))],
            "statement": random.choice([None, text(), "DELETE FROM t WHERE " + "(" * 50, "SELECT 'x"]),
            "calls": random.choice([None, big]),
            "row_count": random.choice([None, big]),
            "client_port": big,
            "detail": random.choice(
                [
                    {},
                    {"finding": text()},
                    {"finding": [1], "operations": [None, {}], "where": 5},
                    {"object_type": text(), "name": [], "before": 3, "after": {text(): True, "rolsuper": None}},
                    {"after": {"a": {"b": [{}] * 50}}, text(): text()},
                ]
            ),
            "occurred_at_us": START_US + random.choice([0, -(2**60), 2**60, number]),
        }
        if kind == "change":
            facts |= {
                "relation_table": [Relation(text()) for _ in range(random.randrange(3))],
                "counts": [Count(random.randrange(-2, 5), text()[:1], big) for _ in range(random.randrange(4))],
                "part": random.randrange(2),
                "last": random.random() < 0.8,
            }
        events.append(event(number, kind, **facts))
    return events
