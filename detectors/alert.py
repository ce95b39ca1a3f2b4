"""Alerts: what a detector found, as an OCSF 1.8.0 Detection Finding (class 2004).

`docs/reference/alerts.md` says where each fact stands and shows one. The standard's own places are filled for
programs that know OCSF; everything that only pgwitness knows stands once more, flat, under `unmapped`. The uid comes
from detector, key and window, never from a score or the processing time, so that a replay gives the same alert.

A finding is told as Create, then as Updates while it occurs again, and as one Close when its window has passed
quietly or a reviewer decided on it (`detectors.ledger`, `detectors.triage`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from msgspec import Struct, json
from msgspec.structs import replace

import pgwitness
from detectors.actions import Action
from detectors.certainty import account

OCSF_VERSION = "1.8.0"
CLASS_UID = 2004
SEVERITY_ID = {"info": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}
_SEVERITY_CAPTION = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
_CONFIDENCE = {"exact": (3, "High"), "strong": (2, "Medium"), "weak": (1, "Low"), "none": (0, "Unknown")}
Activity = Literal["create", "update", "close"]
_ACTIVITY = {"create": (1, "Create"), "update": (2, "Update"), "close": (3, "Close")}
_STATUS = {"new": (1, "New"), "suppressed": (3, "Suppressed"), "resolved": (4, "Resolved")}
_USER_TYPE = {"human": (1, "User"), "service": (4, "Service"), "agent": (99, "AI agent"), "unknown": (0, "Unknown")}
EVENT_IDS_MAX = 20
"""Event ids an alert lists; of more, the first and the latest are kept, and `count` says how many there were."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1_US, _YEAR_9999_US = -62_135_596_800_000_000, 253_402_300_799_999_999
STATEMENT_MAX = 4_000
"""Characters of a statement in an alert."""
TEXT_MAX = 500
"""Characters of any other text that a client could have chosen."""
DETAIL_BYTES_MAX = 16 * 1024
"""Bytes of an event's detail in an alert; of a longer one only the names of its parts are kept."""
KEPT_TEXT_MAX = 1_000
"""Characters of the statement, and bytes of the detail, that are kept of a finding until it is closed."""


