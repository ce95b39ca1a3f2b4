"""What a report says, asked of the lake: the same lake, subject and period give the same facts, in the same order.

Works on a connection of `sinks.sql.catalogue`; `sinks.report.page` makes a page of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pgwitness.core.errors import NotInOrder
from sinks.lake.log.chain import State
from sinks.report import standards
from sinks.report.subject import Subject, happened, literal, overlaps
from sinks.seal.standing import Standing, not_looked_for
from sinks.seal.verification.findings import Report
from sinks.sql import catalogue, query

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from sinks.report.questions import Question

ROWS_SHOWN = 200
ANSWERS_SHOWN = 50
"""Rows of an answer to a requirement."""
BARS_MAX = 400
_DAY_S = 86_400
UNITS = (("hour", 2 * _DAY_S), ("day", (BARS_MAX - 2) * _DAY_S), ("month", (BARS_MAX - 2) * 28 * _DAY_S))
"""By what the accesses are counted over time: the first unit within whose seconds they lie."""
WRITES = "access <> 'read' AND outcome = 'success'"
READS = "access = 'read' AND outcome <> 'denied'"
_FIRST_SEEN = 'coalesce(first_seen, "time", captured_at)'
_LAST_SEEN = 'coalesce(last_seen, "time", captured_at)'
REFUSED = f"NOT ({WRITES}) AND NOT ({READS})"
"""What was refused, or failed, or was undone: each access is of one of these three."""


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
    retired: Table
    holds: Table
    standing: Standing
    verified: Report | None
    standard: str = ""
    requirements: Sequence[Requirement] = ()


@dataclass(frozen=True)
class Requirement:
    """What the evidence says to one requirement: the question, its query, and the answer, if it was asked."""

    words: str
    query: str
    answer: Table | None


def gather(
    connection: duckdb.DuckDBPyConnection,
    subject: Subject,
    standing: Callable[[State], Standing] = not_looked_for,
    verified: Report | None = None,
    standard: str | None = None,
) -> Facts:
    """Ask the lake for all that a report says; `standing` tells how far it is sealed, `verified` what verifying found.

    With `standard`, a name of `sinks.report.standards`, its requirements are answered, too.
    Raises `NotInOrder` when no event names the principal or the relation, with those that come near.
    """
    with catalogue.still(connection):  # or the figures would not be those of the list, nor of what the page rests on
        for macro in _named(subject):
            _ask_of(connection, subject, macro)
        facts = _gather(connection, subject, standing(catalogue.state(connection)), verified)
        if standard is None:
            return facts
        said = [_requirement(connection, one, subject) for one in standards.asked_by(standard)]
        return replace(facts, standard=standards.STANDARDS[standard], requirements=said)


def _requirement(connection: duckdb.DuckDBPyConnection, question: Question, subject: Subject) -> Requirement:
    text = standards.bounded(question, subject)
    if not standards.is_answerable(question, subject):
        return Requirement(question.words, text, None)
    total = next(query.ask(connection, f"SELECT count(*) FROM ({text})").rows)[0]
    answer = query.ask(connection, f"{text} LIMIT {ANSWERS_SHOWN}")
    return Requirement(question.words, text, Table(answer.columns, list(answer.rows), total))


def _ask_of(connection: duckdb.DuckDBPyConnection, subject: Subject, macro: str) -> None:
    """Ask whether any event names the subject; where none does, say what retention took that may have."""
    try:
        list(query.ask(connection, f"SELECT count(*) FROM {macro}").rows)
    except NotInOrder as error:
        ((rows,),) = query.ask(connection, f"SELECT sum(rows) FROM ({_retired(subject)}) WHERE what <> 'rows'").rows
        if not rows:
            raise
        raise NotInOrder(
            f"{error}. Retention took {rows} rows of this period, which may have: `pgwitness sql 'FROM retired'`"
        ) from error


def _gather(
    connection: duckdb.DuckDBPyConnection, subject: Subject, standing: Standing, verified: Report | None
) -> Facts:
    period = happened(subject, "occurred_at")
    what = " AND ".join([period, *_is_about(subject)])
    accesses = f"(SELECT * FROM accesses WHERE {what})"
    part = "coalesce(principal, 'role ' || role, 'nobody named')" if subject.principal is None else "relation"
    findings, logins = _findings(subject), _logins(subject, accesses)

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
        gaps=asked(_gaps(subject)),
        unnamed=asked(
            "SELECT status, relations, rows, occurred_at FROM reconciliation WHERE status <> 'attributed' AND"
            f" {happened(subject, 'occurred_at')}"
            + (f" AND list_contains(relations, {literal(subject.relation)})" if subject.relation else "")
            + " ORDER BY occurred_at, xid"
        ),
        accesses=asked(
            "SELECT occurred_at, coalesce(principal, 'role ' || role, 'nobody named') AS who, on_behalf_of, access,"
            f" relation, n_rows, outcome, certainty, assurance, client_addr FROM {accesses} "
            " ORDER BY occurred_at DESC, event_id, access, relation"
        ),
        rests_on=_rests_on(
            asked(
                "SELECT cluster, count(*) AS events, min(captured_at) AS first_captured,"
                " max(captured_at) AS last_captured FROM events WHERE"
                f" {happened(subject, 'occurred_at')} GROUP BY cluster ORDER BY cluster"
            ),
            query.batches(
                connection,
                f"SELECT cluster, event_id FROM events WHERE {happened(subject, 'occurred_at')} ORDER BY ALL",
            ),
        ),
        retired=asked(_retired(subject)),
        holds=asked(
            'SELECT id, held_at, "by", why, first_day, last_day, principal AS token_of_principal, relation FROM holds'
            f" WHERE {_of_days(subject)} ORDER BY held_at, id"
        ),
        standing=standing,
        verified=verified,
    )


def _retired(subject: Subject) -> str:
    return (
        "SELECT \"table\" || coalesce(', kind ' || kind, '') AS what, first_day, last_day, files, rows, retired_at,"
        f" reason FROM retired WHERE {_of_days(subject)} ORDER BY first_day, what, reason"
    )


def _of_days(subject: Subject) -> str:
    """Write the condition that days of capture may have what happened in the period."""
    first, last = subject.days
    return (
        f"coalesce(last_day, DATE '9999-12-31') >= DATE '{first}' AND"
        f" coalesce(first_day, DATE '0001-01-01') <= DATE '{last}'"
    )


def _rests_on(table: Table, ids: Iterable[pa.RecordBatch]) -> Table:
    """Add the SHA-256 of each cluster's ids with commas between; they are too many to be together in memory."""
    digests: dict[object, Any] = {}
    for batch in ids:
        for cluster, event_id in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            if cluster in digests:
                digests[cluster].update(f",{event_id}".encode())
            else:
                digests[cluster] = sha256(f"{event_id}".encode())
    rows = [(*row, digests[row[0]].hexdigest()) for row in table.rows]
    return Table([*table.columns, "sha256_of_ids"], rows, table.total)


