"""The views and macros of the contract, as SQL over plain Parquet files; nothing is run here.

`views_sql` is the whole of them, for any DuckDB started in the lake's folder; the lake keeps it as `views.sql`. What
needs the folder `rows/` comes last, so that who may not read row images has everything else.
"""

from __future__ import annotations

from sinks.lake.log.layout import BUCKETS_MAX
from sinks.lake.rows.schema import TABLES
from sinks.lake.views import approvals, log_coverage, ocsf, questions, reconciliation
from sinks.lake.views.listing import BY_BUCKET, EMPTY_DAY, PARTS, STANDING, variables_empty, variables_sql

HEAD = """\
-- The views of pgwitness on an evidence lake, for DuckDB started in the lake's folder: duckdb -init views.sql
-- Written by pgwitness; changes to this file are overwritten.

-- A question has several scans of the same files: the ends of these are read once. From DuckDB 2.0 on what is kept of
-- them counts as memory and goes when it is needed; with an older one, and thousands of files, set this to false.
SET parquet_metadata_cache = true;

-- What reconciliation looks for is estimated to be rare; if it is not, comparing each with each never ends.
SET asof_loop_join_threshold = 0;
"""

_REMOTE = """
-- This lake is in a bucket: DuckDB reads it from anywhere, with its extension httpfs and credentials.
-- INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain);
"""

_LIVE = """
-- What counts is what the lake's log says, summed up in the snapshot that head.json names: run what follows again to
-- see what has landed since. "No files found" says that a snapshot or a file has been replaced meanwhile: run it again.
"""

_ACTIVITY = "kind IN ('change', 'ddl', 'statement', 'query_stats', 'session')"

_RETIRED = """\
-- What retention took, by table (and kind of event, where only that went) and month: the days of capture between which
-- rows are gone, how many, when the last of them went, and why. No other view says that something is not there.
CREATE OR REPLACE VIEW retired AS
SELECT r."table", r.kind, try_cast(r.first_day AS DATE) AS first_day,
    coalesce(try_cast(r.last_day AS DATE), last_day(try_cast(r.first_day AS DATE))) AS last_day,
    r.files, r."rows", make_timestamptz(r.at_us) AS retired_at, r.reason
FROM (SELECT unnest(from_json(json(getvariable('{standing}')) -> 'retired', '[{{"table":"VARCHAR","kind":"VARCHAR",
    "first_day":"VARCHAR","last_day":"VARCHAR","files":"BIGINT","rows":"BIGINT","at_us":"BIGINT","reason":"VARCHAR"}}]'
    )) AS r);

-- The holds that stand: nothing of what they cover goes. A principal stands here by its token.
CREATE OR REPLACE VIEW holds AS
SELECT h.id, make_timestamptz(h.at_us) AS held_at, h."by", h.why, try_cast(h.first_day AS DATE) AS first_day,
    try_cast(h.last_day AS DATE) AS last_day, h.principal, h.relation
FROM (SELECT unnest(from_json(json(getvariable('{standing}')) -> 'holds', '[{{"id":"VARCHAR","at_us":"BIGINT",
    "by":"VARCHAR","why":"VARCHAR","first_day":"VARCHAR","last_day":"VARCHAR","principal":"VARCHAR","relation":"VARCHAR"
    }}]')) AS h);
"""

_SHOWN = "SELECT * REPLACE (printf('%X/%X', lsn >> 32, lsn & 4294967295) AS lsn)"

