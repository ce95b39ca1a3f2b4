"""The events that the fold emits, made from a raw event and whose it is; `at` is set by the fold.

An `event_id` is a hash over the event's position: for changes over system id, timeline, database and commit LSN, for
everything else over cluster, source, instance and the raw event itself, which carries its own times and numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from pgwitness.core.events import (
    OPERATIONS,
    Beacon,
    Control,
    Count,
    Ddl,
    Effect,
    Event,
    Gap,
    Identities,
    Kind,
    LogPlace,
    Outcome,
    Parsed,
    Position,
    Posture,
    QueryStats,
    RawHeader,
    Relation,
    Session,
    Statement,
    Token,
    Transaction,
    Unpublished,
    format_lsn,
)
from pgwitness.core.sql.parsetree import Handle, worst
from pgwitness.core.sql.statements import StatementFacts, facts
from pgwitness.core.topics import OURSELVES
from streams import aside
from streams.fold.joins.posture_join import Found
from streams.fold.sessions.attribution import NOBODY
from streams.fold.state import Attribution, Vouched, Watermark

NOWHERE = Position(0, 0, 0)
WORKER = "worker"
BEACON = "pgwitness_beacon on "
"""How the identity of a beacon's trigger begins."""

TOLD = ("beacon", "gateway", "log")
"""Bindings by which a transaction past the beacon is named all the same: by its DDL, the gateway, its statements."""

_encode = msgspec.json.Encoder(order="deterministic").encode


def change(cluster: str, instance: str | None, part: Transaction, whose: Attribution) -> Event:
    """Make the event of a part of a transaction; its rows are passed on as they are."""
    counts = part.counts
    operation = counts[0].operation if counts else ""
    for count in counts:
        if count.operation != operation:
            operation = ""
            break
    word = OPERATIONS.get(operation)
    event = _event("change", cluster, instance, whose, part.captured_at_us, transaction_id(part), word)
    _placed(event, part)
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


def transaction_id(part: Transaction) -> str:
    """Give the prefix of the ids of a transaction's rows: the same wherever and whenever it was read."""
    position = f"{part.system_id}/{part.timeline}/{part.database}/{part.lsn}"
    if part.incarnation:
        position += f"/{part.incarnation}"
    return blake2b(position.encode(), digest_size=16).hexdigest()


def _detail(whose: Attribution) -> dict[str, object]:
    detail: dict[str, object] = {}
    if whose.finding is not None:
        missing = whose.finding == "shadow_write" and whose.binding in TOLD and whose.certainty in ("exact", "strong")
        detail["finding"] = "beacon_missing" if missing else whose.finding
    if whose.claim is not None:
        detail["claim"] = whose.claim
    if whose.became is not None:
        detail["became"] = whose.became
    if whose.owner is not None:
        detail["owner"] = whose.owner
    if whose.network is not None:
        detail["network"] = whose.network
    if whose.agent is not None:
        detail["agent"] = whose.agent
    if whose.join is not None:
        detail["join"] = whose.join
    if whose.token is not None:
        detail["token"] = {"verdict": whose.token.verdict, "token_id": whose.token.token_id}
    return detail


def _id(*position: object) -> str:
    return blake2b(_encode(position), digest_size=16).hexdigest()


def _event(
    kind: Kind,
    cluster: str,
    instance: str | None,
    whose: Attribution,
    captured_at_us: int,
    event_id: str,
    operation: str | None,
) -> Event:
    """Make an event of what all kinds have; who makes it fills in the rest."""
    return Event(
        kind=kind,
        event_id=event_id,
        at=NOWHERE,
        occurred_at_us=captured_at_us,
        captured_at_us=captured_at_us,
        cluster=cluster,
        instance=instance,
        principal=whose.principal,
        principal_kind=whose.principal_kind,
        on_behalf_of=whose.on_behalf_of,
        peer_group=whose.peer_group,
        binding=whose.binding,
        certainty=whose.certainty,
        assurance=whose.assurance,
        identity_rule=whose.identity_rule,
        role=whose.role,
        effective_role=whose.effective_role,
        application=whose.application,
        client_addr=whose.client_addr,
        client_port=whose.client_port,
        pid=whose.pid,
        auth_method=whose.auth_method,
        session_id=whose.session_id,
        trace_id=whose.trace_id,
        operation=operation,
        detail=_detail(whose),
    )


