"""The parser within bounds: hostile texts are refused before they cost, and others read as pglast reads them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pglast import parser as pglast

from pgwitness.core.sql import postgres_parser
from pgwitness.core.sql.statements import facts

LENGTH = 64 * 1024
RUNS = ["/*", "*/", "+", "-+", "+-", "+/*", "/*+", "@/*", "-/**/"]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    "around", ["{run}", "SELECT 1 {run} 1; DROP TABLE t", "DO $x$BEGIN SELECT 1{run}; DROP TABLE t; END$x$"]
)
def test_runs_of_operator_characters_cost_no_square(run: str, around: str) -> None:
    """They are refused before the scanner sees them, and what the text may do is said all the same."""
    known = facts(around.format(run=run * (LENGTH // len(run))))
    assert known.statement is None
    assert known.parse_error is not None
    assert ("drop" in known.operations) == ("DROP" in around)


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT 1 -- {'-' * 4_000}\n;DROP TABLE t",
        f"/*{'=' * 4_000}*/ DROP TABLE t",
        f"/*{'*' * 4_000}*/ DROP TABLE t",
        f"SELECT '{'=' * 4_000}'; DROP TABLE t",
        ("-" * 78 + "\n") * 100 + "DROP TABLE t",
        f"SELECT '+{'-' * 70}+{'-' * 70}+'; DROP TABLE t",
    ],
)
def test_rulers_are_no_attack(text: str) -> None:
    """People underline their comments: such runs cost nothing, and hide nothing."""
    assert "drop_table" in facts(text).operations


PIECES = [
    "é", "ü", "😀", "\u00a0", "select", "ONE", "z", "zq", "ZQ", "zqq", "0000e9", "_", "1", "1.5", "$1", "$", "$$",
    "$é$", "'", '"', "E'", "U&'", 'U&"', "x'", "\\", "\\x", "\\u00", "--", "/*", "*/", "+", "<>", "::", ":=", ";",
    " ", "\n", ".", "@",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@example("zqé $é$ $zq0000e9$ é")
@example("éONE currenté date 'é' \"é\"")
def test_letters_beyond_ascii_leave_the_tokens(text: str) -> None:
    """In a long text they are written otherwise while the scanner reads: it finds what it finds in a short one."""
    padded = text + " " * (postgres_parser.COUNTED_CHARS_MAX + 1)
    try:
        expected = pglast.scan(padded)
    except (pglast.ParseError, ValueError) as error:
        with pytest.raises(type(error)):
            postgres_parser.scan(padded)
        return
    assert [tuple(token) for token in postgres_parser.scan(padded)] == [tuple(token) for token in expected]


def test_what_is_no_unicode_is_refused() -> None:
    """Half a pair of surrogates is no letter, however long the text."""
    assert facts("SELECT '\ud800'" + "é" * 1_000).parse_error == "not valid Unicode"
