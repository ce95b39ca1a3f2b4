"""Ways round the auditors' questions, each tried on a lake of a few events."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pgwitness.core.events import Event
from sinks.lake.writer import Lake
from sinks.sql import query
from sinks.sql.catalogue import connect
from tests.sinks.material import ORDINARY, other

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "answer-an-auditor.md"
QUESTIONS = dict(
    re.findall(r"^### (\d+)\. .*?```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
)
CARDS, MINE = "public.cards", "public.mine"

Ask = Callable[[list[Event], str], list[tuple[Any, ...]]]


@pytest.fixture
def asked(tmp_path: Path) -> Ask:
    """Land events and ask one query, by its number on the page or as it is; times are left out."""

    def ask(events: list[Event], question: str) -> list[tuple[Any, ...]]:
        writer = Lake(tmp_path / "lake").writer("events", 0)
        writer.resume()
        writer.append(0, events, [ORDINARY] * len(events))
        writer.commit()
        with connect(tmp_path / "lake") as connection:
            rows = list(query.ask(connection, QUESTIONS.get(question, question)).rows)
        return [tuple(value for value in row if not isinstance(value, datetime)) for row in rows]

    return ask


def said(number: int, operation: str, *relations: str, words: list[str] | None = None, **facts: Any) -> Event:
    """Make a statement of eve's that the log told."""
    detail = {"source": "duration", "operations": words or [operation]}
    values = {"principal": "eve", "role": "app", "outcome": "success", "statement": operation.upper(), "detail": detail}
    return other(number, kind="statement", operation=operation, relations=list(relations), **(values | facts))


@pytest.mark.parametrize("operation", ["update", "delete", "merge"])
def test_what_a_write_joins_is_read(asked: Ask, operation: str) -> None:
    """`UPDATE mine SET … FROM cards … RETURNING cards.*` reads cards as a SELECT does."""
    rows = asked([said(1, operation, MINE, CARDS)], "1")
    assert [row[:3] for row in rows] == [("read", "success", "eve")]


def test_what_a_write_joins_may_have_been_a_persons(asked: Ask) -> None:
    """Question 18 names who joined the table; the table that was written is in the WAL, and is not read."""
    events = [said(1, "update", MINE, CARDS)]
    reads = "SELECT how, principal FROM touched('{}', 3)"
    assert asked(events, reads.format(CARDS)) == [("may_have_read", "eve")]
    assert asked([], reads.format(MINE)) == []


def test_every_refusal_is_an_attempt(asked: Ask) -> None:
    """To drop a table or to make a role, not only to read and to write; each once."""
    events = [
        said(1, "drop_table", CARDS, outcome="denied"),
        said(2, "create_role", outcome="denied"),
        said(3, "select", CARDS, outcome="denied"),
        said(4, "update", CARDS, outcome="denied"),
    ]
    assert asked(events, "4") == [
        ("create_role", "eve", 1),
        ("drop_table public.cards", "eve", 1),
        ("read public.cards", "eve", 1),
        ("update public.cards", "eve", 1),
    ]


def test_a_role_that_is_made_in_a_do_or_beside_others_is_told(asked: Ask) -> None:
    """The statement's first word does not hide what it runs."""
    events = [
        said(1, "do", words=["do", "create_role"]),
        said(2, "select", words=["select", "alter_role"]),
        said(3, "alter_role_set"),
        said(4, "select"),
    ]
    assert [row[2] for row in asked(events, "5")] == ["DO", "SELECT", "ALTER_ROLE_SET"]


def test_a_membership_is_a_privilege_that_was_given(asked: Ask) -> None:
    """`GRANT pg_read_all_data TO eve` gives as much as a grant on each table."""
    member = {"object_type": "membership", "name": "eve IN pg_read_all_data", "after": {"admin": False}}
    events = [
        other(1, kind="posture", operation="added", detail=member, role="lena"),
        other(2, kind="posture", operation="found", detail=member, role="lena"),
        other(3, kind="posture", operation="removed", detail=member, role="lena"),
    ]
    assert asked(events, "10") == [("lena", "eve IN pg_read_all_data", ["member"])]
