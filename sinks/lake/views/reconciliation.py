"""The view `reconciliation`: what was committed, compared with who is known to have made it and with what the log says.

SQL for DuckDB. `sinks.sql.catalogue` puts it into `views.sql`; docs/reference/reconciliation.md spells the rules out.
The rule behind the rules: a finding is only what nothing ordinary explains. Whatever is not known (a line that cannot
be read, a table that nobody saw published, a session whose end is not told) leaves a transaction what it is without it.

The search goes from cheap to dear: every transaction's rows are compared with the sum that the log claims, and only
those that differ, or that the log has alone, are looked at line by line.
"""

from __future__ import annotations

SETTLED = "INTERVAL 60 SECOND"
"""How much later evidence must have landed before something counts as missing: lanes land apart from each other."""

NEAR = "INTERVAL 1 MINUTE"
"""How far from its line of pgAudit the line of the same statement at its session's top level may be."""

LONGEST = "INTERVAL 1 DAY"
"""The log has 32 bits of a transaction id; a line further from the commit than this is another transaction's."""

_WRITES = "('insert', 'update', 'delete', 'merge')"
_FAILED = "outcome IN ('failure', 'denied', 'rolled_back')"
_UNDOES = f"({_FAILED} OR operation IN ('rollback', 'rollback_to', 'prepare'))"
_TELLS = "detail->>'$.source' IN ('duration', 'statement')"
_UNREAD = "ordinal IS NULL AND starts_with(detail->>'$.finding', 'unpublished')"
_BARE = r"regexp_replace({}, '^(\"([^\"]|\"\")*\"|[^.\"]+)[.]', '')"

NAMED = (
    "coalesce(binding IN ('beacon', 'gateway', 'replication')"
    " OR binding = 'log' AND certainty IN ('exact', 'strong'), false)"
)
"""That the transaction itself, or a statement with its id, says whose it is."""

_BACKEND = "split_part({}, '/', -1)"
"""A session's start and pid, without the instance: gateway and collectors may reach one server by two names."""

