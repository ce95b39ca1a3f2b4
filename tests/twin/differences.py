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


_LOCKS = _explained(
    "its view lists every lock of the session: the end of a command reads our key and may write our registry",
    r"-+\+-+", r"\(\d+ rows?\)", r"(covered|covered_pkey|key|key_pkey) \| (AccessShare|RowExclusive)Lock",
)  # fmt: skip
_VIEW = _explained(
    "PostgreSQL 15 makes a view of an empty table that is given a rule named _RETURN, but of none with a trigger",
    r'ERROR:  could not convert table "(tt27|tt28|rules_fooview(_child)?|t)" to a view because it has .*',
    r"HINT:  (In particular, the table cannot be involved in any foreign key|Use DROP TABLE to remove) .*\.",
    r"ERROR:  current transaction is aborted, commands ignored until end of transaction block",
    r'ERROR:  "(tt28|rules_fooview)" is (already|not) a view', r'ERROR:  relation "rules_fooview" already exists',
    r'ERROR:  column "xmin" does not exist', "LINE 1: select xmin, .*", r" *\^", r"\(\d+ rows?\)", "",
    r"(xmin \| x \| y|c|1 \| aaa|\d+ \| [rv] \| \d+)",
)  # fmt: skip

EXPLAINED: dict[str, tuple[Explained, ...]] = {
    "alter_table": (_LOCKS,),
    "create_view": (_VIEW,),
    "event_trigger": (
        _explained(
            "a dropped table takes its beacon along, and sql_drop tells of it like of every trigger",
            r"NOTICE:  DROP: orig=f normal=f istemp=f type=trigger identity=pgwitness_beacon on .*",
        ),
    ),
    "publication": (
        _explained(
            "comments of all publications are listed, and that of ours holds what was asked for",
            r" ?test publication", r"\(\d+ rows?\)", " ?", r' ?\["\*"\]',
        ),
    ),
    "rowsecurity": (
        _VIEW,
        _explained("`\\dp` lists policies in the order they are stored in", r"(regress_rls_schema)? ?\|.*"),
    ),
    "rules": (_VIEW,),
    "triggers": (
        _explained(
            "triggers are counted by table, and their states listed without their names",
            r"-+(\+-+)+", r"trg_clone(_?\d)* \| [12]", r"trgfire(\d|_)* \| A", r"\(\d+ rows?\)",
        ),
    ),
}  # fmt: skip

LEFT_OUT = {
    "opr_sanity": "prints the OIDs of whatever is in the database, and ours are among them",
    "type_sanity": "prints the OIDs of whatever is in the database, and ours are among them",
}
"""Files that cannot be compared, and why."""


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
