"""What is known of one finding, before anybody writes it for the world or keeps it.

`detectors.alerts.alert` makes records of it, `detectors.alerts.ocsf` writes it as OCSF.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from detectors.actions import Action

Activity = Literal["create", "update", "close"]


class AlertFacts(Struct, kw_only=True, omit_defaults=True):
    """One finding, as it stands after the event that made or repeated it.

    `detector` is `policy:ID`, `policy_error:ID`, `behaviour`, `digest` or `verdict_refused`. `count` is how often the
    finding occurred in its window so far. `finding_key` names the same finding in any window. `suppressed_by` is the
    id of the verdict, suppression or window that suppresses it, `digest` says that it waits for one: both are in the
    lake and not on the topic (`lake_only`). `members` are the findings a digest stands for. `resolution` is what a
    reviewer said. `emitted_us` is when a Close was made, by the time in the records.
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
    emitted_us: int = field(default=0, name="told_us")
    settled: bool = False
    """The outcome of what was pending is known, and nothing was counted."""
    taken_back: int = 0
    """Occurrences that were reported while their outcome was not known, and were undone; they are not in `count`."""

    @property
    def lake_only(self) -> bool:
        """Whether this goes to the lake only."""
        return self.suppressed_by is not None or self.digest

    @property
    def record_uid(self) -> str:
        """Name this one record of the finding: the same again means that it was sent again."""
        state = "-closed" if self.activity == "close" else "-settled" if self.settled else ""
        less = f"-less{self.taken_back}" if self.taken_back else ""
        return f"{self.uid}-{self.count + self.taken_back}{state}{less}"
