"""Comments behind statements, as sqlcommenter writes them: what is read, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgwitness.core.privacy import tokenizer
from pgwitness.core.sql.tags import COMMENT_CHARS_MAX, KEYS, TEXT_CHARS_MAX, VALUE_CHARS_MAX, read

TOKEN = tokenizer(b"k" * 32)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AGENT = {"agent": "triage-bot"}


def tags(text: str) -> dict[str, str]:
    """Read the tags of a text."""
    return read(text, TOKEN)


def test_everything_that_is_known() -> None:
    """Keys and values are URL-decoded; unknown keys are left out."""
    comment = (
        "/*agent='triage-bot',agent_instance='7',client='portal',controller='x',conversation_id='c9',model='m-1',"
        f"on_behalf_of='ada%40shop',service='billing',tool='sql',traceparent='{TRACE}'*/"
    )
    assert tags(f"UPDATE t SET a = 1 {comment}") == {
        "agent": "triage-bot", "agent_instance": "7", "client": "portal", "conversation_id": "c9", "model": "m-1",
        "on_behalf_of": "ada@shop", "service": "billing", "tool": "sql", "traceparent": TRACE,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 /*agent='triage-bot'*/",
        "SELECT 1/*agent='triage-bot'*/;",
        "SELECT 1 /* agent = 'triage-bot' , route='%2Fa%20b' */ ;\n",
        "SELECT /* x */ 1 /*agent='triage-bot'*/",
        "SELECT 1 /*agent='cfo'*/ /*agent='triage-bot'*/",
        "INSERT INTO t VALUES ('it''s') /*agent='triage-bot'*/",
        "SELECT 1 /*agent='triage%2Dbot'*/",
    ],
)
def test_where_a_comment_counts(text: str) -> None:
    """The last thing of the text counts, a semicolon aside."""
    assert tags(text) == AGENT


@pytest.mark.parametrize(
    "text",
    [
        "SELECT '/*agent=''cfo''*/'",
        "SELECT $$ /*agent='cfo'*/$$",
        "SELECT $$ 1 /*agent='cfo'*/",
        "SELECT /*agent='cfo'*/ 1",
        "SELECT 1 -- /*agent='cfo'*/",
        "SELECT 1 /*agent='cfo'*/ -- x",
        "SELECT 1 /*agent='cfo',agent='triage-bot'*/",
        "SELECT 1 /*agent='cfo' or so'*/",
        "SELECT 1 /*agent=cfo*/",
        "SELECT 1 /*agent=''*/",
        "SELECT 1 /*route='a'*/",
        "SELECT 'unfinished /*agent='cfo'*/",
        "",
        "*/",
        "SELECT 1 /*" + "x" * COMMENT_CHARS_MAX + "='1',agent='cfo'*/",
        "SELECT 1" + " " * TEXT_CHARS_MAX + "/*agent='cfo'*/",
    ],
)
def test_what_is_no_comment_of_that_kind(text: str) -> None:
    """A string is no comment, a comment elsewhere is somebody else's, and what is not well-formed says nothing."""
    assert tags(text) == {}


@pytest.mark.parametrize(
    "value", ["card%204111%201111", "x" * (VALUE_CHARS_MAX + 1), "gr%C3%BC%C3%9Fe", "it\\'s", "%0Aadmin", "-x", "%FF"]
)
def test_what_is_no_identifier_is_masked(value: str) -> None:
    """A value that could be anything goes on as a token, equal for equal values."""
    (found,) = tags(f"SELECT 1 /*tool='{value}'*/").values()
    assert found.startswith(TOKEN(b"").decode()[:2])
    assert found == tags(f"SELECT 2 /*tool='{value}'*/")["tool"]
    assert "4111" not in found


@given(st.text(max_size=80))
def test_any_text_has_an_answer(text: str) -> None:
    """Nothing raises, and nothing but known keys comes out."""
    for wrapped in (text, f"SELECT 1 /*{text}'*/", f"SELECT 1 /*agent='{text}'*/"):
        assert set(tags(wrapped)) <= set(KEYS)
