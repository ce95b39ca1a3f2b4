"""Which values can occur: what an expression compares with must be one of them, or the comparison is always false.

Closed lists come from the types of events, words for what statements do from the parser's own names. Where nobody can
list what occurs (names, addresses, what control and gap report) everything does. The empty text stands for what is not
known, and always can.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from typing import get_args

from pgwitness.core.events import OPERATIONS, Assurance, Binding, Certainty, Effect, Kind, Outcome, PrincipalKind
from pgwitness.core.sql.tree.utility import vocabulary

_WHERE = ("none", "useless", "present", "n/a")
SHARE_WINDOWS = ("transaction", "24h", "30d", "24h by all")
SESSIONS = ("connect", "found", "disconnect", "login_failed")
FOUND = ("found", "added", "removed", "changed")

CLOSED: dict[str, tuple[str, ...]] = {
    "kind": get_args(Kind),
    "principal.kind": get_args(PrincipalKind),
    "binding": get_args(Binding),
    "certainty": get_args(Certainty),
    "assurance": get_args(Assurance),
    "outcome": get_args(Outcome),
    "effect": get_args(Effect),
    "statement.where": _WHERE,
    "object.change": FOUND,
    "share.window": SHARE_WINDOWS,
    "seen_as": ("ddl", "statement"),
}
"""By name of the language, all values there are."""
_TAGS_ALONE = (
    *("COMMENT", "GRANT", "REVOKE", "REINDEX", "SECURITY LABEL", "SELECT INTO", "CREATE TABLE AS", "DROP OWNED"),
    *("IMPORT FOREIGN SCHEMA", "REFRESH MATERIALIZED VIEW", "ALTER DEFAULT PRIVILEGES"),
)
_OBJECTS = (
    *("ACCESS METHOD", "AGGREGATE", "CAST", "COLLATION", "CONSTRAINT", "CONVERSION", "DOMAIN", "EXTENSION"),
    *("FOREIGN DATA WRAPPER", "FOREIGN TABLE", "FUNCTION", "INDEX", "LANGUAGE", "LARGE OBJECT", "MATERIALIZED VIEW"),
    *("OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "POLICY", "PROCEDURE", "PUBLICATION", "ROUTINE", "RULE"),
    *("SCHEMA", "SEQUENCE", "SERVER", "STATISTICS", "SUBSCRIPTION", "TABLE", "TEXT SEARCH CONFIGURATION"),
    *("TEXT SEARCH DICTIONARY", "TEXT SEARCH PARSER", "TEXT SEARCH TEMPLATE", "TRANSFORM", "TRIGGER", "TYPE"),
    *("USER MAPPING", "VIEW"),
)
TAGS = frozenset({*_TAGS_ALONE, *(f"{verb} {name}" for verb in ("CREATE", "ALTER", "DROP") for name in _OBJECTS)})
"""Command tags that event triggers report (PostgreSQL's documentation, "Event Trigger Firing Matrix"), and some that
cannot be."""
_WORD = re.compile(r"[a-z][a-z0-9_]*")


@cache
def statement_words() -> frozenset[str]:
    """Return the words for what statements do."""
    return vocabulary()


def never(path: str, value: object, kinds: Iterable[str]) -> str | None:
    """Return why a value cannot occur under a name in actions of these kinds, and what was meant; None if it can."""
    if not isinstance(value, str) or value == "":
        return None
    if path == "kind":
        return None if value in kinds else _instead(value, tuple(kinds), "this policy's `kinds`")
    if path in CLOSED:
        return None if value in CLOSED[path] else _instead(value, CLOSED[path], f"what `{path}` can be")
    if path == "statement.operations":
        return None if value in statement_words() else _instead(value, tuple(statement_words()), "what statements do")
    if path == "operation":
        return _operation(value, tuple(kinds))
    return None


def _operation(value: str, kinds: tuple[str, ...]) -> str | None:
    known: list[str] = []
    for kind in kinds:
        words = _operations(kind)
        if isinstance(words, re.Pattern):
            if words.fullmatch(value):
                return None
        elif value in words:
            return None
        else:
            known += words
    if value.upper() in known:
        return f"{value!r} is no operation of {', '.join(kinds)}; did you mean {value.upper()!r}, a command's tag?"
    return _instead(value, tuple(known), f"what `operation` can be of {', '.join(kinds)}")


def _operations(kind: str) -> Iterable[str] | re.Pattern[str]:
    """Return the operations of a kind, or what they look like where nobody can list them."""
    closed = {"change": OPERATIONS.values(), "session": SESSIONS, "posture": FOUND}
    if kind in closed:
        return tuple(closed[kind])
    if kind in ("statement", "query_stats"):
        return statement_words()
    return TAGS if kind == "ddl" else _WORD


def _instead(value: str, known: tuple[str, ...], what: str) -> str:
    close = difflib.get_close_matches(value, known, 3, 0.6) or difflib.get_close_matches(value.lower(), known, 3, 0.6)
    if close:
        return f"{value!r} is not among {what}; did you mean {' or '.join(map(repr, close))}?"
    there = f": {', '.join(sorted(known))}" if len(known) <= 12 else ""
    return f"{value!r} is not among {what}{there}"
