"""The commands of a transaction, as the event trigger's messages report them."""

from __future__ import annotations

from functools import partial

from pgwitness.core.events import Transaction
from streams.fold.context import FoldContext
from streams.fold.events.ddl import ddl_event, publication_changed
from streams.fold.memory.transactions import Watermark
from streams.fold.records.decided import emit_after_ddl
from streams.fold.schema import publications
from streams.fold.schema.beacon_coverage import coverage_commands
from streams.fold.shares import sizes


def take_commands(context: FoldContext, part: Transaction, mark: Watermark) -> None:
    """Emit each command by the session that its own message names, once."""
    cluster, header = context.cluster, context.header
    fresh = [item for item in part.ddl if item.number >= mark.ddl]
    own = coverage_commands(part.ddl)
    for item in fresh:
        sizes.rename(cluster.shares, part.database, cluster.relations.ddl(part.database, item))
        sizes.take_ddl(cluster.shares, part, item, partial(cluster.relations.schemas, part.database))
    cluster.functions.ddl(part.database, fresh, part.committed_at_us)
    cluster.views.ddl(part.database, fresh, part.committed_at_us)
    for item in fresh:
        where = (header.cluster, part.database, header.instance)
        attribution = cluster.activity.by_beacon(item.beacon, where, context.identities)
        event = ddl_event(header.cluster, header.instance, part, item, attribution)
        less = publications.taken_out(item)
        ours = less is not None and bool(part.announced) and publications.within(item, part.ddl)
        if item.number in own or ours or item.masks:
            event.detail["covering"] = True
        holds = sizes.holds(cluster.shares, part.database, event.relations)
        if holds is not None:
            event.detail["holds"] = holds
        mark.ddl = item.number + 1
        cluster.relations.resolve(event)
        context.emit(event)
        if less is None or item.number in own:
            continue
        if not part.announced:
            context.emit(publication_changed(header, part, item, less, attribution))
        elif less[1] and ours:
            context.emit(publication_changed(header, part, item, less, attribution, publications.UNREAD))
    cluster.ddl_seen.ddl(part.database, fresh)
    if fresh:
        for event in cluster.beside_ddl.message(part.database, cluster.ddl_seen):
            emit_after_ddl(context, event)
