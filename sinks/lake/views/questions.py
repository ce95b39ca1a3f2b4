"""The views and macros that answer what auditors ask: who touched, accessed, logged in; what was found and missed.

SQL for DuckDB over the views of `sinks.lake.views.views`, which puts it into `views.sql`. One action shows in several
sources (the WAL has a row, the log its statement, statistics its count): here each access and each session stands once.
docs/how-to/answer-an-auditor.md asks with them.
"""

from __future__ import annotations

TIME_US_MAX = 253_402_300_799_999_999
"""The end of the year 9999."""
_ALIKE = (
    r"jaro_winkler_similarity(lower(regexp_extract(name, '[^.]*$')), lower(regexp_extract(relation, '[^.]*$')))"
    " + jaro_winkler_similarity(lower(name), lower(relation))"
)

_WORDS = "CAST(detail->'$.operations' AS VARCHAR[])"
_READS = (
    "(kind = 'statement' OR kind = 'query_stats' AND detail->>'$.seen_as' IS NULL)"
    " AND detail->>'$.settles' IS NULL"
    f" AND list_has_any(coalesce({_WORDS}, [operation]), ['select', 'copy_to', 'fetch', 'create_table_as'])"
    f" AND (NOT list_contains(coalesce({_WORDS}, [operation]), 'explain') OR list_contains({_WORDS}, 'select'))"
)
"""What reads. Statistics count what the log already told: then `seen_as` says so. A first event that was `pending`
stands for the statement, what settles it does not count again."""

_JOINS = (
    "(kind = 'statement' OR kind = 'query_stats' AND detail->>'$.seen_as' IS NULL)"
    f" AND detail->>'$.settles' IS NULL AND len(relations) > 1 AND NOT ({_READS})"
    f" AND list_has_any(coalesce({_WORDS}, [operation]), ['update', 'delete', 'merge'])"
)
"""What writes the first of its relations and reads the others: UPDATE … FROM, DELETE … USING, MERGE … USING."""
_SINCE = "coalesce(detail->>'$.since_us', detail->>'$.from_us')"
_UNTIL = "coalesce(detail->>'$.until_us', detail->>'$.to_us')"


def _instant(text: str) -> str:
    """Read microseconds; what is no time is none, and must not keep anybody from seeing the other gaps."""
    return (
        f"CASE WHEN try_cast({text} AS BIGINT) BETWEEN 0 AND {TIME_US_MAX}"
        f" THEN make_timestamptz(try_cast({text} AS BIGINT)) END"
    )


_WHO_RANK = "CASE assurance WHEN 'verified' THEN 0 WHEN 'asserted' THEN 1 WHEN 'role_only' THEN 2 ELSE 3 END"
_WHO = (
    "arg_min({'principal': principal, 'kind': principal_kind, 'behalf': on_behalf_of, 'assurance': assurance},"
    f" CASE WHEN principal IS NULL THEN 4 ELSE {_WHO_RANK} END * {10**17} + epoch_us(occurred_at))"
)
"""Of several sources the one that is surest who it was, whole: what one vouches for is not said of another's name."""
_KEY = "CAST(key AS VARCHAR)"
_IS_OBJECT = f"coalesce(json_type(try_cast({_KEY} AS JSON)) = 'OBJECT', false)"
_OBJECT = f"CASE WHEN {_IS_OBJECT} THEN {_KEY} END"
_SAME_KEY = (
    f"CASE WHEN {_IS_OBJECT} THEN json_contains(row_key, {_OBJECT})"
    f" ELSE json_extract_string(row_key, '$.*') = [{_KEY}] END"
)


def _part(value: str) -> str:
    return f"strlen({value}) || ':' || {value} || ','"


