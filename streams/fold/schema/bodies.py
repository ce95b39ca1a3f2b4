"""Taking up what the collector reads from the catalogue of things with a body: functions and views. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pgwitness.core.events import Posture
from streams.fold.bounded import evict_oldest

NAME_CHARS_MAX = 300

Body = TypeVar("Body")
Bodies = dict[tuple[str, str], Body]
"""By database and name."""


def take_up(
    known: Bodies[Body], event: Posture, entries: str, body_of: Callable[[int, object], Body | None], most: int
) -> None:
    """Take up one record: `entries` is the name under which it has what was read; what has no body is forgotten."""
    after, database = event.after or {}, event.database or ""
    at_us, read, gone = after.get("at_us"), after.get(entries), after.get("gone")
    if not isinstance(at_us, int) or not isinstance(read, dict) or not isinstance(gone, list):
        return
    for name in gone:
        known.pop((database, str(name)), None)
    for name, entry in read.items():
        known.pop((database, str(name)), None)
        body = body_of(at_us, entry)
        if body is not None and len(str(name)) + len(database) <= 2 * NAME_CHARS_MAX:
            evict_oldest(known, most)
            known[database, str(name)] = body
