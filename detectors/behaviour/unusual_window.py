"""A window of a principal's time that is out of the ordinary, and why, in words."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from msgspec import Struct

from detectors.behaviour.features import words
from detectors.behaviour.populations import Strange
from detectors.behaviour.windows import Length, Window

REASON_MIN = 0.7
"""Powers of ten that a feature must be rare by to be a reason: one window in five."""

SAMPLE = (
    "event_id",
    "kind",
    "occurred_at_us",
    "captured_at_us",
    "cluster",
    "instance",
    "database",
    "principal",
    "principal_kind",
    "on_behalf_of",
    "peer_group",
    "binding",
    "certainty",
    "assurance",
    "role",
    "effective_role",
    "application",
    "client_addr",
    "auth_method",
    "session_id",
    "statement",
)
"""The facts of an event that a window keeps of its most significant one; then operation, relation and rows."""
sample_of = attrgetter(*SAMPLE)


class UnusualWindow(Struct, frozen=True):
    """A window that is out of the ordinary: of which principal, how long, what it shows, and why.

    `score` is one minus the share of principal-days that are as strange, `alone` the same whatever others did on that
    day. `peers` is how many of its group were active
    of late, `principals` how many there are a day in all; `warming_up`: its group is too new for more than a digest.
    """

    who: str
    length: Length
    window: Window
    score: float
    reasons: list[dict[str, Any]]
    peers: int = 0
    principals: float = 0.0
    warming_up: bool = False
    alone: float = 0.0


def reasons_of(strange: Strange, window: Window, length: Length, known: float) -> list[dict[str, Any]]:
    """Return in words what is rarest of a window, each measure once."""
    reasons: dict[str, dict[str, Any]] = {}
    for feature, decades in strange.rarest:
        name = feature.removeprefix("own_")
        if decades < REASON_MIN or name in reasons:
            continue
        rare = min(known, 10.0**decades)
        text = words(feature, window, length)
        if rare >= 10:
            text += f" (as one in {rare:,.0f} such windows of its peers)"
        reasons[name] = {"feature": name, "score": round(min(1.0, decades / 4.0), 4), "words": text}
    if not reasons:
        text = f"nothing alone, but all of it together {length.words} long"
        reasons["mixture"] = {"feature": "mixture", "score": round(min(1.0, strange.decades / 4.0), 4), "words": text}
    return list(reasons.values())
