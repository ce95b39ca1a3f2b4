"""What a transaction shows besides its rows: forged or contradicting evidence, and what was done to those who watch."""

from __future__ import annotations

from pgwitness.core.events import Transaction
from streams.fold.context import FoldContext
from streams.fold.events.change import unpublished_event
from streams.fold.events.findings import (
    beacon_forged,
    beacon_silenced,
    claim_refused,
    comment_contradicted,
    conflicting,
    identity_conflict,
    session_blinds,
)
from streams.fold.memory.attribution import Attribution, Corroborated
from streams.fold.memory.transactions import Watermark
from streams.fold.records.decided import emit_decided
from streams.fold.sessions import comments, witnesses
from streams.fold.shares import taken
from streams.identity import claims


def emit_findings(context: FoldContext, part: Transaction, mark: Watermark, attribution: Attribution) -> None:
    """Emit, once a transaction each, what is wrong with its beacons, messages and tokens."""
    cluster, instance = context.header.cluster, context.header.instance
    for number in range(mark.forged, len(part.forged)):
        context.emit(beacon_forged(cluster, instance, part, number, attribution))
    mark.forged = max(mark.forged, len(part.forged))
    if not mark.refused:
        tokens = [beacon.token for beacon in (*part.beacons, *(item.beacon for item in part.ddl))]
        token = next((token for token in tokens if token is not None and claims.refused(token)), None)
        if token is not None:
            mark.refused = True
            context.emit(claim_refused(cluster, instance, part, token, attribution))
    if not mark.conflict and conflicting(part.beacons):
        mark.conflict = True
        context.emit(identity_conflict(cluster, instance, part, attribution))


def emit_witnesses(context: FoldContext, part: Transaction, attribution: Attribution) -> None:
    """Emit what somebody did to those who watch: rows that are not published, a beacon that failed, settings."""
    who = attribution.principal or f"?{attribution.role or ''}"
    for item in part.unpublished:
        event = unpublished_event(context.header.cluster, context.header.instance, part, item, attribution)
        found = taken.take_unpublished(context.cluster.shares, part, item, who, attribution.principal_kind)
        if found:
            event.detail["shares"] = found
        context.emit(event)
    for number in range(len(part.silenced)):
        context.emit(beacon_silenced(context.header.cluster, context.header.instance, part, number, attribution))
    if not part.beacons or not part.beacons[0].authenticated or not part.beacons[0].settings:
        return
    blinding = witnesses.blinding(part.beacons[0].settings, context.cluster.log_settings.values)
    if blinding:
        event = session_blinds(context.header.cluster, context.header.instance, part, blinding, attribution)
        context.emit_once(event)


def compare_with_log(context: FoldContext, part: Transaction, attribution: Attribution) -> None:
    """Remember a transaction for lines of the log that come, and emit if a comment contradicted its beacon."""
    cluster = context.cluster
    cluster.join.committed((part.system_id, part.timeline, part.database), part, attribution.pid)
    if part.last:
        emit_decided(context, cluster.outcomes.committed(part.xid, part.captured_at_us))
    stronger = comments.corroborated(attribution) if part.beacons and part.beacons[0].authenticated else None
    if stronger is None:
        return
    cluster.log.corroborate(part.xid, stronger)
    line = cluster.log.holding(part)
    if line is not None and line.tags:
        compare_comment(context, attribution, dict(line.tags), stronger, part.captured_at_us)


def compare_comment(
    context: FoldContext, attribution: Attribution, tags: dict[str, str], stronger: Corroborated | None, at_us: int
) -> None:
    """Emit, once a session, that a comment contradicts what is known better."""
    wrong = comments.contradiction(tags, stronger)
    if wrong and stronger is not None:
        event = comment_contradicted(context.header, attribution, tags, stronger, wrong, at_us)
        if context.cluster.is_new(event.event_id):
            context.emit(event)
