"""What verifying a lake came to: what is not in order, what is worth saying, and how far the seal goes. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

Kind = Literal[
    "altered", "missing", "added", "moved", "forged", "rolled_back", "unsigned", "unsealed", "unanchored", "unreadable",
    "gap",
]  # fmt: skip


class Finding(Struct, frozen=True):
    """One thing that is not in order: of which kind, what it is about (a path or a name), and what is known of it."""

    kind: Kind
    subject: str
    text: str


class Report(Struct):
    """The result. `sealed_to` is the last entry that the checkpoint covers, -1 for none; times are the lake's own."""

    lake: str = ""
    origin: str = ""
    sealed_to: int = -1
    sealed_at_us: int = 0
    anchored_at_us: int = 0
    entries: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0
    chained_entries: int = 0
    chained_rows: int = 0
    findings: list[Finding] = []
    notes: list[str] = []

    def found(self, kind: Kind, subject: str, text: str) -> None:
        """Add a finding. A name that is no UTF-8 is written with escapes."""
        self.findings.append(Finding(kind, _written(subject), _written(text)))

    def said(self, text: str) -> None:
        """Add what is no finding, but worth saying."""
        self.notes.append(text)


def _written(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def instant(at_us: int) -> str:
    """Write a time in UTC, to the second."""
    try:
        return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return f"{at_us} µs"


def summary(report: Report) -> str:
    """Say in a sentence how far the lake is sealed."""
    if report.sealed_to < 0:
        return f"not sealed; {report.entries} entries, {report.chained_rows} rows only chained"
    return (
        f"sealed to {report.sealed_to} at {instant(report.sealed_at_us)}; {report.chained_entries} entries, "
        f"{report.chained_rows} rows only chained"
    )
