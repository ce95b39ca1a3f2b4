"""The page *Reports*: what `pgwitness report` makes, to look at, to print, or to take along."""

from __future__ import annotations

import base64
import hashlib
import time
from datetime import UTC, datetime, timedelta

from pgwitness.core.errors import ConfigurationError, NotInOrder
from pgwitness.core.moments import when
from sinks.console.asked import Answer, Asked, Page
from sinks.console.asking import LONG_S, Reporting
from sinks.console.reader import Reader
from sinks.report.page import STYLE
from sinks.report.standards import STANDARDS

POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
        "form-action 'none'", "frame-ancestors 'none'", "base-uri 'none'",
    )
)  # fmt: skip
"""A report has its style in it, by whose hash a browser knows it, and nothing else."""
FIELDS = ("principal", "relation", "since", "until", "standard")


def last_month(at: datetime) -> tuple[str, str]:
    """Return the first day of the last month, and of this one."""
    first = at.astimezone(UTC).date().replace(day=1)
    return (first - timedelta(days=1)).replace(day=1).isoformat(), first.isoformat()


def to_begin_with(reader: Reader, at: datetime) -> tuple[str, str]:
    """Return the last month; where there is no evidence of it, this one until now."""
    since, until = last_month(at)
    there = reader.rows("SELECT 1 AS one FROM events WHERE occurred_at >= ? AND occurred_at < ? LIMIT 1", since, until)
    return (since, until) if there else (until, "")


def _reports(asked: Asked) -> Answer:
    since, until = to_begin_with(asked.shared.reader, datetime.now(UTC))
    given = {**dict.fromkeys(FIELDS, ""), "since": since, "until": until}
    given |= {name: asked.value(name) for name in ("principal", "relation") if asked.value(name)}
    return Answer("reports.html", {**given, "standards": STANDARDS, "sentence": ""})


def _report(asked: Asked) -> Answer:
    given = {name: asked.value(name).strip() for name in FIELDS}
    what: dict[str, object] = {name: value[:200] for name, value in given.items() if value}
    try:
        page = asked.shared.asking.do(_wanted(given), LONG_S, "the report").page
    except (ConfigurationError, NotInOrder) as error:
        values = {**given, "standards": STANDARDS, "sentence": str(error)}
        return Answer("reports.html", values, 422, "failure", what)
    if asked.value("as") == "file":
        return Answer(file=("report.html", "text/html; charset=utf-8", page.encode()), what=what)
    return Answer(document=page, what=what)


def _wanted(given: dict[str, str]) -> Reporting:
    now_us = time.time_ns() // 1000
    since_us = when(given["since"], now_us) if given["since"] else 0
    until_us = when(given["until"], now_us) if given["until"] else None
    if until_us is not None and until_us <= since_us:
        raise NotInOrder("the period ends before it begins")
    if given["standard"] and given["standard"] not in STANDARDS:
        raise NotInOrder(f"there is no standard {given['standard']!r}")
    return Reporting(
        given["principal"] or None, given["relation"] or None, since_us, until_us, given["standard"] or None
    )


PAGES = (
    Page("reports", "/reports", "evidence", _reports),
    Page(
        "report",
        "/reports",
        "evidence",
        _report,
        method="POST",
        operation="report",
        subject={name: name for name in FIELDS},
    ),
)
