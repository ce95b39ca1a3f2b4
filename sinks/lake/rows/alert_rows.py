"""Alerts as rows of the lake: the columns that are asked for most, and the whole finding as JSON beside them.

A finding is a plain dictionary (OCSF 1.8.0, class 2004, `docs/reference/alerts.md`); what it lacks is null here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from pgwitness.core.events import Event
from sinks.lake.rows.schema import ALERTS, DAY_US, SCHEMA_VERSION, TIME_US_MAX

_json = msgspec.json.Encoder().encode

_SEVERITIES = ("Unknown", "Informational", "Low", "Medium", "High", "Critical", "Fatal")
_ACTIVITIES = ("Unknown", "Create", "Update", "Close")
_STATUSES = ("Unknown", "New", "In Progress", "Suppressed", "Resolved")


class Alert(Protocol):
    """What the lake reads of an alert (`detectors`)."""

    @property
    def uid(self) -> str:
        """The alert's name, the same each time it is raised."""

    def ocsf(self) -> Mapping[str, Any]:
        """The finding as it goes to the topic of alerts."""


def row(alert: Alert, event: Event) -> dict[str, object]:
    """Make the row of an alert that `event` raised."""
    finding = alert.ocsf()
    info = _part(finding, "finding_info")
    severity, status = _number(finding.get("severity_id")), _number(finding.get("status_id"))
    found = _findings(finding)
    # A finding that is closed belongs to whom it is about, not to the event that told the time.
    ours = _part(finding, "unmapped")
    event_ids = found.get("event_ids") or [event.event_id]
    return {
        "uid": alert.uid,
        "time": _time_us(finding.get("time")) or event.occurred_at_us,
        "captured_at": event.captured_at_us,
        "first_seen": _time_us(info.get("first_seen_time")),
        "last_seen": _time_us(info.get("last_seen_time")),
        "title": _text(info.get("title")),
        "message": _text(finding.get("message")) or _text(info.get("desc")),
        "severity_id": severity,
        "severity": _text(finding.get("severity")) or _word(_SEVERITIES, severity),
        "status_id": status,
        "status": _text(finding.get("status")) or _word(_STATUSES, status),
        "count": _number(finding.get("count")),
        "cluster": _text(ours.get("cluster", event.cluster)),
        "instance": _text(ours.get("instance", event.instance)),
        "database": _text(ours.get("database", event.database)),
        "principal": _text(ours.get("principal", event.principal)),
        "principal_kind": _text(ours.get("principal_kind", event.principal_kind)),
        "on_behalf_of": _text(ours.get("on_behalf_of", event.on_behalf_of)),
        "policy": found.get("policy"),
        "model": found.get("model"),
        "event_id": event.event_id if event.event_id in event_ids else event_ids[-1],
        "event_ids": event_ids,
        "ocsf": _json(finding).decode(),
        "schema_version": SCHEMA_VERSION,
        "activity": _word(_ACTIVITIES, _number(finding.get("activity_id"))),
        "detector": _text(ours.get("detector")),
        "incident": _text(ours.get("incident")),
        "suppressed_by": _text(ours.get("suppressed_by")),
        "mode": _text(ours.get("mode")),
        "is_alert": finding.get("is_alert") is True,
    }


def tables(rows: list[dict[str, object]]) -> dict[str, pa.Table]:
    """Make the tables of alerts by day of capture."""
    by_day: dict[str, list[dict[str, object]]] = {}
    for each in rows:
        captured = each["captured_at"]
        assert isinstance(captured, int)
        by_day.setdefault(str(np.datetime64(captured // DAY_US, "D")), []).append(each)
    return {day: pa.Table.from_pylist(of_day, schema=ALERTS) for day, of_day in by_day.items()}


def _findings(finding: Mapping[str, Any]) -> dict[str, Any]:
    """Read policy, model and event ids from the finding's own words."""
    info = _part(finding, "finding_info")
    analytic = _part(info, "analytic")
    rule = analytic.get("type_id") == 1
    related = info.get("related_events")
    events = [str(event["uid"]) for event in related if "uid" in event] if isinstance(related, list) else []
    return {
        "policy": _text(analytic.get("uid")) if rule else None,
        "model": None if rule else _text(analytic.get("uid")),
        "event_ids": events or None,
    }


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = whole.get(name)
    return part if isinstance(part, Mapping) else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and -(2**31) <= value < 2**31 else None


def _word(words: tuple[str, ...], number: int | None) -> str | None:
    return words[number] if number is not None and 0 <= number < len(words) else None


def _time_us(value: object) -> int | None:
    """Turn OCSF's time, milliseconds since the epoch, into microseconds."""
    return value * 1_000 if isinstance(value, int) and 0 <= value <= TIME_US_MAX // 1_000 else None
