"""Answers of any width: readable, cut with a mark, and nothing in them steers the terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pgwitness.cli import wide
from pgwitness.cli.output import text
from sinks.lake.writer import Lake
from tests.sinks.material import ORDINARY, change


def test_few_columns_are_a_table_and_many_are_not() -> None:
    """What decides is whether each column would have room to be read."""
    assert not wide.too_wide([["x" * 500, "y"]], ["a", "b"], 80)
    assert wide.too_wide([["x" * 20] * 10], list("abcdefghij"), 80)
    assert not wide.too_wide([["1"] * 10], list("abcdefghij"), 80)


def test_expanded_rows_name_what_is_null_and_cut_what_is_long() -> None:
    """A line a column; the mark tells how many letters are missing; no line is wider than the terminal."""
    rows = [{"id": 1, "statement": "SELECT " + "x" * 200, "note": None}, {"id": 2, "statement": "a\nb", "note": "n"}]
    lines = wide.expanded(rows, ["id", "statement", "note"], text, 60).splitlines()
    assert lines[0].startswith("── 1 ─")
    assert lines[1] == "id         1"
    assert lines[2].startswith("statement  SELECT xxx")
    assert lines[2].endswith(f"… (+{207 - (len(lines[2]) - len('statement  ') - len('… (+168)'))})")
    assert lines[3] == "null: note"
    assert lines[6] == "statement  a b"
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain \u00e4 \u4e2d \u2026", "plain \u00e4 \u4e2d \u2026"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\rb\x07\x9b", "a\\x0db\\x07\\x9b"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("two\nlines\tand", "two\nlines\tand"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_steers_a_terminal_is_shown_escaped(value: str, shown: str) -> None:
    """Names and texts come from whoever may make a table; they do not reach the terminal as commands."""
    assert text(value) == shown


def test_every_column_of_changes_is_readable_on_140_columns(tmp_path: Path) -> None:
    """As in a terminal of that width: no column a letter wide, no line beyond the edge."""
    lake = tmp_path / "lake"
    writer = Lake(lake).writer("events", 0)
    writer.resume()
    writer.append(0, [change(1, principal="erika\x1b[31m")], [ORDINARY])
    writer.commit()
    (tmp_path / "pgwitness.toml").write_text('[kafka]\nbootstrap = "127.0.0.1:1"\n')
    main, other = pty.openpty()
    environment = {**os.environ, "COLUMNS": "140", "LINES": "500", "PAGER": "cat", "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pgwitness", "sql", "SELECT * FROM changes"],
        cwd=tmp_path, env=environment, stdin=other, stdout=other, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(other)
    said = b""
    while True:
        try:
            chunk = os.read(main, 65_536)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    os.close(main)
    assert process.wait(60) == 0
    lines = said.decode().replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 140
    assert any(line.startswith("principal ") and "erika\\x1b[31m" in line for line in lines)
    assert any(line.startswith("relations ") and "public.orders" in line for line in lines)
