"""An alert as an OCSF 1.8.0 Detection Finding (class 2004), which is what goes to the topic `alerts`.

`docs/reference/alerts.md` says where each fact stands and shows one. The standard's own places are filled for
programs that know OCSF; everything that only pgwitness knows stands once more, flat, under `unmapped`.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

import pgwitness
from detectors.actions import Action
from detectors.alerts.alert_facts import AlertFacts
from detectors.alerts.certainty import account

OCSF_VERSION = "1.8.0"
CLASS_UID = 2004
SEVERITY_ID = {"info": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}
_SEVERITY_CAPTION = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
_CONFIDENCE = {"exact": (3, "High"), "strong": (2, "Medium"), "weak": (1, "Low"), "none": (0, "Unknown")}
_ACTIVITY = {"create": (1, "Create"), "update": (2, "Update"), "close": (3, "Close")}
_STATUS = {"new": (1, "New"), "suppressed": (3, "Suppressed"), "resolved": (4, "Resolved")}
_USER_TYPE = {"human": (1, "User"), "service": (4, "Service"), "agent": (99, "AI agent"), "unknown": (0, "Unknown")}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1_US, _YEAR_9999_US = -62_135_596_800_000_000, 253_402_300_799_999_999
STATEMENT_MAX = 4_000
"""Characters of a statement in an alert."""


def finding(alert: AlertFacts) -> dict[str, Any]:
    """Write an alert as a Detection Finding; its texts and lists are bounded already."""
    action = alert.action
    severity_id = SEVERITY_ID[alert.severity]
    activity_id, activity = _ACTIVITY[alert.activity]
    resolved = "resolved" if alert.resolution is not None else "new"
    status_id, status = _STATUS["suppressed" if alert.suppressed_by is not None else resolved]
    emitted_us = alert.emitted_us or action.captured_at_us
    confidence_id, confidence = _CONFIDENCE.get(action.certainty, (0, "Unknown"))
    written: dict[str, Any] = {
        "activity_id": activity_id,
        "activity_name": activity,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + activity_id,
        "type_name": f"Detection Finding: {activity}",
        "time": emitted_us // 1000,
        "start_time": alert.first_seen_us // 1000,
        "end_time": alert.last_seen_us // 1000,
        "count": alert.count,
        "severity_id": severity_id,
        "severity": _SEVERITY_CAPTION[severity_id],
        "status_id": status_id,
        "status": status,
        "is_alert": _alarms(alert),
        "confidence_id": confidence_id,
        "confidence": confidence,
        "message": alert.message,
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "pgwitness", "vendor_name": "pgwitness", "version": pgwitness.__version__},
            "log_name": "alerts",
            "uid": alert.record_uid,
            "original_time": _iso(action.occurred_at_us),
            "labels": [f"{key}:{value}" for key, value in sorted(action.labels.items())],
        },
        "finding_info": _finding_info(alert),
        "evidences": [_evidence(alert)],
        "resources": _resources(alert),
        "observables": _observables(alert),
        "remediation": {"desc": alert.runbook},
        "unmapped": _unmapped(alert),
    }
    if action.on_behalf_of:
        written["enrichments"] = [_delegation(alert)]
    if alert.incident is not None:
        written["metadata"]["correlation_uid"] = alert.incident
    if alert.resolution is not None:
        written["comment"] = f"{alert.resolution['as']} by {alert.resolution['who']}: {alert.resolution['why']}"
    return written


def _alarms(alert: AlertFacts) -> bool:
    """Whether it pages somebody: not by habits alone, a staged policy or what was settled."""
    over = alert.staged or alert.lake_only or alert.activity == "close" or (alert.settled and alert.taken_back)
    return not over and (alert.policy is not None or alert.detector == "verdict_refused")


def query(alert: AlertFacts) -> str:
    """Write the query for `pgwitness sql` that shows the evidence."""
    conditions = []
    for event_id in alert.event_ids:
        literal = event_id.replace("'", "''")
        rows = f" OR starts_with(event_id, '{literal}-')" if alert.action.kind == "change" else ""
        conditions.append(f"event_id = '{literal}'{rows}")
    view = "changes" if alert.action.kind == "change" else "events"
    span = f"occurred_at BETWEEN '{_iso(alert.first_seen_us)}' AND '{_iso(alert.last_seen_us)}'"
    return f"SELECT * FROM {view} WHERE {span} AND ({' OR '.join(conditions)}) ORDER BY occurred_at, event_id"


def _finding_info(alert: AlertFacts) -> dict[str, Any]:
    analytic: dict[str, Any] = {
        "uid": alert.policy or alert.detector,
        "name": alert.title,
        "desc": alert.description,
        "type_id": 1 if alert.policy else 2,
        "type": "Rule" if alert.policy else "Behavioral",
        "state_id": 3 if alert.staged else 1,
        "state": "Experimental" if alert.staged else "Active",
    }
    version = alert.bundle_sha256 if alert.policy else alert.model
    if version:
        analytic["version"] = version
    return {
        "uid": alert.uid,
        "title": alert.title,
        "desc": f"{alert.message}. {_account(alert)}",
        "created_time": alert.first_seen_us // 1000,
        "modified_time": (alert.emitted_us or alert.action.captured_at_us) // 1000,
        "first_seen_time": alert.first_seen_us // 1000,
        "last_seen_time": alert.last_seen_us // 1000,
        "attacks": [_attack(technique) for technique in alert.attack],
        "analytic": analytic,
        "data_sources": [alert.action.kind],
        "related_events": [{"uid": event_id, "type": alert.action.kind} for event_id in alert.event_ids],
        "related_events_count": alert.count,
        "product": {"name": "pgwitness", "vendor_name": "pgwitness", "version": pgwitness.__version__},
    }


def _account(alert: AlertFacts) -> str:
    return account(alert.action, alert.count, alert.first_seen_us, alert.last_seen_us)


def _evidence(alert: AlertFacts) -> dict[str, Any]:
    action = alert.action
    type_id, type_name = _USER_TYPE.get(action.principal_kind, (0, "Unknown"))
    user: dict[str, Any] = {
        "name": action.principal or action.role or "unknown",
        "type_id": type_id,
        "type": type_name,
    }
    if action.role:
        user["uid"] = action.role
    if action.peer_group:
        user["groups"] = [{"name": action.peer_group}]
    actor: dict[str, Any] = {"user": user}
    if action.application:
        actor["app_name"] = action.application
    if action.session_id:
        actor["session"] = {"uid": action.session_id}
    evidence: dict[str, Any] = {
        "uid": action.event_id,
        "name": f"pgwitness {action.kind}",
        "actor": actor,
        "data": {
            "operation": action.operation,
            "relations": action.relations,
            "rows": action.rows if action.rows_known else None,
            "calls": action.calls,
            "statement": _short(action.statement),
            "detail": action.detail,
        },
    }
    if action.database:
        evidence["database"] = {
            "name": action.database,
            "uid": f"{action.cluster}/{action.database}",
            "type_id": 1,
            "type": "Relational",
        }
    if endpoint := _endpoint(action):
        evidence["src_endpoint"] = endpoint
    return evidence


def _resources(alert: AlertFacts) -> list[dict[str, Any]]:
    action = alert.action
    cluster: dict[str, Any] = {"name": action.cluster, "uid": action.cluster, "type": "PostgreSQL cluster"}
    cluster["role_id"] = 4
    if action.instance:
        cluster["hostname"] = action.instance
    if answerable := owner(action):
        cluster["owner"] = {"name": answerable}
    resources = [cluster]
    place = f"{action.cluster}/{action.database}"
    resources += [
        {"name": relation, "uid": f"{place}/{relation}", "type": "table", "role_id": 3} for relation in action.relations
    ]
    if action.object_type:
        uid = f"{action.cluster}/{action.object_type}/{action.object_name}"
        resources.append({"name": action.object_name, "uid": uid, "type": action.object_type, "role_id": 3})
    return resources


def _observables(alert: AlertFacts) -> list[dict[str, Any]]:
    action = alert.action
    name = action.principal or action.role or "unknown"
    found: list[dict[str, Any]] = [{"name": "evidences[0].actor.user.name", "type_id": 4, "type": "User Name"}]
    found[0]["value"] = name
    if _ip(action.client_addr):
        ip = {"name": "evidences[0].src_endpoint.ip", "type_id": 2, "type": "IP Address"}
        found.append({**ip, "value": action.client_addr})
    return found


def _delegation(alert: AlertFacts) -> dict[str, Any]:
    """Return for whom the actor acted; OCSF has no place of its own for that."""
    return {
        "name": "evidences[0].actor.user.name",
        "value": alert.action.principal or alert.action.role or "unknown",
        "type": "delegation",
        "desc": "the person on whose behalf the actor acted",
        "data": {"on_behalf_of": alert.action.on_behalf_of},
    }


def _unmapped(alert: AlertFacts) -> dict[str, Any]:
    action = alert.action
    return {
        "detector": alert.detector,
        "principal": action.principal or None,
        "principal_kind": action.principal_kind,
        "on_behalf_of": action.on_behalf_of or None,
        "peer_group": action.peer_group or None,
        "binding": action.binding,
        "certainty": action.certainty,
        "assurance": action.assurance,
        "role": action.role or None,
        "effective_role": action.effective_role or None,
        "application": action.application or None,
        "client_addr": action.client_addr or None,
        "pid": action.pid or None,
        "session_start": session_start(action.session_id),
        "cluster": action.cluster,
        "instance": action.instance or None,
        "database": action.database or None,
        "labels": dict(action.labels),
        "owner": owner(action),
        "kind": action.kind,
        "operation": action.operation or None,
        "relations": action.relations,
        "rows": action.rows if action.rows_known else None,
        "statement": _short(action.statement) or None,
        "outcome": action.outcome,
        "effect": action.effect or None,
        "policy": alert.policy,
        "bundle_sha256": alert.bundle_sha256,
        "mode": None if alert.policy is None else ("staged" if alert.staged else "active"),
        "model": alert.model,
        "anomaly": alert.anomaly,
        "reasons": alert.reasons,
        "runbook": alert.runbook,
        "finding_key": alert.finding_key or None,
        "incident": alert.incident,
        "suppressed_by": alert.suppressed_by,
        "digest": alert.digest,
        "members": alert.members,
        "resolution": alert.resolution,
        "respond": alert.respond,
        "event_ids": alert.event_ids,
        "query": query(alert),
    }


def owner(action: Action) -> str | None:
    """Return who answers for it: the principal's owner by the identities, else the cluster's."""
    named = action.detail.get("owner")
    return named if isinstance(named, str) else action.labels.get("owner")


def session_start(session_id: str) -> int | None:
    """Read a session's start, whole seconds since the epoch, from its id (`pgwitness.core.events.session_id`)."""
    start, separator, _ = session_id.rpartition("/")[2].partition(".")
    try:
        return int(start, 16) if separator else None
    except ValueError:
        return None


def _attack(technique: str) -> dict[str, Any]:
    parent, _, sub = technique.partition(".")
    url = "https://attack.mitre.org/techniques/"
    attack: dict[str, Any] = {"technique": {"uid": parent, "src_url": f"{url}{parent}/"}}
    if sub:
        attack["sub_technique"] = {"uid": technique, "src_url": f"{url}{parent}/{sub}/"}
    return attack


def _endpoint(action: Action) -> dict[str, Any] | None:
    if not action.client_addr:
        return None
    endpoint: dict[str, Any] = {"ip" if _ip(action.client_addr) else "name": action.client_addr}
    if 0 < action.client_port < 65_536:
        endpoint["port"] = action.client_port
    return endpoint


def _ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _short(statement: str) -> str:
    return statement if len(statement) <= STATEMENT_MAX else statement[:STATEMENT_MAX] + " …"


def _iso(time_us: int) -> str:
    """Write a time as DuckDB reads it, exact to the microsecond; what no calendar holds is the calendar's end."""
    bounded = max(_YEAR_1_US, min(time_us, _YEAR_9999_US))
    return (_EPOCH + timedelta(microseconds=bounded)).isoformat(timespec="microseconds")
