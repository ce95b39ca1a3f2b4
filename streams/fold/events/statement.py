"""Events of statements in the server's log, with what the parser says of their text."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pgwitness.core.events import (
    Event,
    Parsed,
    RawHeader,
    Statement,
)
from pgwitness.core.sql.statements import StatementFacts
from pgwitness.core.sql.tree.collected import worst
from pgwitness.core.sql.tree.facts import Handle
from streams.fold.events.base import (
    blank_event,
)
from streams.fold.memory.attribution import Attribution

_TRANSACTIONS = frozenset({"begin", "start", "commit", "rollback", "rollback_to", "savepoint", "release", "prepare"})


def statement_event(
    header: RawHeader, raw: Statement, event_id: str, known: StatementFacts | None, attribution: Attribution
) -> Event:
    """Make the event of a statement that the server's log reported; `known` is what the parser says of its text."""
    event = blank_event("statement", header.cluster, header.instance, attribution, raw.captured_at_us, event_id, None)
    event.database = raw.database
    event.occurred_at_us = raw.occurred_at_us
    event.xid = raw.xid
    event.query_id = raw.query_id
    event.row_count = raw.row_count
    event.duration_ms = raw.duration_ms
    event.calls = 1
    event.outcome = raw.outcome
    event.sqlstate = raw.sqlstate
    detail = event.detail
    detail["source"] = raw.source
    if raw.place.line is not None:
        number = raw.place.line.rpartition("/")[2]
        if number.isascii() and number.isdigit() and len(number) <= 18:
            detail["line"] = int(number)
    if known is not None:
        detail |= put_facts(event, known)
    elif raw.statement_hash is not None:
        detail["statement_hash"] = raw.statement_hash
    if raw.parsed is not None:
        detail |= _parsed(event, raw.parsed)
    detail |= _said_of_it(raw)
    if raw.audit:
        detail["audit"] = raw.audit
        name = raw.audit.get("object_name")
        if name and not event.relations:
            event.relations = [name]
        if event.operation is None and "command" in raw.audit:
            event.operation = raw.audit["command"].lower().replace(" ", "_")
    return event


def _said_of_it(raw: Statement) -> dict[str, object]:
    """Return what is known of a statement besides its text, where there is something."""
    said = {
        "own": raw.own or None,
        "decision": None if raw.decided is None else msgspec.to_builtins(raw.decided),
        "intent": raw.intent,
        "ran": None if raw.ran is None else msgspec.to_builtins(raw.ran),
        "error": raw.error,
        "error_detail": raw.error_detail,
    }
    return {name: value for name, value in said.items() if value is not None}


def transaction_words(raw: Statement, known: StatementFacts | None) -> tuple[str, ...] | None:
    """Return what a statement says about transactions; None where its text cannot be read."""
    if known is not None and known.parse_error is None:
        return known.control
    said = raw.parsed.operations if raw.parsed is not None else known.operations if known is not None else ()
    # One of which the parser has said what it does, and none of it is about transactions, is one to all intents.
    return () if said and _TRANSACTIONS.isdisjoint(said) else None


def put_targets(event: Event, handles: list[Handle]) -> None:
    """Put the targets of the names that a statement runs into its event: its operation is what was done."""
    if not handles:
        return
    operations = event.detail.get("operations")
    before = operations if isinstance(operations, list) else []
    done = list(dict.fromkeys(word for handle in handles for word in handle.operations))
    event.operation = done[0] if done else event.operation
    event.relations = _with(event.relations, [name for handle in handles for name in handle.relations])
    event.columns = _with(event.columns, [name for handle in handles for name in handle.columns])
    event.detail["operations"] = _with(done, before)
    functions = event.detail.get("functions")
    event.detail["functions"] = _with(
        functions if isinstance(functions, list) else [], [name for handle in handles for name in handle.functions]
    )
    event.detail |= _reading(
        (),
        dict.fromkeys(name for handle in handles for name in handle.whole),
        any(one.returning for one in handles),
        dict.fromkeys(name for handle in handles for name in handle.written),
    )
    event.detail["where"] = worst([str(event.detail.get("where", "n/a")), *(handle.where for handle in handles)])
    event.detail["prepared"] = True


def put_facts(event: Event, found: StatementFacts) -> dict[str, object]:
    """Put what the parser says of a statement into its event; return what of it belongs into `detail`."""
    event.statement = found.statement
    event.fingerprint = found.fingerprint
    event.operation = found.operations[0] if found.operations else None
    event.relations = list(found.relations)
    event.columns = list(found.columns)
    detail: dict[str, object] = {
        "where": found.where,
        "operations": list(found.operations),
        "utility": found.utility,
        "statement_sha256": found.sha256,
        "functions": list(found.functions),
    }
    if found.parse_error is not None:
        detail["parse_error"] = found.parse_error
    if found.settings:
        detail["settings"] = list(found.settings)
    if found.objects:
        detail["names"] = list(found.objects)
    if found.defines:
        detail["defines"] = list(found.defines)
    return detail | _reading(found.assigned, found.whole, found.returning, found.written)


def _reading(
    assigned: Iterable[str], whole: Iterable[str], returning: bool, written: Iterable[str]
) -> dict[str, object]:
    """Return what is known of what a statement reads and writes, where there is something to report."""
    detail: dict[str, object] = {"assigned": list(assigned), "whole": list(whole), "returning": returning}
    detail["written"] = list(written)
    return {name: value for name, value in detail.items() if value}


def _with(names: list[str], more: list[str]) -> list[str]:
    return list(dict.fromkeys([*names, *more]))


def _parsed(event: Event, said: Parsed) -> dict[str, object]:
    """Put what the parser said of a statement as it came over what its text without literals says."""
    event.operation = said.operations[0] if said.operations else event.operation
    event.relations = said.relations
    event.columns = said.columns
    named = {"settings": said.settings, "names": said.objects, "defines": said.defines}
    return {
        "where": said.where,
        "operations": said.operations,
        "utility": said.utility,
        "functions": said.functions,
        **{name: values for name, values in named.items() if values},
        **_reading(said.assigned, said.whole, said.returning, said.written),
    }
