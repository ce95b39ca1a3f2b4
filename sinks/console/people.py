"""The page *People and agents*: who was there this week, and one principal's hours, relations, networks and delegation.

Everything is of the last `DAYS` days of capture, by the database's clock, in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sinks.console.reader import Reader, Row

DAYS = 7
HOURS = 24
LISTED, SHOWN = 500, 30
STEPS = 5
"""Into how many shades hours are put."""
_LIST = f"""
SELECT principal, any_value(principal_kind) AS kind, count(*) AS events, max(occurred_at) AS last_seen,
    list_sort(list_distinct(list(on_behalf_of))) AS behalf, min(assurance) AS assurance
FROM events WHERE dt >= $1::DATE AND principal IS NOT NULL
GROUP BY principal ORDER BY events DESC, principal LIMIT {LISTED}"""
_OF = "dt >= $1::DATE AND (principal = $2 OR on_behalf_of = $2)"
_HOURS = f"""
SELECT occurred_at::DATE AS day, hour(occurred_at) AS hour, count(*) AS events FROM events WHERE {_OF} GROUP BY ALL"""
_READ = "kind IN ('statement', 'query_stats') AND operation IN ('select', 'copy_to', 'fetch')"
_RELATIONS = f"""
SELECT relation, count(*) FILTER (kind = 'change') AS written, count(*) FILTER ({_READ}) AS read,
    count(*) FILTER (outcome IN ('denied', 'failure', 'rolled_back')) AS refused
FROM (SELECT unnest(relations) AS relation, kind, operation, outcome FROM events WHERE {_OF})
GROUP BY relation HAVING written + read + refused > 0 ORDER BY written + read + refused DESC, relation LIMIT {SHOWN}"""
_NETWORKS = f"""
SELECT client_addr, application, role, auth_method, count(DISTINCT session_id) AS sessions,
    min(occurred_at) AS first_seen, max(occurred_at) AS last_seen
FROM events WHERE {_OF} AND session_id IS NOT NULL GROUP BY client_addr, application, role, auth_method
ORDER BY sessions DESC, last_seen DESC LIMIT {SHOWN}"""
_CHAIN = f"""
SELECT principal, principal_kind, on_behalf_of, assurance, detail->>'$.agent.delegation' AS through, count(*) AS events
FROM events WHERE {_OF} AND on_behalf_of IS NOT NULL GROUP BY ALL ORDER BY events DESC LIMIT {SHOWN}"""
_FINDINGS = f"""
SELECT uid, title, message, severity, status, model, last_seen FROM findings
WHERE (principal = $1 OR on_behalf_of = $1) ORDER BY coalesce(last_seen, "time") DESC LIMIT {SHOWN}"""


@dataclass(frozen=True)
class Person:
    """What is known of one principal's week."""

    name: str
    days: Sequence[tuple[date, Sequence[tuple[int, int]]]]
    """Of each day its hours: how many events, and the shade, 0 for none."""
    relations: Sequence[Row]
    networks: Sequence[Row]
    chain: Sequence[Row]
    findings: Sequence[Row]

    @property
    def is_known(self) -> bool:
        """Whether anything is known of them."""
        busy = any(count for _, hours in self.days for count, _ in hours)
        return bool(busy or self.relations or self.networks or self.findings)


def listed(reader: Reader, at: datetime) -> list[Row]:
    """List who did something this week, the busiest first."""
    return reader.rows(_LIST, _since(at))


def one(reader: Reader, name: str, at: datetime) -> Person:
    """Give one principal's week; what was done on their behalf is in it."""
    since = _since(at)
    return Person(
        name=name,
        days=heat(reader.rows(_HOURS, since, name), since),
        relations=reader.rows(_RELATIONS, since, name),
        networks=reader.rows(_NETWORKS, since, name),
        chain=reader.rows(_CHAIN, since, name),
        findings=reader.rows(_FINDINGS, name),
    )


def heat(rows: Sequence[Row], since: date) -> list[tuple[date, list[tuple[int, int]]]]:
    """Put counts into days of hours, each with a shade by its share of the busiest hour."""
    counts = {(row["day"], row["hour"]): row["events"] for row in rows}
    top = max(counts.values(), default=0)
    days = [since + timedelta(days=n) for n in range(DAYS)]
    return [(day, [_shade(counts.get((day, hour), 0), top) for hour in range(HOURS)]) for day in days]


def _shade(count: int, top: int) -> tuple[int, int]:
    return count, -(-count * STEPS // top) if top else 0  # rounded up: who did something is never white


def _since(at: datetime) -> date:
    return at.astimezone(UTC).date() - timedelta(days=DAYS - 1)
