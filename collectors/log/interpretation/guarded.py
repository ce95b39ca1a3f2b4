"""An error of the guard in the database (`collectors.guard`): which policies refused, as its own words say. Pure.

That it is the guard's says its context (`collectors.guard.errors`). An error is one whoever raised it, so that nothing
is believed of this but the names of policies.
"""

from __future__ import annotations

import re
from typing import Literal

from collectors.guard import errors
from collectors.log.formats.record import LogRecord
from pgwitness.core.events import Decided

_REFUSED = re.compile(
    r"(?:refused|(?P<undone>undone)) by (?:the limit of )?polic(?:y|ies) (?P<ids>[a-z][a-z0-9_, ]*): "
)
_STAGED = re.compile(r"pgwitness: would have been refused by staged polic(?:y|ies) (?P<ids>[a-z][a-z0-9_, ]*)")
MESSAGE_CHARS_MAX = 1_000


def decided(record: LogRecord) -> Decided | None:
    """Return what the guard decided where a line is its error; None for any other line."""
    found = _REFUSED.match(record.message)
    if found is None or record.sqlstate not in (None, "42501") or not errors.is_own(record.context):
        return None
    effect: Literal["deny", "limit"] = "limit" if found["undone"] else "deny"
    return Decided(effect, found["ids"].split(", "), record.message[:MESSAGE_CHARS_MAX], by="guard")


def staged(record: LogRecord) -> list[str]:
    """Return the staged policies that would have refused, where a line is the guard's note of it."""
    found = _STAGED.fullmatch(record.message)
    return found["ids"].split(", ") if found is not None and errors.is_own(record.context) else []
