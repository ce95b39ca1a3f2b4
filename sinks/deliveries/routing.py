"""Which alerts a target gets, how many of them one by one, and what is said of the rest. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec import Struct

from pgwitness.core.config import Delivery

SEVERITY_ID = {"info": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}
_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"}
CLOSE = 3
SUMMARY_S = 60.0
"""How long alerts are held back before they are reported in one summary."""
SHOWN_MAX = 10


class Item(Struct, frozen=True):
    """What is delivered: `uid` is the same when the same is delivered again, `body` the JSON of `data`."""

    uid: str
    type: str
    time_ms: int
    severity_id: int
    title: str
    text: str
    data: Mapping[str, Any]


def read(value: bytes | None) -> Item | None:
    """Read a record of the topic; None when it is no alert."""
    try:
        alert = msgspec.json.decode(value or b"", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    uid = part(alert, "metadata").get("uid")
    info = part(alert, "finding_info")
    if not isinstance(uid, str) or not uid:
        return None
    title, text = info.get("title"), alert.get("message") or info.get("desc")
    return Item(
        uid=uid,
        type="alert",
        time_ms=_number(alert.get("time")),
        severity_id=_number(alert.get("severity_id")),
        title=title if isinstance(title, str) else "alert",
        text=text if isinstance(text, str) else "",
        data=alert,
    )


def part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of an alert that is an object, an empty one where it is not."""
    found = whole.get(name)
    return found if isinstance(found, Mapping) else {}


def wanted(item: Item, settings: Delivery) -> bool:
    """Return whether a target is to get an alert."""
    if item.severity_id < SEVERITY_ID[settings.severity]:
        return False
    ours = part(item.data, "unmapped")
    if item.data.get("activity_id") == CLOSE and not settings.closed:
        return False
    if ours.get("mode") == "staged" and not settings.staged:
        return False
    policy = str(ours.get("policy") or ours.get("detector") or "")
    return _any(str(ours.get("cluster") or ""), settings.clusters) and _any(policy, settings.policies)


def _any(value: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)


class Limit:
    """So many a minute, in a burst or spread; each `take` says whether one more may go now (seconds, any origin)."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self._most = max(1, per_minute)
        self._left = float(self._most)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one, if there is one."""
        self._left = min(float(self._most), self._left + max(0.0, now_s - self._at_s) * self._most / 60.0)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Held:
    """The alerts that are held back at the moment; of at most `SHOWN_MAX` the words, of all the number."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.number = 0
        self._severities: dict[int, int] = {}
        self._worst: list[Item] = []
        self._first = self._last = ""
        self._time_ms = 0

    def add(self, item: Item) -> None:
        """Hold one more back."""
        self.number += 1
        self._first = self._first or item.uid
        self._last = item.uid
        self._time_ms = max(self._time_ms, item.time_ms)
        self._severities[item.severity_id] = self._severities.get(item.severity_id, 0) + 1
        self._worst.append(item)
        self._worst.sort(key=lambda each: -each.severity_id)
        del self._worst[SHOWN_MAX:]

    def due(self, now_s: float) -> bool:
        """Return whether it is time for the summary."""
        return self.number > 0 and now_s - self.since_s >= SUMMARY_S

    def summary(self) -> Item:
        """Return the summary of what was held back; the same alerts make the same summary."""
        by_severity = {_SEVERITIES.get(key, "Unknown"): n for key, n in sorted(self._severities.items(), reverse=True)}
        words = ", ".join(f"{number:,} {name.lower()}" for name, number in by_severity.items())
        return Item(
            uid=f"summary-{self._first}-{self._last}",
            type="summary",
            time_ms=self._time_ms,
            severity_id=max(self._severities),
            title=f"{self.number:,} more alerts",
            text=f"{self.number:,} more alerts were held back by the rate of this target: {words}",
            data={
                "held_back": self.number,
                "by_severity": by_severity,
                "worst": [{"uid": item.uid, "title": item.title, "text": item.text} for item in self._worst],
                "first": self._first,
                "last": self._last,
            },
        )


def iso(time_ms: int) -> str:
    """Write a time in milliseconds as RFC 3339; one that no calendar holds is the epoch."""
    try:
        at = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        at = datetime.fromtimestamp(0, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(value: object) -> int:
    return value if isinstance(value, int) and -(2**53) < value < 2**53 else 0
