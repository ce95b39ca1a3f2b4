"""Events of what `pg_stat_statements` counted of one statement in one window."""

from __future__ import annotations

from pgwitness.core.events import (
    Event,
    QueryStats,
    RawHeader,
)
from pgwitness.core.sql.statements import facts
from streams.fold.events.base import (
    blank_event,
    identify,
)
from streams.fold.events.statement import put_facts
from streams.fold.memory.attribution import Attribution


def statistics_id(header: RawHeader, raw: QueryStats) -> str:
    """Name the event of what one statement did in one window."""
    return identify(
        "query_stats",
        header.cluster,
        header.instance,
        raw.database,
        raw.role,
        raw.query_id,
        raw.toplevel,
        raw.window_start_us,
        raw.window_end_us,
    )


def statistics_event(header: RawHeader, raw: QueryStats, attribution: Attribution) -> Event:
    """Make the event of what one statement did in one window, with what the parser says of it."""
    event_id = statistics_id(header, raw)
    event = blank_event("query_stats", header.cluster, header.instance, attribution, raw.captured_at_us, event_id, None)
    event.database = raw.database
    event.occurred_at_us = raw.window_end_us
    event.query_id = raw.query_id
    event.calls = raw.calls
    event.row_count = raw.rows
    event.duration_ms = raw.total_ms
    # They count what was rolled back, too, and rows that a statement moved before it failed at COMMIT.
    event.outcome = "unknown"
    event.detail |= {"window_start_us": raw.window_start_us, "toplevel": raw.toplevel}
    if raw.approximate:
        event.detail["approximate"] = True
    if raw.statement is not None:
        event.detail |= put_facts(event, facts(raw.statement, freed=True))
    return event
