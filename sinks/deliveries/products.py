"""How a delivery is written for products that have a form of their own: SIEMs, pagers, chats.

Each has a function that writes the body, and what of an alert its own fields are. Pure. The forms and limits are those
of the products' own documentation (docs/how-to/send-to-a-siem.md names it).
"""

from __future__ import annotations

import re
from typing import TypeGuard

import msgspec

from sinks.deliveries.render import plain
from sinks.deliveries.routing import CLOSE, Item, iso, part

_json = msgspec.json.Encoder().encode

PAGERDUTY_SEVERITY = {3: "warning", 4: "error", 5: "critical", 6: "critical"}
PAGERDUTY_SUMMARY_MAX, PAGERDUTY_KEY_MAX = 1024, 255
DATADOG_STATUS = {1: "info", 2: "notice", 3: "warn", 4: "error", 5: "critical", 6: "emergency"}
_NO_TAG = re.compile(r"[^\w\-./]+", re.ASCII)


def splunk(item: Item) -> bytes:
    """Write an event for the HTTP Event Collector: its time in seconds, and the alert as its event."""
    return _json(
        {
            "time": item.time_ms / 1000,
            "source": "pgwitness",
            "sourcetype": f"pgwitness:{item.type}",
            "event": {"id": item.uid, **item.data},
        }
    )


def document(item: Item) -> bytes:
    """Write a document for a data stream or an index: time, message and severity in ECS's, the alert as `ocsf`."""
    ours = part(item.data, "unmapped")
    return _json(
        {
            "@timestamp": iso(item.time_ms),
            "message": item.text or item.title,
            "event": {
                "id": item.uid,
                "kind": "alert",
                "provider": "pgwitness",
                "severity": item.severity_id,
            },
            "rule": {"name": _text(ours.get("policy") or ours.get("detector"))},
            "ocsf": item.data,
        }
    )


def datadog(item: Item) -> bytes:
    """Write a log of the HTTP intake, as a list of one."""
    ours = part(item.data, "unmapped")
    tags = {
        "cluster": ours.get("cluster"),
        "policy": ours.get("policy") or ours.get("detector"),
        "severity": item.data.get("severity"),
    }
    log = {
        "ddsource": "pgwitness",
        "service": "pgwitness",
        "hostname": _text(ours.get("cluster")),
        "ddtags": ",".join(f"{name}:{_NO_TAG.sub('_', value)}" for name, value in tags.items() if _is(value)),
        "status": DATADOG_STATUS.get(item.severity_id, "info"),
        "timestamp": item.time_ms,
        "message": item.text or item.title,
        "id": item.uid,
        "ocsf": item.data,
    }
    return _json([{name: value for name, value in log.items() if value not in (None, "")}])


def pagerduty(item: Item, key: str) -> bytes:
    """Write an event of the Events API v2; `key` is the integration's. The end of a finding resolves it."""
    ours = part(item.data, "unmapped")
    finding = part(item.data, "finding_info").get("uid")
    details = {name: ours.get(name) for name in ("cluster", "policy", "detector", "principal", "runbook", "query")}
    return _json(
        {
            "routing_key": key,
            "event_action": "resolve" if item.data.get("activity_id") == CLOSE else "trigger",
            "dedup_key": (finding if isinstance(finding, str) and finding else item.uid)[:PAGERDUTY_KEY_MAX],
            "payload": {
                "summary": plain(item.text or item.title)[:PAGERDUTY_SUMMARY_MAX],
                "source": _text(ours.get("cluster")) or "pgwitness",
                "severity": PAGERDUTY_SEVERITY.get(item.severity_id, "info"),
                "timestamp": iso(item.time_ms),
                "component": "postgresql",
                "class": item.title[:PAGERDUTY_KEY_MAX],
                "custom_details": {
                    **{name: value[:2_000] for name, value in details.items() if _is(value)},
                    "count": item.data.get("count"),
                    "id": item.uid,
                },
            },
        }
    )


def _is(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
