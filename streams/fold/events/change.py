"""Events of rows that changed: a part of a transaction, and what a beacon proves of rows that are not in the stream."""

from __future__ import annotations

from pgwitness.core.events import (
    OPERATIONS,
    Count,
    Event,
    Relation,
    Transaction,
    Unpublished,
)
from streams.fold.events.base import (
    blank_event,
    identify,
    put_transaction,
    transaction_id,
)
from streams.fold.memory.attribution import Attribution


def change_event(cluster: str, instance: str | None, part: Transaction, attribution: Attribution) -> Event:
    """Make the event of a part of a transaction; its rows are passed on as they are."""
    counts = part.counts
    operation = counts[0].operation if counts else ""
    for count in counts:
        if count.operation != operation:
            operation = ""
            break
    word = OPERATIONS.get(operation)
    event = blank_event("change", cluster, instance, attribution, part.captured_at_us, transaction_id(part), word)
    put_transaction(event, part)
    event.outcome = "success"
    if counts:
        event.effect = "emptied" if word == "truncate" else "rows"
    event.row_count = event.n_rows = part.n_rows
    event.part = part.part
    event.last = part.last
    event.first_ordinal = part.first_ordinal
    event.relation_table = part.relations
    event.counts = counts
    event.rows = part.rows
    if part.origin is not None:
        event.detail["origin"] = part.origin
    return event


def unpublished_event(
    cluster: str, instance: str | None, part: Transaction, item: Unpublished, attribution: Attribution
) -> Event:
    """Make the change that a verified beacon proves and whose rows are not in the stream; it has no rows of its own."""
    rows = [(letter, n) for letter, n in zip("iud", (item.inserted, item.updated, item.deleted), strict=True) if n]
    counts = [Count(0, letter, n) for letter, n in [*rows, *([("t", 1)] if item.truncated else [])]]
    word = OPERATIONS[counts[0].operation] if len(counts) == 1 else None
    event_id = identify("unpublished", transaction_id(part), item.oid)
    event = blank_event("change", cluster, instance, attribution, part.captured_at_us, event_id, word)
    put_transaction(event, part)
    event.outcome = "success"
    event.effect = "emptied" if word == "truncate" else "rows"
    event.relations = [item.relation, *([item.partition] if item.partition is not None else [])]
    # A TRUNCATE of a partition by its own name has emptied that, and not the table that it is of.
    emptied = item.partition if word == "truncate" else None
    event.relation_table = [Relation(emptied or item.relation, beacon=True)]
    event.counts = counts
    event.row_count = sum(n for _, n in rows) if rows else None
    event.detail |= {
        "finding": "unpublished_known" if item.expected else "unpublished",
        "oid": item.oid,
        "transaction": transaction_id(part),
        "counts": {OPERATIONS[letter]: n for letter, n in rows},
        "truncated": item.truncated,
    }
    if item.published is not None:
        event.detail["published"] = item.published
    return event
