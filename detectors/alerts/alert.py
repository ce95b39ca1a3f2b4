"""Alerts: what a detector found, as it stands after the event that made or repeated it.

A finding is told as Create, then as Updates while it occurs again, and as one Close when its window has passed quietly
or a reviewer decided on it (`detectors.alerts.ledger`, `detectors.alerts.triage`). The uid comes from detector, key and
window, never from a score or the processing time, so that a replay gives the same alert. `detectors.alerts.ocsf` writes
it for the world.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from msgspec import Struct, json
from msgspec.structs import replace

from detectors.actions import Action
from detectors.alerts import ocsf

Activity = Literal["create", "update", "close"]
EVENT_IDS_MAX = 20
"""Event ids an alert lists; of more, the first and the latest are kept, and `count` says how many there were."""
TEXT_MAX = 500
"""Characters of any text but the statement that a client could have chosen."""
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
    settled: bool = False
    """The outcome of what was pending is known, and nothing was counted."""

    @property
    def quiet(self) -> bool:
        """Whether this goes to the lake only."""
        return self.suppressed_by is not None or self.digest

    @property
    def record_uid(self) -> str:
        """Name this one record of the finding: the same again means that it was sent again."""
        return f"{self.uid}-{self.count}{'-closed' if self.activity == 'close' else '-settled' if self.settled else ''}"

    def kept(self) -> bytes:
        """Give what is kept until the finding is closed: JSON, some hundred bytes, at most a few KiB."""
        action = bounded(self.action, detail_bytes_max=KEPT_TEXT_MAX)
        if len(action.statement) > KEPT_TEXT_MAX:
            action.statement = action.statement[:KEPT_TEXT_MAX] + " …"
        return json.encode(replace(self, action=action, event_ids=[]))

    def ocsf(self) -> dict[str, Any]:
        """Give the alert as it goes to the topic `alerts`; every value is JSON, the whole at most some 100 KiB."""
        return ocsf.finding(replace(self, action=bounded(self.action)))


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


def alert_uid(detector: str, key: str, window_start_us: int) -> str:
    """Name a finding: 16 bytes of BLAKE2b over detector, key (which holds the principal) and window, in hex."""
    text = f"{detector}\0{key}\0{window_start_us}"
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def finding_key(detector: str, key: str) -> str:
    """Name what the same finding has in common over its windows: 12 bytes of BLAKE2b over detector and key, in hex."""
    return hashlib.blake2b(f"{detector}\0{key}".encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()
