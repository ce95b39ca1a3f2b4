"""A session that came, went, was refused or was found: in the server's log, or in a sample of its activity."""

from __future__ import annotations

from pgwitness.core.events import Session
from streams.fold.context import FoldContext
from streams.fold.events.session import session_event
from streams.fold.holding import release
from streams.fold.records.decided import emit_decided
from streams.fold.records.statement import is_new_line
from streams.fold.sessions.attribution import attempted, by_log, by_session, log_session


def take(context: FoldContext, raw: Session) -> None:
    """Take what a source says of a session; a sample of one that was known before is no event."""
    if raw.place is None:
        _sampled(context, raw)
    elif is_new_line(context, raw.place):
        _logged(context, raw)


def _logged(context: FoldContext, raw: Session) -> None:
    cluster, header = context.cluster, context.header
    session = log_session(raw, header.instance)
    cluster.readings.line(header.instance, raw.occurred_at_us)
    if raw.operation == "connect":
        cluster.outcomes.begins(session)
        if raw.trust != "claimed":
            cluster.activity.logged_in(raw)
    if raw.operation == "disconnect":
        cluster.join.ends(session, raw.occurred_at_us)
        cluster.posture.ends(session, raw.occurred_at_us)
        cluster.handles.ends(session)
        cluster.relations.ends(session)
        emit_decided(context, cluster.outcomes.ends(session, raw.captured_at_us))
    attribution = by_log(session, header.cluster, context.identities, "own")
    claimed = attribution.principal
    if raw.operation == "login_failed":
        attribution = attempted(attribution)
    event = session_event(header, raw, attribution, claimed)
    cluster.refusals.see(raw, event)
    context.emit(event)


def _sampled(context: FoldContext, raw: Session) -> None:
    cluster, header = context.cluster, context.header
    session = cluster.activity.see(raw, header.instance)
    held = cluster.waiting.with_xid(raw.xid) if raw.xid is not None else None
    earlier = held is not None and cluster.starts.between(session.backend_start_us, held.committed_us)
    if held is not None and held.xid == raw.xid and not earlier:
        release(context, held, by_session(session, header.cluster, context.identities, "sample"))
    if raw.operation != "sample":
        event = session_event(header, raw, by_session(session, header.cluster, context.identities, "own"))
        if context.emit_once(event):
            cluster.refusals.see(raw, event)
