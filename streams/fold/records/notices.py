"""Gaps, and what pgwitness does itself: evidence as it comes, and what the fold has to unlearn or remember by it."""

from __future__ import annotations

from pgwitness.core.events import Control, Gap
from streams.fold.context import FoldContext
from streams.fold.events.observed import observed_event
from streams.fold.memory.attribution import Attribution
from streams.fold.records.decided import emit_decided
from streams.fold.sessions.attribution import NOBODY, by_announcement


def take(context: FoldContext, raw: Gap | Control) -> None:
    """Take a gap or an act of pgwitness."""
    cluster, header = context.cluster, context.header
    cluster.coverage.gap(raw, header.instance)
    if isinstance(raw, Gap) and header.source == "log":
        cluster.posture.lost(raw.captured_at_us)
        cluster.handles.lost()
        emit_decided(context, cluster.outcomes.lost(raw.captured_at_us))
    cluster.starts.see(raw)
    cluster.ddl_seen.announced(raw)
    context.emit_once(observed_event(header, raw, _announced(context, raw)))


def _announced(context: FoldContext, raw: Gap | Control) -> Attribution:
    """Name who installed, paused, resumed or removed the beacon; of anything else nobody is known."""
    role, database = raw.detail.get("role"), raw.database
    if not (isinstance(raw, Control) and raw.operation.startswith("beacon_")):
        return NOBODY
    if not isinstance(role, str) or database is None:
        return NOBODY
    return by_announcement(context.header.cluster, database, role, context.identities)
