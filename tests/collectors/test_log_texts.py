"""Texts that differ in literals only are parsed once, and no two others are ever taken for each other."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pglast import parser

from collectors.log.interpretation import texts
from collectors.log.interpretation.complaint import unproven
from collectors.log.interpretation.texts import MARK, Texts, comment_behind, decides, quick_shape, scanned_shape
from collectors.names import Names
from pgwitness.core.privacy import tokenizer
from pgwitness.core.sql.statements import facts

LITERALS = {"SCONST", "USCONST", "ICONST", "FCONST", "BCONST", "XCONST"}
TOKEN = tokenizer(b"k" * 32)

literals = st.one_of(
    st.integers(0, 10**12).map(str),
    st.sampled_from(
        ["1.5", "0.1", "'x'", "'it''s'", "''", "'--'", "'/*'", "'\"'", "'$1'", "'a;b'", "'é'", "2147483648"]
    ),
)
pieces = st.one_of(
    literals,
    st.sampled_from(
        [
            "SELECT ", "FROM t", " WHERE ", "a", "b1", "é1", "=", "-", "- ", "*", "/", "(", ")", ",", " ", "\n", ";",
            ".", "..", '"a 5"', '"it\'s"', '"a""b"', '"', "'", "''", "$1", "$$", "$a$", "--", "/*", "*/", "\\", "E'",
            "U&'", "B'1", "N'x'", "x'1f'", "1e5", "0x1F", "1_000", "1.", ".5", "12a", "::int", "[1:2]", "?", "|| ",
            "INTERVAL '1' day", "a.1", "\t", "x$y",
            "$12", "a$1", "$1a", "$1$", "$", "DO ", "SET a = ", "INSERT INTO t VALUES (", "DELETE FROM t",
        ]
    ),
)  # fmt: skip
sources = st.lists(pieces, max_size=12).map("".join)


def tokens(text: str) -> list[tuple[str, str, bool]] | None:
    """PostgreSQL's own tokens without literals' values; None where its scanner finds an error."""
    try:
        found = parser.scan(text)
    except (parser.ParseError, ValueError):
        return None
    answer, end = [], -1
    for token in found:
        literal = token.name in LITERALS
        name = "number" if token.name in ("ICONST", "FCONST") else token.name
        word = "" if literal and text[token.start] in "'0123456789" else text[token.start : token.end + 1]
        answer.append((name, word, token.start == end + 1))
        end = token.end
    return answer


@settings(max_examples=1_500)
@given(source=sources, others=st.lists(literals, min_size=12, max_size=12))
@example(source="SELECT \"a\"1, 'b' FROM t", others=["7"] * 12)
@example(source="SELECT 'a'\n'b'", others=["'c'"] * 12)
@example(source="SELECT \"it's\" = 'x' AND \"o'c\"", others=["'c'"] * 12)
@example(source="SELECT U&\"a\"'b'", others=["'c'"] * 12)
@example(source="SELECT $1,'a'$2 5$3", others=["7", "'c'"] * 6)
def test_the_quick_scanner_marks_what_the_servers_scanner_calls_literals(source: str, others: list[str]) -> None:
    """Another literal of the same kind in each marked place: the same tokens but for values."""
    shape = quick_shape(source)
    if shape is None:
        return
    values = iter([*others, "'z'", "5"] * 20)

    def fill(mark: re.Match[str]) -> str:
        if mark[0].startswith('"'):
            return mark[0].removesuffix(MARK)
        string = mark[0].startswith("'")
        return next(value for value in values if value.startswith("'") == string)

    twin = re.sub(rf'"[^"]*(?:""[^"]*)*"{MARK}|\'?{MARK}', fill, shape)
    if quick_shape(twin) != shape:
        return  # a value that is beyond the quick scanner
    assert tokens(twin) == tokens(source)


@settings(max_examples=500)
@given(a=sources, b=sources)
def test_equal_shapes_have_equal_tokens(a: str, b: str) -> None:
    """Two texts of one shape, by either scanner, lose their literals to the same statement."""
    texts_ = Texts(TOKEN)
    for text in (a, b, a):
        known = facts(text)
        read = texts_.read(text)
        if known.statement is not None and known.parse_error is None:
            assert (read.statement, read.hash) == (known.statement, None)
            assert read.operations == known.operations
        elif read.statement is not None and known.statement is None:
            assert tokens(text) is not None  # only its values do not fit where they stand


COMMENTS = [
    "/**/",
    "/*a='b'*/",
    "/* it's */",
    '/* $$ \\ " é */',
    "/*/ */",
    "/* -- */",
    "/*a*/ /*b*/",
    "/* /* */ */",
    "/* */ */",
]


@settings(max_examples=500)
@given(source=sources, comment=st.sampled_from(COMMENTS), gap=st.sampled_from(["", " ", "\n", ";"]))
@example(source="SELECT 5*", comment="/**/", gap="")
@example(source="SELECT '/*", comment="/* it's */", gap="")
def test_a_comment_found_quickly_is_one_by_the_servers_scanner(source: str, comment: str, gap: str) -> None:
    """Where what is before it has a quick shape, the last token is that comment, and the others are as without it."""
    text = source + gap + comment + gap.strip(";")
    at = comment_behind(text)
    if at is None or quick_shape(text[:at].rstrip()) is None:
        return
    try:
        *_, last = parser.scan(text)
    except (parser.ParseError, ValueError):
        return  # a number or operator before it is none
    assert (last.name, last.start) == ("C_COMMENT", at)
    assert tokens(text[:at].rstrip()) == (tokens(text) or [])[:-1]


CASES = [
    ("SELECT * FROM t WHERE a = 1 AND b = 'x'", "SELECT * FROM t WHERE a = 22 AND b = 'it''s'", 1),
    ('SELECT "a 5" FROM "t" WHERE "b" = 5', 'SELECT "a 5" FROM "t" WHERE "b" = 77', 1),
    ('SELECT "a 5" FROM t', 'SELECT "a 6" FROM t', 2),
    ("SELECT 1 /* trace 1 */ FROM t", "SELECT 2 /* trace 2 */ FROM t", 1),
    ("SELECT 1 FROM t /* trace 1 */", "SELECT 2 FROM t /* trace 2 */ ", 1),
    ("SELECT 1 FROM t /* trace 1 */", "SELECT 2 FROM t", 1),
    ("SELECT 'é' AS é FROM t", "SELECT 'ö' AS é FROM t", 1),
    ("SELECT E'a\\n' FROM t", "SELECT E'b\\t' FROM t", 1),
    ("SELECT $$a$$ FROM t", "SELECT $$b$$ FROM t", 1),
    ("SELECT a1 FROM t", "SELECT a2 FROM t", 2),
    ("DELETE FROM t WHERE a = 1", "DELETE FROM t WHERE a = 1 OR true", 2),
    ("SELECT 1; DROP TABLE t", "SELECT 2; DROP TABLE t", 2),
    ("DO $$BEGIN DELETE FROM t; END$$", "DO $$BEGIN PERFORM 1; END$$", 2),
    ("DO 'BEGIN DELETE FROM t; END'", "DO 'BEGIN PERFORM 1; END'", 2),
    ("SET app.secret = 'a'", "SET app.secret = 'b'", 2),
    ("EXPLAIN (ANALYZE 'off') DELETE FROM t", "EXPLAIN (ANALYZE 'on') DELETE FROM t", 2),
    ("SELECT B'0''1' FROM t", "SELECT B'01' FROM t", 2),
]


@pytest.mark.parametrize(("first", "second", "parsed"), CASES)
def test_what_is_parsed_once(first: str, second: str, parsed: int) -> None:
    """Ordinary statements that differ in literals and comments only; names, and code in strings, count."""
    read = Texts(TOKEN)
    for text in (first, second, first, second):
        known = facts(text)
        found = read.read(text)
        assert (found.statement, found.operations) == (known.statement, known.operations)
    assert read.parsed == parsed


def test_what_drivers_send_is_not_given_to_the_servers_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared statement comes with the same text each time, with parameters in it."""
    read = Texts(TOKEN)
    text = "UPDATE t SET a = $1, b = 'x' WHERE id = $2 AND n > 5"
    first, plain = read.read(text), read.read("SELECT a FROM t WHERE id = $1")
    monkeypatch.setattr(texts, "scanned_shape", None)
    assert read.read(text.replace("'x'", "'y'")) is first
    monkeypatch.setattr(texts, "quick_shape", None)
    assert read.read("SELECT a FROM t WHERE id = $1") is plain


