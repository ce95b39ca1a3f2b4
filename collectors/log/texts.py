"""Statements as the log quotes them, without their literals: parsed once per query id, or once per text.

A query id does not stand for a statement by itself. Of several statements in one text the server gives the id of
one, behind which the others could hide: a text with a semicolon inside is always read itself. And ids know tables by
number and columns without their aliases: so what of two texts is no literal, roughly, must be equal too.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

from pgwitness.events import Parsed
from pgwitness.parsetree import runs_text
from pgwitness.privacy import Tokenizer
from pgwitness.statements import StatementFacts, facts

IDS_MAX = 8_192
CUTS_MAX = 8
_ROUGH = re.compile(r"'[^']*'|\b\d+(?:\.\d+)?\b")


class Text(NamedTuple):
    """A statement without literals, or a keyed hash of what could not be freed of them; the words for what it does.

    `parsed` is what its literals said, where they are code or settings: it is not in the statement any more.
    """

    statement: str | None
    hash: str | None
    operations: tuple[str, ...] = ()
    parsed: Parsed | None = None
    plain: bool = True


class Texts:
    """Takes the literals out of statements."""

    def __init__(self, token: Tokenizer) -> None:
        self._token = token
        self._by_id: OrderedDict[tuple[str | None, int, str], Text] = OrderedDict()
        self._by_text: dict[str, Text] = {}
        self.parsed = 0
        """Texts that were parsed, and not known already."""

    def read(self, text: str, database: str | None = None, query_id: int = 0) -> Text:
        """Give a statement without its literals; `query_id` 0 is none."""
        found = self._by_text.get(text)
        if found is not None:
            return found
        if not query_id or ";" in text.rstrip("; \n\t\r"):
            return self._parse(text)
        key = (database, query_id, _ROUGH.sub("?", text))
        found = self._by_id.get(key)
        if found is None:
            found = self._parse(text)
            # Of a DO block, a SET or `query_to_xml` the literals decide what it does: the id does not know them.
            if found.statement is not None and found.plain:
                self._by_id[key] = found
                if len(self._by_id) > IDS_MAX:
                    self._by_id.popitem(last=False)
        return found

    def _parse(self, text: str) -> Text:
        self.parsed += 1
        known = facts(text)
        # What a WHERE with LIKE chooses depends on its literal: `%` is every row.
        open_ended = known.where == "present" and "like" in text.lower()
        plain = not known.utility and not open_ended and not runs_text(known.functions)
        if known.statement is None:
            found = Text(None, self.hash(text), known.operations, None if plain else parsed(known), plain)
        else:
            more = None if same(known, facts(known.statement)) else parsed(known)
            found = Text(known.statement, None, known.operations, more, plain)
        if len(text) <= 2_000:
            if len(self._by_text) >= IDS_MAX:
                self._by_text.clear()
            self._by_text[text] = found
        return found

    def hash(self, text: str) -> str:
        """Give a keyed hash of a text."""
        return self._token(text.encode("utf-8", "surrogatepass")).decode()


def parsed(known: StatementFacts) -> Parsed:
    """Give what the parser said as it travels."""
    return Parsed(
        operations=list(known.operations),
        relations=list(known.relations),
        columns=list(known.columns),
        functions=list(known.functions),
        settings=list(known.settings),
        objects=list(known.objects),
        defines=list(known.defines),
        where=known.where,
        utility=known.utility,
    )


def same(one: StatementFacts, other: StatementFacts) -> bool:
    """Say whether two texts do the same, as far as the parser tells."""
    return parsed(one) == parsed(other)


def executed(line: str) -> str | None:
    """Give the statement of `NAME: STATEMENT`, None when NAME may hold a statement itself.

    The client chooses the name. One such as `x: SELECT 1 --` would make a harmless statement of the one behind it; so
    if what stands behind a later colon is a statement too, nobody can tell.
    """
    _, separator, text = line.partition(": ")
    if not separator:
        return None
    at = text.find(": ")
    for _ in range(CUTS_MAX):
        if at < 0:
            return text
        rest = facts(text[at + 2 :])
        if rest.parse_error is None and rest.operations:
            return None
        at = text.find(": ", at + 2)
    return None
