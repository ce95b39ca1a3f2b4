"""Statements of the server's log for tests: short to write, plausible in content."""

from __future__ import annotations

from typing import Any

from pgwitness.core.events import LogPlace, Statement
from tests.streams.records import SECOND_US, START_US

SESSION_US = START_US - 60 * SECOND_US


def statement(offset: int, *, at_s: float = 0.0, log: str = "a-1", index: int = 0, **fields: Any) -> Statement:
    """A statement of the log."""
    at_us = START_US + int(at_s * SECOND_US)
    given: dict[str, Any] = {
        "captured_at_us": at_us,
        "place": LogPlace(log, offset, index, f"6b035d50.29/{log}/{offset}"),
        "format": "jsonlog",
        "source": "duration",
        "occurred_at_us": at_us,
        "pid": 41,
        "session_start_us": SESSION_US,
        "role": "app",
        "database": "shop",
        "application": "bot-7",
        "client_addr": "10.0.0.7",
        "client_port": 5050,
        "statement": "UPDATE public.orders SET status = $1 WHERE id = $2",
        "duration_ms": 1.5,
        "vxid": "3/0",
    }
    return Statement(**(given | fields))
