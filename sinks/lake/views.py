"""The views and macros of the contract, as SQL over plain Parquet files; nothing is run here.

`views_sql` is the whole of them, for any DuckDB started in the lake's folder; the lake keeps it as `views.sql`. What
needs the folder `rows/` comes last, so that who may not read row images has everything else.
"""

from __future__ import annotations

from sinks.lake import log_coverage, questions, reconciliation
from sinks.lake.layout import BUCKETS_MAX
from sinks.lake.listing import BY_BUCKET, EMPTY_DAY, PARTS, variables_empty, variables_sql
from sinks.lake.schema import TABLES

HEAD = """\
-- The views of pgwitness on an evidence lake, for DuckDB started in the lake's folder: duckdb -init views.sql
-- Written by pgwitness; changes to this file are overwritten.

-- The cache of footers is outside of the memory limit: a lake of many files would fill the memory by it.
SET parquet_metadata_cache = false;

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

_IS_ADDRESS = (
    r"coalesce(regexp_matches(client_addr, '^([0-9]+[.]){3}[0-9]+$|^[0-9a-fA-F.]*:[0-9a-fA-F:.]*(%|$)'), false)"
)

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

{settings}{statement_coverage}{reconciliation}
-- OCSF 1.8.0, Datastore Activity (6005); an attribute that is null is not there. `to_json` of a row gives the event.
CREATE OR REPLACE VIEW ocsf_datastore_activity AS
SELECT a.* REPLACE (6005 * 100 + activity_id AS type_uid) FROM (
    SELECT
        6005 AS class_uid, 'Datastore Activity' AS class_name, 6 AS category_uid,
        'Application Activity' AS category_name,
        CASE
            WHEN kind = 'session' THEN 3
            WHEN operation IN ('insert', 'merge', 'copy') THEN 5
            WHEN operation = 'update' THEN 2
            WHEN operation IN ('delete', 'truncate') THEN 7
            WHEN operation = 'select' THEN 1
            WHEN kind = 'ddl' AND operation LIKE 'CREATE%' THEN 6
            WHEN kind = 'ddl' AND operation LIKE 'DROP%' THEN 7
            WHEN kind = 'ddl' THEN 2
            ELSE 4
        END AS activity_id,
        0 AS type_uid,
        epoch_ms(occurred_at) AS time,
        1 AS severity_id,
        CASE outcome WHEN 'success' THEN 1 WHEN 'unknown' THEN 0 WHEN 'pending' THEN 0 ELSE 2 END AS status_id,
        sqlstate AS status_code,
        {{'version': '1.8.0', 'uid': event_id, 'logged_time': epoch_ms(captured_at), 'log_name': kind,
          'product': {{'name': 'pgwitness', 'vendor_name': 'pgwitness'}}}} AS metadata,
        {{'user': {{'name': coalesce(principal, role, 'unknown'), 'uid': role,
            'type_id': CASE principal_kind WHEN 'human' THEN 1 WHEN 'service' THEN 4 WHEN 'agent' THEN 99 ELSE 0 END,
            'type': CASE principal_kind WHEN 'human' THEN 'User' WHEN 'service' THEN 'Service'
                WHEN 'agent' THEN 'AI agent' ELSE 'Unknown' END}},
          'session': CASE WHEN session_id IS NOT NULL THEN {{'uid': session_id}} END,
          'app_name': nullif(application, '')}} AS actor,
        -- The standard wants to know from where; statistics do not tell, nor does a local socket.
        {{'ip': CASE WHEN {is_address} THEN client_addr END,
          'name': CASE WHEN NOT {is_address} THEN coalesce(nullif(client_addr, ''), 'unknown') END,
          'port': CASE WHEN client_port BETWEEN 1 AND 65535 THEN client_port END}} AS src_endpoint,
        {{'name': cluster, 'uid': instance}} AS dst_endpoint,
        {{'name': database, 'uid': concat_ws('/', cluster, database), 'type_id': 1, 'type': 'Relational'}} AS database,
        CASE WHEN len(relations) > 0
            THEN {{'name': relations[1], 'uid': concat_ws('/', cluster, database, relations[1])}} END AS "table",
        CASE WHEN statement IS NOT NULL
            THEN {{'name': operation, 'query_string': statement,
                'uid': coalesce(fingerprint, CAST(query_id AS VARCHAR), event_id)}} END AS query_info,
        greatest(coalesce(calls, 1), 1) AS "count",
        {{'rows': row_count, 'principal': principal, 'certainty': certainty,
          'assurance': assurance, 'binding': binding, 'on_behalf_of': on_behalf_of,
          'relations': relations, 'xid': xid, 'lsn': lsn, 'ordinal': ordinal}} AS unmapped
    FROM events
    WHERE kind IN ('change', 'ddl', 'statement', 'query_stats') OR (kind = 'session' AND operation = 'connect')
) AS a;

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
        is_address=_IS_ADDRESS,
        named=reconciliation.NAMED,
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
            reads.append(f"SELECT * FROM read_parquet({files}, {united}hive_partitioning = {days}{more})")
    return f"(SELECT * FROM ({' UNION ALL BY NAME '.join(reads)}) WHERE dt > DATE '{EMPTY_DAY}')"