def test_a_backslash_before_a_quote_is_never_taken_for_another() -> None:
    """On a server with standard_conforming_strings off the string may go on: there is no statement, only a hash."""
    read = Texts(TOKEN)
    assert read.read("SELECT 'a' FROM t").statement == "SELECT $1 FROM t"
    hidden = read.read("SELECT 'a\\' FROM t")
    assert (hidden.statement, hidden.hash is None) == (None, False)
    assert scanned_shape("SELECT 'a\\' FROM t") is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever invents names fills no memory: what is remembered begins anew."""
    monkeypatch.setattr(texts, "KNOWN_CHARS_MAX", 50_000)
    read = Texts(TOKEN)
    for number in range(1_000):
        read.read(f"SELECT 1 AS name_{number}")
        read.read(f"SET a.b_{number} = 1")
    assert 0 < len(read._by_shape) + len(read._by_text) < 500
    read.read("SELECT " + ", ".join(["a"] * 40_000))
    assert not any(len(key) > texts.TEXT_CHARS_MAX for key in read._by_shape)


def test_names_in_quotes_are_looked_at_without_a_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers that quote every name cost one parse a text, as others do; only a name that is none costs more."""
    parsed: list[str] = []
    monkeypatch.setattr(texts, "masked", lambda text, hide: parsed.append(text) or text)
    read = Texts(TOKEN)
    for number in range(3):
        read.read(f'SELECT "User"."id", \'"\' FROM "User" WHERE "User"."id" = {number}')
    assert (read.parsed, parsed) == (1, [])
    read.read('SELECT "ann@x.example" FROM t')
    assert len(parsed) == 1


