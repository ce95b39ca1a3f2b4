"""What psql may print otherwise where pgwitness is installed: a short list, each with its reason.

Our own rows are taken out of every listing of the catalogues (a table's description, triggers, publications, plans that
count the calls of triggers), which changes widths and counts: so listings are compared by their cells. `EXPLAINED`
names, file by file, what remains and why; a changed line that no entry of its file matches fails the twin test.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

_RULE = re.compile(r"-+(\+-+)*")
_COUNT = re.compile(r"\((\d+) rows?\)")
_PLAN = "QUERY PLAN"
_OURS = re.compile(r"\bpgwitness")
_SECTIONS = {
    re.compile(r"Triggers( firing always)?:"): re.compile(r" +pgwitness_beacon AFTER INSERT OR .*"),
    re.compile(r"Publications:"): re.compile(r' +"pgwitness(_inserts)?"'),
}
"""Headings in a table's description, and our entry under each."""


class Explained(Struct, frozen=True):
    """A difference that stays: the lines it may change, on either side, and why it is so."""

    why: str
    lines: re.Pattern[str]


def _explained(why: str, *lines: str) -> Explained:
    return Explained(why, re.compile("|".join(lines)))


EXPLAINED: dict[str, tuple[Explained, ...]] = {}


def listings(lines: Sequence[str]) -> Iterator[str]:
    """Give the lines with every listing cell by cell, without the rows that name an object of ours.

    A listing begins with a line over a rule (`---+---`) and ends with its count. A plan keeps its indentation.
    """
    at = 0
    while at < len(lines):
        below = lines[at + 1] if at + 1 < len(lines) else ""
        if lines[at].strip() and _RULE.fullmatch(below):
            end = _end(lines, at + 2)
            yield from _listing(lines[at], lines[at + 2 : end])
            at = end
        else:
            yield lines[at]
            at += 1


def _end(lines: Sequence[str], at: int) -> int:
    """Find the line behind a listing's last: its count, or an empty line where it has none (a table's description)."""
    while at < len(lines):
        if _COUNT.fullmatch(lines[at]):
            return at + 1
        if not lines[at].strip():
            return at
        at += 1
    return at


def _listing(header: str, rows: Sequence[str]) -> Iterator[str]:
    plan = header.strip() == _PLAN
    yield header.strip() if plan else _cells(header)
    gone = 0
    for row in rows:
        count = _COUNT.fullmatch(row)
        if count:
            left = int(count[1]) - gone
            yield f"({left} row{'' if left == 1 else 's'})"
        elif _OURS.search(row):
            gone += 1
        else:
            yield row.rstrip() if plan else _cells(row)


def _cells(row: str) -> str:
    return " | ".join(cell.strip() for cell in row.split("|"))


def without_sections(lines: Sequence[str]) -> list[str]:
    """Take our trigger and publications out of tables' descriptions, with a heading that nothing else stands under."""
    kept: list[str] = []
    for at, line in enumerate(lines):
        heading = next((heading for heading, entry in _SECTIONS.items() if entry.fullmatch(line)), None)
        if heading is None:
            kept.append(line)
        elif heading.fullmatch(kept[-1]) and not (at + 1 < len(lines) and lines[at + 1].startswith("    ")):
            kept.pop()
    return kept


def unexplained(name: str, without: Sequence[str], with_us: Sequence[str]) -> list[str]:
    """Compare what a file printed without us and with us; gives the changed lines that nothing explains."""
    plain = list(listings(without))
    ours = list(listings(without_sections(with_us)))
    explained = EXPLAINED.get(name, ())
    found: list[str] = []
    for line in difflib.unified_diff(plain, ours, lineterm="", n=0):
        if line.startswith(("--- ", "+++ ", "@@")):
            continue
        if not any(item.lines.fullmatch(line[1:]) for item in explained):
            found.append(line)
    return found