def _activity(asked: Any, accesses: str) -> Table:
    """Count by hour, day or month, whatever gives at most `BARS_MAX`, with those in which nothing was."""
    span = asked(f"SELECT epoch(max(occurred_at)) - epoch(min(occurred_at)) AS seconds FROM {accesses}").rows
    seconds = (span[0][0] or 0) if span else 0
    unit = next((unit for unit, seconds_max in UNITS if seconds < seconds_max), "year")
    counted = (
        f"SELECT date_trunc('{unit}', occurred_at) AS {unit}, {_sum(WRITES)} AS writes, {_sum(READS)} AS reads,"
        f" {_sum(REFUSED)} AS refused FROM {accesses} GROUP BY ALL"
    )
    if unit == "year":  # some clock was far off: what lies between is not drawn
        shown: Table = asked(f"{counted} ORDER BY 1", BARS_MAX)
        return shown
    whole: Table = asked(
        f"WITH counted AS ({counted}) SELECT {unit}, coalesce(writes, 0) AS writes, coalesce(reads, 0) AS reads,"
        f" coalesce(refused, 0) AS refused FROM (SELECT unnest(generate_series(min({unit}), max({unit}),"
        f" INTERVAL 1 {unit})) AS {unit} FROM counted) LEFT JOIN counted USING ({unit}) ORDER BY 1",
        BARS_MAX,
    )
    return whole


