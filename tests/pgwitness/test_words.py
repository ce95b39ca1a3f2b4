"""A text that is too long for the parser says what its words say, and that it was not read in full."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwitness.core.events import quote_identifier
from pgwitness.core.sql import words
from pgwitness.core.sql.folding import TOKENS_MAX, code
from pgwitness.core.sql.identifiers import lower, name_of
from pgwitness.core.sql.postgres_parser import LONG
from pgwitness.core.sql.statements import CUT, facts
from pgwitness.core.sql.tree.reader import Reader

SECRET = "hunterzwo4711"
COLUMNS = ", ".join(f"c{number}" for number in range(TOKENS_MAX))


@pytest.mark.parametrize(
    ("text", "operations", "relations"),
    [
        (f"SELECT {COLUMNS} FROM ONLY pay.cards; DROP TABLE IF EXISTS t", "select drop drop_table", "pay.cards t"),
        (f'INSERT INTO "Täble" ({COLUMNS}) SELECT * FROM u JOIN v USING (id)', "insert select", '"Täble" u v'),
        (f"UPDATE t SET a = CASE {'WHEN a = b THEN c ' * TOKENS_MAX} END", "update", "t"),
        ("DROP TABLE " + COLUMNS, "drop drop_table", "c0 c999"),
        ("SELECT 1; " * TOKENS_MAX + "ALTER ROLE x SUPERUSER", "select alter alter_role", ""),
        (f"GRANT SELECT ON t, s.u TO {COLUMNS}", "grant select", "t s.u"),
        (f"SELECT {COLUMNS}; COPY t FROM PROGRAM 'x'", "select copy copy_program", "t"),
        (f"DO $$ BEGIN {'PERFORM a; ' * TOKENS_MAX} EXECUTE 'DROP TABLE t'; END $$", "do drop drop_table execute", "t"),
        (f"SELECT {COLUMNS}, /* /* ' */ */ a FROM t; DELETE FROM u WHERE b = '{SECRET}'", "select delete", "t u"),
    ],
)  # fmt: skip
def test_a_long_text_says_what_its_words_say(text: str, operations: str, relations: str) -> None:
    """What it may do and which relations it names is told, in the midst of it and at its end; and that it is less."""
    known = facts(text)
    assert known.parse_error == LONG
    assert set(operations.split()) <= set(known.operations)
    assert set(relations.split()) <= set(known.relations)
    assert SECRET not in (known.statement or "")


def test_values_say_nothing_of_what_is_done() -> None:
    """Words in strings, comments and quoted names are not taken for what a statement does, where they can be told."""
    text = (
        f"""SELECT 'drop table t', E'it\\'s delete from t', "update t", {COLUMNS} /* truncate t */ -- grant\n FROM u"""
    )
    known = facts(text)
    assert known.operations == ("select",)
    assert known.relations == ("u",)
    assert known.statement is not None
    assert known.statement.startswith('SELECT $1, $2, "update t", c0')
    assert known.statement.endswith(CUT)
    assert facts(known.statement, freed=True).statement == known.statement


def test_a_word_in_another_place_is_no_statement() -> None:
    """Foreign keys, locks and conflicts speak of deletes and updates; a DELETE without WHERE is told as that."""
    columns = COLUMNS.replace(",", " int,")
    known = facts(f"CREATE TABLE t ({columns} int REFERENCES u ON DELETE CASCADE ON UPDATE SET NULL)")
    assert (known.operations, known.where) == (("create_table", "create"), "n/a")
    known = facts(f"INSERT INTO t ({COLUMNS}) SELECT * FROM u FOR UPDATE ON CONFLICT DO UPDATE SET c1 = c2")
    assert (known.operations, known.where) == (("insert", "select"), "n/a")
    for text in ("WITH x AS (DELETE FROM t RETURNING a) SELECT {} FROM x", "/* */ DELETE FROM t RETURNING {}"):
        known = facts(text.format(COLUMNS))
        assert "delete" in known.operations
        assert known.where == "none"
    assert facts(f"DELETE FROM t WHERE a = b RETURNING {COLUMNS}").where == "n/a"


def test_a_name_that_may_be_a_value_is_not_kept() -> None:
    """Who writes an address in double quotes finds no statement of his in the evidence, however long it is."""
    known = facts(f'SELECT {COLUMNS} FROM t WHERE mail = "ada@x.example"'.replace("c0,", '"ada@x.example",'))
    assert known.statement is None
    assert facts(f"UPDATE t SET a = {SECRET}, {COLUMNS.replace(',', '=1,')}=1").statement is None


@pytest.mark.parametrize("text", ["a 'b", 'a "b', "a /* /* */", "a $$ b", "1$a$ b", "a $x$ b $y$"])
def test_quotes_that_cannot_be_told_are_not(text: str) -> None:
    """Then there is no text without them, and all words count."""
    assert code(text) is None
    assert code("a 'b' $1 $x$ ' $x$ -- '\n") == "a  0  $1  0   0 \n"


NAME = st.sampled_from(["t", "S.T", '"Qu""oted".t', "ätb", "Ä.b", "a$b", "only", "x . y", '"from z"', "f", "ſ"])
LIST = st.lists(NAME, min_size=1, max_size=3).map(" , ".join)
WORD = st.sampled_from(["FROM", "join", "Into", "UPDATE", "table", "only", "on", "xfrom", '"from', "exists", ""])
GAP = st.sampled_from([" ", "\n\t", "  ", "\u2003"])
PHRASE = st.tuples(WORD, GAP, LIST, st.sampled_from(["", "(", " (", ";", " ", ","])).map("".join)


@given(st.lists(PHRASE, max_size=8).map(" ".join), st.booleans())
def test_names_are_found_word_by_word(text: str, granted: bool) -> None:
    """All at once, names are those that are found by going from word to word, in their order."""
    reader, expected = Reader(), Reader()
    if granted:
        reader.operations["grant"] = expected.operations["grant"] = None
    words._relations(text, lower(text), reader)
    for before in re.finditer("|".join(words._BEFORE), lower(text)):
        start, word = before.span()[0], before[0]
        if (start and (text[start - 1].isalnum() or text[start - 1] in '_$"')) or (word == "on" and not granted):
            continue
        gap = re.match(r"\s+", text[before.end() :])
        names = re.match(words._LIST, text[before.end() + gap.end() :]) if gap is not None else None
        if gap is None or names is None:
            continue
        behind = text[before.end() + gap.end() + names.end() :]
        if word in ("from", "join", "using") and behind.lstrip().startswith("("):
            continue
        for name in re.finditer(words._NAME, names[0]):
            found = [name_of(part) for part in re.findall(words._PART, name[0])]
            if len(found) > 1 or found[0] not in words._NO_NAMES:
                expected.relations.setdefault(".".join(quote_identifier(part) for part in found[-2:]))
    assert list(reader.relations) == list(expected.relations)


@given(st.text(max_size=60))
def test_lower_case_is_letter_for_letter(text: str) -> None:
    """Letters beyond ASCII stay as they are, so that places stay, too: a server's `lower` depends on its locale."""
    assert lower(text) == "".join(letter.lower() if letter.isascii() else letter for letter in text)
