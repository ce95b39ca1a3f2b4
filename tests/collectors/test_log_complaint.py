"""What of an error may be told: the server's own words and names of what exists, never a value."""

from __future__ import annotations

import random
import re
import sys

import pytest

from collectors.log.interpretation.complaint import complaint, unproven
from collectors.names import Names
from pgwitness.core import messages
from pgwitness.core.privacy import tokenizer
from pgwitness.core.sql.identifiers import masked

TOKEN = tokenizer(b"k" * 32)
UNIQUE = 'duplicate key value violates unique constraint "{}"'
NAMES = Names(["pay", "customers", "email", "customers_email_key", "public", "lower", "Customer", "n"])
ANN = TOKEN(b"ann@x.example").decode()


def told(
    message: str, sqlstate: str | None, detail: str | None = None, statement: str | None = None, names: Names = NAMES
) -> tuple[str | None, str | None, str | None]:
    """Give message, detail and statement as they are told."""
    found = complaint(message, sqlstate, detail, statement, names, TOKEN)
    return found.message, found.detail, masked(statement, found.hide) if statement and found.known else None


@pytest.mark.parametrize(
    ("message", "sqlstate", "kept"),
    [
        (UNIQUE.format("customers_email_key"), "23505", None),
        (UNIQUE.format("hunter2"), "23505", UNIQUE.format("…")),
        ("doppelter Schlüsselwert verletzt Unique-Constraint »pay«", "23505", UNIQUE.format("pay")),
        ('重复键违反唯一约束"hunter2"', "23505", UNIQUE.format("…")),
        ("permission denied for table pay", "42501", None),
        ("permission denied for table ann@x.example", "42501", "permission denied for table …"),
        ('relation "Customer" does not exist', "42P01", None),
        ('invalid input syntax for type integer: "hunter2"', "22P02", 'invalid input syntax for type integer: "…"'),
        ('invalid input syntax for type integer: "pay"', "22P02", 'invalid input syntax for type integer: "…"'),
        ("value too long for type character varying(3)", "22001", "value too long for type character varying(…)"),
        ("division by zero", "22012", None),
        ('column "ann@x.example" does not exist', "42703", 'column "…" does not exist'),
        ('syntax error at or near "hunter2"', "42601", 'syntax error at or near "…"'),
        ('syntax error at or near "pay"', "42601", 'syntax error at or near "…"'),
        ("function lower(integer) does not exist", "42883", "function lower(integer) does not exist"),
        ("canceling statement due to user request", "57014", None),
    ],
)  # fmt: skip
def test_of_the_servers_words_all_is_kept_but_what_no_name_is(message: str, sqlstate: str, kept: str | None) -> None:
    """In English, whatever language the server speaks."""
    found, _, _ = told(message, sqlstate)
    assert found is not None
    assert found == (kept or message)


@pytest.mark.parametrize("sqlstate", ["23505", "42501", "22007", "P0001", "42703", "3D000", "57014", "XX000", None])
@pytest.mark.parametrize(
    "message",
    [
        "customer ann@x.example already exists",
        "ann@x.example",
        'duplicate key value violates unique constraint "ann@x.example"',
        "permission denied for table ann@x.example",
        'column "ann@x.example" does not exist: ann@x.example',
        "Zugriff auf ann@x.example verweigert",
        "%s ann@x.example %s",
        'relation "pay" does not exist\nann@x.example',
    ],
)
def test_what_a_function_raises_leaves_no_value(message: str, sqlstate: str | None) -> None:
    """Whatever its code, and however well it imitates the server's words."""
    details = ("Key (ann@x.example)=(1) already exists.", "Key (email)=(ann@x.example) already exists.",
               "ann@x.example", "Failing row contains (ann@x.example).")  # fmt: skip
    for detail in details:
        for names in (NAMES, Names()):
            assert "ann" not in "".join(filter(None, told(message, sqlstate, detail, "SELECT f($1)", names)))


@pytest.mark.parametrize(
    ("detail", "kept"),
    [
        ("Key (email)=(ann@x.example) already exists.", f"Key (email)=({ANN}) already exists."),
        ("Schlüssel »(email)=(ann@x.example)« existiert bereits.", f"Key (email)=({ANN}) already exists."),
        ("Key (lower(email))=(ann@x.example) already exists.", f"Key (lower(email))=({ANN}) already exists."),
        ('Key (email)=(ann@x.example) is not present in table "pay".',
         f'Key (email)=({ANN}) is not present in table "pay".'),
        ('Key (email)=(ann@x.example) is still referenced from table "pay".',
         f'Key (email)=({ANN}) is still referenced from table "pay".'),
        ("Key (secret)=(ann@x.example) already exists.", f"Key (…)=({ANN}) already exists."),
        ("Failing row contains (1, ann@x.example).", "Failing row contains (…)."),
        ("Partition key of the failing row contains (email) = (ann@x.example).",
         f"Partition key of the failing row contains (email) = ({ANN})."),
        ("ann@x.example is not welcome", None),
    ],
)  # fmt: skip
def test_keys_of_a_detail_become_tokens(detail: str, kept: str | None) -> None:
    """The same value has the same token everywhere, so an error can be joined to the row that was there."""
    assert told(UNIQUE.format("customers_email_key"), "23505", detail)[1] == kept


