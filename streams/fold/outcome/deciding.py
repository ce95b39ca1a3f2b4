"""A transaction that is open: how what waits in it is decided, entry by entry; pure.

`streams.fold.outcome.outcomes` says when. An entry is decided once; a statement with several (a text of several
statements) has an outcome when all of them have, and a known one if they agree.
"""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import Event, Outcome
from streams.fold.events.base import outcome_id
from streams.fold.memory.transactions import OpenTransaction

MARKS_MAX = 200
"""Savepoints of one transaction that are known."""
_OUTSIDE = frozenset({"copy_program", "copy_file", "do", "call", "execute_dynamic", "execute"})
"""What may have had effects that no ROLLBACK takes back."""


def close(open_: OpenTransaction, outcome: Outcome, out: list[Event], now_us: int) -> None:
    """Decide all that waits in a transaction."""
    for place in range(len(open_.entries)):
        resolve(open_, place, outcome, out, now_us)


def savepoint(open_: OpenTransaction, verb: str, name: str, out: list[Event], now_us: int) -> None:
    """Set a savepoint, release it, or go back to it: what came since then was not done."""
    if verb == "savepoint":
        if len(open_.marks) < MARKS_MAX:
            open_.marks.append((name, len(open_.entries)))
        return
    place = next((n for n in reversed(range(len(open_.marks))) if open_.marks[n][0] == name), None)
    if verb == "release":
        if place is not None:
            del open_.marks[place:]
        return
    open_.failed = False
    if place is None:  # set before anybody looked: what of this it took back nobody knows
        close(open_, "unknown", out, now_us)
        return
    for entry in range(open_.marks[place][1], len(open_.entries)):
        resolve(open_, entry, "rolled_back", out, now_us)
    del open_.marks[place + 1 :]


def resolve(open_: OpenTransaction, entry: int, outcome: Outcome, out: list[Event], now_us: int) -> None:
    """Decide one entry of a transaction; with its last one the statement is, which has an outcome if all have one."""
    place = open_.entries[entry]
    if place < 0:
        return
    open_.entries[entry] = -1
    item = open_.items[place]
    item.left -= 1
    if outcome not in item.results:
        item.results.append(outcome)
    if item.left:
        return
    found = item.results[0] if len(item.results) == 1 else "unknown"
    if not item.pending:
        decide(item.event, found)
        out.append(item.event)
    elif found != "unknown":
        event = replace(
            item.event,
            event_id=outcome_id(item.event.event_id),
            captured_at_us=now_us,
            detail={**item.event.detail, "settles": item.event.event_id},
        )
        decide(event, found)
        out.append(event)


def decide(event: Event, outcome: Outcome) -> None:
    """Put an outcome into an event; of what was not done, that it changed nothing, where that is certain."""
    event.outcome = outcome
    undone = outcome in ("failure", "denied", "rolled_back")
    operations = texts(event, "operations")
    outside = not _OUTSIDE.isdisjoint(operations) or bool(texts(event, "functions"))
    event.effect = "none" if undone and operations and not outside else None


def texts(event: Event, name: str) -> list[str]:
    """Return a list of words that an event has in its detail."""
    found = event.detail.get(name)
    return [str(item) for item in found] if isinstance(found, list) else []
