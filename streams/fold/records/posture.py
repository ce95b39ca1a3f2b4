"""A record of posture: what a snapshot found or found changed, or what the fold asked the server for."""

from __future__ import annotations

from pgwitness.core.events import Posture
from streams.fold.context import FoldContext
from streams.fold.events.observed import observed_event
from streams.fold.memory.statements import HeldReading
from streams.fold.outcome.outcomes import ASKED
from streams.fold.records.decided import emit_decided
from streams.fold.records.readings import hold_or_return, of_several
from streams.fold.sessions.attribution import NOBODY, by_log
from streams.fold.shares import sizes


def take(context: FoldContext, raw: Posture) -> None:
    """Take a record of posture; of one that answers a question of the fold no event comes."""
    cluster = context.cluster
    if raw.object_type == ASKED:
        emit_decided(context, cluster.outcomes.answered(raw))
        return
    if (
        cluster.relations.posture(raw)
        or cluster.functions.posture(raw)
        or cluster.views.posture(raw)
        or sizes.take_posture(cluster.shares, raw)
    ):
        return
    cluster.coverage.posture(raw)
    cluster.beside_ddl.posture(raw)
    event_id = observed_event(context.header, raw).event_id
    wait = raw.change != "found" and raw.window_start_us is not None
    held = hold_or_return(context, raw, event_id, whole=cluster.log_settings.transactions, wait=wait)
    if held is not None:
        emit(context, held, raw)
    cluster.log_settings.see(raw)


def emit(context: FoldContext, held: HeldReading, raw: Posture) -> None:
    """Emit what a snapshot found, with who did it where the log says so; where nobody can be named, why."""
    cluster, name, identities = context.cluster, held.header.cluster, context.identities
    found = cluster.posture.decide(
        raw,
        held.instance,
        lambda session: by_log(session, name, identities, "statement"),
        is_read=cluster.readings.is_read(held),
        whole=held.whole,
    )
    attribution = NOBODY
    if found.session is not None:
        attribution = by_log(found.session, name, identities, found.how)
        if found.several:
            attribution = of_several(attribution)
    event = observed_event(held.header, raw, attribution)
    if found.statements:
        event.detail["statements"] = list(found.statements)
    if found.why is not None:
        event.detail["unnamed"] = found.why
    if found.candidates:
        event.detail["candidates"] = list(found.candidates)
    cluster.ddl_seen.posture(event, raw)
    context.emit(event)
