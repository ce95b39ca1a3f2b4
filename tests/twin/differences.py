"""What psql may print otherwise where pgwitness is installed: a short list, each with its reason.

`FILTERS` take lines away that only our objects bring into a listing, exactly as psql prints them. `EXPLAINED` names,
file by file, what remains and why; a changed line that no entry of its file matches is a failure of the twin test.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from msgspec import Struct

Filter = Callable[[list[str]], list[str]]

_TRIGGER = re.compile(r"    pgwitness_beacon AFTER INSERT OR .* EXECUTE FUNCTION pgwitness\.beacon\((|'each')\)")
_PUBLICATION = re.compile(r'    "pgwitness(_inserts)?"')
_TRIGGER_TIMES = re.compile(r" *Trigger pgwitness_beacon( on \S+)?: (time=\S+ )?calls=\d+")


def without_section(lines: list[str], heading: re.Pattern[str], entry: re.Pattern[str]) -> list[str]:
    """Take our entries out of a section of a table's description, and its heading where nothing else stands in it."""
    kept: list[str] = []
    for at, line in enumerate(lines):
        if entry.fullmatch(line):
            following = lines[at + 1] if at + 1 < len(lines) else ""
            if kept and heading.fullmatch(kept[-1]) and (not following.startswith("    ")):
                kept.pop()
            continue
        kept.append(line)
    return kept


def without_trigger(lines: list[str]) -> list[str]:
    """The beacon is a trigger of the table, and `\\d` lists it."""
    return without_section(lines, re.compile(r"Triggers( firing always)?:"), _TRIGGER)


def without_publication(lines: list[str]) -> list[str]:
    """The table is published, and `\\d` lists the publications."""
    return without_section(lines, re.compile(r"Publications:"), _PUBLICATION)


def without_times(lines: list[str]) -> list[str]:
    """`EXPLAIN ANALYZE` counts the calls of every trigger."""
    return [line for line in lines if not _TRIGGER_TIMES.fullmatch(line)]


FILTERS: tuple[Filter, ...] = (without_trigger, without_publication, without_times)


class Explained(Struct, frozen=True):
    """A difference that stays: the lines it may change, on either side, and why it is so."""

    why: str
    lines: re.Pattern[str]


EXPLAINED: dict[str, tuple[Explained, ...]] = {}


def unexplained(name: str, without: Sequence[str], with_us: Sequence[str]) -> list[str]:
    """Compare what a file printed without us and with us; gives the changed lines that nothing explains."""
    ours = list(with_us)
    for clean in FILTERS:
        ours = clean(ours)
    explained = EXPLAINED.get(name, ())
    found: list[str] = []
    for line in difflib.unified_diff(list(without), ours, "without", "with", lineterm="", n=0):
        if line.startswith(("---", "+++", "@@")):
            continue
        if not any(item.lines.fullmatch(line[1:]) for item in explained):
            found.append(line)
    return found