def _sum(condition: str) -> str:
    return f"coalesce(sum(accesses) FILTER ({condition}), 0)::BIGINT"


def _named(subject: Subject) -> list[str]:
    found = [f"timeline({literal(subject.principal)})"] if subject.principal is not None else []
    return found + ([f"touched({literal(subject.relation)}, '')"] if subject.relation is not None else [])


def _is_about(subject: Subject) -> list[str]:
    found = []
    if subject.principal is not None:
        name = literal(subject.principal)
        found.append(f"(principal = {name} OR on_behalf_of = {name})")
    if subject.relation is not None:
        found.append(f"relation = {literal(subject.relation)}")
    return found


def _findings(subject: Subject) -> str:
    about = "true"
    if subject.principal is not None:
        name = literal(subject.principal)
        about = f"(principal = {name} OR on_behalf_of = {name})"
    elif subject.relation is not None:
        resources = "json_extract_string(ocsf, '$.resources[*].name')"
        about = f"list_contains({resources}, {literal(subject.relation)})"
    return f"""SELECT severity, title, coalesce(principal, 'nobody named') AS who, "count" AS times, first_seen, status
        FROM findings
        WHERE coalesce(is_alert, true) AND {about} AND {overlaps(subject, _FIRST_SEEN, _LAST_SEEN)}
        ORDER BY severity_id DESC, first_seen, uid"""


def _logins(subject: Subject, accesses: str) -> str:
    """Ask for the sessions that were opened, used or closed in the period."""
    about = overlaps(subject, "coalesce(opened, closed)", "coalesce(closed, opened)")
    about = f"({about} OR session_id IN (SELECT session_id FROM {accesses}))"
    if subject.principal is not None:
        name = literal(subject.principal)
        about += f" AND (principal = {name} OR on_behalf_of = {name})"
    if subject.relation is not None:
        about += f" AND session_id IN (SELECT session_id FROM {accesses})"
    return (
        "SELECT coalesce(principal, 'role ' || role, 'nobody named') AS who,"
        # Behind the names of our own sessions stands a code for each.
        " regexp_replace(application, '^(pgwitness .*) [0-9a-f]{24}$', '\\1') AS application, client_addr, outcome,"
        f" assurance, count(*) AS times, min(opened) AS first, max(opened) AS last FROM logins WHERE {about}"
        " GROUP BY ALL ORDER BY who, outcome, application, client_addr, assurance"
    )


def _gaps(subject: Subject) -> str:
    """Ask for what is missing in the period, also where it was found out later.

    Of a gap that does not know since when, evidence of its kind was there last when its last event was.
    """
    by_source = (
        "CASE regexp_extract(g.reason, '^(stats|sessions|log|posture)_', 1) WHEN 'stats' THEN 'query_stats'"
        " WHEN 'sessions' THEN 'session' WHEN 'log' THEN 'statement' WHEN 'posture' THEN 'posture' ELSE 'change' END"
    )
    since = "coalesce(g.missing_from, max(e.last), make_timestamptz(0))"
    return f"""WITH seen AS (
            SELECT cluster, database, kind, max(occurred_at) AS last FROM events
            WHERE kind IN ('query_stats', 'session', 'statement', 'posture', 'change')
            GROUP BY cluster, database, kind, date_trunc('hour', occurred_at)
        )
        SELECT g.cluster, g.database, g.reason, g.missing_from, g.missing_until
        FROM gaps AS g LEFT JOIN seen AS e ON e.cluster = g.cluster AND e.kind = {by_source}
            AND (g.database IS NULL OR e.database = g.database) AND e.last < g.missing_until
        GROUP BY g.event_id, g.cluster, g.database, g.reason, g.missing_from, g.missing_until
        HAVING {overlaps(subject, since, "g.missing_until")}
        ORDER BY g.missing_until, g.cluster, g.reason, g.event_id"""
