"""The questions that auditors ask, ready to be asked: those of docs/how-to/answer-an-auditor.md; a test compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

FILE = Path(__file__).parent / "questions.json"


@dataclass(frozen=True)
class Question:
    """A question in words, by which standard it is asked, and its query, with names that are to be replaced."""

    number: int
    standard: str
    words: str
    query: str


QUESTIONS = msgspec.json.decode(FILE.read_bytes(), type=list[Question])