_POINTER = "'/' || replace(replace(name, '~', '~0'), '/', '~1')"
_MEMBER = f"json_extract_string({_KEY}, {_POINTER})"
_POINTED = f"json_extract({_KEY}, {_POINTER})"
_MEMBERS = f"array_to_string(list_transform(list_sort(json_keys({_KEY})), lambda name: {_part(_MEMBER)}), '')"
_PLAIN = """'-?[1-9][0-9]*|0|"[A-Za-z0-9_-]*"'"""
_VALUES = f"list_transform(json_keys({_OBJECT}), lambda name: CAST({_POINTED} AS VARCHAR))"
_LONGEST = (
    f"substr(list_sort(list_transform(list_filter({_VALUES}, lambda one: regexp_full_match(one, {_PLAIN})),"
    " lambda one: printf('%09d', strlen(one)) || one), 'DESC')[1], 10)"
)
_HAS_LONGEST = " OR ".join(f"contains(row_key, coalesce(':' || {_LONGEST} || '{end}', ''))" for end in ",}")
"""The longest of an object's values stands in a key as it is asked for, whole. DuckDB asks `contains` while it reads,
so that of other rows nothing is read but the key; it asks `json_contains` when all columns have been read."""
_WHOLE = f"md5_number_lower({_part('relation')})"
RECORD = f"md5_number_lower({_part('relation')} || CASE WHEN {_IS_OBJECT} THEN {_MEMBERS} ELSE {_part(_KEY)} END)"
"""The numbers of a relation and of one of its records, as `sinks.lake.rows.touch` gives them to rows when they land."""

