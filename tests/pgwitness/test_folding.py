"""Long lists of literals are folded, and nothing else: PostgreSQL's own scanner is the judge."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pglast import parser as pglast

from pgwitness.core.sql import folding
from pgwitness.core.sql.folding import FOLD, SHORT_CHARS_MAX, TOKENS_MAX, folded
from pgwitness.core.sql.statements import facts

LENGTH = 64 * 1024
ITEMS = [
    "1",
    "-2.5e3",
    "'a'",
    "''",
    "'it''s'",
    "E'\\'x'",
    "$7",
    "NULL",
    "true",
    "'1'::uuid",
    "'1'::\"T\".x[]",
    "DATE '1'",
]
PIECES = [
    *ITEMS, ",", ", ", "(", ")", "[", "]", "ARRAY[", "VALUES (", "),(", "IN (", "'", '"', '"a"', "\\", "E'", "e'",
    "U&'", "$$", "$a$", "$", "a$a$", "1$a$", "--", "\n", "/*", "*/", "/* ' */", "-- '\n", "a", "type'x'", "éE'", "é",
    "\u00a0",
    ";", "DROP TABLE t", "f(", "::", ".", "+", "\x0b", "SET ",
]  # fmt: skip
LIST = ", ".join(["1", "'a'", "E'\\''", "$3", "NULL", "'x'::text"] * 8)
LONG = ", ".join([LIST] * 20)
ROWS = ", ".join(["(1, 'x')"] * 900)
TAKEN = {
    "ICONST", "FCONST", "SCONST", "PARAM", "NULL_P", "TRUE_P", "FALSE_P", "DEFAULT", "TYPECAST", "IDENT", "ASCII_44",
    "ASCII_40", "ASCII_41", "ASCII_45", "ASCII_46", "ASCII_91", "ASCII_93", "TEXT_P",
}  # fmt: skip
"""Literals, casts, commas and brackets."""


def words(text: str) -> list[tuple[str, str]]:
    """Give the tokens of a text, as the server's scanner finds them."""
    # pglast counts in characters, but an empty text and what is no token end it
    return [
        (token.name, text[token.start : token.end + 1]) for token in pglast.scan(text) if "COMMENT" not in token.name
    ]


def taken(text: str) -> list[tuple[str, str]]:
    """Give the tokens that folding takes out of a text; fails where what is left is not what stood there, in order."""
    left = iter(words(folded(text).text))
    gone = []
    wanted = next(left, None)
    for word in words(text):
        if word == wanted:
            wanted = next(left, None)
        else:
            gone.append(word)
    assert wanted is None, f"{wanted} stood nowhere"
    return gone


@settings(deadline=None)
@given(st.lists(st.sampled_from([*PIECES, LIST, f"({LIST})", f"({LIST}), ({LIST})"]), max_size=25).map("".join))
@example(f"a IN ({LIST}, '\n'); DROP TABLE t")
@example(f"'\\', ({LIST}), '; DROP TABLE t --'")
@example(f"a$a$, ({LIST}), $a$")
@example(f"\"x\"e'\\', ({LIST}), '")
@example(f"($1E'\\'x', ({LIST}), '\\', ({LIST}), '")
def test_nothing_but_literals_is_taken_out(text: str) -> None:
    """Whatever stands around a list, the scanner finds every other token where it was."""
    padded = text + " " * SHORT_CHARS_MAX
    try:
        words(padded)
    except pglast.ParseError:
        return  # nothing of it runs
    assert {name for name, _ in taken(padded)} <= TAKEN