VIEW = (
    r"""
-- What is known of who made each transaction, and whether it agrees with what the log says was done: of days of capture
-- (`dt`) from one to another. `reconciliation` is all of them.
CREATE OR REPLACE MACRO reconciled(first_day, last_day) AS TABLE
WITH wal AS NOT MATERIALIZED (
    SELECT * FROM {events} WHERE kind = 'change' AND dt BETWEEN first_day AND last_day
), line AS NOT MATERIALIZED (
    SELECT * FROM {events} WHERE kind = 'statement' AND dt BETWEEN first_day AND last_day
),
-- Every kind of change that was captured of a table, and from when to when: outside of it nothing is missed.
captured AS (
    SELECT cluster, database, relations[1] AS relation, operation, min(occurred_at) AS since,
        max(occurred_at) AS until
    FROM wal WHERE ordinal IS NOT NULL GROUP BY ALL
), known AS MATERIALIZED (
    SELECT * EXCLUDE (bare), unnest(CASE WHEN alone THEN [relation, bare] ELSE [relation] END) AS name
    FROM (
        SELECT *, [bare_relation] AS bare,
            count(DISTINCT relation) OVER (PARTITION BY cluster, database, bare) = 1 AS alone
        FROM captured)
),
-- By transaction id: the rows that its lines claim of captured tables less those committed, and in bits: 1 a commit,
-- 2 claims of rows, 4 a line that surely wrote, 8 one that undid it. Too many rows count in one table only. One number
-- for a key and few beside it: this is of every transaction.
differing AS MATERIALIZED (
    SELECT tx
    FROM (
        SELECT hash(cluster, database, xid & 4294967295) AS tx,
            CASE WHEN kind = 'change' THEN hash(relations[1]) END AS relation,
            CASE WHEN kind = 'statement'
                    THEN CASE WHEN operation IN [writes] AND relations[1] IN (SELECT name FROM known) THEN row_count END
                WHEN ordinal IS NOT NULL AND operation <> 'truncate' THEN -1 END AS rows,
            CASE WHEN kind = 'change' THEN 1 WHEN [undoes] THEN 8
                WHEN row_count > 0 AND operation IN [writes] THEN 6 WHEN operation = 'insert' THEN 4 ELSE 0
            END::UTINYINT AS bits
        FROM {events} WHERE kind IN ('change', 'statement') AND xid IS NOT NULL AND dt BETWEEN first_day AND last_day
    )
    GROUP BY tx
    HAVING bit_or(bits) & 3 = 3 AND (sum(rows) > 0 OR sum(rows) < 0 AND min(relation) = max(relation))
        OR bit_or(bits) & 13 = 4
),
suspect AS MATERIALIZED (
    SELECT cluster, database, xid & 4294967295 AS xid, max(lsn) AS lsn,
        max(occurred_at) FILTER (kind = 'change') AS committed_at,
        min(occurred_at) AS first_at, max(occurred_at) AS last_at, bool_or([undoes]) AS undone
    FROM {events}
    WHERE kind IN ('change', 'statement') AND xid IS NOT NULL AND dt BETWEEN first_day AND last_day
        AND hash(cluster, database, xid & 4294967295) IN (FROM differing)
    GROUP BY ALL
    HAVING last_at - first_at <= [longest]
),
-- Lines of suspects, read. Plain: an INSERT of VALUES that the log tells at the session's top level.
told AS MATERIALIZED (
    SELECT cluster, database, xid, lsn, committed_at, undone, session_id, occurred_at, operation,
        relations[1] AS target,
        CAST(detail->>'$.line' AS BIGINT) AS place,
        source IN ('duration', 'statement') AND operation = 'insert' AND CAST(detail->'$.operations' AS VARCHAR[]) =
            ['insert'] AND statement ILIKE 'insert %' AND NOT statement ILIKE '%on conflict%'
            AND NOT contains(statement, ';') AS plain,
        CASE WHEN source = 'pgaudit' THEN {
            'class': detail->>'$.audit.class', 'scope': detail->>'$.audit.type',
            'command': lower(detail->>'$.audit.command'), 'object': detail->>'$.audit.object_name',
            'number': concat_ws('/', detail->>'$.audit.statement_id', detail->>'$.audit.substatement_id'),
            'operations': CAST(detail->'$.operations' AS VARCHAR[]), 'fingerprint': fingerprint,
            'statement': statement, 'row_count': row_count} END AS audit
    FROM (
        SELECT s.*, l.session_id, l.occurred_at, l.operation, l.relations, l.statement, l.fingerprint, l.row_count,
            l.detail, l.detail->>'$.source' AS source
        FROM suspect AS s JOIN line AS l ON l.cluster = s.cluster AND l.database = s.database AND l.xid = s.xid
            AND l.occurred_at BETWEEN s.first_at AND s.last_at
    )
),
"""
    r"""
-- pgAudit's claims, one a statement: which relation, which operation, how many rows. Flexible: one that may insert,
-- update or delete as it finds.
audit AS MATERIALIZED (
    SELECT * EXCLUDE (target),
        count(*) OVER (PARTITION BY cluster, database, xid, session_id, number) = 1
            AND scope = 'SESSION' AND statement IS NOT NULL AND fingerprint IS NOT NULL AND row_count IS NOT NULL
            AND command IN ('insert', 'update', 'delete')
            AND (object IS NOT NULL
                OR len(list_filter(operations, lambda x: x IN [writes])) = 1
                AND NOT contains(statement, ';') AND NOT statement ILIKE 'with %') AS readable,
        coalesce(object, target) AS target,
        command = 'insert' AND list_has_any(operations, ['update', 'merge']) OR list_contains(operations, 'merge')
            AS flexible
    FROM (
        SELECT cluster, database, xid, lsn, committed_at, undone, session_id, occurred_at, target, unnest(audit)
        FROM told WHERE audit IS NOT NULL
    )
    WHERE class = 'WRITE' AND command <> 'truncate table'
        AND (row_count > 0 OR row_count IS NULL OR command NOT IN ('insert', 'update', 'delete'))
),
-- pgAudit tells statements inside of functions too, which may be undone there unseen. Direct is what the log tells at
-- the session's top level as well.
top AS (
    SELECT l.cluster, l.session_id, l.fingerprint, l.occurred_at
    FROM line AS l JOIN (SELECT DISTINCT cluster, session_id, fingerprint FROM audit) AS a
        USING (cluster, session_id, fingerprint)
    WHERE l.[tells]
),
claim AS MATERIALIZED (
    SELECT a.*, coalesce(after.occurred_at <= a.occurred_at + [near], false)
        OR coalesce(before.occurred_at >= a.occurred_at - [near], false) AS direct
    FROM audit AS a
    ASOF LEFT JOIN top AS after ON after.cluster = a.cluster AND after.session_id = a.session_id
        AND after.fingerprint = a.fingerprint AND after.occurred_at >= a.occurred_at
    ASOF LEFT JOIN top AS before ON before.cluster = a.cluster AND before.session_id = a.session_id
        AND before.fingerprint = a.fingerprint AND before.occurred_at <= a.occurred_at
),
changed AS (
    SELECT s.cluster, s.database, s.xid, s.lsn, w.relations[1] AS relation,
        count(*) FILTER (w.operation = 'insert') AS inserts, count(*) FILTER (w.operation = 'update') AS updates,
        count(*) FILTER (w.operation = 'delete') AS deletes, count(*) FILTER (w.operation <> 'truncate') AS rows,
        any_value(json_keys(w.row_key)) AS key
    FROM (FROM suspect WHERE lsn IS NOT NULL) AS s JOIN wal AS w ON w.cluster = s.cluster
        AND w.database = s.database AND w.lsn = s.lsn AND w.xid % 4294967296 = s.xid
    WHERE w.ordinal IS NOT NULL GROUP BY ALL
),
claimed AS (
    SELECT c.cluster, c.database, c.xid, c.lsn, coalesce(w.relation, c.target) AS relation,
        sum(c.row_count) FILTER (NOT c.flexible AND c.command = 'insert') AS inserts,
        sum(c.row_count) FILTER (NOT c.flexible AND c.command = 'update') AS updates,
        sum(c.row_count) FILTER (NOT c.flexible AND c.command = 'delete') AS deletes,
        sum(c.row_count) FILTER (c.flexible) AS flexible, sum(c.row_count) AS rows,
        -- Whether a column of the key may be set: what comes before the last WHERE names it.
        bool_or(len(list_filter(w.key, lambda x: regexp_matches(
            regexp_replace(c.statement, '(?is)^(.*)\swhere\s.*$', '\1'), '\b' || regexp_escape(x) || '\b'))) > 0
        ) AS rekeyed,
        bool_and(k.relation IS NOT NULL OR c.flexible AND w.relation IS NOT NULL) AS published
    FROM claim AS c
    LEFT JOIN changed AS w ON w.cluster = c.cluster AND w.database = c.database AND w.xid = c.xid AND w.lsn = c.lsn
        AND (w.relation = c.target OR [bare_changed] = c.target)
    LEFT JOIN known AS k ON k.cluster = c.cluster AND k.database = c.database AND k.operation = c.command
        AND k.name = c.target AND k.since <= c.committed_at AND k.until >= c.committed_at
    GROUP BY ALL
),
-- By relation: is there a number of rows that moved between partitions (an update then is a delete and an insert) with
-- which everything adds up? What is too much may be a foreign key's doing, of which pgAudit tells only where the
-- table's owner is who writes: it updates and deletes after a delete or a changed key, and never inserts.
compared AS (
    SELECT cluster, database, xid, lsn, said, done, absent, published, NOT agrees AND done < said AS fewer,
        NOT agrees AND done > said
            AND (m_i > n_i + flexible + least(n_u + flexible, m_d) OR n_d + flexible = 0 AND NOT rekeyed) AS more
    FROM (
        SELECT cluster, database, xid, lsn, n.rows AS said, coalesce(m.rows, 0) AS done, m.relation IS NULL AS absent,
            n.published, coalesce(n.rekeyed, false) AS rekeyed, coalesce(n.flexible, 0) AS flexible,
            coalesce(n.inserts, 0) AS n_i, coalesce(n.updates, 0) AS n_u, coalesce(n.deletes, 0) AS n_d,
            coalesce(m.inserts, 0) AS m_i, coalesce(m.updates, 0) AS m_u, coalesce(m.deletes, 0) AS m_d,
            done - said BETWEEN 0 AND n_u + flexible AND m_i >= n_i + (done - said) AND m_d >= n_d + (done - said)
                AND m_u >= n_u - (done - said) AS agrees
        FROM claimed AS n LEFT JOIN changed AS m USING (cluster, database, xid, lsn, relation)
    )
),
newest AS (SELECT cluster, database, max(until) AS change_at FROM known GROUP BY ALL),
heard AS (SELECT cluster, max(occurred_at) AS line_at FROM line GROUP BY ALL),
mismatch AS MATERIALIZED (
    SELECT r.cluster, r.database, r.xid, r.lsn, r.said, r.done
    FROM (
        SELECT cluster, database, xid, lsn, sum(said) AS said, sum(done) AS done, count(*) AS claimed,
            bool_or(more) AS more, bool_or(fewer) AS fewer, bool_or(absent) AS absent, bool_and(published) AS published
        FROM compared GROUP BY ALL
    ) AS r JOIN (
        SELECT cluster, database, xid, lsn, any_value(committed_at) AS committed_at,
            bool_and(readable AND direct) AS whole, bool_or(undone) AS undone
        FROM claim GROUP BY ALL
    ) AS c USING (cluster, database, xid, lsn)
    JOIN (SELECT cluster, database, xid, lsn, count(*) AS changed FROM changed GROUP BY ALL) AS w
        USING (cluster, database, xid, lsn)
    JOIN newest USING (cluster, database) JOIN heard USING (cluster)
    WHERE c.whole AND line_at >= c.committed_at + [settled] AND change_at >= c.committed_at + [settled]
        -- Too much in one of several tables may be a trigger's on another.
        AND (r.more AND r.claimed = 1 AND w.changed = 1 AND NOT r.absent
            OR r.fewer AND NOT r.more AND r.published AND NOT c.undone)
        -- What is neither a plain write nor the frame of a transaction may run functions, or make tables.
        AND NOT EXISTS (
            SELECT 1 FROM told AS t WHERE t.cluster = r.cluster AND t.database = r.database AND t.xid = r.xid
                AND t.lsn = r.lsn AND NOT coalesce(t.operation IN [writes] OR t.operation IN ('begin', 'start',
                    'commit', 'savepoint', 'release', 'rollback_to', 'truncate', 'truncate_table'), false))
        AND NOT EXISTS (
            SELECT 1 FROM {events} AS d WHERE d.kind = 'ddl' AND d.cluster = r.cluster AND d.database = r.database
                AND d.lsn = r.lsn AND d.dt BETWEEN first_day AND last_day)
),
"""
    r"""
-- Statements with a transaction id that no commit has. One that certainly wrote: a plain INSERT of VALUES, or one whose
-- rows pgAudit counted, which the log tells at the top level; into a table whose changes of that operation were
-- captured before and after it.
absent AS MATERIALIZED (
    SELECT t.cluster, t.database, t.xid, any_value(t.session_id) AS session_id, any_value(l.place) AS place,
        max(t.occurred_at) AS last_at, list_sort(list_distinct(list(k.relation))) AS relations
    FROM (
        SELECT cluster, database, xid, session_id, occurred_at, 'insert' AS did, target
        FROM told WHERE lsn IS NULL AND plain
        UNION ALL
        SELECT cluster, database, xid, session_id, occurred_at, command, target
        FROM claim WHERE lsn IS NULL AND readable AND direct AND NOT flexible
    ) AS t JOIN known AS k ON k.cluster = t.cluster AND k.database = t.database AND k.operation = t.did
        AND k.name = t.target
        AND k.since < t.occurred_at AND k.until >= t.occurred_at + [settled]
    JOIN (
        SELECT cluster, database, xid, session_id, max(place) AS place FROM told WHERE lsn IS NULL GROUP BY ALL
    ) AS l ON l.cluster = t.cluster AND l.database = t.database AND l.xid = t.xid AND l.session_id = t.session_id
    GROUP BY t.cluster, t.database, t.xid
),
-- What each of their sessions did next: a commit, something that undid it, or another transaction. Line numbers count
-- the lines of one session; two lines of one millisecond have no other order.
step AS (
    SELECT l.cluster, l.session_id, l.operation, l.xid, [failed] AS failed, CAST(l.detail->>'$.line' AS BIGINT) AS place
    FROM line AS l JOIN (SELECT DISTINCT cluster, session_id FROM absent) USING (cluster, session_id)
    WHERE l.xid IS NOT NULL OR [failed]
        OR l.operation IN ('begin', 'start', 'commit', 'rollback', 'prepare')
), ended AS (
    SELECT a.*, coalesce(s.operation = 'commit', false) AS committed,
        s.operation IN ('begin', 'start') OR s.operation NOT IN ('rollback', 'prepare') AND s.xid <> a.xid AS passed
    FROM absent AS a ASOF JOIN (FROM step WHERE place IS NOT NULL AND operation IS NOT NULL) AS s
        ON s.cluster = a.cluster AND s.session_id = a.session_id AND s.place > a.place
    WHERE NOT s.failed
),
-- When nobody read the WAL: from the last change before a gap up to it.
blind AS (
    SELECT g.cluster, g.database, g.occurred_at AS until, max(w.occurred_at) AS since
    FROM {events} AS g LEFT JOIN wal AS w ON w.cluster = g.cluster
        AND (g.database IS NULL OR w.database = g.database) AND w.occurred_at < g.occurred_at
    WHERE g.kind = 'gap' AND g.dt BETWEEN first_day AND last_day
        AND NOT regexp_matches(g.operation, '^(stats|sessions|log|posture)_')
    GROUP BY ALL
),
phantom AS MATERIALIZED (
    SELECT e.* FROM ended AS e
    WHERE (e.committed OR e.passed AND EXISTS (
            SELECT 1 FROM log_settings AS s WHERE s.cluster = e.cluster AND s.everything
                AND e.last_at >= s.since AND e.last_at < s.until))
        AND NOT EXISTS (
            SELECT 1 FROM blind AS b WHERE b.cluster = e.cluster AND (b.database IS NULL OR b.database = e.database)
                AND (b.since IS NULL OR b.since <= e.last_at) AND e.last_at <= b.until)
        AND NOT EXISTS (
            SELECT 1 FROM line AS l WHERE l.cluster = e.cluster AND l.session_id = e.session_id
                AND l.operation = 'create_table'
                AND list_has_any(l.relations, list_transform(e.relations, lambda x: [bare_x])))
),
-- Which sessions came through a gateway, and since when each database is known to have one. A session has a statement
-- on each day on which it changes anything, also where it came on another.
gateway AS MATERIALIZED (
    SELECT DISTINCT hash(cluster, [backend]) AS session FROM {events}
    WHERE binding = 'gateway' AND kind IN ('session', 'statement') AND session_id IS NOT NULL
        AND dt BETWEEN first_day AND last_day
), served AS MATERIALIZED (
    SELECT hash(cluster, database) AS place, min(occurred_at) AS since FROM {events}
    WHERE binding = 'gateway' AND kind IN ('session', 'statement') AND dt BETWEEN first_day AND last_day
    GROUP BY ALL
)
SELECT h.cluster, h.database, g.xid, printf('%X/%X', g.lsn >> 32, g.lsn & 4294967295) AS lsn, h.occurred_at,
    CASE WHEN g.unread THEN 'unpublished' WHEN m.said IS NOT NULL THEN 'count_mismatch'
        WHEN g.past THEN 'shadow_write' WHEN g.sure THEN 'attributed' ELSE 'weak' END AS status,
    g.rows, g.relations, h.principal, h.binding, h.certainty, h.assurance, h.role, h.session_id, g.inserts, g.updates,
    g.deletes, g.truncates, CASE WHEN g.unread THEN g.beacon_rows ELSE m.said END AS claimed_rows,
    CASE WHEN h.binding = 'gateway' OR h.session IN (SELECT session FROM gateway) THEN true
        -- What came before the gateway has not gone around it, and only a beacon names a backend beyond doubt.
        WHEN h.binding = 'beacon' AND h.occurred_at >= served.since THEN false END AS through_gateway
FROM (
    SELECT hash(cluster, database) AS place, xid, lsn, occurred_at, min(coalesce(ordinal, -1)) AS first,
        count(ordinal) AS rows,
        list_sort(list_distinct(flatten(list(relations)))) AS relations,
        bool_or(coalesce(covered, false) AND NOT [named]) AS past,
        bool_and(certainty IN ('exact', 'strong')) AS sure,
        coalesce(bool_or([unread]), false) AS unread, sum(row_count) FILTER ([unread]) AS beacon_rows,
        count(ordinal) FILTER (operation = 'insert') AS inserts,
        count(ordinal) FILTER (operation = 'update') AS updates,
        count(ordinal) FILTER (operation = 'delete') AS deletes,
        count(ordinal) FILTER (operation = 'truncate') AS truncates
    -- A server that was put back to what it was gives ids and positions again, at another time.
    FROM wal GROUP BY place, xid, lsn, occurred_at
) AS g
-- What a transaction's rows share is read from its first: to gather it from all would take twice the memory.
JOIN (
    SELECT *, hash(cluster, database) AS place, coalesce(ordinal, -1) AS first, hash(cluster, [backend]) AS session
    FROM wal
    -- Of a transaction whose beacon names several relations that are not in the stream, one row is enough.
    WHERE ordinal IS NOT NULL OR event_id IN (
        SELECT min(event_id) FROM wal WHERE ordinal IS NULL GROUP BY cluster, database, xid, lsn, occurred_at)
) AS h USING (place, xid, lsn, occurred_at, first)
LEFT JOIN mismatch AS m ON m.cluster = h.cluster AND m.database = h.database AND m.lsn = g.lsn
LEFT JOIN served ON served.place = h.place
UNION ALL
SELECT p.cluster, p.database, p.xid, NULL, p.last_at, 'phantom', 0, p.relations, any_value(l.principal),
    any_value(l.binding), any_value(l.certainty), any_value(l.assurance), any_value(l.role), p.session_id,
    0, 0, 0, 0, sum(l.row_count) FILTER (l.operation IN [writes]), NULL
FROM phantom AS p JOIN line AS l ON l.cluster = p.cluster AND l.database = p.database AND l.xid = p.xid
    AND l.session_id = p.session_id
GROUP BY p.cluster, p.database, p.xid, p.last_at, p.relations, p.session_id;

CREATE OR REPLACE VIEW reconciliation AS FROM reconciled(DATE '1970-01-01', DATE '9999-12-31');
"""
)
"""`{events}` is the scan of the table; words in brackets are filled in by `view`."""


def view(events: str) -> str:
    """Write the macro and the view over a scan of `events`; the view `log_settings` must be there."""
    words = {
        "writes": _WRITES,
        "undoes": _UNDOES,
        "failed": _FAILED,
        "tells": _TELLS,
        "named": NAMED,
        "settled": SETTLED,
        "near": NEAR,
        "longest": LONGEST,
        "unread": _UNREAD,
        "backend": _BACKEND.format("session_id"),
        "bare_relation": _BARE.format("relation"),
        "bare_changed": _BARE.format("w.relation"),
        "bare_x": _BARE.format("x"),
    }
    text = VIEW.replace("{events}", events)
    for word, meaning in words.items():
        text = text.replace(f"[{word}]", meaning)
    return text