def _placed(event: Event, part: Transaction) -> None:
    """Say in which transaction an event happened."""
    event.database = part.database
    event.occurred_at_us = part.committed_at_us
    event.xid = part.xid
    event.lsn = part.lsn
    event.relations = [relation.name for relation in part.relations]


def session(header: RawHeader, raw: Session, whose: Attribution, claimed: str | None = None) -> Event:
    """Make the event of a session that came, went or was found.

    Of a refused login `claimed` is whom the name that was claimed would be: it goes to where that one's logins are
    judged, and is nobody's.
    """
    if raw.place is None:
        event_id = _id("session", header.cluster, header.instance, raw.operation, raw.pid, raw.backend_start_us)
    else:
        event_id = line_id(header, raw.place)
    event = _event("session", header.cluster, header.instance, whose, raw.captured_at_us, event_id, raw.operation)
    event.database = raw.database
    event.occurred_at_us = raw.occurred_at_us
    event.outcome = "success"
    event.duration_ms = raw.duration_ms
    event.detail["backend_type"] = raw.backend_type
    if raw.identity is not None:
        event.detail["identity"] = raw.identity
    if raw.certificate is not None:
        event.detail["certificate"] = msgspec.to_builtins(raw.certificate)
    if raw.operation == "login_failed":
        event.sqlstate = raw.sqlstate
        refused = raw.sqlstate is None or raw.sqlstate.startswith("28") or raw.sqlstate == "42501"
        event.outcome = "denied" if refused else "failure"
        event.detail["claimed"] = {"name": raw.role, "principal": claimed, "proven": whose.principal is not None}
    return event


def statement(
    header: RawHeader, raw: Statement, event_id: str, known: StatementFacts | None, whose: Attribution
) -> Event:
    """Make the event of a statement that the server's log told; `known` is what the parser says of its text."""
    event = _event("statement", header.cluster, header.instance, whose, raw.captured_at_us, event_id, None)
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
        detail |= _read(event, known)
    elif raw.statement_hash is not None:
        detail["statement_hash"] = raw.statement_hash
    if raw.parsed is not None:
        detail |= _parsed(event, raw.parsed)
    if raw.own:
        detail["own"] = True
    if raw.error is not None:
        detail["error"] = raw.error
    if raw.error_detail is not None:
        detail["error_detail"] = raw.error_detail
    if raw.audit:
        detail["audit"] = raw.audit
        name = raw.audit.get("object_name")
        if name and not event.relations:
            event.relations = [name]
        if event.operation is None and "command" in raw.audit:
            event.operation = raw.audit["command"].lower().replace(" ", "_")
    return event


def transaction_words(raw: Statement, known: StatementFacts | None) -> tuple[str, ...] | None:
    """Give what a statement says about transactions; None where its text cannot be read."""
    if known is not None and known.parse_error is None:
        return known.control
    said = raw.parsed.operations if raw.parsed is not None else known.operations if known is not None else ()
    # One of which the parser has said what it does, and none of it is about transactions, is one to all intents.
    return () if said and _TRANSACTIONS.isdisjoint(said) else None


_TRANSACTIONS = frozenset({"begin", "start", "commit", "rollback", "rollback_to", "savepoint", "release", "prepare"})


def outcome_id(event_id: str) -> str:
    """Name the event that tells the outcome of one that went on as pending."""
    return _id("outcome", event_id)


def imitated(header: RawHeader, raw: Statement, whose: Attribution) -> Event:
    """Make the finding that a session's code wrote a line in the server's form into the log; `whose` is who did."""
    event_id = line_id(header, raw.place)
    event = _event("control", header.cluster, header.instance, whose, raw.captured_at_us, event_id, "log_imitated")
    event.database = raw.database
    event.occurred_at_us = raw.occurred_at_us
    event.xid = raw.xid
    event.detail |= {"finding": "log_imitated", "imitates": raw.imitates, "lines": raw.lines, "format": raw.format}
    return event


def line_id(header: RawHeader, place: LogPlace) -> str:
    """Name an event of the log by the server's own name of its line, or by its place in the file."""
    if place.line is not None:
        return _id("log", header.cluster, header.instance, place.line)
    return _id("log", header.cluster, header.instance, place.log, place.offset, place.index)


def _read(event: Event, found: StatementFacts) -> dict[str, object]:
    """Put what the parser says of a statement into its event; gives what of it belongs into `detail`."""
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
    return detail | _reading(found.assigned, found.whole, found.returning)


