"""What is asked of a window: a fixed list of numbers between 0 and 1, the same for every principal.

Counts are log-scaled with fixed limits, because one extreme value would ruin any learned scale for ever. Beside how
much was done stands how that compares with the principal's own routine, so that an inactive member of a busy group is
measured by its own. The higher, the stranger; all but `rows_an_action` only grow while a window is open. The names are
fixed and ordered; `words` says each in a sentence's part.
"""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet

from detectors.behaviour.routine import LIMIT, MEASURES, Routine, measured
from detectors.behaviour.windows import LENGTHS, Length, Window

_LIMITS = {
    "actions": {"1h": 1e5, "1d": 1e6},
    "rows_read": {"1h": 1e7, "1d": 1e8},
    "rows_written": {"1h": 1e6, "1d": 1e7},
    "rows_deleted": {"1h": 1e5, "1d": 1e6},
    "rows_read_new": {"1h": 1e7, "1d": 1e8},
}
_MANY = 64.0
_SOME = 1e3
_IDLE = 30.0
_OFF_HOURS_ACTIONS = 8
"""Actions from which on an hour without precedent counts whole."""
DAILY = LENGTHS[-1].name

OWN = tuple(f"own_{measure}" for measure in MEASURES if measure != "errors")
FEATURES = (
    "actions",
    "rows_read",
    "rows_written",
    "rows_deleted",
    "rows_read_new",
    "rows_an_action",
    "relations",
    "statements",
    "addresses",
    "connects",
    "errors",
    "new",
    "foreign",
    "elsewhere",
    "beside",
    "off_hours",
    "idle",
    "creep",
    *OWN,
)
"""The order is part of the models: trees and projections are drawn over it."""
GROWING = tuple(feature for feature in FEATURES if feature not in ("rows_an_action", "creep"))


def features(window: Window, length: Length, routine: Routine, crept: float = 0.0) -> dict[str, float]:
    """Describe a window of somebody with this routine; `crept` is how far its days have crept up, 0 to 1."""
    name = length.name
    rows = window.rows_read + window.rows_written + window.rows_deleted
    actions = max(1, window.actions)
    x = {measure: _log(getattr(window, measure), limits[name]) for measure, limits in _LIMITS.items()}
    strange_hour = routine.unfamiliar(window.first_us) if name != DAILY else 0.0
    x |= {
        "rows_an_action": _log(rows / actions, 1e6),
        "relations": _log(len(window.relations), _MANY),
        "statements": _log(len(window.statements), _MANY),
        "addresses": _log(len(window.addresses), _MANY),
        "connects": _log(window.connects, _SOME),
        "errors": _log(window.errors, _SOME),
        "new": _log(len(window.new), _MANY),
        "foreign": _log(window.strange, _MANY),
        "elsewhere": _log(window.elsewhere, _SOME),
        "beside": _log(min(window.elsewhere, window.actions - window.elsewhere), _SOME),
        "off_hours": strange_hour * min(1.0, window.actions / _OFF_HOURS_ACTIONS),
        "idle": _log(max(0, routine.idle_days(window.first_us) - 1), _IDLE),
        "creep": crept,
    }
    for feature in OWN:
        measure = feature.removeprefix("own_")
        off = routine.deviation(name, measure, measured(window, measure))
        x[feature] = 0.5 + off / (2 * LIMIT)
    return {feature: x[feature] for feature in FEATURES}


def value_of(measure: str, length: Length, x: float) -> int:
    """Return the count that a feature of this value stands for."""
    limit = _LIMITS[measure][length.name] if measure in _LIMITS else _SOME
    return math.ceil(math.expm1(x * math.log1p(limit)))


def words(feature: str, window: Window, length: Length) -> str:
    """Return in words what a feature of a window is."""
    within = f"in {length.words}"
    rows = window.rows_read + window.rows_written + window.rows_deleted
    plain = {
        "actions": f"{window.actions:,} actions {within}",
        "rows_read": f"{window.rows_read:,} rows read {within}",
        "rows_written": f"{window.rows_written:,} rows written {within}",
        "rows_deleted": f"{window.rows_deleted:,} rows deleted {within}",
        "rows_read_new": (
            f"{window.rows_read_new:,} rows read {within} by queries that neither this principal nor its peers ever ran"
        ),
        "rows_an_action": f"{rows // max(1, window.actions):,} rows an action {within}",
        "relations": f"{_many(window.relations)} relations {within}",
        "statements": f"{_many(window.statements)} different statements {within}",
        "addresses": f"came from {_many(window.addresses)} addresses {within}",
        "connects": f"{window.connects:,} connections {within}",
        "errors": f"{window.errors:,} failed actions {within}",
        "new": f"did {_many(window.new)} things it never did before, such as {_names(window.new, window.foreign)}",
        "foreign": f"{_names(window.foreign)}: neither this principal nor its peers ever did that",
        "elsewhere": f"{window.elsewhere:,} actions from an address or by an application that is new",
        "beside": f"the known address was in use {length.words} around it, too",
        "off_hours": "at an hour of the week when it is not active",
        "idle": "after days without any activity",
        "creep": f"{window.rows_read:,} rows read and {window.actions:,} actions {within}, after days of a little more",
    }
    if feature.startswith("own_"):
        return f"{plain[feature.removeprefix('own_')]}, unlike its own routine"
    return plain[feature]


def _many(values: set[str]) -> str:
    return f"{len(values):,}"


def _names(values: AbstractSet[str], first: AbstractSet[str] = frozenset()) -> str:
    """Name three of them, what nobody else does `first`."""
    return ", ".join(sorted(values, key=lambda value: (value not in first, value))[:3])


def _log(value: float, limit: float) -> float:
    return min(1.0, math.log1p(max(0.0, value)) / math.log1p(limit))