_VIEWS = """\
CREATE OR REPLACE VIEW events AS {shown} FROM {events};

CREATE OR REPLACE VIEW ddl AS SELECT * FROM events WHERE kind = 'ddl';
CREATE OR REPLACE VIEW statements AS SELECT * FROM events WHERE kind = 'statement';
CREATE OR REPLACE VIEW query_stats AS SELECT * FROM events WHERE kind = 'query_stats';
CREATE OR REPLACE VIEW sessions AS SELECT * FROM events WHERE kind = 'session';
CREATE OR REPLACE VIEW posture AS SELECT * FROM events WHERE kind = 'posture';
CREATE OR REPLACE VIEW decisions AS SELECT * FROM events WHERE kind = 'decision';
CREATE OR REPLACE VIEW control AS SELECT * FROM events WHERE kind = 'control';

CREATE OR REPLACE VIEW alerts AS SELECT * FROM {alerts};

-- Findings of one principal that came within an hour of each other, as they stood when they were last told.
CREATE OR REPLACE VIEW incidents AS
SELECT incident, any_value(cluster) AS cluster, any_value(principal) AS principal,
    any_value(principal_kind) AS principal_kind, min(first_seen) AS first_seen, max(last_seen) AS last_seen,
    count(*) AS findings, sum("count") AS occurrences, max(severity_id) AS severity_id,
    arg_max(severity, severity_id) AS severity, count(*) FILTER (activity <> 'Close') AS still_open,
    list_sort(list_distinct(list(detector))) AS detectors, list(DISTINCT title) AS titles, list(uid) AS uids
FROM (
    SELECT * FROM alerts WHERE incident IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY uid ORDER BY "count" DESC, "time" DESC) = 1
)
GROUP BY incident;

-- How much of what was done is tied to a session, and that to a principal: by cluster and hour (UTC).
CREATE OR REPLACE VIEW coverage AS
SELECT cluster, to_timestamp(floor(epoch(occurred_at) / 3600) * 3600) AS hour, count(*) AS events,
    count(*) FILTER (certainty = 'exact') AS certainty_exact,
    count(*) FILTER (certainty = 'strong') AS certainty_strong,
    count(*) FILTER (certainty = 'weak') AS certainty_weak,
    count(*) FILTER (certainty = 'none') AS certainty_none,
    count(*) FILTER (assurance = 'verified') AS assurance_verified,
    count(*) FILTER (assurance = 'asserted') AS assurance_asserted,
    count(*) FILTER (assurance = 'role_only') AS assurance_role_only,
    count(*) FILTER (assurance = 'none') AS assurance_none,
    count(*) FILTER (kind = 'change') AS changes,
    count(*) FILTER (kind = 'change' AND certainty = 'exact') AS changes_exact,
    -- Rows of covered tables that somebody made the beacon silent for: alerts of their own, and in nobody's share.
    count(*) FILTER (kind = 'change' AND covered AND NOT {named}) AS changes_shadow,
    round(100 * changes_exact / nullif(changes - changes_shadow, 0), 2) AS changes_exact_percent,
    count(*) FILTER (kind = 'ddl') AS ddl,
    count(*) FILTER (kind = 'statement') AS statements,
    count(*) FILTER (kind = 'query_stats') AS query_stats,
    count(*) FILTER (kind = 'session') AS sessions
FROM events
WHERE {activity}
GROUP BY ALL;

{approvals}
{retired}
{settings}{statement_coverage}{reconciliation}
{ocsf}
{questions}
-- Changes with their rows; without the right to read rows/, the first of these two remains.
CREATE OR REPLACE VIEW changes AS
SELECT *, CAST(NULL AS VARCHAR) AS before, CAST(NULL AS VARCHAR) AS after FROM events
WHERE kind = 'change' AND ordinal IS NOT NULL;
CREATE OR REPLACE VIEW changes AS
SELECT e.*, r.before, r.after
FROM events AS e LEFT JOIN {rows} AS r ON r.event_id = e.event_id AND r.dt = e.dt
WHERE e.kind = 'change' AND e.ordinal IS NOT NULL;
"""


def views_sql(root: str = "") -> str:
    """Write the catalogue as SQL for a DuckDB started in the lake's folder, or anywhere when `root` names the lake."""
    return HEAD + _REMOTE * bool(root) + "\n" + variables_empty(root) + "\n" + views() + _LIVE + variables_sql(root)


def views() -> str:
    """Write the views and macros, over files that the variables name."""
    tables = {name: scan(name) for name in TABLES}
    events = tables["events"]
    return _VIEWS.format(
        **tables,
        shown=_SHOWN,
        activity=_ACTIVITY,
        retired=_RETIRED.format(standing=STANDING),
        ocsf=ocsf.views(),
        named=reconciliation.NAMED,
        approvals=approvals.view(events),
        settings=log_coverage.settings(events),
        statement_coverage=log_coverage.coverage(events),
        reconciliation=reconciliation.view(events),
        questions=questions.views(f"({_SHOWN} FROM {scan('events', principal='who')})"),
    )


def scan(table: str, more: str = "", principal: str | None = None) -> str:
    """Write a scan of a table's files, with more options of `read_parquet` when wanted.

    Files with today's columns are read as the first of them says, which opens none but that one; older ones are united
    by the names of their columns. The file that carries the columns is never read for rows: who can write it must not
    be believed for that. With an expression for a principal, files of months that cannot hold it are left out.
    """
    reads = []
    for part in PARTS:
        if part.table == table:
            files = f"getvariable('{part.variable}')"
            if principal is not None and part in BY_BUCKET:
                bucket = f"coalesce(md5_number_lower({principal}) % {BUCKETS_MAX}, 0)::BIGINT"
                files = f"getvariable('{BY_BUCKET[part]}')[1 + {bucket}]"
            days = "false" if part.months else "true, hive_types = {'dt': DATE}"
            united = "union_by_name = true, " if part.older else ""
            # Where there are no months the file without rows stands for them, with whatever day its rows would say.
            rows = f" WHERE NOT contains(filename, '/dt={EMPTY_DAY}/')" if part.months else ""
            reads.append(f"SELECT * FROM read_parquet({files}, {united}hive_partitioning = {days}{more}){rows}")
    return f"(SELECT * FROM ({' UNION ALL BY NAME '.join(reads)}) WHERE dt > DATE '{EMPTY_DAY}')"
