"""What an agent is given of an answer: so many rows and bytes, and a sentence that says what was cut. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from typing_extensions import TypedDict  # what pydantic asks for before Python 3.12

CELL_CHARS_MAX: Final = 4_000
"""A longer value is cut, so that one row does not take the place of all others."""
NOTICES_MAX: Final = 20

Cell = str | int | float | bool | None


class Column(TypedDict):
    """A column of an answer: its name, and its type as PostgreSQL names it."""

    name: str
    type: str


class Answer(TypedDict):
    """What came of a statement.

    `command` is PostgreSQL's own word for what was done (`DELETE 3`), empty where it was stopped before its end.
    `cut` says what is missing of the rows, empty where nothing is; `notices` are what the server and the gateway said.
    """

    columns: list[Column]
    rows: list[list[Cell]]
    command: str
    cut: str
    notices: list[str]


class Bounded:
    """Rows as far as they fit."""

    def __init__(self, rows_max: int, bytes_max: int) -> None:
        self._rows_max = rows_max
        self._bytes_left = bytes_max
        self.rows: list[list[Cell]] = []
        self._long = 0
        self._full = ""

    def add(self, row: Sequence[Cell]) -> bool:
        """Take a row; return False when there is no room for it, nor for any further one."""
        if self._full:
            return False
        if len(self.rows) >= self._rows_max:
            self._full = f"only the first {self._rows_max:,} rows are shown"
            return False
        shown = [self._shown(cell) for cell in row]
        size = len(json.dumps(shown, ensure_ascii=False).encode("utf-8", "replace"))
        if size > self._bytes_left:
            number = len(self.rows)
            self._full = f"only the first {number:,} rows are shown, since more would be too much text"
            return False
        self._bytes_left -= size
        self.rows.append(shown)
        return True

    def cut(self, *, stopped: bool) -> str:
        """Say what is missing; `stopped` when the statement did not run to its end for it."""
        said = []
        if self._full:
            end = "the rest was not read" if stopped else "the statement ran to its end"
            said.append(f"{self._full}; {end}. Ask for fewer: name the columns, add a WHERE or an aggregate.")
        if self._long:
            said.append(f"{self._long:,} values longer than {CELL_CHARS_MAX:,} characters are cut.")
        return " ".join(said)

    def _shown(self, cell: Cell) -> Cell:
        if not isinstance(cell, str) or len(cell) <= CELL_CHARS_MAX:
            return cell
        self._long += 1
        return f"{cell[:CELL_CHARS_MAX]}… ({len(cell):,} characters)"