@pytest.mark.parametrize(
    ("long", "short"),
    [
        (f"SELECT a FROM t WHERE id IN ({LONG})", f"SELECT a FROM t WHERE id IN ($1 {FOLD})"),
        (f"SELECT a FROM t WHERE id = ANY (ARRAY[{LONG}])", f"SELECT a FROM t WHERE id = ANY (ARRAY[$1 {FOLD}])"),
        (f"INSERT INTO t (a, b) VALUES {ROWS}", f"INSERT INTO t (a, b) VALUES ($1, $2) {FOLD}"),
        (f"SELECT f({LONG})", f"SELECT f($1 {FOLD})"),
        (f"SELECT {LONG} FROM t", None),
    ],
)  # fmt: skip
def test_a_folded_statement_says_the_same(long: str, short: str | None) -> None:
    """Operations, relations, columns and condition are those of the short list, and the statement shows the fold."""
    known = facts(long)
    assert FOLD in str(known.statement)
    assert short is None or known.statement == short
    assert known.parse_error is None
    plain = facts(long.replace(LONG, "1").replace(ROWS, "(1, 'x')"))
    for name in ("operations", "relations", "columns", "functions", "where", "inserts"):
        assert getattr(known, name) == getattr(plain, name)
    assert facts(known.statement or "", freed=True).statement == known.statement


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT 1 WHERE 1 IN ({LONG}); DROP TABLE t",
        f"SELECT 1 WHERE 1 IN ({LONG}, (SELECT 1 FROM t), {LONG})",
        f"INSERT INTO t VALUES ({LONG}), ({LONG}) RETURNING (SELECT 1 FROM t)",
        f"SELECT f({LONG} /* ' */), g(1) FROM t -- '",
        f"SET search_path = {', '.join(['x'] * 200)}, t",
        f"SELECT 1 WHERE 1 IN ({LONG}, 'a'\n'b') /* /* */ */; DROP TABLE t",
    ],
)
def test_what_stands_behind_a_list_is_seen(text: str) -> None:
    """A list hides nothing: no statement, no query within it, no setting."""
    known = facts(text)
    assert "t" in known.relations or any("t" in setting for setting in known.settings)


def test_a_path_of_schemas_is_never_folded() -> None:
    """It says what names mean: all of it is told."""
    path = ", ".join(f"'schema_{number}'" for number in range(200))
    assert FOLD not in folded(f"SET search_path = {path}").text
    assert "schema_199" in str(facts(f"SET search_path = {path}").settings)


def test_tokens_are_counted_to_a_bound() -> None:
    """What is long in letters only is not many tokens; what is many is counted no further than it must be."""
    for few in (
        "SELECT '" + "a b " * 16_000 + "'",
        "SELECT $x$" + "a b " * 16_000 + "$x$",
        "SELECT 1 /*" + "a " * 9_000 + "*/",
    ):
        assert folded(few).tokens < 20
    many = folded("SELECT 1 " + "+ a " * 16_000)
    assert not many.fits
    assert many.tokens <= 5 * TOKENS_MAX
    assert not folded("SELECT 1 /* /* */ */ " + "+ a " * 16_000).certain


@pytest.mark.parametrize("piece", ["$$", "$1", "$a$x$a$ ", "a$1 ", "$", "$1$2 x", "'a'$1", "a b", "[1]", "ä$ö$ü "])
def test_what_fits_is_no_more_tokens_for_the_scanner(piece: str) -> None:
    """Where dollars stand, too: of `$1$2$3` each is a token, and so is each `$$$$`, which quotes nothing."""
    for times in (TOKENS_MAX // 2, 3 * TOKENS_MAX):
        text = "SELECT " + piece * times
        try:
            tokens = len(pglast.scan(text))
        except pglast.ParseError:
            continue
        assert tokens <= TOKENS_MAX + 1 or not folded(text).fits or len(text) <= SHORT_CHARS_MAX


@pytest.mark.parametrize("text", ["a = 1 AND b = $1 OR ", "f('x', a) + ", '"A".b[1][2] || $2 - ', "a$b / "])
def test_counting_many_pieces_at_once_counts_each(text: str) -> None:
    """Pieces are counted sixty-four at a time: whether a text fits does not depend on where that ends."""
    counted = []
    for times in range(40, 140):
        whole = "SELECT " + text * times + "1" + " " * SHORT_CHARS_MAX
        found = folded(whole)
        assert found.text == whole
        assert found.tokens >= len(pglast.scan(whole))
        counted.append(found.tokens)
    assert len({after - before for before, after in pairwise(counted)}) == 1


def test_a_short_text_is_left_alone() -> None:
    """Ordinary statements cost nothing."""
    text = f"SELECT {'a' * (SHORT_CHARS_MAX - 100)}"
    assert folded(text).text is text
    assert folding.SHORT_CHARS_MAX < LENGTH