def _reading(assigned: Iterable[str], whole: Iterable[str], returning: bool) -> dict[str, object]:
    """Give what is known of what a statement reads, where there is something to tell."""
    detail: dict[str, object] = {"assigned": list(assigned), "whole": list(whole), "returning": returning}
    return {name: value for name, value in detail.items() if value}


def ran(event: Event, handles: list[Handle]) -> None:
    """Put what stands behind the names that a statement runs into its event: its operation is what was done."""
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
        (), dict.fromkeys(name for handle in handles for name in handle.whole), any(one.returning for one in handles)
    )
    event.detail["where"] = worst([str(event.detail.get("where", "n/a")), *(handle.where for handle in handles)])
    event.detail["prepared"] = True


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
        **_reading(said.assigned, said.whole, said.returning),
    }


def query_stats_id(header: RawHeader, raw: QueryStats) -> str:
    """Name the event of what one statement did in one window."""
    return _id(
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


def query_stats(header: RawHeader, raw: QueryStats, whose: Attribution) -> Event:
    """Make the event of what one statement did in one window, with what the parser says of it."""
    event_id = query_stats_id(header, raw)
    event = _event("query_stats", header.cluster, header.instance, whose, raw.captured_at_us, event_id, None)
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
        event.detail |= _read(event, facts(raw.statement, freed=True))
    return event


def ddl(cluster: str, instance: str | None, part: Transaction, raw: Ddl, whose: Attribution) -> Event:
    """Make the event of one command that changed the schema; `whose` is the session that its message names.

    `relations` are the tables and views of its objects, else what its statement names. `detail.beacon_off` lists the
    tables whose beacon does not speak any more after it.
    """
    event_id = _id("ddl", transaction_id(part), raw.number)
    event = _event("ddl", cluster, instance, whose, part.captured_at_us, event_id, raw.tag)
    _placed(event, part)
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


_RELATIONS = frozenset({"table", "foreign table", "view", "materialized view"})
_DROPS = frozenset({f"DROP {word.upper()}" for word in (*_RELATIONS, "schema", "owned")})


def effect_of(raw: Ddl) -> Effect | None:
    """Say what a command has changed; of one whose objects could not be told nobody knows.

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


def posture(header: RawHeader, raw: Posture, whose: Attribution, found: Found) -> Event:
    """Make the event of posture, with who changed it by the log; where nobody can be named, why."""
    event = finding(header, raw, whose)
    if found.statements:
        event.detail["statements"] = list(found.statements)
    if found.why is not None:
        event.detail["unnamed"] = found.why
    if found.candidates:
        event.detail["candidates"] = list(found.candidates)
    return event


def finding(header: RawHeader, raw: Posture | Gap | Control, whose: Attribution = NOBODY) -> Event:
    """Make the event of posture, a gap or an act of pgwitness; who changed posture the log may tell."""
    event_id = _id(header.cluster, header.source, header.instance, raw)
    kind: Kind = "posture" if isinstance(raw, Posture) else "gap" if isinstance(raw, Gap) else "control"
    event = _event(kind, header.cluster, header.instance, whose, raw.captured_at_us, event_id, None)
    if isinstance(raw, Posture):
        _posture(event, raw)
    elif isinstance(raw, Gap):
        event.operation = raw.reason
        event.detail = {"reason": raw.reason, **raw.detail}
        if raw.occurred_at_us is not None:
            event.occurred_at_us = raw.occurred_at_us
    else:
        event.operation = raw.operation
        event.detail |= raw.detail
        event.outcome = _outcome(raw)
    event.database = raw.database
    return event


def _outcome(raw: Control) -> Outcome:
    """Say what came of an act of pgwitness: what was refused, or says that it was not done, has failed."""
    said = raw.detail.get("outcome", "success")
    if raw.operation == "backend_ending":
        return "unknown"  # it is told before it is tried
    return "success" if said in ("success", "done") and not raw.operation.endswith("_refused") else "failure"


_POSTURE: dict[bool, dict[str, Effect]] = {
    False: {"added": "created", "removed": "dropped", "changed": "altered"},
    True: {"added": "granted", "removed": "revoked", "changed": "altered"},
}
"""What a difference between two looks says; of memberships it is another word."""


def _posture(event: Event, raw: Posture) -> None:
    event.operation = raw.change
    event.detail |= {"object_type": raw.object_type, "name": raw.name, "change": raw.change}
    event.effect = _POSTURE[raw.object_type == "membership"].get(raw.change)
    if raw.change == "changed" and raw.before is not None and "renamed_from" in (raw.after or {}):
        event.effect = "renamed"
    for name in ("before", "after", "dropped_with"):
        found = getattr(raw, name)
        if found is not None:
            event.detail[name] = found
    if raw.object_type in ("table", "beacon"):
        event.relations = [raw.name]
    elif raw.object_type == "trigger":
        event.relations = [str((raw.after or raw.before or {}).get("relation", raw.name))]


def conflicting(beacons: list[Beacon]) -> bool:
    """Say whether verified beacons of one transaction name different sessions or different logins."""
    if not beacons:
        return False
    first = beacons[0]
    who = (first.session_user, first.pid, first.backend_start_us)
    return any((other.session_user, other.pid, other.backend_start_us) != who for other in beacons[1:])


def forged(cluster: str, instance: str | None, part: Transaction, number: int, whose: Attribution) -> Event:
    """Make the finding that a message under the beacon's prefix did not verify; `whose` is who really made it."""
    forgery = part.forged[number]
    event = _of_transaction(cluster, instance, part, whose, "beacon_forged", number)
    event.detail |= {"reason": forgery.reason, "claims": forgery.claims, "finding": "beacon_forged"}
    return event


def conflict(cluster: str, instance: str | None, part: Transaction, whose: Attribution) -> Event:
    """Make the finding that verified beacons of one transaction disagree."""
    event = _of_transaction(cluster, instance, part, whose, "identity_conflict", 0)
    event.detail |= {"beacons": msgspec.to_builtins(part.beacons), "finding": "identity_conflict"}
    return event


def lie(
    header: RawHeader, whose: Attribution, tags: dict[str, str], stronger: Vouched, wrong: list[str], at_us: int
) -> Event:
    """Make the finding that a comment contradicts stronger evidence; its id is the same for the same in a session."""
    said = {name: tags[name] for name in wrong}
    event_id = _id("identity_conflict", header.cluster, whose.session_id, said, stronger.principal)
    event = _event("control", header.cluster, header.instance, whose, at_us, event_id, "identity_conflict")
    known = {"principal": stronger.principal, "on_behalf_of": stronger.on_behalf_of}
    event.detail |= {"finding": "identity_conflict", "contradicts": wrong, "comment": tags, "stronger": known}
    return event


def refused(cluster: str, instance: str | None, part: Transaction, token: Token, whose: Attribution) -> Event:
    """Make the finding that a transaction came with a token that is not believed; `whose` is who it is without it."""
    event = _of_transaction(cluster, instance, part, whose, "claim_refused", 0)
    event.outcome = "denied"
    event.detail |= {
        "finding": "claim_refused",
        "reason": token.verdict,
        "token_id": token.token_id,
        "claims": token.claims,
    }
    return event


def unpublished(cluster: str, instance: str | None, part: Transaction, item: Unpublished, whose: Attribution) -> Event:
    """Make the change that a verified beacon proves and whose rows are not in the stream; it has no rows of its own."""
    rows = [(letter, n) for letter, n in zip("iud", (item.inserted, item.updated, item.deleted), strict=True) if n]
    counts = [Count(0, letter, n) for letter, n in [*rows, *([("t", 1)] if item.truncated else [])]]
    word = OPERATIONS[counts[0].operation] if len(counts) == 1 else None
    event_id = _id("unpublished", transaction_id(part), item.oid)
    event = _event("change", cluster, instance, whose, part.captured_at_us, event_id, word)
    _placed(event, part)
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


def silenced(cluster: str, instance: str | None, part: Transaction, number: int, whose: Attribution) -> Event:
    """Make the finding that a transaction's beacon failed; its claims are not proven, `whose` is what else is known."""
    said = part.silenced[number]
    event = _of_transaction(cluster, instance, part, whose, "beacon_silenced", number)
    event.detail |= {"reason": said.sqlstate, "claims": said.claims, "finding": "beacon_silenced"}
    return event


def blinding(
    cluster: str, instance: str | None, part: Transaction, settings: dict[str, str], whose: Attribution
) -> Event:
    """Make the finding that a session keeps other witnesses from seeing it; one a session and settings."""
    event = _of_transaction(cluster, instance, part, whose, "session_blinds", 0)
    event.event_id = _id("session_blinds", cluster, whose.session_id, settings)
    event.detail |= {"settings": settings, "finding": "session_blinds"}
    return event


def _of_transaction(
    cluster: str, instance: str | None, part: Transaction, whose: Attribution, operation: str, number: int
) -> Event:
    event_id = _id(operation, transaction_id(part), number)
    event = _event("control", cluster, instance, whose, part.captured_at_us, event_id, operation)
    _placed(event, part)
    event.detail |= {"transaction": transaction_id(part), "commit_lsn": format_lsn(part.lsn)}
    return event


def renamed(cluster: str, record: Identities, partition: int, offset: int, error: str | None) -> Event:
    """Make the evidence that the identities changed, or were refused, from here on."""
    operation = "identities_changed" if error is None else "identities_refused"
    event_id = _id(operation, cluster, partition, offset, record.sha256)
    event = _event("control", cluster, None, Attribution(), record.captured_at_us, event_id, operation)
    event.outcome = "success" if error is None else "failure"
    event.detail = {"sha256": record.sha256}
    if error is not None:
        event.detail["error"] = error
    return event


def went_back(header: RawHeader, part: Transaction, mark: Watermark) -> Event:
    """Make the gap for a server whose positions go back: what it had after `part.lsn` and has no more, nobody reads."""
    event_id = _id("position_went_back", transaction_id(part), part.committed_at_us)
    event = _event(
        "gap", header.cluster, header.instance, Attribution(), part.captured_at_us, event_id, "position_went_back"
    )
    event.database = part.database
    event.detail = {
        "reason": "position_went_back",
        "found_by": WORKER,
        "system_id": part.system_id,
        "timeline": part.timeline,
        "confirmed": format_lsn(mark.lsn),
        "resumes": format_lsn(part.lsn),
    }
    return event


def taken_out(
    header: RawHeader,
    part: Transaction,
    raw: Ddl,
    less: tuple[list[str], list[str]],
    whose: Attribution,
    reason: str = "publication_changed",
) -> Event:
    """Make the gap for a command that takes tables out of our publications; `whose` is the session that ran it."""
    names, tables = less
    event_id = _id(reason, transaction_id(part), raw.number)
    event = _event("gap", header.cluster, header.instance, whose, part.captured_at_us, event_id, reason)
    _placed(event, part)
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


def raw_lost(cluster: str, partition: int, first: int, end: int, clock_us: int) -> Event:
    """Make the gap for records of raw that were deleted before they were read; `end` is the next one that is there."""
    event_id = _id("raw_lost", cluster, partition, first, end)
    event = _event("gap", cluster, None, Attribution(), clock_us, event_id, "raw_lost")
    event.detail = {"reason": "raw_lost", "partition": partition, "first_offset": first, "next_offset": end}
    return event


def set_aside(
    cluster: str, problem: aside.Problem, summary: aside.Summary, where: tuple[str, int, int], clock_us: int
) -> Event:
    """Make the gap for what was set aside; `where` is the topic, its partition and what its positions begin with."""
    topic, partition, base = where
    event_id = _id(aside.REASON, cluster, partition, summary.last_offset, problem.index)
    event = _event("gap", cluster, None, Attribution(), clock_us, event_id, aside.REASON)
    event.database = problem.database
    event.detail = aside.detail(problem, summary.of(base), "attribute", topic, partition)
    return event


def clock_set_back(header: RawHeader, before_us: int, after_us: int, where: tuple[int, int]) -> Event:
    """Make the gap for a collector's clock that was put back: until then its times were ahead, or are behind now."""
    event_id = _id("clock_set_back", header, where)
    event = _event("gap", header.cluster, header.instance, Attribution(), after_us, event_id, "clock_set_back")
    seconds = round((before_us - after_us) / 1e6)
    event.detail = {"reason": "clock_set_back", "source": header.source, "seconds": seconds, "before_us": before_us}
    return event


def skipped(said: dict[str, object], clock_us: int) -> Event:
    """Make the evidence that somebody had a record passed which could not be read (`streams.kafka.skipping`)."""
    event_id = _id("record_skipped", sorted((name, str(value)) for name, value in said.items()))
    event = _event("control", OURSELVES, None, Attribution(), clock_us, event_id, "record_skipped")
    event.outcome = "success"
    event.detail = said
    return event
