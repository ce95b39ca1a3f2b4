"""Transactions that wait until it is known whose they are: holding them, letting them go, and giving up on them."""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import Transaction
from streams.aside import Problem, unexpected
from streams.fold.cluster import Cluster
from streams.fold.context import FoldContext, PartitionContext
from streams.fold.events.change import change_event
from streams.fold.events.gaps import raw_lost
from streams.fold.hold_buffer import Held, Key, size_of
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.transactions import HeldPart
from streams.fold.sessions.attribution import NOBODY, by_log
from streams.fold.shares import taken

HELD_BYTES_MAX = 32 * 1024 * 1024
"""Bytes of parts that wait, with what each costs beside its rows (`streams.fold.hold_buffer`)."""
ENDLESS_US = 1 << 63


def is_covered(part: Transaction) -> bool:
    """Return whether a part changed a table that carries a beacon."""
    return any(relation.beacon for relation in part.relations)


def emit_change(context: FoldContext, instance: str | None, part: Transaction, attribution: Attribution) -> None:
    """Emit a part of a transaction, and with its last one how much it took of what was there."""
    event = change_event(context.header.cluster, instance, part, attribution)
    who = attribution.principal or f"?{attribution.role or ''}"
    found = taken.take_change(context.cluster.shares, part, who, attribution.principal_kind)
    if found:
        event.detail["shares"] = found
    context.emit(event)


def hold(context: FoldContext, index: int, key: Key, part: Transaction) -> bool:
    """Keep a part until its transaction's identity is known; return False when there is no room for it."""
    partition = context.partition
    if partition.grace_us <= 0 or partition.clusters.held_bytes + size_of(part) > partition.held_bytes_max:
        return False
    place = HeldPart(partition.offset, index, part.first_ordinal)
    due_us = part.captured_at_us + partition.grace_us
    context.cluster.waiting.hold(key, place, context.header.instance, part, due_us)
    return True


def release(context: FoldContext, held: Held, attribution: Attribution) -> None:
    """Let a held transaction go; later parts of it go the same way. That it bypassed the beacon is said too."""
    cluster = context.cluster
    if attribution.binding != "beacon" and any(part is not None and is_covered(part) for _, _, part in held.parts):
        attribution = replace(attribution, finding="shadow_write")
    cluster.waiting.release(held)
    cluster.join.named(held, attribution)
    timeline, lsn = held.key
    mark = cluster.watermarks.get(timeline)
    if mark is not None and mark.lsn == lsn and not mark.whole:
        mark.attribution = attribution
    for _, instance, part in held.parts:
        if part is not None:
            emit_change(context, instance, part, attribution)


def release_due(context: FoldContext) -> None:
    """Let go what has waited long enough, by the lines of the log that can only be its own, or as nobody's."""
    partition, cluster, name = context.partition, context.cluster, context.header.cluster
    while held := cluster.waiting.due(cluster.clock_us):
        emitted = len(partition.events)
        try:
            found = cluster.join.decide(held, cluster.log_settings.announced)
            attribution = NOBODY if found is None else by_log(found[0], name, context.identities, found[1])
            release(context, held, attribution)
        except Exception as error:
            del partition.events[emitted:]
            if cluster.waiting.get(held.key) is held:
                cluster.waiting.release(held)
            offset = held.parts[0][0].offset - partition.base if held.parts else -1
            why = f"what waited since offset {offset}: {unexpected(error)}"
            partition.failed.append(Problem("failed", why, None, name, held.database))


def touch(partition: PartitionContext, name: str) -> Cluster:
    """Return a cluster; where there are too many, let go what waits of the oldest, and forget it."""
    cluster = partition.clusters.touch(name)
    for oldest, forgotten in partition.clusters.surplus():
        context = FoldContext.of(partition, oldest, forgotten)
        while held := forgotten.waiting.due(ENDLESS_US):
            release(context, held, NOBODY)
        del partition.clusters[oldest]
    return cluster


def abandon(partition: PartitionContext) -> None:
    """Return up on held parts that raw no longer has: they cannot come back. Say so, and go on."""
    missing = [offset for cluster in partition.clusters.values() for offset in cluster.waiting.missing]
    for name, cluster in sorted(partition.clusters.items()):
        gone = cluster.waiting.incomplete()
        if gone and missing:
            lost = raw_lost(name, partition.number, min(missing), max(missing) + 1, cluster.clock_us)
            partition.emit(lost)
        context = FoldContext.of(partition, name, cluster)
        for held in gone if missing else ():
            release(context, held, NOBODY)
