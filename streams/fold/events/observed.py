"""Events of what collectors observed beside statements and changes: posture, gaps, and acts of pgwitness itself."""

from __future__ import annotations

from pgwitness.core.events import (
    Control,
    Effect,
    Event,
    Gap,
    Kind,
    Outcome,
    Posture,
    RawHeader,
)
from streams.fold.events.base import (
    blank_event,
    identify,
)
from streams.fold.memory.attribution import Attribution
from streams.fold.sessions.attribution import NOBODY

_POSTURE: dict[bool, dict[str, Effect]] = {
    False: {"added": "created", "removed": "dropped", "changed": "altered"},
    True: {"added": "granted", "removed": "revoked", "changed": "altered"},
}
"""What a difference between two looks says; of memberships it is another word."""


def observed_event(header: RawHeader, raw: Posture | Gap | Control, attribution: Attribution = NOBODY) -> Event:
    """Make the event of posture, a gap or an act of pgwitness; who changed posture, the log may show."""
    event_id = identify(header.cluster, header.source, header.instance, raw)
    kind: Kind = "posture" if isinstance(raw, Posture) else "gap" if isinstance(raw, Gap) else "control"
    event = blank_event(kind, header.cluster, header.instance, attribution, raw.captured_at_us, event_id, None)
    if isinstance(raw, Posture):
        _put_posture(event, raw)
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
    """Return what came of an act of pgwitness: what was refused, or says that it was not done, has failed."""
    said = raw.detail.get("outcome", "success")
    if raw.operation == "backend_ending":
        return "unknown"  # it is reported before it is tried
    return "success" if said in ("success", "done") and not raw.operation.endswith("_refused") else "failure"


def _put_posture(event: Event, raw: Posture) -> None:
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
