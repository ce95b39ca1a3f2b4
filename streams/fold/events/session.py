"""Events of sessions that came, went, were found or were refused."""

from __future__ import annotations

import msgspec

from pgwitness.core.events import (
    Event,
    RawHeader,
    Session,
)
from streams.fold.events.base import (
    blank_event,
    identify,
    line_id,
)
from streams.fold.memory.attribution import Attribution


def session_event(header: RawHeader, raw: Session, attribution: Attribution, claimed: str | None = None) -> Event:
    """Make the event of a session that came, went or was found.

    Of a refused login `claimed` is whom the name that was claimed would be: it goes to where that one's logins are
    judged, and is nobody's.
    """
    if raw.place is None:
        event_id = identify("session", header.cluster, header.instance, raw.operation, raw.pid, raw.backend_start_us)
    else:
        event_id = line_id(header, raw.place)
    event = blank_event(
        "session", header.cluster, header.instance, attribution, raw.captured_at_us, event_id, raw.operation
    )
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
        event.detail["claimed"] = {"name": raw.role, "principal": claimed, "proven": attribution.principal is not None}
    return event
