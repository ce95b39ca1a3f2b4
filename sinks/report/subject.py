"""Whom or what a report is about, and which period; and how SQL says so. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Subject:
    """Whom or what a report is about, and the period by the database's clock; `until_us` is exclusive."""

    principal: str | None = None
    relation: str | None = None
    since_us: int = 0
    until_us: int | None = None

    @property
    def days(self) -> tuple[str, str]:
        """The first and the last UTC day on which what happened in the period may have been captured in order."""
        return day(self.since_us), day(self.until_us) if self.until_us is not None else "9999-12-31"


def overlaps(subject: Subject, first: str, last: str) -> str:
    """Write the condition that what lasts from one time to another has a part in the period."""
    since = f"{last} >= make_timestamptz({subject.since_us})"
    return since if subject.until_us is None else f"{since} AND {first} < make_timestamptz({subject.until_us})"


def happened(subject: Subject, column: str) -> str:
    """Write the condition that a time lies in the period."""
    since = f"{column} >= make_timestamptz({subject.since_us})"
    return since if subject.until_us is None else f"{since} AND {column} < make_timestamptz({subject.until_us})"


def day(at_us: int) -> str:
    """Write the UTC day of a time."""
    return (EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%d")


def literal(value: str | None) -> str:
    """Write a text as a constant of SQL."""
    return "'" + (value or "").replace("'", "''") + "'"
