"""A line of the server's log that reports a statement: whose it is, what it did, and whom else it names."""

from __future__ import annotations

from pgwitness.core.events import Event, LogPlace, Statement
from pgwitness.core.sql.statements import facts
from streams.fold.cluster import Cluster
from streams.fold.context import FoldContext
from streams.fold.ddl_seen import OWN
from streams.fold.events.base import line_id
from streams.fold.events.findings import log_imitated
from streams.fold.events.statement import put_targets, statement_event, transaction_words
from streams.fold.holding import release
from streams.fold.log_coverage import is_run
from streams.fold.records.decided import emit_decided
from streams.fold.records.findings import compare_comment
from streams.fold.sessions import comments
from streams.fold.sessions.attribution import by_log, log_session
from streams.fold.shares import sizes

RUN_LINES = ("duration", "statement")
"""Of these lines of the log each run of a statement has one, where none of them is known to report every run."""
_ENDS = frozenset({"commit", "rollback"})


def take(context: FoldContext, line: Statement) -> None:
    """Take a statement; it is emitted here, or waits for its outcome."""
    if not is_new_line(context, line.place):
        return
    cluster, header, identities = context.cluster, context.header, context.partition.identities
    if line.source == "imitated":
        attribution = by_log(log_session(line, header.instance), header.cluster, identities, "own")
        context.emit(log_imitated(header, line, attribution))
        return
    session = cluster.log.see(line, header.instance)
    cluster.readings.line(header.instance, line.occurred_at_us)
    known = facts(line.statement, freed=True) if line.statement is not None else None
    event_id = line_id(header, line.place)
    cluster.join.statement(line, session, known)
    cluster.posture.statement(line, session, event_id, line.parsed or known)
    if line.xid is not None and line.role is not None:
        held = cluster.waiting.with_xid(line.xid)
        earlier = held is not None and cluster.starts.between(session.start_us, held.committed_us)
        if held is not None and not earlier and session.database in (None, held.database):
            release(context, held, by_log(session, header.cluster, identities, "xid"))
    attribution = cluster.log.own(session, header.cluster, identities)
    event = statement_event(header, line, event_id, known, attribution)
    if known is not None and (known.handles or not _ENDS.isdisjoint(known.operations)):
        put_targets(event, cluster.run_by_name(line, session, known))
    if line.parsed is not None and line.parsed.made:
        cluster.functions.made(event, line.parsed.made)
    cluster.through(event, session)
    cluster.relations.resolve(event, session)
    cluster.relations.ran(event, session)
    cluster.views.ran(event)
    sizes.by_effect(cluster.shares, event)
    cluster.relations.by_snapshot(event)
    cluster.coverage.statement(event)
    if line.outcome == "success" and _is_run(cluster, event):
        cluster.stats.statement(event, session, another=cluster.relations.is_another(session))
    if line.tags:
        stronger = cluster.log.corroborated(line.xid) or comments.corroborated(attribution)
        compare_comment(context, attribution, line.tags, stronger, line.captured_at_us)
    if event.detail.get(OWN) is True:
        cluster.ddl_seen.proven(event.database or "")
    cluster.new_databases.statement(
        event
    )  # no transaction block has CREATE DATABASE: its line of success is its outcome
    words = transaction_words(line, known)
    sees_ends = cluster.log_settings.sees_ends
    emit_decided(context, cluster.outcomes.statement(line, session, words, event, sees_ends))


def is_new_line(context: FoldContext, place: LogPlace) -> bool:
    """Return whether a line of the log was not read yet; with the first one the log is followed."""
    cluster = context.cluster
    if not cluster.log.followed:
        cluster.join.begin(cluster.clock_us)
        cluster.posture.lost(cluster.clock_us)
    known = cluster.log.is_known(context.header.instance, place)
    context.partition.dropped += known
    return not known


def _is_run(cluster: Cluster, event: Event) -> bool:
    """Return whether a line is of the kind of which each run of a statement has one."""
    source = cluster.coverage.source
    return event.detail.get("source") in RUN_LINES if source is None else is_run(source, event)
