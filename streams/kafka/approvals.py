"""The topic `approvals` as the worker reads it: each record, with what came of checking it, becomes a note (evidence).

A reader's ledger begins at the topic's beginning: what a decision is about stands in a request long before it. Told is
only what no note was written of yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pgwitness.approvals.ledger import Ledger, Taken, Trust
from pgwitness.approvals.records import Claim, Decision, Ended, Request
from pgwitness.approvals.topic import ApprovalsTopic
from pgwitness.core.config import Config
from pgwitness.core.errors import Unreachable
from pgwitness.core.events import Event, Position, encode_event
from streams.kafka.notes import APPROVALS, POLLED_MAX

POLL_S = 0.0


class Noted(NamedTuple):
    """A record of the topic: where it stands, why it is refused if it is, and its note."""

    offset: int
    refused: str | None
    note: Event


def note_of(taken: Taken, value: bytes | None, offset: int, at_us: int) -> Event:
    """Make the note of a record that was written at `at_us`."""
    identity = blake2b(value or b"", digest_size=12).hexdigest()
    event = Event(
        kind="decision",
        event_id=blake2b(f"approval/{offset}/{identity}".encode(), digest_size=16).hexdigest(),
        at=Position(APPROVALS, offset, 0),
        occurred_at_us=at_us,
        captured_at_us=at_us,
        cluster="",
        principal_kind="unknown",
        certainty="none",
        assurance="none",
        operation="approval",
        outcome="denied",
        detail={"offset": offset},
    )
    detail = event.detail
    if taken.refused is not None:
        detail |= {"finding": "approval_refused", "reason": taken.refused}
    if taken.signed is None:
        return event
    record = taken.signed.record
    standing = taken.standing
    request = record if isinstance(record, Request) else standing.request if standing is not None else None
    detail |= {"approval": record.request, "signed_by": taken.signed.key, "signed_us": record.at_us}
    if request is not None:
        event.cluster, event.instance, event.database = request.cluster, request.instance, request.database
        event.relations = list(request.relations)
    match record:
        case Request():
            event.operation = "approval_request"
            event.statement, event.fingerprint = record.statement, record.fingerprint
            event.columns, event.role = list(record.columns), record.role
            event.application, event.client_addr = record.application, record.client_addr
            asked = {"request": msgspec.to_builtins(record), "sha256": taken.signed.sha256}
            detail |= asked | {"intent": record.intent, "policies": list(record.policies), "rows": record.rows}
        case Decision():
            event.operation = f"approval_{record.word}"
            detail |= {"why": record.why, "who": record.who, "break_glass": record.break_glass}
        case Claim():
            event.operation = "approval_claim"
            detail |= {"nonce": record.nonce, "session": record.session}
        case Ended():
            event.operation = f"approval_{record.end}"
    if taken.refused is None:
        event.outcome, event.certainty, event.assurance = "success", "exact", "verified"
        if isinstance(record, Decision):
            event.principal, event.principal_kind = record.who, "human"
        elif request is not None:
            event.principal, event.on_behalf_of = request.principal, request.on_behalf_of
            if request.kind in ("human", "agent", "service"):
                event.principal_kind = request.kind  # type: ignore[assignment]
    return event


class Approvals:
    """Reads the topic from its beginning on, as its records come."""

    def __init__(self, config: Config, wall_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._ledger = Ledger(Trust.of(config))
        self._topic = ApprovalsTopic(config)
        self._wall_us = wall_us
        self._base = self._told = 0

    def start(self, told: int, base: int = 0) -> None:
        """Tell of records from an offset on; positions are `base` ahead of offsets (`streams.kafka.origins`)."""
        self._told, self._base = told, base

    def poll(self) -> list[Noted]:
        """Return the records that have come, a hundred or so at a time; none where the broker does not answer."""
        found: list[Noted] = []
        for _ in range(POLLED_MAX):
            try:
                read = self._topic.poll(POLL_S)
            except Unreachable:
                return found  # a broker that does not answer is reported elsewhere
            if read is None:
                break
            at_us = min(read.at_us, self._wall_us())
            taken = self._ledger.take(read.value, read.offset, at_us)
            if read.offset >= self._told:
                found.append(self._noted(taken, read.value, self._base + read.offset, at_us))
        return found

    def _noted(self, taken: Taken, value: bytes | None, offset: int, at_us: int) -> Noted:
        note = note_of(taken, value, offset, at_us)
        try:
            encode_event(note)
        except (ValueError, OverflowError):  # numbers or letters that no JSON carries
            taken = Taken(None, refused="not_a_record")
            note = note_of(taken, value, offset, at_us)
        return Noted(offset, taken.refused, note)

    def close(self) -> None:
        """Let go of the connection."""
        self._topic.close()