@pytest.mark.parametrize("text", ['"' + "@" * 20_000, '"@' * 10_000, '"9' * 10_000, '"a"@"."' * 5_000])
def test_a_text_of_quotes_is_read_once(text: str) -> None:
    """Steps that do not grow with the text are linear time."""
    steps = {}
    for part in (text, text + text):
        calls = 0

        def count(_frame: object, event: str, _arg: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            texts._may_hide(part, lambda name, quoted, made_up: False)
        finally:
            sys.setprofile(None)
        steps[len(part)] = calls
    assert max(steps.values()) <= 2 * min(steps.values()) + 10


@pytest.mark.parametrize(
    "text",
    [
        'CREATE ROLE "ada@corp.example"',
        'GRANT clerks TO "ada@corp.example"',
        'ALTER TABLE "Order Lines" OWNER TO "ada@corp.example"',
    ],
)
def test_names_of_roles_are_names(text: str) -> None:
    """Services that log people in by their address name roles so: who is granted what must be told."""
    assert Texts(TOKEN).read(text).statement == text
    assert Texts(TOKEN).read(text, unproven(Names())).statement == text


@pytest.mark.parametrize("text", ['SELECT 1 AS "ann@x.example"', 'PREPARE p AS SELECT "ann@x.example"'])
def test_other_names_that_look_like_values_are_none(text: str) -> None:
    """An alias may be anything."""
    assert "ann" not in str(Texts(TOKEN).read(text).statement)


def test_lists_of_any_length_are_one_statement() -> None:
    """They are folded before their shape is looked for: one is parsed, the next are known; tags behind are read."""
    known = Texts(TOKEN)
    for number in (900, 2_000, 9_000):
        listed = ", ".join(f"'{item:06}'" for item in range(number))
        found = known.read(f"SELECT a FROM t WHERE b IN ({listed}) /*agent='bot'*/")
        assert found.statement == "SELECT a FROM t WHERE b IN ($1 /*, ... */)"
        assert found.tags == (("agent", "bot"),)
    assert known.parsed == 1


def test_of_a_long_text_a_refused_one_leaves_no_word() -> None:
    """What ran is kept in its beginning, with its tags; what may have been refused as its hash: nobody parsed it."""
    known = Texts(TOKEN)
    text = f"SELECT {', '.join(f'column_{number}' for number in range(3_000))} FROM pay /*agent='bot'*/"
    found = known.read(text)
    assert found.statement is not None
    assert found.statement.startswith("SELECT column_0, ")
    assert found.tags == (("agent", "bot"),)
    assert found.parsed is not None
    assert found.parsed.relations == ["pay"]
    refused = known.read(text, lambda *_: False, all_names=True)
    assert (refused.statement, refused.hash) == (None, known.hash(text))
    quoted = known.read(text.replace("column_1,", '"column 1",'))
    assert quoted.statement is None


DECIDES = re.compile(
    r"\b(?:limit|first|next)\s+0\b|(?<![\w.$])\d+\s*(?:=|<>|!=)\s*\d|'\s*(?:=|<>|!=)\s*'|[$']%+[$']",
    re.ASCII | re.IGNORECASE,
)
WORDS = ["limit", "LIMIT", "First", "next", "lext", "x", " ", "\n", "0", "1", "=", "<>", "!=", "'", "%", "$", ".", "ł"]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(WORDS), max_size=10).map("".join))
@example("SELECT 1 FETCH NEXT 0 ROWS ONLY")
@example("a WHERE 1 = 0")
@example("a LIKE '%%'")
def test_what_literals_decide_is_found_by_parts_as_by_one_expression(text: str) -> None:
    """The quick way finds what the plain way to write it finds."""
    assert decides(text) == (DECIDES.search(text) is not None)
