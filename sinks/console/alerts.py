"""The inbox of alerts by incident, and one alert with what speaks for it. Reads the lake's findings and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import msgspec

from sinks.console.now import UNDECIDED
from sinks.console.reader import Reader, Row

SHOWN = 500
EVIDENCE_SHOWN = 200
STATES = {
    "waiting": UNDECIDED,
    "decided": "status_id = 4",
    "suppressed": "(suppressed_by IS NOT NULL OR status_id = 3)",
    "staged": "mode = 'staged'",
    "all": "true",
}
"""What the inbox can show, and the condition for it."""
_INBOX = """
SELECT uid, coalesce(incident, uid) AS story, incident, first_seen, last_seen, title, message, severity_id, severity,
    status, "count", cluster, principal, principal_kind, on_behalf_of, detector, activity, mode, suppressed_by
FROM findings WHERE {state} ORDER BY coalesce(last_seen, "time") DESC, uid LIMIT {shown}"""
_ONE = 'SELECT *, ocsf FROM findings WHERE uid = $1 ORDER BY "count" DESC'
_INCIDENT = "SELECT uid, title, severity, last_seen FROM findings WHERE incident = $1 AND uid <> $2 ORDER BY last_seen"
_COLUMNS = """occurred_at, kind, operation, relations, row_count, outcome, certainty, assurance, principal, role,
    application, client_addr, statement, row_key, changed, event_id"""
_EVIDENCE = f"""
SELECT {_COLUMNS} FROM events
WHERE dt BETWEEN $1::DATE AND $2::DATE
    AND (list_contains($3::VARCHAR[], event_id) OR list_contains($3::VARCHAR[], split_part(event_id, '-', 1)))
ORDER BY occurred_at, xid, ordinal"""
_TIMELINE = """
SELECT min(occurred_at) AS occurred_at, kind, operation, relations, outcome, count(*) AS events,
    max(list_contains($4::VARCHAR[], split_part(event_id, '-', 1))) AS is_evidence,
    any_value(statement) AS statement
FROM events WHERE dt BETWEEN $1::DATE AND $2::DATE AND session_id = $3
GROUP BY kind, operation, relations, outcome, xid, CASE WHEN kind = 'change' THEN NULL ELSE event_id END
ORDER BY occurred_at"""


@dataclass(frozen=True)
class Story:
    """An incident, or a finding that belongs to none: its findings, the worst first."""

    uid: str
    severity: str
    findings: Sequence[Row]

    @property
    def who(self) -> str:
        """Whom it is about."""
        return str(self.findings[0]["principal"] or "nobody named")


@dataclass(frozen=True)
class Alert:
    """One finding as it was last told. `facts` is what stands flat in it (`unmapped`); texts may be anybody's."""

    row: Row
    ocsf: Mapping[str, Any]
    facts: Mapping[str, Any]
    others: Sequence[Row]

    @property
    def reasons(self) -> list[tuple[str, float]]:
        """What drove the score: in words, and how much, 0 to 1."""
        found = []
        for item in _list(self.facts.get("reasons")):
            if isinstance(item, dict):
                score = item.get("score")
                said = str(item.get("words") or item.get("feature") or "")
                found.append((said, min(max(float(score), 0.0), 1.0) if isinstance(score, int | float) else 0.0))
        return found

    @property
    def event_ids(self) -> list[str]:
        """The ids of the evidence."""
        return [one for one in _list(self.facts.get("event_ids")) if isinstance(one, str)]

    @property
    def session_id(self) -> str | None:
        """The session in which it was done, where one is known."""
        found = _at(self.ocsf, "evidences", 0, "actor", "session", "uid")
        return found if isinstance(found, str) else None

    @property
    def runbook(self) -> str:
        """What to do."""
        return str(_at(self.ocsf, "remediation", "desc") or self.facts.get("runbook") or "")

    @property
    def days(self) -> tuple[date, date]:
        """The days of capture that its evidence can be in."""
        first, last = self.row["first_seen"] or self.row["captured_at"], self.row["captured_at"]
        return (first - timedelta(days=1)).date(), (last + timedelta(days=1)).date()


def inbox(reader: Reader, state: str) -> list[Story]:
    """List the stories of a state (`STATES`), the worst first, and of these the latest."""
    rows = reader.rows(_INBOX.format(state=STATES[state], shown=SHOWN), rows_max=SHOWN)
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["story"], []).append(row)
    stories = []
    for uid, findings in found.items():
        findings.sort(key=lambda row: -(row["severity_id"] or 0))  # stable: of the same severity the latest first
        stories.append(Story(uid, findings[0]["severity"] or "", findings))
    return sorted(stories, key=lambda story: -(story.findings[0]["severity_id"] or 0))


def one(reader: Reader, uid: str) -> Alert | None:
    """Return a finding by its uid, None when there is none."""
    rows = reader.rows(_ONE, uid, rows_max=1)
    if not rows:
        return None
    ocsf = _object(rows[0]["ocsf"])
    incident = rows[0]["incident"]
    others = reader.rows(_INCIDENT, incident, uid, rows_max=50) if incident else []
    facts = ocsf.get("unmapped")
    return Alert(rows[0], ocsf, facts if isinstance(facts, dict) else {}, others)


def evidence(reader: Reader, alert: Alert) -> list[Row]:
    """Give the events that an alert names, with the rows of a transaction one by one."""
    return reader.rows(_EVIDENCE, *alert.days, alert.event_ids, rows_max=EVIDENCE_SHOWN) if alert.event_ids else []


def timeline(reader: Reader, alert: Alert) -> list[Row]:
    """Give what the session of an alert did, a transaction's rows of a relation together."""
    if alert.session_id is None:
        return []
    return reader.rows(_TIMELINE, *alert.days, alert.session_id, alert.event_ids, rows_max=EVIDENCE_SHOWN)


def _object(text: object) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text) if isinstance(text, str) else None
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _at(value: object, *path: str | int) -> object:
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value