class Alert(Struct, kw_only=True, omit_defaults=True):
    """One finding, as it stands after the event that made or repeated it.

    `detector` is `policy:ID`, `policy_error:ID`, `behaviour`, `digest` or `verdict_refused`. `count` is how often the
    finding occurred in its window so far. `finding_key` names the same finding in any window. `suppressed_by` is the
    id of the verdict, suppression or window that keeps it quiet, `digest` says that it waits for one: both are in the
    lake and not on the topic (`quiet`). `members` are the findings a digest stands for. `resolution` is what a
    reviewer said. `told_us` is when a Close was made, by the time in the records.
    """

    uid: str
    detector: str
    title: str
    message: str
    description: str
    severity: str
    runbook: str
    action: Action
    count: int
    first_seen_us: int
    last_seen_us: int
    event_ids: list[str]
    attack: list[str] = []
    policy: str | None = None
    bundle_sha256: str | None = None
    model: str | None = None
    anomaly: float | None = None
    reasons: list[dict[str, Any]] = []
    staged: bool = False
    activity: Activity = "create"
    finding_key: str = ""
    incident: str | None = None
    suppressed_by: str | None = None
    digest: bool = False
    members: list[dict[str, Any]] = []
    resolution: dict[str, Any] | None = None
    respond: str | None = None
    told_us: int = 0

    @property
    def quiet(self) -> bool:
        """Whether this goes to the lake only."""
        return self.suppressed_by is not None or self.digest

    @property
    def record_uid(self) -> str:
        """Name this one record of the finding: the same again means that it was sent again."""
        return f"{self.uid}-{self.count}{'-closed' if self.activity == 'close' else ''}"

    def kept(self) -> bytes:
        """Give what is kept until the finding is closed: JSON, some hundred bytes, at most a few KiB."""
        action = bounded(self.action, detail_bytes_max=KEPT_TEXT_MAX)
        if len(action.statement) > KEPT_TEXT_MAX:
            action.statement = action.statement[:KEPT_TEXT_MAX] + " …"
        return json.encode(replace(self, action=action, event_ids=[]))

    def ocsf(self) -> dict[str, Any]:
        """Give the alert as it goes to the topic `alerts`; every value is JSON, the whole at most some 100 KiB."""
        return replace(self, action=bounded(self.action))._finding()

    def _finding(self) -> dict[str, Any]:
        action = self.action
        severity_id = SEVERITY_ID[self.severity]
        activity_id, activity = _ACTIVITY[self.activity]
        resolved = "resolved" if self.resolution is not None else "new"
        status_id, status = _STATUS["suppressed" if self.suppressed_by is not None else resolved]
        told_us = self.told_us or action.captured_at_us
        confidence_id, confidence = _CONFIDENCE.get(action.certainty, (0, "Unknown"))
        finding: dict[str, Any] = {
            "activity_id": activity_id,
            "activity_name": activity,
            "category_uid": 2,
            "category_name": "Findings",
            "class_uid": CLASS_UID,
            "class_name": "Detection Finding",
            "type_uid": CLASS_UID * 100 + activity_id,
            "type_name": f"Detection Finding: {activity}",
            "time": told_us // 1000,
            "start_time": self.first_seen_us // 1000,
            "end_time": self.last_seen_us // 1000,
            "count": self.count,
            "severity_id": severity_id,
            "severity": _SEVERITY_CAPTION[severity_id],
            "status_id": status_id,
            "status": status,
            "is_alert": self._alarms,
            "confidence_id": confidence_id,
            "confidence": confidence,
            "message": self.message,
            "metadata": {
                "version": OCSF_VERSION,
                "product": {"name": "pgwitness", "vendor_name": "pgwitness", "version": pgwitness.__version__},
                "log_name": "alerts",
                "uid": self.record_uid,
                "original_time": _iso(action.occurred_at_us),
                "labels": [f"{key}:{value}" for key, value in sorted(action.labels.items())],
            },
            "finding_info": self._finding_info(),
            "evidences": [self._evidence()],
            "resources": self._resources(),
            "observables": self._observables(),
            "remediation": {"desc": self.runbook},
            "unmapped": self._unmapped(),
        }
        if action.on_behalf_of:
            finding["enrichments"] = [self._delegation()]
        if self.incident is not None:
            finding["metadata"]["correlation_uid"] = self.incident
        if self.resolution is not None:
            finding["comment"] = f"{self.resolution['as']} by {self.resolution['who']}: {self.resolution['why']}"
        return finding

    @property
    def _alarms(self) -> bool:
        """Whether somebody is to be woken: not by habits alone, a staged policy or what was settled."""
        settled = self.staged or self.quiet or self.activity == "close"
        return not settled and (self.policy is not None or self.detector == "verdict_refused")

    def query(self) -> str:
        """Write the query for `pgwitness sql` that shows the evidence."""
        conditions = []
        for event_id in self.event_ids:
            literal = event_id.replace("'", "''")
            rows = f" OR starts_with(event_id, '{literal}-')" if self.action.kind == "change" else ""
            conditions.append(f"event_id = '{literal}'{rows}")
        view = "changes" if self.action.kind == "change" else "events"
        span = f"occurred_at BETWEEN '{_iso(self.first_seen_us)}' AND '{_iso(self.last_seen_us)}'"
        return f"SELECT * FROM {view} WHERE {span} AND ({' OR '.join(conditions)}) ORDER BY occurred_at, event_id"

    def _finding_info(self) -> dict[str, Any]:
        analytic: dict[str, Any] = {
            "uid": self.policy or self.detector,
            "name": self.title,
            "desc": self.description,
            "type_id": 1 if self.policy else 2,
            "type": "Rule" if self.policy else "Behavioral",
            "state_id": 3 if self.staged else 1,
            "state": "Experimental" if self.staged else "Active",
        }
        version = self.bundle_sha256 if self.policy else self.model
        if version:
            analytic["version"] = version
        return {
            "uid": self.uid,
            "title": self.title,
            "desc": f"{self.message}. {self._account}",
            "created_time": self.first_seen_us // 1000,
            "modified_time": (self.told_us or self.action.captured_at_us) // 1000,
            "first_seen_time": self.first_seen_us // 1000,
            "last_seen_time": self.last_seen_us // 1000,
            "attacks": [_attack(technique) for technique in self.attack],
            "analytic": analytic,
            "data_sources": [self.action.kind],
            "related_events": [{"uid": event_id, "type": self.action.kind} for event_id in self.event_ids],
            "related_events_count": self.count,
            "product": {"name": "pgwitness", "vendor_name": "pgwitness", "version": pgwitness.__version__},
        }

    @property
    def _account(self) -> str:
        return account(self.action, self.count, self.first_seen_us, self.last_seen_us)

    def _evidence(self) -> dict[str, Any]:
        action = self.action
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
                "rows": action.rows,
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

    def _resources(self) -> list[dict[str, Any]]:
        action = self.action
        cluster: dict[str, Any] = {"name": action.cluster, "uid": action.cluster, "type": "PostgreSQL cluster"}
        cluster["role_id"] = 4
        if action.instance:
            cluster["hostname"] = action.instance
        if answerable := owner(action):
            cluster["owner"] = {"name": answerable}
        resources = [cluster]
        place = f"{action.cluster}/{action.database}"
        resources += [
            {"name": relation, "uid": f"{place}/{relation}", "type": "table", "role_id": 3}
            for relation in action.relations
        ]
        if action.object_type:
            uid = f"{action.cluster}/{action.object_type}/{action.object_name}"
            resources.append({"name": action.object_name, "uid": uid, "type": action.object_type, "role_id": 3})
        return resources

    def _observables(self) -> list[dict[str, Any]]:
        action = self.action
        name = action.principal or action.role or "unknown"
        found: list[dict[str, Any]] = [{"name": "evidences[0].actor.user.name", "type_id": 4, "type": "User Name"}]
        found[0]["value"] = name
        if _ip(action.client_addr):
            ip = {"name": "evidences[0].src_endpoint.ip", "type_id": 2, "type": "IP Address"}
            found.append({**ip, "value": action.client_addr})
        return found

    def _delegation(self) -> dict[str, Any]:
        """Say for whom the actor acted; OCSF has no place of its own for that."""
        return {
            "name": "evidences[0].actor.user.name",
            "value": self.action.principal or self.action.role or "unknown",
            "type": "delegation",
            "desc": "the person on whose behalf the actor acted",
            "data": {"on_behalf_of": self.action.on_behalf_of},
        }

    def _unmapped(self) -> dict[str, Any]:
        action = self.action
        return {
            "detector": self.detector,
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
            "rows": action.rows,
            "statement": _short(action.statement) or None,
            "outcome": action.outcome,
            "policy": self.policy,
            "bundle_sha256": self.bundle_sha256,
            "mode": None if self.policy is None else ("staged" if self.staged else "active"),
            "model": self.model,
            "anomaly": self.anomaly,
            "reasons": self.reasons,
            "runbook": self.runbook,
            "finding_key": self.finding_key or None,
            "incident": self.incident,
            "suppressed_by": self.suppressed_by,
            "digest": self.digest,
            "members": self.members,
            "resolution": self.resolution,
            "respond": self.respond,
            "event_ids": self.event_ids,
            "query": self.query(),
        }


