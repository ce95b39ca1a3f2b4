"""Records of enemies: each is broken in a way of its own, and where it can, has a good event before and behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import msgspec

from pgwitness.core.events import Gap, Raw, encode_event
from tests.streams.records import BACKEND_US, START_US, beacon, transaction

DEEP = 3_000
HUGE = {
    "2^31": 2**31,
    "2^62": 2**62,
    "2^63": 2**63,
    "2^64": 2**64,
    "2^70": 2**70,
    "of 400 digits": 10**400,
    "-1": -1,
    "below -2^63": -(2**63) - 1,
}


def _json(event: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode_event(event))
    return found


def _good(reason: str) -> dict[str, Any]:
    return _json(Gap(captured_at_us=START_US, occurred_at_us=START_US, reason=reason))


def _record(*events: Any, **more: Any) -> bytes:
    header = {"cluster": "shop", "source": "wal", "instance": "db:5432"}
    return json.dumps({"schema": 1, "producer": "enemy", "header": header, "events": list(events)} | more).encode()


def _transaction(**fields: Any) -> dict[str, Any]:
    return _json(transaction(50, beacons=[beacon()])) | {"lsn": 50} | fields


def _session(**fields: Any) -> dict[str, Any]:
    at = {"captured_at_us": START_US, "occurred_at_us": START_US, "backend_start_us": BACKEND_US}
    return {"kind": "session", "operation": "connect", "pid": 7, "role": "app"} | at | fields


def _statement(**fields: Any) -> dict[str, Any]:
    at = {"captured_at_us": START_US, "occurred_at_us": START_US}
    place = ["/var/log/x.json", 10, 0, "a.1"]
    rest = {"kind": "statement", "format": "jsonlog", "source": "duration", "pid": 7, "place": place, "role": "app"}
    return rest | at | {"statement": "SELECT 1"} | fields


def _statistics(**fields: Any) -> dict[str, Any]:
    at = {"captured_at_us": START_US, "window_start_us": START_US - 9, "window_end_us": START_US}
    rest = {"kind": "query_stats", "database": "shop", "role": "app", "query_id": 7, "statement": "SELECT 1"}
    return rest | at | {"calls": 1, "rows": 1, "total_ms": 0.5} | fields


def _posture(**fields: Any) -> dict[str, Any]:
    rest = {"kind": "posture", "captured_at_us": START_US, "object_type": "role", "name": "x", "change": "added"}
    return rest | fields


def _deep(depth: int = DEEP) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def events() -> Iterator[tuple[str, dict[str, Any]]]:
    """Events that have the shape of one, and nonsense in them."""
    yield "counts of no relation", _transaction(relations=[], counts=[[0, "i", 1]])
    yield "counts of relation 9", _transaction(counts=[[9, "i", 1]])
    yield "counts of relation -1", _transaction(counts=[[-1, "i", 1]])
    yield "an operation that is none", _transaction(counts=[[0, "x", 1]])
    yield "rows below nothing", _transaction(counts=[[0, "i", -7]])
    for name, number in HUGE.items():
        impossible = number if not 0 <= number < 2**60 else -number - 2
        yield f"lsn {name}", _transaction(lsn=impossible)
        yield f"xid {name}", _transaction(xid=number if number >= 2**63 or number < 0 else -2)
        yield f"pid {name}", _session(pid=number)
        yield f"port {name}", _session(client_port=number if number != -1 else 2**31)
        yield f"calls {name}", _statistics(calls=number if not 0 <= number < 2**63 else -9)
        yield f"a time of {name}", _session(occurred_at_us=impossible)
        yield f"a beacon's pid {name}", _transaction(beacons=[{**_json(beacon()), "pid": 2**40 + abs(number)}])
        yield f"posture with {name}", _posture(window_start_us=impossible)
    yield "a position that no server has", _transaction(lsn=2**62)
    yield "a place of 2^63", _statement(place=["/var/log/x.json", 2**63, 0, "a.1"])
    yield "a place before the file", _statement(place=["/var/log/x.json", -1, 0, "a.1"])
    yield "posture of half a megabyte and more", _posture(after={"x": "y" * 600_000})


def raw_records() -> list[tuple[str, bytes | None]]:
    """A hundred records for `raw`; those with `+` in their name have good events around the bad one."""
    found: list[tuple[str, bytes | None]] = []
    for number, (name, event) in enumerate(events()):
        found.append((f"+{name}", _record(_good(f"before-{number}"), event, _good(f"behind-{number}"))))
    whole = _record(_good("never"))
    found += [
        ("nothing", None),
        ("empty", b""),
        ("no JSON", b"\xff\xfe\x00"),
        ("half", whole[:-9]),
        ("a list", b"[]"),
        ("a number", b"1e999"),
        ("an old schema", whole.replace(b'"schema": 1', b'"schema": -7')),
        ("a schema of words", whole.replace(b'"schema": 1', b'"schema": "1"')),
        ("a schema that is no number", whole.replace(b'"schema": 1', b'"schema": 1.5')),
        ("no events", _record(events={})),
        ("an event of no kind", _record({"kind": "?"})),
        ("a nested header", whole.replace(b'"wal"', b"[" * 100_000)),
        ("a surrogate", whole.replace(b'"enemy"', b'"\\ud800"')),
        ("bytes that are no UTF-8", whole.replace(b"enemy", b"\xed\xa0\x80")),
        ("a detail too deep", _record({**_good("x"), "detail": {"x": 1}}).replace(b'{"x": 1}', b'{"x":' * 5_000)),
        ("random", os.urandom(4_000)),
        ("random and long", os.urandom(900_000)),
        ("spaces", b" " * 900_000),
        ("brackets", b"[" * 900_000),
    ]
    return found


def bad_event(number: int) -> bytes:
    """Return a small bad event's record, one of any number."""
    return _record(_transaction(lsn=number, counts=[[7, "i", 1]]))


