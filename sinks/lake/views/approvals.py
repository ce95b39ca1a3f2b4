"""The view `approvals`: request, decisions, run, rows and drift of each in one line, as SQL for DuckDB."""

from __future__ import annotations

VIEW = """\
-- Statements that had to be approved, one a line: who asked, who decided and why, whether and how it ran, and whether
-- that is what was approved (`drift`: null where nothing speaks against it).
CREATE OR REPLACE VIEW approvals AS
WITH said AS (
    SELECT detail->>'$.approval' AS approval, * FROM {events}
    WHERE kind = 'decision' AND starts_with(operation, 'approval_') AND outcome = 'success'
), decided AS (
    SELECT approval, max(occurred_at) FILTER (operation IN ('approval_approve', 'approval_deny')) AS decided_at,
        list(principal ORDER BY occurred_at) FILTER (operation = 'approval_approve') AS approved_by,
        list(principal ORDER BY occurred_at) FILTER (operation = 'approval_deny') AS denied_by,
        list(detail->>'$.why' ORDER BY occurred_at) FILTER (detail->>'$.why' IS NOT NULL) AS reasons,
        coalesce(bool_or((detail->>'$.break_glass')::BOOLEAN), false) AS break_glass,
        min(occurred_at) FILTER (operation = 'approval_claim') AS claimed_at,
        min(operation) FILTER (operation IN ('approval_expired', 'approval_withdrawn')) AS ended
    FROM said WHERE operation <> 'approval_request' GROUP BY approval
), ran AS (
    SELECT detail->>'$.decision.approval' AS approval, max(occurred_at) AS ran_at,
        arg_max(outcome, (outcome <> 'pending', captured_at)) AS outcome,
        max((detail->>'$.ran.rows')::BIGINT) AS "rows", max((detail->>'$.ran.xid')::BIGINT) AS xid
    FROM {events}
    WHERE kind = 'statement' AND detail->>'$.decision.effect' = 'approve' GROUP BY ALL
), drifted AS (
    SELECT detail->>'$.approval' AS approval, any_value(detail->'$.drift')::VARCHAR[] AS drift,
        any_value((detail->>'$.rows')::BIGINT) AS wal_rows, any_value(detail->'$.others')::VARCHAR[] AS others
    FROM {events} WHERE kind = 'control' AND operation = 'approval_drift' GROUP BY ALL
)
SELECT r.approval, r.occurred_at AS asked_at, r.cluster, r.database, r.principal, r.on_behalf_of,
    r.detail->>'$.intent' AS intent, r.statement, r.relations, (r.detail->>'$.rows')::BIGINT AS rows_approved,
    CASE WHEN d.claimed_at IS NOT NULL THEN 'used' WHEN d.denied_by IS NOT NULL THEN 'denied'
        WHEN d.ended IS NOT NULL THEN substr(d.ended, 10) WHEN d.approved_by IS NOT NULL THEN 'approved' ELSE 'asked'
    END AS state,
    d.approved_by, d.denied_by, d.reasons, coalesce(d.break_glass, false) AS break_glass, d.decided_at, d.claimed_at,
    n.ran_at, n.outcome, n."rows", n.xid, f.drift, f.wal_rows, f.others
FROM said AS r LEFT JOIN decided AS d USING (approval) LEFT JOIN ran AS n USING (approval)
    LEFT JOIN drifted AS f USING (approval)
WHERE r.operation = 'approval_request';
"""


def view(events: str) -> str:
    """Write the view over a scan of the events."""
    return VIEW.format(events=events)
