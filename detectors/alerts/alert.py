"""Alerts: what a detector found, as it stands after the event that made or repeated it.

A finding is emitted as Create, then as Updates while it occurs again, and as one Close when its window has passed
without another or a reviewer decided on it (`detectors.alerts.ledger`, `detectors.alerts.triage`). The uid comes from
detector, key and window, never from a score or the processing time, so that a replay gives the same alert.
`detectors.alerts.ocsf` writes it for the world.
"""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec import json
from msgspec.structs import replace

from detectors.actions import Action
from detectors.alerts import ocsf
from detectors.alerts.alert_facts import AlertFacts

EVENT_IDS_MAX = 20
"""Event ids an alert lists; of more, the first and the latest are kept, and `count` says how many there were."""
TEXT_MAX = 500
"""Characters of any text but the statement that a client could have chosen."""
DETAIL_BYTES_MAX = 16 * 1024
"""Bytes of an event's detail in an alert; of a longer one only the names of its parts are kept."""
KEPT_TEXT_MAX = 1_000
"""Characters of the statement, and bytes of the detail, that are kept of a finding until it is closed."""


class Alert(AlertFacts):
    """A finding as a record: kept until its end, and written for the topic and the lake."""

    def kept(self) -> bytes:
        """Return what is kept until the finding is closed: JSON, some hundred bytes, at most a few KiB."""
        action = bounded(self.action, detail_bytes_max=KEPT_TEXT_MAX)
        if len(action.statement) > KEPT_TEXT_MAX:
            action.statement = action.statement[:KEPT_TEXT_MAX] + " …"
        return json.encode(replace(self, action=action, event_ids=[]))

    def ocsf(self) -> dict[str, Any]:
        """Return the alert as it goes to the topic `alerts`; every value is JSON, the whole at most some 100 KiB."""
        return ocsf.finding(replace(self, action=bounded(self.action)))


def bounded(action: Action, *, detail_bytes_max: int = DETAIL_BYTES_MAX) -> Action:
    """Return an action whose texts a client cannot have made long enough to break a consumer."""
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
