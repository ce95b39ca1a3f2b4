"""Statements as the log quotes them, without their literals: parsed once per query id, or once per text.

A query id does not stand for a statement by itself. Of several statements in one text the server gives the id of
one, behind which the others could hide: a text with a semicolon inside is always read itself. And ids know tables by
number and columns without their aliases: so what of two texts is no literal, roughly, must be equal too.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

from pgwitness.privacy import Tokenizer
from pgwitness.statements import facts

IDS_MAX = 8_192
CUTS_MAX = 8
_ROUGH = re.compile(r"'[^']*'|\b\d+(?:\.\d+)?\b")


class Text(NamedTuple):
    """A statement without literals, or a keyed hash of what could not be freed of them; the words for what it does.

    `tags` are not the text's but this statement's own.
    """

    statement: str | None
    hash: str | None
    operations: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()


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
            if found.statement is not None:
                self._by_id[key] = found
                if len(self._by_id) > IDS_MAX:
                    self._by_id.popitem(last=False)
        return found

    def _parse(self, text: str) -> Text:
        self.parsed += 1
        known = facts(text)
        if known.statement is None:
            found = Text(None, self.hash(text), known.operations)
        else:
            found = Text(known.statement, None, known.operations)
        if len(text) <= 2_000:
            if len(self._by_text) >= IDS_MAX:
                self._by_text.clear()
            self._by_text[text] = found
        return found

    def hash(self, text: str) -> str:
        """Give a keyed hash of a text."""
        return self._token(text.encode("utf-8", "surrogatepass")).decode()


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
