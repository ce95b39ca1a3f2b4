"""Statements whose outcome is known now: they go on, unless the message of their own DDL is on its way."""

from __future__ import annotations

from pgwitness.core.events import Event
from streams.fold.context import FoldContext
from streams.fold.shares import sizes


def emit_decided(context: FoldContext, events: list[Event]) -> None:
    """Emit statements whose outcome is known now, or pending."""
    cluster = context.cluster
    for event in events:
        cluster.ddl_seen.statement(event)
        if event.outcome == "rolled_back":
            cluster.stats.rolled_back(event)
        if not cluster.beside_ddl.wait(event, cluster.clock_us):
            context.emit(event)


def emit_after_ddl(context: FoldContext, event: Event) -> None:
    """Emit a statement that has waited; what it names may have been made meanwhile, by the WAL."""
    if context.cluster.relations.again(event):
        context.cluster.views.ran(event)
    sizes.by_effect(context.cluster.shares, event)
    context.emit(event)
