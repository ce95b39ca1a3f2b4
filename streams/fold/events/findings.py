"""Events that say something is wrong: forged, contradicting, silenced or refused evidence, and who is behind it."""

from __future__ import annotations

import msgspec

from pgwitness.core.events import (
    Beacon,
    Event,
    RawHeader,
    Statement,
    Token,
    Transaction,
    format_lsn,
)
from streams.fold.events.base import (
    blank_event,
    identify,
    line_id,
    put_transaction,
    transaction_id,
)
from streams.fold.memory.attribution import Attribution, Corroborated
from streams.fold.memory.transactions import Approved


def conflicting(beacons: list[Beacon]) -> bool:
    """Return whether verified beacons of one transaction name different sessions or different logins."""
    if not beacons:
        return False
    first = beacons[0]
    who = (first.session_user, first.pid, first.backend_start_us)
    return any((other.session_user, other.pid, other.backend_start_us) != who for other in beacons[1:])


def beacon_forged(
    cluster: str, instance: str | None, part: Transaction, number: int, attribution: Attribution
) -> Event:
    """Make the finding that a message under the beacon's prefix did not verify; `attribution` is who really made it."""
    forgery = part.forged[number]
    event = _of_transaction(cluster, instance, part, attribution, "beacon_forged", number)
    event.detail |= {"reason": forgery.reason, "claims": forgery.claims, "finding": "beacon_forged"}
    return event


def identity_conflict(cluster: str, instance: str | None, part: Transaction, attribution: Attribution) -> Event:
    """Make the finding that verified beacons of one transaction disagree."""
    event = _of_transaction(cluster, instance, part, attribution, "identity_conflict", 0)
    event.detail |= {"beacons": msgspec.to_builtins(part.beacons), "finding": "identity_conflict"}
    return event


def comment_contradicted(
    header: RawHeader,
    attribution: Attribution,
    tags: dict[str, str],
    stronger: Corroborated,
    wrong: list[str],
    at_us: int,
) -> Event:
    """Make the finding that a comment contradicts stronger evidence; its id is the same for the same in a session."""
    said = {name: tags[name] for name in wrong}
    event_id = identify("identity_conflict", header.cluster, attribution.session_id, said, stronger.principal)
    event = blank_event("control", header.cluster, header.instance, attribution, at_us, event_id, "identity_conflict")
    known = {"principal": stronger.principal, "on_behalf_of": stronger.on_behalf_of}
    event.detail |= {"finding": "identity_conflict", "contradicts": wrong, "comment": tags, "stronger": known}
    return event


def claim_refused(
    cluster: str, instance: str | None, part: Transaction, token: Token, attribution: Attribution
) -> Event:
    """Make the finding that a transaction came with a token that is not believed; `attribution` is made without it."""
    event = _of_transaction(cluster, instance, part, attribution, "claim_refused", 0)
    event.outcome = "denied"
    event.detail |= {
        "finding": "claim_refused",
        "reason": token.verdict,
        "token_id": token.token_id,
        "claims": token.claims,
    }
    return event


def beacon_silenced(
    cluster: str, instance: str | None, part: Transaction, number: int, attribution: Attribution
) -> Event:
    """Make the finding that a transaction's beacon failed; `attribution` is by other evidence than its own."""
    said = part.silenced[number]
    event = _of_transaction(cluster, instance, part, attribution, "beacon_silenced", number)
    event.detail |= {"reason": said.sqlstate, "claims": said.claims, "finding": "beacon_silenced"}
    return event


def session_blinds(
    cluster: str, instance: str | None, part: Transaction, settings: dict[str, str], attribution: Attribution
) -> Event:
    """Make the finding that a session keeps other witnesses from seeing it; one a session and settings."""
    event = _of_transaction(cluster, instance, part, attribution, "session_blinds", 0)
    event.event_id = identify("session_blinds", cluster, attribution.session_id, settings)
    event.detail |= {"settings": settings, "finding": "session_blinds"}
    return event


def log_imitated(header: RawHeader, raw: Statement, attribution: Attribution) -> Event:
    """Make the finding that a session's code wrote a line in the server's form; `attribution` is who did."""
    event_id = line_id(header, raw.place)
    event = blank_event(
        "control", header.cluster, header.instance, attribution, raw.captured_at_us, event_id, "log_imitated"
    )
    event.database = raw.database
    event.occurred_at_us = raw.occurred_at_us
    event.xid = raw.xid
    event.detail |= {"finding": "log_imitated", "imitates": raw.imitates, "lines": raw.lines, "format": raw.format}
    return event


def approval_drift(cluster: str, run: Approved, at_us: int) -> Event:
    """Make the finding that what was done is not what was approved; one an approval."""
    event_id = identify("approval_drift", cluster, run.approval)
    who = run.who or Attribution()
    event = blank_event("control", cluster, run.instance, who, at_us, event_id, "approval_drift")
    event.database, event.occurred_at_us = run.database, run.at_us
    event.relations, event.row_count = list(run.others or run.relations), run.rows
    event.detail |= {
        "finding": "approval_drift",
        "approval": run.approval,
        "drift": list(run.reasons),
        "rows": run.rows,
        "rows_approved": run.rows_approved,
        "others": list(run.others),
        "approved_relations": list(run.relations),
    }
    return event


def _of_transaction(
    cluster: str, instance: str | None, part: Transaction, attribution: Attribution, operation: str, number: int
) -> Event:
    event_id = identify(operation, transaction_id(part), number)
    event = blank_event("control", cluster, instance, attribution, part.captured_at_us, event_id, operation)
    put_transaction(event, part)
    event.detail |= {"transaction": transaction_id(part), "commit_lsn": format_lsn(part.lsn)}
    return event
