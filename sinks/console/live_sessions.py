"""The page *Sessions*: who is at the gateway of this host now, what runs, and ending one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgwitness.core.errors import NotInOrder
from pgwitness.core.runtime import control
from pgwitness.core.runtime.control import LiveSession
from sinks.console.asked import Answer, Asked, Page

REASON_CHARS_MAX = 500


def listed(folder: Path) -> list[dict[str, Any]]:
    """List the sessions, those that run something first. Raise `Unreachable` where no gateway answers."""
    found = control.sessions(folder)
    return [_row(one) for one in sorted(found, key=lambda one: (one.state != "active", one.state_since_us))]


def _row(session: LiveSession) -> dict[str, Any]:
    client = session.client_addr or ""
    return {
        "id": session.session_id,
        "who": session.principal or f"role {session.role}",
        "kind": session.principal_kind,
        "behalf": session.on_behalf_of,
        "intent": session.intent,
        "database": session.database,
        "client": f"{client}:{session.client_port}" if session.client_port is not None else client,
        "application": session.application,
        "state": session.state,
        "since": datetime.fromtimestamp(session.state_since_us / 1_000_000, UTC),
        "rows": session.rows,
        "statement": session.statement,
    }


def _sessions(asked: Asked) -> Answer:
    found = listed(asked.shared.gateway)
    return Answer("sessions.html", {"sessions": found, "ended": asked.value("ended") == "yes"})


def _end(asked: Asked) -> Answer:
    session, reason = asked.value("session"), asked.value("reason").strip()[:REASON_CHARS_MAX]
    if not reason:
        raise NotInOrder("Say why: its client is told, and the evidence has it.")
    by = f"{asked.visitor.name} (console, {asked.visitor.address})"
    if not control.end(asked.shared.gateway, session, by, reason):
        raise NotInOrder("This session is at the gateway no more.")
    return Answer(redirect="/sessions?ended=yes", what={"session": session[:200], "reason": reason})


PAGES = (
    Page("sessions", "/sessions", "evidence", _sessions),
    Page("session, end", "/sessions", "end", _end, "POST", "console_session_end", {"session": "session"}),
)
