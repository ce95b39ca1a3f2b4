"""Evidence: what a window shows that a person would call a reason, each weighed from 0 to 1 and said in words.

Rates beyond the highest of the principal's usual days, sooner so for rows read by queries that nobody ran before, hours
at which it is not active, things that neither it nor its peers ever touched, work from a new place while the known one
is in use, and an account that slept. Independent reasons to doubt are joined as such: 1 - (1-a)(1-b)….
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from detectors.behaviour.features import words
from detectors.behaviour.routine import MEASURES, Routine, measured
from detectors.behaviour.windows import LENGTHS, Length, Window

REASONS_MAX = 5
DEVIATIONS = (2.5, 6.0)
"""Standard deviations above a day's usual highest where a rate's surprise starts, and where it is complete."""
RATE_WEIGHT = 0.96
RATE_VALUE_MIN = {"actions": 30, "rows_read": 100, "rows_written": 50, "rows_deleted": 20, "relations": 8, "errors": 5}
"""Less than this is never unusually much, whatever the routine."""
NEW_DEVIATIONS = (1.0, 3.0)
"""The same for rows read by queries that neither principal nor peers ever ran, held against all that it reads: who does
something new and much of it has two reasons to be looked at."""
NEW_ROWS_MIN = 30
OFF_HOURS_WEIGHT, OFF_HOURS_ACTIONS = 0.92, 8
"""What an hour without precedent weighs when at least so many actions fall into it."""
FOREIGN_WEIGHTS = (0.75, 0.9, 0.95)
"""What one, two, three or more actions on relations that are foreign to principal and peers weigh."""
ELSEWHERE_WEIGHT, ELSEWHERE_ACTIONS = 0.8, 5
BESIDE_WEIGHT = 0.55
"""What it adds that another address was in use in the same hour."""
IDLE_WEIGHT, IDLE_DAYS = 0.92, 8


HOURLY = LENGTHS[1].name
PEERS_HOURS_MIN = 100
"""Active hours of the peers after which what is foreign to them says something of who is new among them."""


class Evidence(Struct, frozen=True):
    """One reason to doubt that a window is ordinary."""

    feature: str
    weight: float
    words: str


def weigh(length: Length, window: Window, routine: Routine, peers: Routine) -> list[Evidence]:
    """Give what speaks against a window, by the routine of its principal and the hours of its peers.

    All of it only grows while a window is open.
    """
    found = _rates(length, window, routine)
    if not (routine.settled(HOURLY) or peers.windows[HOURLY] >= PEERS_HOURS_MIN):
        return found
    if window.foreign:
        strength = min(1.0, window.strange / 0.9)
        most = FOREIGN_WEIGHTS[min(len(FOREIGN_WEIGHTS), max(1, round(window.strange))) - 1]
        names = ", ".join(sorted(window.foreign)[:3])
        text = f"{names}: neither this principal nor its peers ever did that"
        found.append(Evidence("foreign", most * strength, text))
    if length is LENGTHS[-1]:
        return found
    if (strange := routine.unfamiliar(window.first_us)) > 0:
        strange *= 0.5 + 0.5 * peers.unfamiliar(window.first_us)
        weight = OFF_HOURS_WEIGHT * strange * min(1.0, window.actions / OFF_HOURS_ACTIONS)
        found.append(Evidence("off_hours", weight, words("off_hours", window, length)))
    if window.elsewhere:
        weight = ELSEWHERE_WEIGHT * min(1.0, window.elsewhere / ELSEWHERE_ACTIONS)
        text = f"{window.elsewhere:,} actions from an address or by an application that is new"
        found.append(Evidence("elsewhere", weight, text))
        if len(window.addresses) > 1:
            text = f"the known address was in use {length.words} around it, too"
            found.append(Evidence("beside", BESIDE_WEIGHT * min(1.0, window.elsewhere / 3), text))
    if (idle := routine.idle_days(window.first_us)) > 1:
        weight = IDLE_WEIGHT * min(1.0, idle / IDLE_DAYS) ** 2
        found.append(Evidence("idle", weight, f"active after {idle} days without any activity"))
    return found


def _rates(length: Length, window: Window, routine: Routine) -> list[Evidence]:
    found = []
    for measure in MEASURES:
        value = measured(window, measure)
        if value >= RATE_VALUE_MIN[measure] and (above := _above(routine, length, measure, value, DEVIATIONS)) > 0:
            text = f"{words(measure, window, length)}, far more than on any of its usual days"
            found.append(Evidence(measure, RATE_WEIGHT * above, text))
    rows = window.rows_read_new
    if rows >= NEW_ROWS_MIN and (above := _above(routine, length, "rows_read", rows, NEW_DEVIATIONS)) > 0:
        text = (
            f"{rows:,} rows read in {length.words} by queries that neither this principal nor its peers ever ran, "
            f"more than all that it reads in {length.words} on any of its usual days"
        )
        new = Evidence("rows_read_new", RATE_WEIGHT * above, text)
        # The same rows are not two reasons: the weightier one stays.
        read = next((one for one in found if one.feature == "rows_read"), None)
        if read is None:
            found.append(new)
        elif new.weight > read.weight:
            found[found.index(read)] = new
    return found


def _above(routine: Routine, length: Length, measure: str, value: int, deviations: tuple[float, float]) -> float:
    """Say how far a value is beyond the highest of the principal's usual days: 0 to 1 between these deviations."""
    low, high = deviations
    return min(1.0, max(0.0, (routine.excess(length.name, measure, value) - low) / (high - low)))


def joined(evidence: list[Evidence]) -> float:
    """Join reasons to doubt."""
    doubt = 1.0
    for one in evidence:
        doubt *= 1.0 - one.weight
    return 1.0 - doubt


def told(evidence: list[Evidence]) -> list[dict[str, Any]]:
    """Write the weightiest reasons as an alert carries them, each feature once."""
    reasons: dict[str, dict[str, Any]] = {}
    for one in sorted(evidence, key=lambda one: (-one.weight, one.feature)):
        if one.weight >= 0.05 and one.feature not in reasons:
            reasons[one.feature] = {"feature": one.feature, "score": round(one.weight, 4), "words": one.words}
    return list(reasons.values())[:REASONS_MAX]
