"""The views on what the server's log tells: its settings over time, and how much of what ran it has.

SQL for DuckDB; `sinks.sql.catalogue` puts it into `views.sql`. `statement_coverage` compares calls that
pg_stat_statements counted with statements that the log told. Both count a statement once it has succeeded; the rules
stand in docs/reference/reconciliation.md.
"""

from __future__ import annotations

from sinks.lake.views.reconciliation import SETTLED

SETTINGS = """
-- When the server's settings made it log every statement (`everything`), or every one that writes (`writes`).
CREATE OR REPLACE VIEW log_settings AS
WITH told AS (
    SELECT cluster, occurred_at, detail->>'$.name' AS name,
        CASE WHEN operation = 'removed' THEN '' ELSE lower(detail->>'$.after.value') END AS value
    FROM {events}
    WHERE kind = 'posture' AND detail->>'$.object_type' = 'setting'
        AND detail->>'$.name' IN ('log_min_duration_statement', 'log_statement', 'pgaudit.log')
    UNION ALL
    -- The first look lists what is set; what is not has its default, which logs nothing.
    SELECT cluster, min(occurred_at), 'summary', '' FROM {events}
    WHERE kind = 'posture' AND detail->>'$.object_type' = 'summary' GROUP BY cluster
), moment AS (
    SELECT cluster, occurred_at AS since,
        arg_max(value, occurred_at) FILTER (name = 'log_min_duration_statement') AS duration,
        arg_max(value, occurred_at) FILTER (name = 'log_statement') AS statement,
        arg_max(value, occurred_at) FILTER (name = 'pgaudit.log') AS audit
    FROM told GROUP BY cluster, occurred_at
), state AS (
    SELECT cluster, since,
        last_value(duration IGNORE NULLS) OVER past AS duration,
        last_value(statement IGNORE NULLS) OVER past AS statement,
        last_value(audit IGNORE NULLS) OVER past AS audit,
        row_number() OVER past = 1 AS first,
        lead(since) OVER (PARTITION BY cluster ORDER BY since) AS until
    FROM moment WINDOW past AS (PARTITION BY cluster ORDER BY since)
)
SELECT cluster, CASE WHEN first THEN TIMESTAMPTZ '-infinity' ELSE since END AS since,
    coalesce(until, TIMESTAMPTZ 'infinity') AS until,
    coalesce(duration = '0' OR statement = 'all' OR regexp_matches(audit, '(^|[, ])all') AND NOT contains(audit, '-'),
        false) AS everything,
    everything OR coalesce(statement = 'mod' OR regexp_matches(audit, '(^|[, ])(write|all)')
        AND NOT contains(audit, '-write'), false) AS writes
FROM state;
"""


