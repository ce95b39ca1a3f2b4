"""What all events of the fold have in common: their ids, and the fields that say who acted.

`at` is set when an event is emitted.

An `event_id` is a hash over the event's position: for changes over system id, timeline, database and commit LSN, for
everything else over cluster, source, instance and the raw event itself, which carries its own times and numbers.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from pgwitness.core.events import (
    Event,
    Kind,
    LogPlace,
    Position,
    RawHeader,
    Transaction,
)
from streams.fold.memory.attribution import Attribution

NOWHERE = Position(0, 0, 0)
WORKER = "worker"
NAMED_BY = ("beacon", "gateway", "log")
"""Bindings by which a transaction that bypasses the beacon is named all the same: by its DDL, the gateway, its
statements."""
_encode = msgspec.json.Encoder(order="deterministic").encode


def identify(*position: object) -> str:
    """Return an id: a hash over where something happened."""
    return blake2b(_encode(position), digest_size=16).hexdigest()


def transaction_id(part: Transaction) -> str:
    """Return the prefix of the ids of a transaction's rows: the same wherever and whenever it was read."""
    position = f"{part.system_id}/{part.timeline}/{part.database}/{part.lsn}"
    if part.incarnation:
        position += f"/{part.incarnation}"
    return blake2b(position.encode(), digest_size=16).hexdigest()


def line_id(header: RawHeader, place: LogPlace) -> str:
    """Name an event of the log by the server's own name of its line, or by its place in the file."""
    if place.line is not None:
        return identify("log", header.cluster, header.instance, place.line)
    return identify("log", header.cluster, header.instance, place.log, place.offset, place.index)


def outcome_id(event_id: str) -> str:
    """Name the event that reports the outcome of one that went on as pending."""
    return identify("outcome", event_id)


def blank_event(
    kind: Kind,
    cluster: str,
    instance: str | None,
    attribution: Attribution,
    captured_at_us: int,
    event_id: str,
    operation: str | None,
) -> Event:
    """Make an event of what all kinds have; who makes it fills in the rest."""
    return Event(
        kind=kind,
        event_id=event_id,
        at=NOWHERE,
        occurred_at_us=captured_at_us,
        captured_at_us=captured_at_us,
        cluster=cluster,
        instance=instance,
        principal=attribution.principal,
        principal_kind=attribution.principal_kind,
        on_behalf_of=attribution.on_behalf_of,
        peer_group=attribution.peer_group,
        binding=attribution.binding,
        certainty=attribution.certainty,
        assurance=attribution.assurance,
        identity_rule=attribution.identity_rule,
        role=attribution.role,
        effective_role=attribution.effective_role,
        application=attribution.application,
        client_addr=attribution.client_addr,
        client_port=attribution.client_port,
        pid=attribution.pid,
        auth_method=attribution.auth_method,
        session_id=attribution.session_id,
        trace_id=attribution.trace_id,
        operation=operation,
        detail=_detail(attribution),
    )


def _detail(attribution: Attribution) -> dict[str, object]:
    detail: dict[str, object] = {}
    if attribution.finding is not None:
        missing = (
            attribution.finding == "shadow_write"
            and attribution.binding in NAMED_BY
            and attribution.certainty in ("exact", "strong")
        )
        detail["finding"] = "beacon_missing" if missing else attribution.finding
    if attribution.claim is not None:
        detail["claim"] = attribution.claim
    if attribution.became is not None:
        detail["became"] = attribution.became
    if attribution.owner is not None:
        detail["owner"] = attribution.owner
    if attribution.network is not None:
        detail["network"] = attribution.network
    if attribution.agent is not None:
        detail["agent"] = attribution.agent
    if attribution.join is not None:
        detail["join"] = attribution.join
    if attribution.token is not None:
        detail["token"] = {"verdict": attribution.token.verdict, "token_id": attribution.token.token_id}
    return detail


def put_transaction(event: Event, part: Transaction) -> None:
    """Return in which transaction an event happened."""
    event.database = part.database
    event.occurred_at_us = part.committed_at_us
    event.xid = part.xid
    event.lsn = part.lsn
    event.relations = [relation.name for relation in part.relations]
