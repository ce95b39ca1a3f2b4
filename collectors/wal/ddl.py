"""DDL as `raw` carries it: from a verified message of an event trigger to a `Ddl` without literals; pure."""

from __future__ import annotations

from msgspec.structs import replace

from collectors.beacon.mac import DdlPayload, JudgeToken, beacon_of
from pgwitness.events import Ddl
from pgwitness.statements import facts

DROP_EVENT = "sql_drop"


def of_payload(said: DdlPayload, judge: JudgeToken | None = None) -> Ddl:
    """Make the command's event; its place in the transaction is for the assembler to say."""
    drops = said.event == DROP_EVENT
    known = facts(said.statement) if said.statement is not None else None
    masked = known.statement if known is not None else None
    return Ddl(
        number=0,
        ordinal=0,
        tag=said.tag,
        beacon=beacon_of(said, judge),
        objects=[] if drops else said.objects,
        dropped=said.objects if drops else [],
        objects_total=0 if drops else said.total,
        dropped_total=said.total if drops else 0,
        statement=masked,
        statement_sha256=said.sha256 if masked is None else None,
        fingerprint=known.fingerprint if known is not None else None,
        operations=list(known.operations) if known is not None else [],
        relations=list(known.relations) if known is not None else [],
    )


def continues(before: Ddl, after: Ddl) -> bool:
    """Say whether two messages are of one command: PostgreSQL tells first what it dropped, then what it made."""
    return (
        bool(before.dropped_total)
        and not before.objects_total
        and not after.dropped_total
        and (before.tag, before.statement, before.statement_sha256, before.beacon)
        == (after.tag, after.statement, after.statement_sha256, after.beacon)
    )


def joined(before: Ddl, after: Ddl) -> Ddl:
    """Make one event of both messages."""
    return replace(before, objects=after.objects, objects_total=after.objects_total)
