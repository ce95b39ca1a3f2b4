"""PostgreSQL's own parser (pglast) for texts of strangers: in a bounded time, that grows no faster than they do.

PostgreSQL's scanner starts again within a run of operator characters (`/*/*/*…`, `+++…`), so a run costs the square of
its length; pglast counts the characters beyond ASCII before each token anew. A text whose runs cost too much is refused
before it is scanned, with `TooCostly`; letters beyond ASCII are written in ASCII while the scanner reads. So is a text
of more tokens than are read in some ten milliseconds; callers fold its lists first (`pgwitness.core.sql.folding`).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import lru_cache

from pglast import parser
from pglast.parser import ParseError, Token

from pgwitness.core.sql.folding import folded

__all__ = ["ParseError", "Token", "TooCostly", "fingerprint", "parse_plpgsql_json", "parse_sql_json", "scan"]

LONG = "too long to be read in full"
RUNS_COST_MAX = 256 * 1024
"""Characters looked at, again and again, in all runs of operator characters of a text; some milliseconds."""
COUNTED_CHARS_MAX = 512
"""In so short a text pglast may count the characters before each token."""
ESCAPE_CHARS_MAX = 40

_OPERATOR = "-~!@#^&|`?+*/%<>="
_RUN_CHARS_MIN = 32
_RUN = re.compile(rf"[{_OPERATOR}]{{{_RUN_CHARS_MIN},}}")
_IN_RUNS = bytes(43 if chr(letter) in _OPERATOR else 32 for letter in range(256))
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_ESCAPES = re.compile("zq*")


class TooCostly(ValueError):
    """A text that would cost more than its length allows."""


def check(text: str) -> None:
    """Raise `TooCostly` for a text that has too many tokens, or whose runs of operator characters cost too much."""
    if not _runs_fit(text):
        raise TooCostly("runs of operator characters that are too long")
    if not folded(text).fits:
        raise TooCostly(LONG)


@lru_cache(maxsize=4)
def _runs_fit(text: str) -> bool:
    """Say whether runs of operator characters stay in bounds; kept, as a text is scanned, parsed and hashed in turn."""
    if b"+" * _RUN_CHARS_MIN not in text.encode("utf-8", "surrogatepass").translate(_IN_RUNS):
        return True
    cost = 0
    for run in _RUN.finditer(text):
        word = run[0]
        before_comment = word.partition("--")[0]  # behind it nothing is an operator
        starts = word.count("/*") + before_comment.count("+") + before_comment.count("-")
        cost += starts * len(word)
        if cost > RUNS_COST_MAX:
            return False
    return True


def scan(text: str) -> list[Token]:
    """Give the tokens of a text. Raises `ParseError`, `ValueError`."""
    check(text)
    if text.isascii() or len(text) <= COUNTED_CHARS_MAX:
        return parser.scan(text)
    text.encode()  # what is no Unicode is refused, however it would be written
    # The scanner takes every character beyond ASCII for a letter, so letters in its place leave the tokens as they are.
    mark = "z" + "q" * max((len(found) for found in _ESCAPES.findall(text.lower())), default=1)
    width = len(mark) + 6
    if width > ESCAPE_CHARS_MAX:
        raise TooCostly("letters that leave none to write others with")
    runs = [found.span() for found in _BEYOND_ASCII.finditer(text)]
    begins: list[int] = []
    longer = 0
    for start, end in runs:
        begins.append(start + longer)
        longer += width - (end - start)
    known: dict[str, int] = {}

    def place_of(offset: int) -> int:
        number = bisect_right(begins, offset) - 1
        if number < 0:
            return offset
        behind = offset - begins[number] - width
        if behind >= 0:
            return runs[number][1] + behind
        return runs[number][0] if behind == -width else runs[number][1] - 1  # a token holds all of a run

    written = _BEYOND_ASCII.sub(lambda found: f"{mark}{known.setdefault(found[0], len(known)):06x}", text)
    tokens = parser.scan(written)
    before = bisect_left(tokens, begins[0], key=lambda token: token.end)
    tokens[before:] = [Token(place_of(start), place_of(end), name, kind) for start, end, name, kind in tokens[before:]]
    return tokens


def parse_sql_json(text: str) -> str:
    """Give the tree of a text as JSON. Raises `ParseError`, `ValueError`."""
    check(text)
    return parser.parse_sql_json(text)


def parse_plpgsql_json(text: str) -> str:
    """Give the tree of the function that a text makes as JSON. Raises `ParseError`, `ValueError`."""
    check(text)
    return parser.parse_plpgsql_json(text)


def fingerprint(text: str) -> str:
    """Give pglast's fingerprint of a text. Raises `ParseError`, `ValueError`."""
    check(text)
    return parser.fingerprint(text)