VIEWS = """
-- What is missing, one row a gap: why, and from when until when where the source knows.
CREATE OR REPLACE VIEW gaps AS
SELECT *, detail->>'$.reason' AS reason,
    -- A gap that says only when it ended stands where it began.
    coalesce({gap_since}, CASE WHEN {gap_until} > occurred_at THEN occurred_at END) AS missing_from,
    coalesce({gap_until}, occurred_at) AS missing_until
FROM events WHERE kind = 'gap';

-- Findings as they were last told, one row each: `alerts` has a row for each time that one was raised or counted.
CREATE OR REPLACE VIEW findings AS
SELECT * FROM alerts
QUALIFY row_number() OVER (PARTITION BY uid ORDER BY "count" DESC, "time" DESC, captured_at DESC) = 1;

-- Sessions, one row each, whichever sources saw them: `sessions` has a row for each source, and for coming and going.
CREATE OR REPLACE VIEW logins AS
SELECT coalesce(session_id, event_id) AS session_id, arg_min(cluster, occurred_at) AS cluster,
    arg_min(instance, occurred_at) AS instance, arg_min(database, occurred_at) AS database,
    {who}.principal AS principal, {who}.kind AS principal_kind, {who}.behalf AS on_behalf_of,
    {who}.assurance AS assurance, arg_min(role, occurred_at) AS role,
    -- A client may name itself anew at any time: the first name is what it logged in with.
    arg_min(application, occurred_at) AS application, arg_min(client_addr, occurred_at) AS client_addr,
    arg_min(auth_method, occurred_at) AS auth_method,
    min(occurred_at) FILTER (operation <> 'disconnect') AS opened,
    -- A look at the sessions finds out that one is gone only some time after it went.
    coalesce(min(occurred_at) FILTER (operation = 'disconnect' AND binding = 'log'),
        min(occurred_at) FILTER (operation = 'disconnect')) AS closed,
    CASE WHEN bool_or(operation = 'login_failed') THEN 'denied' ELSE 'success' END AS outcome,
    arg_min(sqlstate, occurred_at) AS sqlstate, list_sort(list_distinct(list(binding))) AS seen_by,
    list_sort(list(event_id)) AS event_ids, min(dt) AS dt
FROM events
WHERE kind = 'session' AND operation IN ('connect', 'disconnect', 'login_failed')
GROUP BY 1;

-- Accesses to relations, one row each: what was changed by the WAL (a row a transaction, relation and operation), what
-- was read or refused by the log, and by statistics where the log did not tell it (`accesses` counts them). A write
-- that the log tells shows in the WAL too: it stands here once, unless it was refused or undone.
CREATE OR REPLACE VIEW accesses AS
SELECT max(occurred_at) AS occurred_at, operation AS access, relations[1] AS relation, count(*) AS n_rows,
    1::HUGEINT AS accesses, cluster, database, principal, principal_kind, on_behalf_of, role, client_addr, application,
    session_id, certainty, assurance, 'success' AS outcome, min(event_id) AS event_id, min(dt) AS dt
FROM events WHERE kind = 'change' AND ordinal IS NOT NULL AND operation <> 'truncate'
GROUP BY operation, relations[1], cluster, database, principal, principal_kind, on_behalf_of, role, client_addr,
    application, session_id, certainty, assurance, xid, lsn
UNION ALL
SELECT occurred_at, operation, unnest(relations), NULL, 1, cluster, database, principal, principal_kind,
    on_behalf_of, role, client_addr, application, session_id, certainty, assurance, outcome, event_id, dt
FROM events WHERE kind = 'change' AND operation = 'truncate'
UNION ALL
SELECT occurred_at, access, unnest(relations), row_count, coalesce(calls, 1), cluster, database, principal,
    principal_kind, on_behalf_of, role, client_addr, application, session_id, certainty, assurance, outcome, event_id,
    dt
FROM (
    SELECT *, CASE WHEN {reads} THEN 'read' ELSE operation END AS access FROM events
    WHERE kind IN ('statement', 'query_stats')
)
WHERE access = 'read' OR kind = 'statement' AND detail->>'$.settles' IS NULL
    AND outcome IN ('denied', 'rolled_back', 'failure')
    AND operation IN ('insert', 'update', 'delete', 'merge', 'truncate', 'copy_from')
UNION ALL
-- UPDATE … FROM, DELETE … USING and MERGE read all but their first relation.
SELECT occurred_at, 'read', unnest(relations[2:]), NULL, coalesce(calls, 1), cluster, database, principal,
    principal_kind, on_behalf_of, role, client_addr, application, session_id, certainty, assurance, outcome, event_id,
    dt
FROM events WHERE {joins};

-- Every event that touched one record, and under `how` in which way: `changed`; `all_rows` (a truncate touches every
-- record, and so does dropping the table); `may_have_read`: a statement read the relation, and as literals are not
-- kept, nobody knows which of its rows. What was refused read nothing. `key` is the value of a key of one column, or a
-- JSON object of the key's columns (of text, the token: `pgwitness token COLUMN`). An update that changed the key
-- touched two records. A relation that no event names is an error, and so is a principal below: nothing found is not
-- nothing done.
CREATE OR REPLACE MACRO touched(relation, key) AS TABLE
WITH known AS MATERIALIZED (
    SELECT count(*) > 0 AS found FROM (SELECT 1 FROM events WHERE list_contains(relations, relation) LIMIT 1)
), near AS MATERIALIZED (
    SELECT string_agg(name, ', ' ORDER BY alike DESC, name) AS names FROM (
        SELECT name, {alike} AS alike
        FROM (SELECT DISTINCT unnest(relations) AS name FROM events WHERE NOT (SELECT found FROM known))
        ORDER BY alike DESC, name LIMIT 3)
), checked AS MATERIALIZED (
    SELECT CASE WHEN found THEN true ELSE error('no event names the relation ' || coalesce(relation, 'NULL')
        || '; those that come near: ' || coalesce(names, 'none')) END AS named
    FROM known, near
)
SELECT found.* FROM (
    -- Each branch has conditions of the form `column = value`: by these row groups are passed over, and rows before
    -- their other columns are read. With IN or OR they are not.
    SELECT *, 'changed' AS how FROM events WHERE kind = 'change' AND touch = {record} AND {same_key}
    UNION ALL
    SELECT *, 'changed' FROM events WHERE kind = 'change' AND touch_before = {record}
    UNION ALL
    -- An object may have part of a key, which has no number of its own.
    SELECT *, 'changed' FROM events
    WHERE {is_object} AND kind = 'change' AND events.relation = relation
        AND ({has_longest}) AND json_contains(row_key, {object})
        AND schema_version >= 4 AND touch IS DISTINCT FROM {record} AND touch_before IS DISTINCT FROM {record}
    UNION ALL
    SELECT *, 'all_rows' FROM events WHERE kind = 'change' AND operation = 'truncate' AND touch = {whole}
    UNION ALL
    -- Rows that landed before there were numbers.
    SELECT *, CASE WHEN operation = 'truncate' THEN 'all_rows' ELSE 'changed' END FROM events
    WHERE schema_version < 4 AND kind = 'change' AND list_contains(relations, relation)
        AND (operation = 'truncate' OR {same_key})
    UNION ALL
    SELECT *, 'all_rows' FROM events
    WHERE kind = 'ddl' AND operation = 'DROP TABLE' AND list_contains(relations, relation)
    UNION ALL
    SELECT *, 'may_have_read' FROM events
    WHERE kind = 'statement' AND list_contains(relations, relation) AND outcome <> 'denied'
        AND ({reads} OR {joins} AND list_contains(relations[2:], relation))
    UNION ALL
    SELECT *, 'may_have_read' FROM events
    WHERE kind = 'query_stats' AND list_contains(relations, relation) AND outcome <> 'denied'
        AND ({reads} OR {joins} AND list_contains(relations[2:], relation))
) AS found, checked WHERE named
ORDER BY occurred_at, xid, ordinal;

-- Everything that somebody did, or that was done on their behalf. Two branches: with one condition that has an OR, no
-- row group of a sorted file could be passed over.
CREATE OR REPLACE MACRO timeline(who) AS TABLE
WITH known AS MATERIALIZED (
    SELECT (SELECT count(*) FROM (SELECT 1 FROM {events_of_who} WHERE principal = who LIMIT 1))
        + (SELECT count(*) FROM (SELECT 1 FROM events WHERE on_behalf_of = who LIMIT 1)) > 0 AS found
), near AS MATERIALIZED (
    SELECT string_agg(name, ', ' ORDER BY alike DESC, name) AS names FROM (
        SELECT name, jaro_winkler_similarity(lower(name), lower(who)) AS alike
        FROM (SELECT DISTINCT unnest([principal, on_behalf_of]) AS name FROM events
            WHERE NOT (SELECT found FROM known))
        WHERE name IS NOT NULL ORDER BY alike DESC, name LIMIT 3)
), checked AS MATERIALIZED (
    SELECT CASE WHEN found THEN true ELSE error('no event is of ' || coalesce(who, 'NULL')
        || ' or for them; those that come near: ' || coalesce(names, 'none')) END AS named
    FROM known, near
)
SELECT done.* FROM (
    SELECT * FROM {events_of_who} WHERE principal = who
    UNION ALL
    SELECT * FROM events WHERE on_behalf_of = who AND principal IS DISTINCT FROM who
) AS done, checked WHERE named
ORDER BY occurred_at, xid, ordinal;
"""


def views(events_of_who: str) -> str:
    """Write the views and macros; `events_of_who` is a scan that has at least the events of the principal `who`."""
    return VIEWS.format(
        alike=_ALIKE,
        reads=_READS,
        joins=_JOINS,
        events_of_who=events_of_who,
        gap_since=_instant(_SINCE),
        gap_until=_instant(_UNTIL),
        who=_WHO,
        record=RECORD,
        whole=_WHOLE,
        is_object=_IS_OBJECT,
        object=_OBJECT,
        has_longest=_HAS_LONGEST,
        same_key=_SAME_KEY,
    )
