"""Raw events for tests: short to write, plausible in content."""

from __future__ import annotations

from typing import Any

import msgspec

from pgwitness.core.codec import BatchBuilder, decode_raw
from pgwitness.core.events import (
    SCHEMA_VERSION,
    Beacon,
    Count,
    Raw,
    RawBatch,
    RawEvent,
    RawHeader,
    Relation,
    Row,
    Session,
    Tick,
    Transaction,
    encode_event,
)

START_US = 1_790_000_000_000_000
SECOND_US = 1_000_000
BACKEND_US = START_US - 60 * SECOND_US

IDENTITIES = """\
rules:
  - id: bot
    match: {role: app, application: "bot-*"}
    principal: billing-bot
    kind: agent
    on_behalf_of: finance
    peer_group: bots
    owner: payments
  - id: app
    match: {role: app}
    principal: app
    kind: service
  - id: people
    match: {role: "p_*"}
    principal: "{role}"
    kind: human
"""


def rows(first: int, number: int, operation: str = "i") -> Raw:
    """Make the rows of a part."""
    return Raw(
        msgspec.json.encode(
            [
                Row(ordinal, operation, 0, Raw(b'{"id":%d}' % ordinal), None, Raw(b"null"), Raw(b'{"id":%d}' % ordinal))
                for ordinal in range(first, first + number)
            ]
        )
    )


def transaction(lsn: int, *, at_s: float = 0.0, n_rows: int = 1, first: int = 0, **fields: Any) -> Transaction:
    """Make a transaction, or a part of one, on a table without a beacon; `at_s` is when it was captured."""
    covered = fields.pop("covered", False)
    at_us = START_US + int(at_s * SECOND_US)
    given: dict[str, Any] = {
        "captured_at_us": at_us,
        "system_id": "sys",
        "timeline": 1,
        "database": "shop",
        "lsn": lsn,
        "xid": lsn,
        "committed_at_us": at_us,
        "first_ordinal": first,
        "n_rows": n_rows,
        "relations": [Relation("public.orders", ["id"], beacon=covered)],
        "counts": [Count(0, "i", n_rows)] if n_rows else [],
        "rows": rows(first, n_rows),
    }
    return Transaction(**(given | fields))


def beacon(user: str = "app", application: str = "web", **fields: Any) -> Beacon:
    """Make a verified beacon."""
    given: dict[str, Any] = {"session_user": user, "role": user, "pid": 41, "backend_start_us": BACKEND_US, "xid": 1}
    return Beacon(application=application, **(given | fields))


def sample(xid: int, *, at_s: float = 0.0, user: str = "app", application: str = "bot-7", **fields: Any) -> Session:
    """Make a session sample that shows a transaction id."""
    at_us = START_US + int(at_s * SECOND_US)
    given: dict[str, Any] = {"operation": "sample", "pid": 41, "backend_start_us": BACKEND_US, "database": "shop"}
    return Session(
        captured_at_us=at_us, occurred_at_us=at_us, role=user, application=application, xid=xid, **(given | fields)
    )


def tick(at_s: float) -> Tick:
    """Make a tick."""
    return Tick(captured_at_us=START_US + int(at_s * SECOND_US))


def batch(*events: RawEvent, cluster: str = "shop", source: str = "wal", instance: str = "db:5432") -> RawBatch:
    """Make a batch as a collector would send it."""
    return RawBatch(SCHEMA_VERSION, "test", RawHeader(cluster, source, instance), list(events))


def value(sent: RawBatch) -> bytes:
    """Return a batch's record value; reading it again is part of what is tested."""
    builder = BatchBuilder(sent.producer, msgspec.json.encode(sent.header))
    payloads = [builder.add(encode_event(event), getattr(event, "n_rows", 1)) for event in sent.events]
    assert not any(payloads)
    payload = builder.cut()
    assert payload is not None
    return payload


def read(sent: RawBatch) -> RawBatch:
    """Send a batch through the codec, as every batch in Kafka was."""
    return decode_raw(value(sent))
