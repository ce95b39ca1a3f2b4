"""A part of a transaction of the WAL: what of it is new, whose it is, and whether it waits for somebody to know."""

from __future__ import annotations

from copy import copy

from msgspec.structs import replace

from pgwitness.core.events import Transaction
from streams.fold import positions
from streams.fold.context import FoldContext
from streams.fold.events.findings import approval_drift, conflicting
from streams.fold.events.gaps import position_went_back
from streams.fold.holding import emit_change, hold, is_covered, release
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.transactions import Timeline, Watermark
from streams.fold.records.ddl import take_commands
from streams.fold.records.findings import compare_with_log, emit_findings, emit_witnesses
from streams.fold.sanity import check_position
from streams.fold.sessions.attribution import NOBODY, SHADOW, by_log, by_origin, by_session
from streams.fold.trimming import trim


def take(context: FoldContext, index: int, part: Transaction) -> None:
    """Take a part, the event of that index in its record."""
    timeline = (part.system_id, part.timeline, part.database)
    unread = _unread(context, timeline, part)
    if unread is None:
        context.partition.dropped += 1
        return
    cluster, header = context.cluster, context.header
    part, mark = unread
    attribution = _attribute(context, part, mark)
    cluster.relations.change(part)
    if part.forged or part.ddl or len(part.beacons) > 1 or (part.beacons and part.beacons[0].token is not None):
        emit_findings(context, part, mark, attribution or NOBODY)
        take_commands(context, part, mark)
    emit_witnesses(context, part, attribution or NOBODY)
    if (run := cluster.drift.wrote(part)) is not None:
        context.emit(approval_drift(header.cluster, run, part.captured_at_us))
    if cluster.log.followed:
        compare_with_log(context, part, attribution or NOBODY)
    key = (timeline, part.lsn)
    held = cluster.waiting.get(key)
    if attribution is None and part.n_rows and not hold(context, index, key, part):
        attribution = SHADOW if is_covered(part) else NOBODY
    if attribution is not None:
        if held is not None:
            release(context, held, attribution)
        mark.attribution = None if part.last else attribution
        if part.n_rows or part.part:
            emit_change(context, header.instance, part, attribution)
    if part.last:
        mark.whole = True
        mark.attribution = None


def _unread(context: FoldContext, timeline: Timeline, part: Transaction) -> tuple[Transaction, Watermark] | None:
    """Return what of a part is not known yet, and the mark that has been moved over it; None when it all is."""
    cluster = context.cluster
    mark = cluster.watermarks.get(timeline)
    check_position(part.lsn, cluster.reached(part.system_id) if mark is None else mark.lsn)
    cluster.keep(timeline, mark if mark is None else copy(mark))
    incarnation = positions.incarnation(mark, part)
    if mark is not None and incarnation > mark.incarnation:
        _went_back(context, timeline, mark, part)
        mark = None
    if incarnation != part.incarnation:
        part = replace(part, incarnation=incarnation)
    if mark is None or part.lsn > mark.lsn:
        mark = cluster.begin(timeline, part.lsn)
        mark.incarnation = incarnation
    elif part.lsn < mark.lsn or mark.whole:
        return None
    end = part.first_ordinal + part.n_rows
    if part.first_ordinal < mark.next_ordinal:
        if end <= mark.next_ordinal and not part.last:
            return None
        part = trim(part, mark.next_ordinal)
    mark.next_ordinal = max(end, mark.next_ordinal)
    if part.xid:
        mark.newest_us = max(mark.newest_us, part.committed_at_us)
    return part, mark


def _went_back(context: FoldContext, timeline: Timeline, mark: Watermark, part: Transaction) -> None:
    """Start over where a server was put back: what it commits from here on has positions that were there before."""
    for held in context.cluster.waiting.of(timeline):
        release(context, held, NOBODY)
    context.cluster.went_back()
    if part.incarnation <= mark.incarnation:  # else its collector has reported it
        context.emit(position_went_back(context.header, part, mark))


def _attribute(context: FoldContext, part: Transaction, mark: Watermark) -> Attribution | None:
    """Return whose a transaction is, or None when it may still be found out."""
    decided = mark.attribution
    if decided is not None and (decided.binding != "none" or not part.beacons):
        return decided
    cluster, header, identities = context.cluster, context.header, context.partition.identities
    proven = bool(part.beacons) and part.beacons[0].authenticated
    if proven:
        conflict = len(part.beacons) > 1 and conflicting(part.beacons)
        where = (header.cluster, part.database, header.instance)
        return cluster.activity.by_beacon(part.beacons[0], where, identities, conflict)
    if part.origin is not None:
        return by_origin(part.origin)
    covered = is_covered(part) and not part.beacons
    finding = "shadow_write" if covered else None
    if part.ddl and part.ddl[0].beacon.authenticated:
        where = (header.cluster, part.database, header.instance)
        attribution = cluster.activity.by_beacon(part.ddl[0].beacon, where, identities)
        return replace(attribution, finding=finding) if covered else attribution
    line = cluster.log.holding(part)
    if line is not None and not cluster.starts.between(line.start_us, part.committed_at_us):
        return by_log(line, header.cluster, identities, "xid", finding)
    session = cluster.activity.holding(part.xid)
    if session is not None and not cluster.starts.between(session.backend_start_us, part.committed_at_us):
        return by_session(session, header.cluster, identities, "sample", finding)
    if part.beacons or part.ddl:
        # Asserted without a proof, which anything that is known otherwise outranks.
        asserted = part.beacons or [part.ddl[0].beacon]
        where = (header.cluster, part.database, header.instance)
        attribution = cluster.activity.by_beacon(asserted[0], where, identities, conflicting(part.beacons))
        return replace(attribution, finding="shadow_write") if covered else attribution
    # Whoever bypasses the beacon may still be named by a line of the log that is on its way.
    return SHADOW if covered and not cluster.log.followed else None
