"""Statements as the log quotes them, without their literals: texts that differ in literals only are parsed once.

`pgwitness.core.sql.statements` gives the facts, with PostgreSQL's own parser. Here is decided which texts it would
answer alike. A text's shape is its text with marks where its literals stand: two texts of one shape have the same
tokens but for the literals, and of an ordinary statement (SELECT, INSERT, UPDATE, DELETE, MERGE) nothing that is kept
depends on those. Utility statements may depend on them (a DO block is a string) and are read one by one.

Two scanners give shapes. The quick one knows as much of SQL's lexical rules as ordinary text needs, and gives up where
it meets anything else: comments but for one behind the statement, dollar quotes, backslashes, prefixed strings,
letters beyond ASCII. The slow one is PostgreSQL's own. Tests hold the one to the other. A query id would not do: of
several statements in one text the server gives that of one, behind which the others could hide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from collectors.names import Names
from pgwitness.core.events import MadeFunction, Parsed
from pgwitness.core.privacy import Tokenizer
from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql import tags
from pgwitness.core.sql.folding import FOLD, SHORT_CHARS_MAX, code, folded
from pgwitness.core.sql.identifiers import Hide, glaring, masked, masked_name, plain
from pgwitness.core.sql.statements import StatementFacts, about_objects, facts
from pgwitness.core.sql.tree.calls import runs_text

KNOWN_CHARS_MAX = 8 * 1024 * 1024
"""Characters that are remembered of texts, and of shapes; then all begin anew."""
TEXT_CHARS_MAX = 64 * 1024
"""A longer text is not remembered."""

MARK = "\0"
_DECIDING = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"[lLfFnN](?<!\w[lLfFnN])(?i:(?<=l)imit|(?<=f)irst|(?<=n)ext)\s+0\b",
        r"[0-9](?<![\w.$][0-9])[0-9]*\s*(?:=|<>|!=)\s*[0-9]",
        r"'\s*(?:=|<>|!=)\s*'",
        r"[$']%+[$']",
    )
)
"""Each begins with a character that the search can jump to, which one expression for all does not: half the time."""
_STRING = re.compile(r"'[^']*(?:''[^']*)*'")
_NUMBER = re.compile(r"[0-9](?<![\w.$'][0-9])[0-9]*(?:\.[0-9]+)?\b(?![.$])", re.ASCII)
_NAMES_TOO = re.compile(
    r"""("[^"]*(?:""[^"]*)*")|(')[^']*(?:''[^']*)*'|[0-9](?<![\w.$'][0-9])[0-9]*(?:\.[0-9]+)?\b(?![.$])""", re.ASCII
)
"""For texts with names in double quotes: those stay as they are, whatever is in them."""
_PARAMETER = re.compile(r"(?<![\w$])\$[0-9]+(?![\w$])", re.ASCII)
_OTHER_QUOTE = re.compile(r"'(?:(?<=[\w&$]')|(?!\0))", re.ASCII)
"""A string with a prefix, or a quote that is left over."""
_NAMES = ("relations", "columns", "functions", "assigned", "whole", "written")
_OF_MADE = ("operations", "relations", "columns", "functions", "whole")
_LITERALS = {"SCONST", "USCONST", "ICONST", "FCONST", "BCONST", "XCONST"}
_COMMENTS = {"SQL_COMMENT", "C_COMMENT"}


class Text(NamedTuple):
    """A statement without literals, or a keyed hash of what could not be freed of them; the words for what it does.

    `parsed` is what its literals said, where they are code or settings: it is not in the statement any more.
    `tags` are not the text's but this statement's own. `doubtful`: it is one of several, and `parsed` tells of all.
    """

    statement: str | None
    hash: str | None
    operations: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    parsed: Parsed | None = None
    doubtful: bool = False


class _Known(dict[str, Text]):
    """Answers by text or by shape, in bounded memory."""

    _chars = 0

    def learn(self, key: str, text: Text) -> None:
        if len(key) > TEXT_CHARS_MAX:
            return
        self._chars += 200 + len(key) + len(text.statement or "")
        if self._chars > KNOWN_CHARS_MAX:
            self.clear()
            self._chars = 0
        self[key] = text


class Texts:
    """Takes the literals out of statements."""

    def __init__(self, token: Tokenizer, names: Names | None = None) -> None:
        self.names = names or Names()
        self._token = token
        self._by_text = _Known()
        self._by_shape = _Known()
        self.parsed = 0
        """Texts that were parsed, and not known already."""

    def read(self, text: str, hide: Hide | None = None, *, all_names: bool = False) -> Text:
        """Return a statement without its literals, and the tags of a comment behind it.

        `hide` says which of its names may be values too, of those in quotes unless it is about `all_names`; of a
        statement that has run, only what looks like anything but a name is.
        """
        whole, hide = text, hide or self._glaring
        short = folded(text)
        text = short.text
        if short.fits and (all_names or ('"' in text and _may_hide(text, hide) and not about_objects(facts(text)))):
            text = masked(text, hide)
        if short.fits:
            found = self._tagged(text)
        else:
            found = self._long(text)
            if found.statement is not None and (all_names or '"' in found.statement):
                # It may have been refused, and was not parsed here: any word of it may be a value.
                found = found._replace(statement=None, hash=self.hash(whole))
        # What cannot be freed of its literals is known by all that was sent.
        return found if found.hash is None or text is whole else found._replace(hash=self.hash(whole))

    def knows(self, shape: str) -> bool:
        """Say whether all texts of a quick shape are the same statement, as far as is known."""
        return shape in self._by_shape

    def _tagged(self, text: str) -> Text:
        if "*/" not in text:
            return self._read(text, None)
        at = comment_behind(text)
        shape = quick_shape(text[:at].rstrip()) if at is not None else None
        found = self._read(text, shape)
        if at is not None and shape is not None:
            said = tags.of_comment(text[at + 2 : text.rindex("*/")], self._token)
        else:
            said = tags.read(text, self._token)
        return found._replace(tags=tuple(said.items())) if said else found

    def _long(self, text: str) -> Text:
        """Read a text that is too long for the parser: it has no shape, and its tags where its quotes can be told."""
        found = self._by_text.get(text)
        if found is None:
            found = self._parse(text, None)
        at = comment_behind(text)
        if at is None or code(text[:at]) is None:
            return found
        said = tags.of_comment(text[at + 2 : text.rindex("*/")], self._token)
        return found._replace(tags=tuple(said.items()))

    def _read(self, text: str, shape: str | None) -> Text:
        found = self._by_text.get(text)
        if found is not None:
            return found
        shape = None if decides(text) else shape or quick_shape(text) or scanned_shape(text)
        found = self._by_shape.get(shape) if shape is not None else None
        return found if found is not None else self._parse(text, shape)

    def _parse(self, text: str, shape: str | None) -> Text:
        self.parsed += 1
        known = facts(text)
        # What a WHERE with LIKE chooses depends on its literal: `%` is every row; LIMIT 0 and 1 = 0 leave none.
        open_ended = (known.where == "present" and "like" in text.lower()) or decides(text)
        plain = not known.utility and not open_ended and not runs_text(known.functions)
        if known.statement is None:
            found = Text(None, self.hash(text), known.operations, parsed=None if plain else self._parsed(known))
        else:
            # What is left of a text that is too long for the parser says less than its words did: it is not compared.
            short = known.parse_error != parser.LONG
            more = None if short and same(known, facts(known.statement, freed=True)) else self._parsed(known)
            found = Text(known.statement, None, known.operations, parsed=more)
            # The literals of a DO block, a SET or `query_to_xml` decide what it does: its shape does not know them.
            if shape is not None and known.parse_error is None and plain and more is None:
                known_by = self._by_text if shape == text else self._by_shape  # no literals: found without its shape
                known_by.learn(shape, found)
                return found
        self._by_text.learn(text, found)
        return found

    def _parsed(self, known: StatementFacts) -> Parsed:
        return self.without_values(parsed(known))

    def without_values(self, said: Parsed) -> Parsed:
        """Hide names in code that may be values: no server has looked at all of it."""

        def hide(name: str, quoted: bool) -> bool:
            return quoted and not (plain(name) or self.names.knows(name))

        if not any('"' in item for name in _NAMES for item in getattr(said, name)) and not said.made:
            return said
        return masked_parsed(said, hide)

    def _glaring(self, name: str, quoted: bool, _column: bool) -> bool:
        return quoted and glaring(name) and not self.names.knows(name)

    def hash(self, text: str) -> str:
        """Return a keyed hash of a text."""
        return self._token(text.encode("utf-8", "surrogatepass")).decode()


def parsed(known: StatementFacts) -> Parsed:
    """Return what the parser said as it travels."""
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
        assigned=list(known.assigned),
        whole=list(known.whole),
        returning=known.returning,
        written=list(known.written),
        made=[MadeFunction(item.name, **{part: list(getattr(item, part)) for part in _OF_MADE}) for item in known.made],
    )


def masked_parsed(said: Parsed, hide: Callable[[str, bool], bool]) -> Parsed:
    """Hide names in what the parser said of code."""
    names = {name: [masked_name(item, hide) for item in getattr(said, name)] for name in _NAMES}
    return replace(said, **names, made=[_masked_made(item, hide) for item in said.made])


def _masked_made(item: MadeFunction, hide: Callable[[str, bool], bool]) -> MadeFunction:
    parts = {part: [masked_name(name, hide) for name in getattr(item, part)] for part in _OF_MADE[1:]}
    return replace(item, name=masked_name(item.name, hide), **parts)


def same(one: StatementFacts, other: StatementFacts) -> bool:
    """Return whether two texts do the same, as far as the parser tells."""
    return parsed(one) == parsed(other)


def decides(text: str) -> bool:
    """Return whether literals in a text may decide whether it gives rows at all, or all of them."""
    return any(pattern.search(text) is not None for pattern in _DECIDING)


def quick_shape(text: str) -> str | None:
    """Return a text's shape; None where the rules it knows may not be enough.

    From the left: as long as nothing stands there that it gives up at, PostgreSQL's scanner is between two tokens where
    a literal is found here, and ends it at the same place.
    """
    if MARK in text or "\\" in text or (len(text) > SHORT_CHARS_MAX and "$$" in text):
        return None  # in a long text with a body of code nothing is looked for: it is read by itself
    shape = _STRING.sub("'" + MARK, text)
    if '"' in shape:
        shape = _NAMES_TOO.sub(r"\1\2" + MARK, text)
        if shape.count('"') & 1:
            return None
    else:
        shape = _NUMBER.sub(MARK, shape)
    if "$" in shape and "$" in _PARAMETER.sub("", shape):
        return None  # dollar quotes, above all
    if "--" in shape or "/*" in shape or not shape.isascii():
        return None
    return None if "'" in shape and _OTHER_QUOTE.search(shape) is not None else shape


def _may_hide(text: str, hide: Hide) -> bool:
    """Return whether one of a text's names in quotes is to be hidden, without parsing it where that can be told so."""
    if quick_shape(text) is None:
        return True
    return any(hide(name[1:-1].replace('""', '"'), True, False) for name, _ in _NAMES_TOO.findall(text) if name)


def comment_behind(text: str) -> int | None:
    """Find where the comment begins that ends a text; None where there is none, or another one in it.

    That it is one, and no part of a string or of a longer comment, is certain if what is before it has a quick shape.
    """
    end = len(text.rstrip()) - 2
    at = text.rfind("/*", 0, end)
    return at if at >= 0 and text.find("*/", at + 2) == end else None


def scanned_shape(text: str) -> str | None:
    """Return a text's shape from PostgreSQL's scanner, without comments and with every gap as one space.

    None where there is none, or where a server with standard_conforming_strings off may have read another text.
    """
    if MARK in text:
        return None
    try:
        tokens = parser.scan(text)
    except (parser.ParseError, ValueError):
        return None
    pieces = ["\1"]
    end = -1
    for token in tokens:
        word = text[token.start : token.end + 1]
        if token.name in _COMMENTS and word != FOLD:
            continue
        if token.name in _LITERALS:
            if "\\'" in word:
                return None
            word = token.name + MARK
        pieces += (" " if token.start != end + 1 else "\1", word)
        end = token.end
    return "".join(pieces)
