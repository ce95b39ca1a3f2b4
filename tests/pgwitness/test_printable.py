"""What came from elsewhere steers no terminal, wherever pgwitness prints it; programs get it unchanged."""

from __future__ import annotations

import json

import pytest

from pgwitness.cli import output
from pgwitness.core.printable import visible
from pgwitness.core.runtime import logs

EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202eb\u2066c\u200bd\u2028e\r\x00\x7f"


def steers(text: str) -> bool:
    """Whether anything in a text does more than show itself."""
    return not text.replace("\n", "").replace("\t", "").isprintable()


def test_what_steers_is_shown_as_its_escape() -> None:
    """Escape and control characters, marks that turn the line, invisible ones; letters of all languages stay."""
    assert not steers(visible(EVIL))
    assert visible(EVIL).startswith("a\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\u202eb")
    for word in ("Łódź", "客户", "العملاء", "می\u200cخواهم", "line\nand\ttab"):
        assert visible(word) == word


def test_tables_and_sentences_are_shown_so_and_json_is_not_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """Cells, column names, titles, lists, objects and what is said on stderr."""
    rows = [{"name": EVIL, EVIL: [EVIL], "object": {"x": EVIL}}]
    output.emit(rows, as_json=False, title=EVIL)
    output.say(EVIL)
    shown = capsys.readouterr()
    assert not steers(shown.out)
    assert not steers(shown.err)
    assert "\\x1b" in shown.out
    output.emit(rows, as_json=True)
    printed = capsys.readouterr().out
    assert not steers(printed)
    assert json.loads(printed) == rows


def test_a_log_on_a_terminal_is_shown_so() -> None:
    """The event and each of its values, also one that has no blank in it."""
    event = logs._printable(None, "", {"event": EVIL, "table": EVIL, "count": 3})
    assert not any(steers(value) for value in event.values() if isinstance(value, str))
    assert event["count"] == 3
