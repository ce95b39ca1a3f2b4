"""The sentence an alert says to a person: a policy's message, filled in with the action.

Total: any template and any action give one printable line. What a client could have chosen is shortened, and cannot
put a line break or a control character into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from msgspec import Struct

from detectors.actions import SCHEMA, Action

PLACE = re.compile(r"\{([^{}]*)\}")
VALUE_MAX = 200
"""Characters of one value in a message; a list shows its first five items."""
SEEN = ("seen.count", "seen.values", "seen.span")


class Seen(Struct, frozen=True):
    """What a threshold or sequence found: how many, which different values, from when to when, and the evidence."""

    count: int
    first_us: int
    last_us: int
    event_ids: tuple[str, ...]
    values: tuple[str, ...] = ()


def known_place(name: str, *, correlates: bool = False) -> bool:
    """Say whether a message may name this."""
    if name in ("who", "what") or name in SCHEMA or (correlates and name in SEEN):
        return True
    return name.rpartition(".")[0] in ("labels", "detail", "object.before", "object.after")


def who(action: Action) -> str:
    """Name the one who acted, as a sentence would."""
    name = action.principal or (f"somebody as role {action.role}" if action.role else "somebody unknown")
    return f"{name} (for {action.on_behalf_of})" if action.on_behalf_of else name


def what(action: Action) -> object:
    """Name what was acted on: relations, else the object of a posture, else the database."""
    return action.relations or action.object_name or action.database


def render(template: str, action: Action, seen: Seen | None = None) -> str:
    """Fill a message; a value that is not there reads `?`."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in ("who", "what"):
            return show(who(action) if name == "who" else what(action))
        if field := SCHEMA.get(name):
            return show(getattr(action, field.attribute))
        if name in SEEN:
            return "?" if seen is None else _seen(name, seen)
        group, _, key = name.partition(".")
        holder = SCHEMA.get(group) or SCHEMA.get(".".join(name.split(".")[:2]))
        inside = getattr(action, holder.attribute) if holder else None
        return show(inside.get(name.rsplit(".", 1)[-1] if holder else key)) if isinstance(inside, Mapping) else "?"

    return PLACE.sub(value, template)


def show(value: object) -> str:
    """Write a value for a person: short, printable, on one line."""
    if value is None or value in ("", [], {}, ()):
        return "?"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        listed = ", ".join(show(item) for item in value[:5])
        return f"{listed} and {len(value) - 5} more" if len(value) > 5 else listed
    text = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
    text = "".join(c if c.isprintable() else " " for c in text[:VALUE_MAX])
    return text + "…" if len(text) == VALUE_MAX else text


def span(duration_us: int) -> str:
    """Write how long something took in the unit that fits."""
    seconds = max(0, duration_us) / 1_000_000
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _seen(name: str, seen: Seen) -> str:
    if name == "seen.count":
        return show(seen.count)
    return show(seen.values) if name == "seen.values" else span(seen.last_us - seen.first_us)
