"""What a line may say, where more than one thing is possible: all of it is kept as possible, and none as certain.

The client chooses the names of its statements and portals, and what it calls itself. `execute a: SELECT 1 --: DELETE
FROM pay` runs the statement behind the first colon or the one behind the second, and nobody can tell by the text. The
query id tells, where the same statement came before under a name that leaves no doubt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from collectors.log.interpretation.texts import Text, parsed
from pgwitness.core.events import Parsed
from pgwitness.core.sql.statements import facts

TRIES_MAX = 4
"""How many beginnings of a statement are parsed in one line."""
QUERIES_MAX = 4_096
_BEGINS = re.compile(
    r"[\s(;]{0,64}(?:/\*|--|(?:select|insert|update|delete|merge|with|values|table|truncate|copy|call|do|begin|commit|end"
    r"|rollback|abort|start|savepoint|release|prepare|execute|deallocate|declare|fetch|move|close|create|alter|drop|grant"
    r"|revoke|comment|security|set|reset|show|lock|listen|notify|unlisten|load|vacuum|analyze|analyse|explain|cluster"
    r"|reindex|refresh|import|reassign|checkpoint|discard)\b)",
    re.IGNORECASE,
)
"""What a statement can begin with: a word that is none needs no parser."""
_WHERES = ("none", "useless", "present")
"""From what chooses every row to what chooses some: of several readings the worst is kept."""


def executed(line: str) -> list[str]:
    """Return what may be the statement of `NAME: STATEMENT`: what is behind the first colon, and what else parses."""
    _, separator, text = line.partition(": ")
    if not separator:
        return []
    found = [text]
    tries = 0
    at = text.find(": ")
    while at >= 0:
        if _BEGINS.match(text, at + 2) is not None:
            tries += 1
            if tries > TRIES_MAX:
                return [*found, text[text.rindex(": ") + 2 :]]  # too many to look at: nobody can tell
            rest = facts(text[at + 2 :])
            if rest.parse_error is None and rest.operations:
                found.append(text[at + 2 :])
        at = text.find(": ", at + 2)
    return found


def quoted(message: str) -> list[str]:
    """Return what may be the statement that a whole message of the server quotes; nothing where it quotes none."""
    if message.startswith("duration: "):
        _, _, message = message.partition(" ms  ")
    if message.startswith("statement: "):
        return [message[11:]]
    return executed(message[8:]) if message.startswith("execute ") else []


def possible(texts: Sequence[Text], text_hash: str) -> Text:
    """Make one of several statements, as they were read: no text, and all that any of them may do."""
    read = [
        text.parsed or parsed(facts(text.statement or "", freed=True))
        for text in texts
        if text.parsed or text.statement
    ]
    if not read:
        return Text(None, text_hash, doubtful=True)
    found = Parsed(
        operations=_all(read, "operations"),
        relations=_all(read, "relations"),
        columns=_all(read, "columns"),
        functions=_all(read, "functions"),
        settings=_all(read, "settings"),
        objects=_all(read, "objects"),
        defines=_all(read, "defines"),
        where=min((known.where for known in read), key=_severity),
        utility=any(known.utility for known in read),
        assigned=_all(read, "assigned"),
        returning=any(known.returning for known in read),
        written=_all(read, "written"),
    )
    return Text(None, text_hash, tuple(found.operations), parsed=found, doubtful=True)


def _all(read: Sequence[Parsed], name: str) -> list[str]:
    return list(dict.fromkeys(word for known in read for word in getattr(known, name)))


def _severity(where: str) -> int:
    return _WHERES.index(where) if where in _WHERES else len(_WHERES)


class Queries:
    """Which statement a query id stands for, from lines that leave no doubt; forgotten oldest first."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def learn(self, query_id: int, text: str) -> None:
        """Take the statement of a line; of several in one text the id is that of one of them."""
        if query_id in self._known or ";" in text:
            return
        fingerprint = facts(text).fingerprint
        if fingerprint is not None:
            if len(self._known) >= QUERIES_MAX:
                del self._known[next(iter(self._known))]
            self._known[query_id] = fingerprint

    def decide(self, query_id: int, texts: Sequence[str]) -> str | None:
        """Return the one of several statements that the query id stands for; None where that is not known."""
        fingerprint = self._known.get(query_id) if query_id else None
        if fingerprint is None:
            return None
        found = [text for text in texts if facts(text).fingerprint == fingerprint]
        return found[0] if len(found) == 1 else None
