"""Long lists of literals, made short before PostgreSQL's parser sees them; and how many tokens a text has, cheaply.

A list of ten thousand numbers costs the parser, and who reads its tree, tens of milliseconds, and says no more than one
of two. `folded` leaves the first of each long run of literals that stand between commas (`IN (1, 2, …)`, `VALUES
(1, 'a'), (2, 'b'), …`, arguments, arrays), with `FOLD` behind it, as PostgreSQL 18 writes such lists in its statistics.
Nothing but literals, their casts, commas and the brackets of rows is taken out: names, operations and conditions stay.

The lexical rules of SQL are read here by one regular expression, as far as it takes to know where strings, names in
quotes, comments and dollar quotes begin and end. Where that is not certain (a comment within a comment, a quote that is
not closed, a dollar behind a digit, `$1E'…'`) nothing is taken out. The tests hold it to PostgreSQL's own scanner.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

FOLD = "/*, ... */"
"""Stands for what was taken out of a list."""
SHORT_CHARS_MAX = 2_048
"""Texts that are not looked at: they are cheap as they are."""
RUN_CHARS_MAX = 192
"""What a list may be longer than its first literal without being folded."""
TOKENS_MAX = 2_000
"""What is counted to: a text with more costs the parser ten milliseconds and more."""

_S = r"[ \t\n\r\f\v]*+"
# A letter, which all beyond ASCII is, perhaps a digit, perhaps a dollar; said by what it is not, because `re` takes a
# third of a second to compile ranges up to U+10FFFF.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_LETTER_DIGIT = r"[^\x00-/:-@\[-^`{-\x7f]"
_LETTER_DOLLAR = r"[^\x00-#%-@\[-^`{-\x7f]"
_WORD = r"[^\x00-#%-/:-@\[-^`{-\x7f]"
_NO_WORD = r"[\x00-#%-/:-@\[-^`{-\x7f]"
_NAME = rf'(?:"[^"]*+"|{_LETTER}{_WORD}*+)'
_STRING = r"(?:[eE]'(?:[^'\\]++|\\.|'')*+'|'(?:[^'\\]++|''|\\(?!'))*+')"
_NUMBER = r"[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+"
_WORDS = r"(?i:null|true|false|default)"
_TYPED = r"(?:(?i:date|time|timestamp|timestamptz|interval|uuid|numeric)[ \t\n\r\f\v]++)?+"
_TYPE = (
    r"(?:(?i:double[ ]precision|character[ ]varying|bit[ ]varying|time(?:stamp)?[ ]with(?:out)?[ ]time[ ]zone)"
    rf"|{_NAME}(?:\.{_NAME})?+)(?:\([0-9]++(?:{_S},{_S}[0-9]++)?+\))?+(?:\[[0-9]*+\])*+"
)
_ITEM = rf"(?:{_TYPED}{_STRING}|{_NUMBER}|\$[0-9]++|{_WORDS})(?:{_S}::{_S}{_TYPE})*+{_S}(?=[,)\]])"
_HEAD = r"(?=[ \t\n\r\f\v0-9'$.+\-eEnNtTfFdDiIuU])"
"""What an item may begin with: most brackets and commas stand before something else."""
_MORE = rf"(?:,{_S}{_ITEM})*+"
_ROW = rf",{_S}\({_S}{_ITEM}{_MORE}\){_S}(?=[,);A-Za-z]|\Z)"
_STRINGS = (
    rf"'(?<={_NO_WORD}[eE]')(?:[^'\\]++|\\.|'')*+'"
    rf"|'(?:(?<![eE]')|(?<={_LETTER}[eE]'))[^']*+(?:''[^']*+)*+'"
)
"""With backslashes that escape behind a word that is E; else none do."""
_COMMENTS = r"--[^\n\r]*+|/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/"
_QUOTED = r'"[^"]*+(?:""[^"]*+)*+"'
_PIECE = re.compile(
    rf"""\({_HEAD}{_S}{_ITEM}(?P<list>{_MORE})(?P<rows>\){_S}(?:{_ROW})++)?+"""
    rf"""|\[{_HEAD}{_S}{_ITEM}(?P<array>{_MORE})"""
    rf"""|,{_HEAD}{_S}{_ITEM}(?P<rest>{_MORE})"""
    rf"""|{_STRINGS}|{_QUOTED}|{_COMMENTS}"""
    rf"""|\$(?<=[0-9]\$)(?={_LETTER_DOLLAR})(?P<doubt>)"""
    rf"""|\$(?<!{_WORD}\$)(?P<dollar>(?:{_LETTER}{_LETTER_DIGIT}*+)?+\$)"""
    r"""|'(?P<open>)|"(?P<open2>)|/\*(?P<open3>)""",
    re.DOTALL,
)
"""What is more than one token, or may hide one: a run of literals, a string, a quoted name, a comment, or a doubt."""
_OPAQUE = re.compile(
    rf"{_STRINGS}|({_QUOTED})|{_COMMENTS}"
    rf"|\$(?<!{_WORD}\$)(?P<tag>(?:{_LETTER}{_LETTER_DIGIT}*+)?+)\$.*?\$(?P=tag)\$",
    re.DOTALL,
)
"""Strings and comments, and names in quotes, which stay."""
_MARKS = ("'", '"', "--", "/*", "$")
DOLLARS_MAX = 200
_TOKEN = re.compile(rf"{_WORD}+|[^ \t\n\r\f\v]")
_TOKEN_DOLLARS = re.compile(rf"{_LETTER}{_WORD}*+|\$?+[0-9]{_LETTER_DIGIT}*+|[^ \t\n\r\f\v]")
"""The same where there are dollars: they belong to a word that a letter begins, and of `$1$2$3` each is a token."""
PIECES_MAX = 64
"""So many are counted at once: most are a few characters."""
_DOLLAR = re.compile(rf"\$(?<!{_LETTER_DOLLAR}\$){_LETTER_DOLLAR}")
"""What opens a dollar quote, or may."""
_ROWS_ONLY = re.compile(r"[ \t\n\r\f\v(]*(?:select|insert|update|delete|merge|with|values)\b", re.IGNORECASE)
_ELSE = re.compile(r"\bset\b", re.IGNORECASE)


