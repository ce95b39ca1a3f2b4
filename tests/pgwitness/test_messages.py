"""The server's own forms of words: found in every language, in linear time, and never in what is none."""

from __future__ import annotations

import gc
import sys

import pytest

from pgwitness.core import messages
from pgwitness.core.messages import said, translations

UNIQUE = 'duplicate key value violates unique constraint "%s"'


@pytest.mark.parametrize(
    ("text", "message", "values"),
    [
        ('duplicate key value violates unique constraint "c_key"', UNIQUE, ("c_key",)),
        ("doppelter Schlüsselwert verletzt Unique-Constraint »c_key«", UNIQUE, ("c_key",)),
        ("la valeur d'une clé dupliquée rompt la contrainte unique « c_key »", UNIQUE, ("c_key",)),
        ("llave duplicada viola restricción de unicidad «c_key»", UNIQUE, ("c_key",)),
        ('重複したキー値は一意性制約"c_key"違反となります', UNIQUE, ("c_key",)),
        ('重复键违反唯一约束"c_key"', UNIQUE, ("c_key",)),
        ("permission denied for table pay", "permission denied for table %s", ("pay",)),
        (
            'invalid input syntax for type integer: "4111"',
            'invalid input syntax for type %s: "%s"',
            ("integer", "4111"),
        ),
        ("Key (a)=(1) already exists.", "Key %s already exists.", ("(a)=(1)",)),
        ("division by zero", "division by zero", ()),
        ("temporary file leak: File 3 still referenced", "temporary file leak: File %d still referenced", ("3",)),
    ],
)
def test_a_text_of_the_server_is_known_by_its_form(text: str, message: str, values: tuple[str, ...]) -> None:
    """In whatever language, with what it quotes in the order of the English message."""
    found = said(text)
    assert found is not None
    assert (found.message, found.values) == (message, values)
    assert len(found.words) == len(values) + 1


@pytest.mark.parametrize(
    "text",
    ["customer ann@x.example already exists", "ann", "", "4111 1111 1111 1111", "Kunde »ann« ist schon da", "\0%s"],
)
def test_what_has_no_form_is_not_found(text: str) -> None:
    """What functions raise is no form of the server's."""
    assert said(text) is None


def test_the_order_of_values_in_a_translation_is_undone() -> None:
    """A translation may turn the values round (`%2$s`): they are given as the English message has them."""
    message = 'column "%s" of relation "%s" does not exist'
    for forms in translations(message)[message].values():
        for form in forms:
            text = form.replace("%1$s", "a").replace("%2$s", "b").replace("%s", "a", 1).replace("%s", "b", 1)
            found = said(text)
            assert found is not None
            assert found.values == ("a", "b"), text


def test_each_language_says_what_matters() -> None:
    """Lines of statements, durations and sessions are in the table, in each language."""
    wanted = ("duration: %s ms  statement: %s", "statement: %s", '%s at or near "%s"')
    for message, found in translations(*wanted).items():
        assert {"en", "de", "fr", "es", "ja", "zh_CN"} <= set(found), message


@pytest.mark.parametrize(
    ("begin", "again", "end"),
    [
        ("Key (", "a)=(", "x"),
        ("invalid input syntax for type ", ': "', ""),
        ("", '" of relation "', ""),
        ("new row for relation ", '" violates "', " constraint"),
    ],
)
def test_a_longer_text_takes_no_more_steps(begin: str, again: str, end: str) -> None:
    """Every step goes over the text once at most, so steps that do not grow with it are linear time."""
    assert _steps(begin + again * 1_000 + end) == _steps(begin + again * 2_000 + end)


def test_a_text_that_is_too_long_is_not_looked_for() -> None:
    """The bound is the module's."""
    assert said("division by zero" + " " * messages.TEXT_CHARS_MAX) is None


def _steps(text: str) -> int:
    said(text)  # what is read and cut for the first time is not counted
    steps = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    gc.disable()  # who listens to the collector of garbage is called in between, and counted
    sys.setprofile(count)
    try:
        said(text)
    finally:
        sys.setprofile(None)
        gc.enable()
    return steps
