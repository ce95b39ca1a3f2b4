"""The lake's evidence as events of OCSF 1.8.0: SQL over the view `events`, or over a part of it. Nothing is run here.

Datastore Activity (6005) is what was done, Authentication (3002) who came and went. Detection Findings (2004) are in
the table `alerts` as they went to their topic. An attribute that is null is not there: `to_json` of a row without its
nulls is an event of the standard, and `tests.ocsf` holds it against the published release.
"""

from __future__ import annotations

_PARTS = {
    "metadata": """\
{'version': '1.8.0', 'uid': event_id, 'logged_time': epoch_ms(captured_at), 'log_name': kind,
          'product': {'name': 'pgwitness', 'vendor_name': 'pgwitness'},
          'profiles': CASE WHEN [refused] THEN ['security_control'] END}""",
    # Only the gateway stops anything; what the server itself refuses is no control of ours.
    "refused": """\
(outcome = 'denied' AND binding = 'gateway'
            AND json_extract_string(detail, '$.decision.effect') IN ('deny', 'limit'))""",
    "user": """\
{'name': coalesce(principal, role, 'unknown'), 'uid': role,
            'type_id': CASE principal_kind WHEN 'human' THEN 1 WHEN 'service' THEN 4 WHEN 'agent' THEN 99 ELSE 0 END,
            'type': CASE principal_kind WHEN 'human' THEN 'User' WHEN 'service' THEN 'Service'
                WHEN 'agent' THEN 'AI agent' ELSE 'Unknown' END}""",
    # The standard wants to know from where; statistics do not tell, nor does a local socket.
    "from": """\
{'ip': CASE WHEN [is_address] THEN client_addr END,
          'name': CASE WHEN NOT [is_address] THEN coalesce(nullif(client_addr, ''), 'unknown') END,
          'port': CASE WHEN client_port BETWEEN 1 AND 65535 THEN client_port END}""",
    "is_address": (
        r"coalesce(regexp_matches(client_addr, '^([0-9]+[.]){3}[0-9]+$|^[0-9a-fA-F.]*:[0-9a-fA-F:.]*(%|$)'), false)"
    ),
}

_ACTIVITY = """\
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
        CASE WHEN [refused] THEN 2 END AS action_id, CASE WHEN [refused] THEN 'Denied' END AS action,
        CASE WHEN [refused] THEN 2 END AS disposition_id, CASE WHEN [refused] THEN 'Blocked' END AS disposition,
        [metadata] AS metadata,
        {'user': [user],
          'session': CASE WHEN session_id IS NOT NULL THEN {'uid': session_id} END,
          'app_name': nullif(application, '')} AS actor,
        [from] AS src_endpoint,
        {'name': cluster, 'uid': instance} AS dst_endpoint,
        {'name': database, 'uid': concat_ws('/', cluster, database), 'type_id': 1, 'type': 'Relational'} AS database,
        CASE WHEN len(relations) > 0
            THEN {'name': relations[1], 'uid': concat_ws('/', cluster, database, relations[1])} END AS "table",
        CASE WHEN statement IS NOT NULL
            THEN {'name': operation, 'query_string': statement,
                'uid': coalesce(fingerprint, CAST(query_id AS VARCHAR), event_id)} END AS query_info,
        greatest(coalesce(calls, 1), 1) AS "count",
        {'rows': row_count, 'principal': principal, 'certainty': certainty,
          'assurance': assurance, 'binding': binding, 'on_behalf_of': on_behalf_of,
          'relations': relations, 'xid': xid, 'lsn': lsn, 'ordinal': ordinal} AS unmapped
    FROM [events]
    WHERE kind IN ('change', 'ddl', 'statement', 'query_stats') OR (kind = 'session' AND operation = 'connect')
) AS a"""

_AUTHENTICATION = """\
SELECT a.* REPLACE (3002 * 100 + activity_id AS type_uid) FROM (
    SELECT
        3002 AS class_uid, 'Authentication' AS class_name, 3 AS category_uid,
        'Identity & Access Management' AS category_name,
        CASE operation WHEN 'disconnect' THEN 2 ELSE 1 END AS activity_id,
        0 AS type_uid,
        epoch_ms(occurred_at) AS time,
        CASE operation WHEN 'login_failed' THEN 2 ELSE 1 END AS severity_id,
        CASE operation WHEN 'login_failed' THEN 2 ELSE 1 END AS status_id,
        sqlstate AS status_code,
        [metadata] AS metadata,
        [user] AS user,
        CASE WHEN session_id IS NOT NULL THEN {'uid': session_id} END AS session,
        CASE WHEN auth_method IS NULL THEN 0 WHEN auth_method = 'gss' THEN 2 WHEN auth_method = 'oauth' THEN 6
            WHEN auth_method = 'radius' THEN 10 WHEN auth_method = 'ldap' THEN 12 ELSE 99 END AS auth_protocol_id,
        CASE auth_method WHEN 'gss' THEN 'Kerberos' WHEN 'oauth' THEN 'OAUTH 2.0' WHEN 'radius' THEN 'RADIUS'
            WHEN 'ldap' THEN 'LDAP' ELSE coalesce(auth_method, 'Unknown') END AS auth_protocol,
        [from] AS src_endpoint,
        {'name': cluster, 'uid': instance} AS dst_endpoint,
        {'name': 'PostgreSQL', 'uid': concat_ws('/', cluster, database)} AS service,
        {'principal': principal, 'certainty': certainty, 'assurance': assurance, 'binding': binding,
          'on_behalf_of': on_behalf_of, 'database': database, 'application': nullif(application, '')} AS unmapped
    FROM [events]
    WHERE kind = 'session' AND operation IN ('connect', 'disconnect', 'login_failed')
) AS a"""


def activity(events: str = "events") -> str:
    """Write the query for Datastore Activity over `events`, a view or a query in parentheses with its columns."""
    return _whole(_ACTIVITY, events)


def authentication(events: str = "events") -> str:
    """Write the query for Authentication, likewise."""
    return _whole(_AUTHENTICATION, events)


def views() -> str:
    """Write the views of `views.sql`."""
    return (
        "-- OCSF 1.8.0; an attribute that is null is not there. `to_json` of a row gives the event.\n"
        f"CREATE OR REPLACE VIEW ocsf_datastore_activity AS\n{activity()};\n\n"
        f"CREATE OR REPLACE VIEW ocsf_authentication AS\n{authentication()};\n"
    )


def _whole(query: str, events: str) -> str:
    for name, part in _PARTS.items():  # one may name another that stands behind it
        query = query.replace(f"[{name}]", part)
    return query.replace("[events]", events)
