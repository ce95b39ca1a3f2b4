"""Passing one record that its partition waits at: ordered by a person, carried out by the worker, and evidence.

A record of a newer schema pauses its partition, because an update could read it. When there is none to come, somebody
may order that it is passed: the order stands in the state topic, names the record by its place and its bytes, and
counts for nothing else. A worker that waits there sees it within seconds, one that starts later finds it; either makes
the record a dead letter, reports who ordered it and why (`record_skipped`) and that evidence is missing.
"""

from __future__ import annotations

import hashlib
import time

from msgspec.structs import asdict

from pgwitness.core.codec import decode_events, decode_raw
from pgwitness.core.config import Config
from pgwitness.core.errors import DeadLetter, NewerSchema, NotInOrder
from streams.aside import Problem
from streams.kafka import admin
from streams.kafka.checkpoints import Skip, Store
from streams.kafka.emitter import make_producer
from streams.kafka.reading import record_at

OPERATION = "record_skipped"
STATES = {"raw": "state-fold", "events": "state-judge"}
CAUSE = "skipped"


def fits(skip: Skip | None, value: bytes | None) -> bool:
    """Return whether an order is about these bytes."""
    return skip is not None and skip.sha256 == _sha256(value)


def problem(skip: Skip, error: NewerSchema, key: bytes | None) -> Problem:
    """Return why the record was set aside."""
    cluster = key.decode(errors="replace") if key else None
    return Problem(CAUSE, f"{skip.who} passed a record of schema {error.version}: {skip.why}", cluster=cluster)


def said(skip: Skip, topic: str, partition: int) -> dict[str, object]:
    """Return the detail of the evidence: who ordered it, when and why, and which record it was."""
    return {"topic": topic, "partition": partition, **asdict(skip)}


def order(config: Config, name: str, partition: int, offset: int, who: str, why: str) -> Skip:
    """Order that a paused record is passed. Raise `NotInOrder` when it is none, `Unreachable` without a broker."""
    there = admin.counts(config)
    topic, state = config.kafka.topic(name), config.kafka.topic(STATES[name])
    if topic not in there or state not in there:
        raise NotInOrder(f"topic {topic} or {state} is not there, or may not be seen")
    if not 0 <= partition < there[topic]:
        raise NotInOrder(f"topic {topic} has no partition {partition}; it has {there[topic]}")
    found, value = record_at(config, topic, partition, offset)
    if not found:
        raise NotInOrder(f"topic {topic}, partition {partition} holds no record at {offset}")
    try:
        decode_raw(value) if name == "raw" else decode_events(value)
    except NewerSchema:
        pass
    except DeadLetter as error:
        raise NotInOrder(f"{topic}, partition {partition}, offset {offset} pauses nothing: {error}") from error
    else:
        raise NotInOrder(f"{topic}, partition {partition}, offset {offset} can be read: it pauses nothing")
    skip = Skip(offset, _sha256(value), who, why, time.time_ns() // 1000)
    Store(state, make_producer(config), who, there[state]).save_skip(partition, skip)
    return skip


def _sha256(value: bytes | None) -> str:
    return hashlib.sha256(value or b"").hexdigest()
