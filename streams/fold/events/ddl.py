"""Events of commands that changed the schema, as the event trigger's messages report them."""

from __future__ import annotations

from pgwitness.core.events import (
    Ddl,
    Effect,
    Event,
    RawHeader,
    Transaction,
    format_lsn,
)
from streams.fold.events.base import (
    blank_event,
    identify,
    put_transaction,
    transaction_id,
)
from streams.fold.memory.attribution import Attribution

BEACON = "pgwitness_beacon on "
"""How the identity of a beacon's trigger begins."""
_RELATIONS = frozenset({"table", "foreign table", "view", "materialized view"})
_DROPS = frozenset({f"DROP {word.upper()}" for word in (*_RELATIONS, "schema", "owned")})


def ddl_event(cluster: str, instance: str | None, part: Transaction, raw: Ddl, attribution: Attribution) -> Event:
    """Make the event of one command that changed the schema; `attribution` is the session that its message names.

    `relations` are the tables and views of its objects, else what its statement names. `detail.beacon_off` lists the
    tables whose beacon does not speak any more after it.
    """
    event_id = identify("ddl", transaction_id(part), raw.number)
    event = blank_event("ddl", cluster, instance, attribution, part.captured_at_us, event_id, raw.tag)
    put_transaction(event, part)
    event.statement = raw.statement
    event.fingerprint = raw.fingerprint
    event.outcome = "success"
    event.effect = effect_of(raw)
    # What goes with a table (a foreign key's triggers) stands on others, which are there as before.
    dropped = [item for item in raw.dropped if item.type in _RELATIONS] if raw.tag in _DROPS else raw.dropped
    both = [*(dropped or raw.dropped), *raw.objects]
    event.relations = list(dict.fromkeys(item.relation for item in both if item.relation)) or raw.relations
    event.detail |= {
        "transaction": transaction_id(part),
        "ordinal": raw.ordinal,
        "number": raw.number,
        "operations": raw.operations,
        "utility": True,
        "where": "n/a",
    }
    for name, items, total in (
        ("objects", raw.objects, raw.objects_total),
        ("dropped", raw.dropped, raw.dropped_total),
    ):
        if total:
            named = [{"type": item.type, "name": item.identity} for item in items]
            event.detail |= {name: named, f"{name}_total": total}
    if raw.names:
        event.detail["names"] = raw.names
    if raw.statement_sha256 is not None:
        event.detail["statement_sha256"] = raw.statement_sha256
    if raw.own:
        event.detail["own"] = True
    off = beacon_off(raw)
    if off:
        event.detail["beacon_off"] = off
    return event


def effect_of(raw: Ddl) -> Effect | None:
    """Return what a command has changed; None where its objects are not known.

    One that had nothing to do (IF EXISTS, IF NOT EXISTS) and one on temporary objects leaves no message.
    """
    verb = raw.tag.partition(" ")[0]
    if verb == "DROP":
        return "dropped" if raw.dropped_total else None
    if verb in ("GRANT", "REVOKE"):
        return "granted" if verb == "GRANT" else "revoked"
    if verb in ("CREATE", "SELECT", "IMPORT"):
        return "created" if raw.objects_total else None
    if any(word.startswith("rename_") for word in raw.operations):
        return "renamed"
    return "altered"


def beacon_off(raw: Ddl) -> list[str]:
    """List the tables that a command left without a working beacon; a dropped table needs none."""
    gone = {item.identity for item in raw.dropped if item.type == "table"}
    off = [
        item.relation
        for item in raw.dropped
        if item.type == "trigger" and item.relation and item.identity.startswith(BEACON) and item.relation not in gone
    ]
    # CREATE OR REPLACE TRIGGER leaves it `O` for the moment until the installation's next statement.
    good = ("A", None, "O") if raw.tag == "CREATE TRIGGER" else ("A", None)
    off += [item.relation for item in raw.objects if item.relation and item.beacon not in good]
    return list(dict.fromkeys(off))


def publication_changed(
    header: RawHeader,
    part: Transaction,
    raw: Ddl,
    less: tuple[list[str], list[str]],
    attribution: Attribution,
    reason: str = "publication_changed",
) -> Event:
    """Make the gap for a command that takes tables out of our publications; `attribution` is who ran it."""
    names, tables = less
    event_id = identify(reason, transaction_id(part), raw.number)
    event = blank_event("gap", header.cluster, header.instance, attribution, part.captured_at_us, event_id, reason)
    put_transaction(event, part)
    event.relations = tables
    event.statement = raw.statement
    event.detail |= {
        "reason": reason,
        "publications": names,
        "tables": tables,
        "tag": raw.tag,
        "transaction": transaction_id(part),
        "from_lsn": format_lsn(part.lsn),
    }
    return event
