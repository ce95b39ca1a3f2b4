"""What can come next in a query on the lake: views, columns, macros, and names that stand in the evidence. Pure.

Only a help for typing: the text before the cursor is looked at word by word, not parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

KEYWORDS = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "GROUP BY ALL", "ORDER BY", "HAVING", "LIMIT", "JOIN", "LEFT JOIN", "USING",
    "ON", "AND", "OR", "NOT", "IN", "IS NULL", "IS NOT NULL", "BETWEEN", "LIKE", "ILIKE", "AS", "DISTINCT", "UNION ALL",
    "DESC", "CASE", "WHEN", "THEN", "ELSE", "END", "WITH", "DESCRIBE", "SUMMARIZE", "EXPLAIN", "count(*)", "sum(",
    "min(", "max(", "list(", "current_date", "now()", "INTERVAL", "FILTER (WHERE",
)  # fmt: skip
COMMANDS = ("\\d", "\\x", "\\timing", "\\o", "\\q", "\\?")
_WORD = re.compile(r'[\w"]*$')
_QUOTED = re.compile(r"(?P<before>[^']*)'(?P<value>[^']*)$", re.DOTALL)
_ASKS = re.compile(r"(\w+)\s*(?:=|<>|\(|\bIN\s*\(|\bLIKE)\s*$", re.IGNORECASE)
_AFTER_FROM = re.compile(r"\b(?:FROM|JOIN|DESCRIBE|SUMMARIZE)\s+[\w\"]*$", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)", re.IGNORECASE)

NAMES_OF = {"principal": "principal", "on_behalf_of": "principal", "timeline": "principal"}
NAMES_OF |= {"relation": "relation", "touched": "relation", "role": "role", "application": "application"}
"""Of what the names are that stand behind a column or in a macro."""


@dataclass(frozen=True)
class Known:
    """What there is: columns by view, macros, and names in the evidence by what they name."""

    views: Mapping[str, Sequence[str]]
    macros: Sequence[str] = ()
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """A word that can come next; `length` characters before the cursor are replaced by it."""

    text: str
    length: int
    kind: str


def proposals(known: Known, text: str) -> Iterator[Proposal]:
    """Propose what can come next behind `text`, the best kind first."""
    if text.startswith("\\"):
        yield from _command(known, text)
        return
    if text.count("'") % 2:
        yield from _value(known, text)
        return
    word = _WORD.search(text)
    typed = word.group() if word else ""
    for candidate, kind in _candidates(known, text, typed):
        if candidate.lower().startswith(typed.lower()) and candidate != typed:
            yield Proposal(candidate, len(typed), kind)


def _candidates(known: Known, text: str, typed: str) -> Iterator[tuple[str, str]]:
    sources = [(view, "view") for view in known.views] + [(f"{macro}(", "macro") for macro in known.macros]
    if _AFTER_FROM.search(text):
        yield from sources
        return
    named = [view for view in _NAMED.findall(text) if view in known.views]
    # Before FROM is written, any column may be meant; those of `events` are nearly all of them.
    columns = [column for view in named or ["events"] for column in known.views.get(view, ())]
    yield from ((column, "column") for column in dict.fromkeys(columns))
    if typed:
        yield from ((word, "keyword") for word in KEYWORDS)
        yield from sources


def _value(known: Known, text: str) -> Iterator[Proposal]:
    found = _QUOTED.search(text)
    asks = _ASKS.search(found["before"]) if found else None
    what = NAMES_OF.get(asks[1].lower()) if asks else None
    if found is None or what is None:
        return
    typed = found["value"]
    for name in known.names.get(what, ()):
        if name.lower().startswith(typed.lower()) and name.isprintable():
            yield Proposal(name.replace("'", "''") + "'", len(typed), what)


def _command(known: Known, text: str) -> Iterator[Proposal]:
    command, space, typed = text.partition(" ")
    if not space:
        yield from (Proposal(each, len(command), "command") for each in COMMANDS if each.startswith(command))
    elif command == "\\d":
        for view in known.views:
            if view.startswith(typed):
                yield Proposal(view, len(typed), "view")
