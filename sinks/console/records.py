"""The page *Records*: everything that touched one record, with its images as they were masked."""

from __future__ import annotations

from sinks.console.reader import Answer, Reader, Row

SHOWN = 300
_TOUCHED = """
SELECT occurred_at, how, operation, principal, principal_kind, on_behalf_of, role, application, client_addr, certainty,
    assurance, outcome, statement, row_key, changed, event_id, dt
FROM touched($1, $2)"""
_IMAGES = """
SELECT event_id, before, after FROM changes
WHERE dt BETWEEN $1::DATE AND $2::DATE AND list_contains($3::VARCHAR[], event_id)"""


def touched(reader: Reader, relation: str, key: str) -> Answer:
    """List what touched a record, the oldest first.

    Raise `NotInOrder` when no event names the relation, with those that come near.
    """
    return reader.ask(_TOUCHED, relation, key, rows_max=SHOWN)


def images(reader: Reader, rows: list[Row]) -> dict[str, Row]:
    """Give the images of changed rows by the ids of their events; none where `rows/` may not be read."""
    changed = [row for row in rows if row["how"] == "changed"]
    if not changed:
        return {}
    days = [row["dt"] for row in changed]
    ids = [row["event_id"] for row in changed]
    return {row["event_id"]: row for row in reader.rows(_IMAGES, min(days), max(days), ids)}