@pytest.mark.parametrize(
    ("statement", "message", "kept"),
    [
        (
            'UPDATE customers SET n = 1 WHERE email = "ann@x.example"',
            'column "ann@x.example" does not exist',
            'UPDATE customers SET n = 1 WHERE email = "…"',
        ),
        (
            'SELECT 1 FROM customers WHERE email = "ann" AND b = "Ben Li"',
            'column "ann" does not exist',
            'SELECT 1 FROM customers WHERE email = "…" AND "…" = "…"',
        ),
        ("SELECT hunter2", 'column "hunter2" does not exist', 'SELECT "…"'),
        ("SELECT c.hunter2 FROM customers c", "column c.hunter2 does not exist", 'SELECT c."…" FROM customers c'),
        ("SELECT 1 FROM hunter2", "Relation »hunter2« existiert nicht", 'SELECT 1 FROM "…"'),
        ("SELECT hunter2(1)", "function hunter2(integer) does not exist", 'SELECT "…"(1)'),
    ],
)
def test_names_that_are_not_there_are_values(statement: str, message: str, kept: str) -> None:
    """The server says of the first only that it is not there: then the others were not looked at either."""
    assert told(message, "42703", statement=statement)[2] == kept


def test_without_the_catalogues_names_are_there_that_have_been_used() -> None:
    """Who cannot reach the server knows what statements that ran have named, and keeps of the others none."""
    text, seen = 'SELECT t.a FROM t WHERE b = "ann" OR "c" = "Bo"', Names()
    found = told('column "ann" does not exist', "42703", None, text, seen)
    assert found == ('column "…" does not exist', None, 'SELECT "…"."…" FROM "…" WHERE "…" = "…" OR "…" = "…"')
    seen.see(["t", "a", "b"])
    found = told('column "ann" does not exist', "42703", None, text, seen)
    assert found == ('column "…" does not exist', None, 'SELECT t.a FROM t WHERE b = "…" OR "…" = "…"')
    kept = told("permission denied for table t", "42501", None, "SELECT a FROM t", Names())
    assert kept == ("permission denied for table t", None, "SELECT a FROM t")


def test_what_a_statement_makes_up_is_kept() -> None:
    """Aliases of tables and names of CTEs say which column is whose."""
    text = "WITH big AS (SELECT c.email FROM customers c) SELECT b.hunter2 FROM big b"
    found = told("column b.hunter2 does not exist", "42703", None, text)
    assert found[2] == text.replace("hunter2", '"…"')


def test_what_a_function_raises_is_its_code() -> None:
    """Where the line shows that a function raised it, not even its form of words is told."""
    found = complaint(
        "division by zero", "22012", "Key (a)=(1) already exists.", "SELECT f()", NAMES, TOKEN, raised=True
    )
    assert (found.message, found.detail) == (None, None)


def test_a_refusal_in_words_that_are_not_understood_leaves_no_statement() -> None:
    """Which names the server complains of is not known then."""
    assert told("kolumna hunter2 nie istnieje", "42703", None, "SELECT hunter2") == (None, None, None)


def test_names_of_a_statement_that_nobody_has_seen_the_end_of() -> None:
    """In quotes only names that exist, or as names look where nobody could ask."""
    text = 'SELECT "Customer", "Bo", "ann@x.example", plain FROM t'
    assert masked(text, unproven(NAMES)) == 'SELECT "Customer", "…", "…", plain FROM t'
    assert masked(text, unproven(Names())) == 'SELECT "Customer", "Bo", "…", plain FROM t'


def test_a_detail_takes_steps_that_do_not_grow() -> None:
    """A key of 16,000 brackets costs what one of 8,000 does, but for the reading."""

    def steps(times: int) -> int:
        counted = 0

        def count(_frame: object, event: str, _arg: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            told("division by zero", "22012", "Key (" + "a)=(" * times)
        finally:
            sys.setprofile(None)
        return counted

    steps(1)
    assert steps(8_000) == steps(16_000)


@pytest.mark.parametrize("language", messages.LANGUAGES)
def test_no_form_of_words_lets_a_value_through(language: str) -> None:
    """Whatever message of the server a value stands in: a sample of the table, filled with values everywhere."""
    forms = [text for _, text in messages.messages_of(language)]
    for form in random.Random(language).sample(forms, 60):
        text = re.sub(r"%[^%\sa-zA-Z]*(?:l|z|h)*[a-zA-Z]", "hush@x.example", form)
        found = complaint(text, "42501", text, "SELECT a FROM pay WHERE b = $1", NAMES, TOKEN)
        assert "hush" not in (found.message or "") + (found.detail or ""), form
