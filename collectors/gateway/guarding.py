"""The mark by which the guard in the database lets a statement pass that was approved at the gateway; pure."""

from __future__ import annotations

from typing import Final

from collectors.gateway.spool.records import Opened
from collectors.guard.mark import Mark, Session, made
from detectors.gatekeeper import Verdict

VALID_S: Final = 86_400
"""How long a mark holds: the guard looks at it when the statement has run, which may take hours."""


def mark_of(key: bytes, opened: Opened, verdict: Verdict, text: str, now_us: int) -> str:
    """Sign that a session's next statement is the approved one, for as many rows as were approved."""
    session = Session(opened.database, opened.role, opened.pid, opened.backend_start_us)
    mark = Mark(verdict.approval, now_us / 1_000_000 + VALID_S, tuple(verdict.policies), verdict.rows or 0)
    return made(key, mark, session, text)
