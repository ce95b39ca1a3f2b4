"""DDL as `raw` carries it: from a verified message of an event trigger to a `Ddl` without literals; pure."""

from __future__ import annotations

from msgspec.structs import replace

from collectors.beacon.mac import DdlPayload, JudgeToken, beacon_of
from collectors.wal.beacons import ddl_objects
from pgwitness.core.events import Ddl, DdlObject
from pgwitness.core.sql.statements import facts

DROP_EVENT = "sql_drop"


def of_payload(said: DdlPayload, judge: JudgeToken | None = None, turn: int = 0) -> Ddl:
    """Make the command's event; its place in the transaction is for the assembler to say.

    `turn` is how many commands of this tag and text came without objects in the transaction before (`lacks_objects`).
    """
    drops = said.event == DROP_EVENT
    known = facts(said.statement) if said.statement is not None else None
    masked = known.statement if known is not None else None
    objects, total = _objects(said, turn)
    unknown = total > 0 and not objects
    return Ddl(
        number=0,
        ordinal=0,
        tag=said.tag,
        beacon=beacon_of(said, judge),
        objects=[] if drops else objects,
        dropped=objects if drops else [],
        objects_total=0 if drops else total,
        dropped_total=total if drops else 0,
        statement=masked,
        statement_sha256=said.sha256 if masked is None else None,
        fingerprint=known.fingerprint if known is not None else None,
        operations=list(known.operations) if known is not None else [],
        relations=ddl_objects.completed(said.statement, known.relations, said.path or ())
        if known is not None and not unknown
        else [],
        names=list(known.objects) if known is not None else [],
        path=ddl_objects.looked_for(said.tag, said.statement, said.path or ()),
        masks=said.masks,
    )


def lacks_objects(said: DdlPayload) -> bool:
    """Return whether the event trigger was not told what the command was about."""
    return any(item.identity is None for item in said.objects)


def _objects(said: DdlPayload, turn: int) -> tuple[list[DdlObject], int]:
    """Return the objects of a command and how many they are; of what nobody told them only their number is known."""
    objects = [
        DdlObject(item.type or "?", item.identity, item.relation, item.beacon)
        for item in said.objects
        if item.identity is not None
    ]
    path = said.path or ()
    if lacks_objects(said):
        found = ddl_objects.unnamed(said.tag, said.statement, turn, path)
        lacking = len(said.objects) - len(objects)
        return objects + found, said.total + (len(found) - lacking if found else 0)
    if said.event != DROP_EVENT:
        found = ddl_objects.besides(said.tag, objects, said.statement, path)
        return objects + found, said.total + len(found)
    return objects, said.total


def continues(before: Ddl, after: Ddl) -> bool:
    """Return whether two messages are of one command: PostgreSQL tells first what it dropped, then what it made."""
    return (
        bool(before.dropped_total)
        and not before.objects_total
        and not after.dropped_total
        and (before.tag, before.statement, before.statement_sha256, before.beacon, before.masks)
        == (after.tag, after.statement, after.statement_sha256, after.beacon, after.masks)
    )


def joined(before: Ddl, after: Ddl) -> Ddl:
    """Make one event of both messages."""
    return replace(before, objects=after.objects, objects_total=after.objects_total)
