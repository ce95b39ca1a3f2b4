"""What the models see of a window: a fixed list of numbers between 0 and 1, the same for every principal.

Counts are log-scaled with fixed limits, because one extreme value would ruin any learned scale for ever. Beside how
much was done stands how that compares with the principal's own routine, so that a quiet member of a busy group is
measured by its own. The names are fixed and ordered; `words` says each in a sentence's part.
"""

from __future__ import annotations

import math

from detectors.behaviour.routine import LIMIT, MEASURES, Routine, measured
from detectors.behaviour.windows import LENGTHS, Length, Window

_LIMITS = {
    "actions": {"5m": 1e4, "1h": 1e5, "1d": 1e6},
    "rows_read": {"5m": 1e6, "1h": 1e7, "1d": 1e8},
    "rows_written": {"5m": 1e5, "1h": 1e6, "1d": 1e7},
    "rows_deleted": {"5m": 1e4, "1h": 1e5, "1d": 1e6},
}
_MANY = 64.0
_ERRORS, _CONNECTS, _IDLE = 1e3, 1e3, 30.0

OWN = tuple(f"own_{measure}" for measure in MEASURES if measure != "errors")
FEATURES = (
    "actions",
    "rows_read",
    "rows_written",
    "rows_deleted",
    "rows_an_action",
    "relations",
    "statements",
    "addresses",
    "connects",
    "errors",
    "new",
    "strange",
    "off_hours",
    "idle",
    *OWN,
)
"""The order is part of the models: trees and projections are drawn over it."""


def features(window: Window, length: Length, routine: Routine) -> dict[str, float]:
    """Describe a window of somebody with this routine."""
    name = length.name
    rows = window.rows_read + window.rows_written + window.rows_deleted
    actions = max(1, window.actions)
    x = {measure: _log(getattr(window, measure), limits[name]) for measure, limits in _LIMITS.items()}
    x |= {
        "rows_an_action": _log(rows / actions, 1e6),
        "relations": _log(len(window.relations), _MANY),
        "statements": _log(len(window.statements), _MANY),
        "addresses": _log(len(window.addresses), _MANY),
        "connects": _log(window.connects, _CONNECTS),
        "errors": _log(window.errors, _ERRORS),
        "new": _log(len(window.new), _MANY),
        "strange": min(1.0, window.strange / actions),
        "off_hours": routine.unfamiliar(window.first_us) if length is not LENGTHS[2] else 0.0,
        "idle": _log(routine.idle_days(window.first_us), _IDLE),
    }
    for feature in OWN:
        measure = feature.removeprefix("own_")
        off = routine.deviation(name, measure, measured(window, measure))
        x[feature] = 0.5 + off / (2 * LIMIT)
    return {feature: x[feature] for feature in FEATURES}


def words(feature: str, window: Window, length: Length) -> str:
    """Say in words what a feature of a window is."""
    within = f"in {length.words}"
    rows = window.rows_read + window.rows_written + window.rows_deleted
    plain = {
        "actions": f"{window.actions:,} actions {within}",
        "rows_read": f"{window.rows_read:,} rows read {within}",
        "rows_written": f"{window.rows_written:,} rows written {within}",
        "rows_deleted": f"{window.rows_deleted:,} rows deleted {within}",
        "rows_an_action": f"{rows // max(1, window.actions):,} rows an action",
        "relations": f"{_many(window.relations)} relations {within}",
        "statements": f"{_many(window.statements)} different statements {within}",
        "addresses": f"came from {_many(window.addresses)} addresses {within}",
        "connects": f"{window.connects:,} connections {within}",
        "errors": f"{window.errors:,} failed actions {within}",
        "new": f"did {_many(window.new)} things it never did before",
        "strange": "touches what it rarely touches",
        "off_hours": "at an hour of the week when it is not active",
        "idle": "after days without any activity",
    }
    if feature.startswith("own_"):
        return f"{plain[feature.removeprefix('own_')]}, unlike its own routine"
    return plain[feature]


def _many(values: set[str]) -> str:
    return f"{len(values):,}"


def _log(value: float, limit: float) -> float:
    return min(1.0, math.log1p(max(0.0, value)) / math.log1p(limit))