def bounded(action: Action, *, detail_bytes_max: int = DETAIL_BYTES_MAX) -> Action:
    """Give an action whose texts a client cannot have made long enough to break a consumer."""
    cut = {
        name: value[:TEXT_MAX]
        for name in action.__struct_fields__
        if isinstance(value := getattr(action, name), str) and len(value) > TEXT_MAX and name != "statement"
    }
    detail = json.encode(action.detail)
    return replace(
        action,
        **cut,
        relations=[name[:TEXT_MAX] for name in action.relations[:EVENT_IDS_MAX]],
        detail=action.detail
        if len(detail) <= detail_bytes_max
        else {"truncated_bytes": len(detail), "keys": [str(key)[:TEXT_MAX] for key in list(action.detail)[:20]]},
    )


def owner(action: Action) -> str | None:
    """Give who answers for it: the principal's owner by the identities, else the cluster's."""
    named = action.detail.get("owner")
    return named if isinstance(named, str) else action.labels.get("owner")


def alert_uid(detector: str, key: str, window_start_us: int) -> str:
    """Name a finding: 16 bytes of BLAKE2b over detector, key (which holds the principal) and window, in hex."""
    text = f"{detector}\0{key}\0{window_start_us}"
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def finding_key(detector: str, key: str) -> str:
    """Name what the same finding has in common over its windows: 12 bytes of BLAKE2b over detector and key, in hex."""
    return hashlib.blake2b(f"{detector}\0{key}".encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()


def session_start(session_id: str) -> int | None:
    """Read a session's start, whole seconds since the epoch, from its id (`pgwitness.events.session_id`)."""
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