def nested(depth: int) -> Raw:
    """Return JSON of a depth."""
    return Raw(msgspec.json.encode(_deep(depth)))


def _event(**fields: Any) -> dict[str, Any]:
    at = {"occurred_at_us": START_US, "captured_at_us": START_US}
    return {"kind": "control", "event_id": "e" * 32, "at": [0, 0, 0], "cluster": "shop", "operation": "x"} | at | fields


def event_record(lane: int, *events: Any) -> bytes:
    """Return a record of `events` as a worker would write it."""
    return json.dumps({"schema": 1, "producer": "enemy", "header": {"lane": lane}, "events": list(events)}).encode()


def event_records() -> list[tuple[str, bytes | None]]:
    """Records for `events`: positions, times and lanes that cannot be, values that no column takes, and no records."""
    found: list[tuple[str, bytes | None]] = []
    for number in (2**31, 2**40, 2**53, 2**62, 2**63 - 1):
        found.append((f"at {number}", event_record(5, _event(at=[0, number, 0]))))
        found.append((f"partition {number}", event_record(5, _event(at=[number, 0, 0]))))
        found.append((f"index {number}", event_record(5, _event(at=[0, 0, number]))))
        found.append((f"lane {number}", event_record(number, _event())))
    for number in (-1, -2, -(2**62)):
        found.append((f"at {number}", event_record(5, _event(at=[0, number, 0]))))
        found.append((f"partition {number}", event_record(5, _event(at=[number, 0, 0]))))
        found.append((f"lane {number}", event_record(number if number < -1 else -7, _event())))
    later = 2**57
    found += [
        ("captured in 6500", event_record(6, _event(captured_at_us=later))),
        ("occurred in 6500", event_record(6, _event(occurred_at_us=later))),
        ("captured beyond", event_record(6, _event(captured_at_us=2**62))),
        ("a clock of 6500", event_record(-1, _event(at=[-2, 0, 0], operation="clock", captured_at_us=later))),
        ("a verdict to come", event_record(-1, _event(at=[-1, 2**62, 0], kind="decision", operation="verdict"))),
        ("rows that are none", event_record(7, _event(kind="change", n_rows=3, rows={"no": "rows"}))),
        ("no UTF-8", event_record(8, _event(kind="change", n_rows=1, rows=["?"])).replace(b"?", b"\xff")),
        ("a pid of 2^40", event_record(9, _event(pid=2**40))),
        ("calls of 2^70", event_record(10, _event(calls=2**70))),
        ("a detail of 400 digits", event_record(11, _event(detail={"n": 10**400}, pid=2**50))),
        ("nothing", None),
        ("no JSON", b"\xff\xfe"),
        ("brackets", b"[" * 100_000),
        ("raw", _record(_good("x"))),
        ("random", os.urandom(3_000)),
    ]
    return found