class Folded(NamedTuple):
    """A text without what was taken out, its tokens (counted to `TOKENS_MAX` + 1), and whether its quotes were read."""

    text: str
    tokens: int
    certain: bool = True

    @property
    def fits(self) -> bool:
        """Whether the parser may have it."""
        return self.tokens <= TOKENS_MAX


@lru_cache(maxsize=4)
def folded(text: str) -> Folded:
    """Give a text with its long lists of literals made short."""
    if len(text) <= SHORT_CHARS_MAX:
        return Folded(text, 0)
    pieces: list[str] = []
    uncounted: list[str] = []
    at = tokens = 0
    while True:
        piece = _PIECE.search(text, at)
        if piece is None or len(uncounted) >= PIECES_MAX:
            tokens += _count("".join(uncounted))
            uncounted.clear()
            if tokens > TOKENS_MAX:
                return Folded(text, TOKENS_MAX + 1)
        if piece is None:
            pieces.append(text[at:])
            return Folded("".join(pieces), tokens + _count(pieces[-1]))
        end = piece.start()
        if end > at:
            pieces.append(text[at:end])
            uncounted.append(pieces[-1])
        kind = piece.lastgroup
        at = piece.end()
        if kind in ("list", "rows", "array", "rest"):
            pieces.append(_kept(piece, text))
            uncounted.append(pieces[-1])
            continue
        if kind is not None:
            at = text.find(f"${piece['dollar']}", at) if kind == "dollar" else -1
            if at < 0:
                return Folded(text, _count(text), certain=False)
            at += len(piece["dollar"]) + 1
        pieces.append(text[end:at])
        uncounted.append("'")  # one token, whatever is in it


def code(text: str) -> str | None:
    """Give a text with a number in the place of its strings, without comments; None where they cannot be told."""
    if not any(mark in text for mark in _MARKS):
        return text
    if text.count("$") > DOLLARS_MAX and _DOLLAR.search(text) is not None:
        return None
    outside = _OPAQUE.sub(_outside, text)
    left = "'" in outside or "/*" in outside or outside.count('"') & 1 or _DOLLAR.search(outside) is not None
    return None if left else outside


def _outside(opaque: re.Match[str]) -> str:
    name = opaque[1]
    return " 0 " if name is None else name.replace("'", "?")


def beginning(text: str, chars: int) -> str:
    """Give so many characters of a text's beginning at most, that end between two of its tokens."""
    at = 0
    while True:
        piece = _PIECE.search(text, at)
        start = len(text) if piece is None else piece.start()
        if start >= chars:
            return text[: max(at, text.rfind(" ", at, chars))]
        if piece is None:
            return text
        at = piece.end()
        if piece.lastgroup in ("doubt", "open", "open2", "open3", "dollar") or at > chars:
            return text[:start]


def _kept(piece: re.Match[str], text: str) -> str:
    """Give what is left of a run of literals."""
    if piece["rest"] is not None:
        return _first(piece, "rest", piece.end()) if _settles_nothing(text) else piece[0]
    if piece["array"] is not None:
        return _first(piece, "array", piece.end())
    rows = piece.start("rows")
    if rows < 0:
        return _first(piece, "list", piece.end())
    first = _first(piece, "list", rows)
    if piece.end("rows") - rows <= RUN_CHARS_MAX:
        return first + piece["rows"]
    return f"{first}) {FOLD}{_gap(piece['rows'])}"


def _first(piece: re.Match[str], group: str, end: int) -> str:
    start = piece.start(group)
    if end - start <= RUN_CHARS_MAX:
        return piece.string[piece.start() : end]
    return f"{piece.string[piece.start() : start].rstrip()} {FOLD}{_gap(piece[group])}"


def _gap(run: str) -> str:
    """Keep the gap behind a run: without it two words may become one."""
    return run[len(run.rstrip()) :]


@lru_cache(maxsize=2)
def _settles_nothing(text: str) -> bool:
    """Say whether a list that stands in no brackets can be no setting's value: those are told."""
    if ";" in text or _ROWS_ONLY.match(text) is None:
        return False
    return text[:6].lower() == "update" or _ELSE.search(text) is None


def _count(text: str) -> int:
    """Count what may be tokens, in pieces, until there are too many."""
    tokens = start = 0
    token = _TOKEN if "$" not in text else _TOKEN_DOLLARS
    while start < len(text) and tokens <= TOKENS_MAX:
        tokens += len(token.findall(text, start, start + 4 * TOKENS_MAX))
        start += 4 * TOKENS_MAX
    return tokens
