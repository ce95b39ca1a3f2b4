"""What `pg_stat_statements` counted of one statement in one window."""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import QueryStats
from pgwitness.core.sql.statements import facts
from streams.fold.context import FoldContext
from streams.fold.ddl_seen import SEEN_AS
from streams.fold.events.observed import observed_event
from streams.fold.events.statistics import statistics_event, statistics_id
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.statements import HeldReading
from streams.fold.records.readings import hold_or_return, of_several
from streams.fold.sessions.attribution import by_log, by_role, by_role_in_force
from streams.fold.shares.sizes import by_effect


def take(context: FoldContext, raw: QueryStats) -> None:
    """Take what was counted; where every run is logged, it waits for the log."""
    logged = context.cluster.coverage.source is not None
    held = hold_or_return(context, raw, statistics_id(context.header, raw), whole=logged, wait=logged)
    if held is not None:
        emit(context, held, raw)


def emit(context: FoldContext, held: HeldReading, raw: QueryStats) -> None:
    """Emit what was counted, with who ran it where the log says so, and a gap where the log lacks runs."""
    cluster, header = context.cluster, held.header
    fingerprint = facts(raw.statement, freed=True).fingerprint if raw.statement is not None else None
    found = cluster.stats.count(raw, header.instance, fingerprint)
    if found.session is not None:
        attribution = by_log(found.session, header.cluster, context.identities, found.how)
        if found.several:
            attribution = of_several(attribution)
        elif raw.calls > 1:
            attribution = replace(attribution, trace_id=None, agent=None)  # which are those of the last run
    else:
        attribution = _by_role(context, held, raw, in_force=found.another or not found.logged)
    event = statistics_event(header, raw, attribution)
    if found.behind is not None:
        event.relations, event.columns = map(list, found.behind)
    cluster.through(event)
    if found.temporary:
        event.relations = [_temporary(name) for name in event.relations]
        event.columns = [_temporary(name) for name in event.columns]
    cluster.relations.resolve(event)
    cluster.views.ran(event)
    by_effect(cluster.shares, event)
    cluster.relations.by_snapshot(event)
    cluster.ddl_seen.query_stats(event)
    if found.logged:
        event.detail[SEEN_AS] = "statement"
    if found.undone:
        event.outcome = "rolled_back"
    lost = cluster.coverage.query_stats(event)
    context.emit(event)
    if lost is not None:
        context.emit_once(observed_event(header, lost))


def _by_role(context: FoldContext, held: HeldReading, raw: QueryStats, *, in_force: bool) -> Attribution:
    """Attribute by the role that was counted; `in_force`, where it may be another than the one that logged in."""
    cluster = context.cluster
    if in_force and cluster.coverage.source is not None and cluster.log.followed:
        return by_role_in_force(raw.role)  # whoever had logged in as that role would stand in the log
    return by_role(held.header.cluster, raw.database, raw.role, context.identities)


def _temporary(name: str) -> str:
    """Name a temporary relation, or a column of one."""
    return name if name.startswith("pg_temp.") else f"pg_temp.{name}"