COVERAGE = """
-- Calls that pg_stat_statements counted and statements that the log told, of days of capture from one to another: by
-- instance, hour (UTC) and statement. `statement_coverage` is all of them.
CREATE OR REPLACE MACRO statements_covered(first_day, last_day) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT cluster, instance, database, role, operation, query_id, fingerprint, statement, calls,
        coalesce(fingerprint, CAST(query_id AS VARCHAR)) AS unit, occurred_at AS until,
        make_timestamptz(CAST(detail->>'$.window_start_us' AS BIGINT)) AS since, [hour] AS hour
    FROM {events}
    WHERE kind = 'query_stats' AND dt BETWEEN first_day AND last_day AND NOT contains(detail, '"toplevel":false')
), begun AS (
    SELECT cluster, instance, min(occurred_at) AS log_since FROM {events}
    WHERE binding = 'log' AND kind IN ('statement', 'session') AND dt BETWEEN first_day AND last_day GROUP BY ALL
), latest AS (
    SELECT cluster, instance, max(until) AS stats_until FROM counted GROUP BY ALL
),
-- Windows of statistics that the log can be asked about: it was read from their beginning, and has had time to land.
answered AS MATERIALIZED (
    SELECT c.*, c.since >= b.log_since AS read
    FROM counted AS c JOIN latest USING (cluster, instance) LEFT JOIN begun AS b USING (cluster, instance)
    WHERE c.until <= stats_until - [settled] AND (b.log_since IS NULL OR c.since >= b.log_since)
),
-- A window belongs to the hour in which it ends, and so do the lines in it.
hours AS MATERIALIZED (
    SELECT cluster, instance, hour, min(since) AS since, max(until) AS until FROM answered GROUP BY ALL
),
named AS (
    SELECT cluster, instance, database, query_id, min(unit) AS unit FROM answered
    WHERE query_id IS NOT NULL GROUP BY ALL
), seen AS (
    SELECT l.cluster, l.instance, l.hour, l.database,
        coalesce(n.unit, l.fingerprint, CAST(l.query_id AS VARCHAR)) AS unit,
        -- One statement may have a line of each source.
        greatest(sum(durations), sum(statements), sum(plans), sum(audits)) AS seen
    FROM (
        SELECT e.cluster, e.instance, h.hour, e.database, e.query_id, e.fingerprint,
            count(*) FILTER (contains(detail, '"source":"duration"')) AS durations,
            count(*) FILTER (contains(detail, '"source":"statement"')) AS statements,
            count(*) FILTER (contains(detail, '"source":"auto_explain"')) AS plans,
            count(*) FILTER (contains(detail, '"source":"pgaudit"')) AS audits
        FROM {events} AS e JOIN hours AS h ON h.cluster = e.cluster AND h.instance = e.instance
            AND e.occurred_at > h.since AND e.occurred_at <= h.until
        WHERE e.kind = 'statement' AND e.dt BETWEEN first_day AND last_day
            AND e.outcome NOT IN ('failure', 'denied')
        GROUP BY ALL
    ) AS l LEFT JOIN named AS n USING (cluster, instance, database, query_id)
    GROUP BY ALL
),
-- Roles whose own settings decide what is logged of them.
own AS (
    SELECT DISTINCT cluster, trim(split_part(detail->>'$.name', ' IN ', 1), '"') AS role FROM {events}
    WHERE kind = 'posture' AND detail->>'$.object_type' = 'role_setting'
        AND regexp_matches(detail, '"(log_[a-z_]*|pgaudit[.][a-z_]*)":')
), setting AS (
    SELECT h.cluster, h.instance, h.hour, bool_and(s.everything) AS everything, bool_and(s.writes) AS writes
    FROM hours AS h JOIN log_settings AS s ON s.cluster = h.cluster AND s.since < h.until AND s.until > h.since
    GROUP BY ALL
), judged AS (
    SELECT a.*, coalesce(a.read AND (s.everything OR s.writes AND a.operation IN ('insert', 'update', 'delete')), false)
        AND NOT EXISTS (SELECT 1 FROM own AS o WHERE o.cluster = a.cluster AND o.role IN (a.role, 'ALL')) AS logged
    FROM answered AS a LEFT JOIN setting AS s USING (cluster, instance, hour)
)
SELECT cluster, instance, hour, database, query_id, fingerprint, statement,
    CASE WHEN logged THEN 'logged' ELSE 'not_logged' END AS status, calls, seen,
    CASE WHEN logged THEN greatest(calls - seen, 0) END AS missing,
    CASE WHEN logged THEN round(greatest(calls - seen, 0) / calls, 4) END AS missing_share
FROM (
    SELECT j.* EXCLUDE (calls, unit), CAST(j.calls AS BIGINT) AS calls, CAST(coalesce(s.seen, 0) AS BIGINT) AS seen
    FROM (
        SELECT cluster, instance, hour, database, unit, logged, any_value(query_id) AS query_id,
            any_value(fingerprint) AS fingerprint, any_value(statement) AS statement, sum(calls) AS calls
        FROM judged GROUP BY ALL
    ) AS j LEFT JOIN seen AS s USING (cluster, instance, hour, database, unit)
);

CREATE OR REPLACE VIEW statement_coverage AS FROM statements_covered(DATE '1970-01-01', DATE '9999-12-31');
"""


def settings(events: str) -> str:
    """Write the view `log_settings` over a scan of `events`."""
    return SETTINGS.replace("{events}", events)


def coverage(events: str) -> str:
    """Write the macro and the view on statements; they ask `log_settings`."""
    hour = "to_timestamp(floor(epoch(occurred_at) / 3600) * 3600)"
    return COVERAGE.replace("{events}", events).replace("[settled]", SETTLED).replace("[hour]", hour)
