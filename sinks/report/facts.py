"""What a report says, asked of the lake: the same lake, subject and period give the same facts, in the same order.

Works on a connection of `sinks.sql.catalogue`; `sinks.report.page` makes a page of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sinks.sql import query

if TYPE_CHECKING:
    import duckdb

ROWS_SHOWN = 200
WRITES = "access <> 'read' AND outcome = 'success'"
READS = "access = 'read' AND outcome <> 'denied'"
REFUSED = f"NOT ({WRITES}) AND NOT ({READS})"
"""What was refused, or failed, or was undone: each access is of one of these three."""


@dataclass(frozen=True)
class Subject:
    """Whom or what a report is about, and the period by the database's clock; `until_us` is exclusive."""

    principal: str | None = None
    relation: str | None = None
    since_us: int = 0
    until_us: int | None = None


@dataclass(frozen=True)
class Table:
    """An answer: its columns and rows, and how many rows there are in all."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    total: int


@dataclass(frozen=True)
class Facts:
    """Everything that the page shows."""

    subject: Subject
    totals: dict[str, Any]
    sureness: Table
    activity: Table
    parts: Table
    findings: Table
    logins: Table
    gaps: Table
    unnamed: Table
    accesses: Table
    rests_on: Table


def gather(connection: duckdb.DuckDBPyConnection, subject: Subject) -> Facts:
    """Ask the lake for all that a report says.

    Raises `NotInOrder` when no event names the principal or the relation, with those that come near.
    """
    for macro in _named(subject):
        list(query.ask(connection, f"SELECT count(*) FROM {macro}").rows)
    period = _period(subject, "occurred_at")
    what = " AND ".join([period, *_is_about(subject)])
    accesses = f"(SELECT * FROM accesses WHERE {what})"
    part = "coalesce(principal, 'role ' || role, 'nobody named')" if subject.principal is None else "relation"
    findings, logins = _findings(subject), _logins(subject)

    def asked(text: str, limit: int = ROWS_SHOWN) -> Table:
        total = next(query.ask(connection, f"SELECT count(*) FROM ({text})").rows)[0]
        answer = query.ask(connection, f"{text} LIMIT {limit}")
        return Table(answer.columns, list(answer.rows), total)

    totals = asked(
        f"SELECT sum(accesses)::BIGINT AS accesses, coalesce(sum(n_rows) FILTER ({WRITES}), 0)::BIGINT AS rows_changed,"
        f" {_sum(READS)} AS reads, {_sum(REFUSED)} AS refused,"
        f" count(DISTINCT relation) AS relations, count(DISTINCT {part}) AS parts FROM {accesses}"
    )
    return Facts(
        subject=subject,
        totals=dict(zip(totals.columns, totals.rows[0], strict=True)),
        sureness=asked(
            f"SELECT certainty, assurance, sum(accesses)::BIGINT AS accesses FROM {accesses} GROUP BY ALL"
            " ORDER BY accesses DESC, certainty, assurance"
        ),
        activity=_activity(asked, accesses),
        parts=asked(
            f"SELECT {part} AS name, {_sum(WRITES)} AS writes, {_sum(READS)} AS reads, {_sum(REFUSED)} AS refused"
            f" FROM {accesses} GROUP BY ALL"
            " ORDER BY writes + reads + refused DESC, name",
            20,
        ),
        findings=asked(findings),
        logins=asked(logins),
        gaps=asked(
            "SELECT cluster, database, reason, missing_from, missing_until FROM gaps WHERE"
            f" {_period(subject, 'occurred_at')} ORDER BY missing_until, cluster, reason, event_id"
        ),
        unnamed=asked(
            "SELECT status, relations, rows, occurred_at FROM reconciliation WHERE status <> 'attributed' AND"
            f" {_period(subject, 'occurred_at')}"
            + (f" AND list_contains(relations, {_text(subject.relation)})" if subject.relation else "")
            + " ORDER BY occurred_at, xid"
        ),
        accesses=asked(
            "SELECT occurred_at, coalesce(principal, 'role ' || role, 'nobody named') AS who, on_behalf_of, access,"
            f" relation, n_rows, outcome, certainty, assurance, client_addr FROM {accesses} "
            " ORDER BY occurred_at DESC, event_id, access, relation"
        ),
        rests_on=asked(
            "SELECT cluster, count(*) AS events, min(captured_at) AS first_captured, max(captured_at) AS last_captured,"
            " sha256(string_agg(event_id, ',' ORDER BY event_id)) AS sha256_of_ids FROM events WHERE"
            f" {_period(subject, 'occurred_at')} GROUP BY cluster ORDER BY cluster"
        ),
    )


def _activity(asked: Any, accesses: str) -> Table:
    """Count by day, or by hour where all lies within two days."""
    span = asked(f"SELECT epoch(max(occurred_at)) - epoch(min(occurred_at)) AS seconds FROM {accesses}").rows
    unit = "hour" if not span or (span[0][0] or 0) < 2 * 86_400 else "day"
    table: Table = asked(
        f"SELECT date_trunc('{unit}', occurred_at) AS {unit}, {_sum(WRITES)} AS writes, {_sum(READS)} AS reads,"
        f" {_sum(REFUSED)} AS refused"
        f" FROM {accesses} GROUP BY ALL ORDER BY 1",
        400,
    )
    return table


def _sum(condition: str) -> str:
    return f"coalesce(sum(accesses) FILTER ({condition}), 0)::BIGINT"


def _named(subject: Subject) -> list[str]:
    found = [f"timeline({_text(subject.principal)})"] if subject.principal is not None else []
    return found + ([f"touched({_text(subject.relation)}, '')"] if subject.relation is not None else [])


def _is_about(subject: Subject) -> list[str]:
    found = []
    if subject.principal is not None:
        name = _text(subject.principal)
        found.append(f"(principal = {name} OR on_behalf_of = {name})")
    if subject.relation is not None:
        found.append(f"relation = {_text(subject.relation)}")
    return found


def _findings(subject: Subject) -> str:
    about = "true"
    if subject.principal is not None:
        name = _text(subject.principal)
        about = f"(principal = {name} OR on_behalf_of = {name})"
    elif subject.relation is not None:
        resources = "json_extract_string(ocsf, '$.resources[*].name')"
        about = f"list_contains({resources}, {_text(subject.relation)})"
    return f"""SELECT severity, title, coalesce(principal, 'nobody named') AS who, "count" AS times, first_seen, status
        FROM findings
        WHERE coalesce(is_alert, true) AND {about} AND {_period(subject, 'coalesce(last_seen, "time", captured_at)')}
        ORDER BY severity_id DESC, first_seen, uid"""


def _logins(subject: Subject) -> str:
    about = "role <> 'pgwitness'"
    if subject.principal is not None:
        name = _text(subject.principal)
        about = f"(principal = {name} OR on_behalf_of = {name})"
    if subject.relation is not None:
        about += f" AND session_id IN (SELECT session_id FROM accesses WHERE relation = {_text(subject.relation)})"
    return (
        "SELECT coalesce(principal, 'role ' || role) AS who, application, client_addr, outcome, assurance,"
        f" count(*) AS times, min(opened) AS first, max(opened) AS last FROM logins WHERE {about} AND"
        f" {_period(subject, 'opened')} GROUP BY ALL ORDER BY who, outcome, application, client_addr, assurance"
    )


def _period(subject: Subject, column: str) -> str:
    since = f"{column} >= make_timestamptz({subject.since_us})"
    return since if subject.until_us is None else f"{since} AND {column} < make_timestamptz({subject.until_us})"


def _text(value: str | None) -> str:
    return "'" + (value or "").replace("'", "''") + "'"
