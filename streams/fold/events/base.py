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
"""Bindings by which a transaction past the beacon is named all the same: by its DDL, the gateway, its statements."""
_encode = msgspec.json.Encoder(order="deterministic").encode


def identify(*position: object) -> str:
    """Return an id: a hash over where something happened."""
    return blake2b(_encode(position), digest_size=16).hexdigest()


def transaction_id(part: Transaction) -> str:
    """Give the prefix of the ids of a transaction's rows: the same wherever and whenever it was read."""
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
    """Name the event that tells the outcome of one that went on as pending."""
    return identify("outcome", event_id)


def blank_event(
    kind: Kind,
    cluster: str,
    instance: str | None,
    whose: Attribution,
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
        principal=whose.principal,
        principal_kind=whose.principal_kind,
        on_behalf_of=whose.on_behalf_of,
        peer_group=whose.peer_group,
        binding=whose.binding,
        certainty=whose.certainty,
        assurance=whose.assurance,
        identity_rule=whose.identity_rule,
        role=whose.role,
        effective_role=whose.effective_role,
        application=whose.application,
        client_addr=whose.client_addr,
        client_port=whose.client_port,
        pid=whose.pid,
        auth_method=whose.auth_method,
        session_id=whose.session_id,
        trace_id=whose.trace_id,
        operation=operation,
        detail=_detail(whose),
    )


def _detail(whose: Attribution) -> dict[str, object]:
    detail: dict[str, object] = {}
    if whose.finding is not None:
        missing = (
            whose.finding == "shadow_write" and whose.binding in NAMED_BY and whose.certainty in ("exact", "strong")
        )
        detail["finding"] = "beacon_missing" if missing else whose.finding
    if whose.claim is not None:
        detail["claim"] = whose.claim
    if whose.became is not None:
        detail["became"] = whose.became
    if whose.owner is not None:
        detail["owner"] = whose.owner
    if whose.network is not None:
        detail["network"] = whose.network
    if whose.agent is not None:
        detail["agent"] = whose.agent
    if whose.join is not None:
        detail["join"] = whose.join
    if whose.token is not None:
        detail["token"] = {"verdict": whose.token.verdict, "token_id": whose.token.token_id}
    return detail


def put_transaction(event: Event, part: Transaction) -> None:
    """Say in which transaction an event happened."""
    event.database = part.database
    event.occurred_at_us = part.committed_at_us
    event.xid = part.xid
    event.lsn = part.lsn
    event.relations = [relation.name for relation in part.relations]
