"""How unusual one action is by somebody's habits: each part a surprise between 0 and 1 with its reason in words.

The parts are joined as independent reasons to doubt, 1 - (1-a)(1-b)…. Scoring learns nothing but what moves or has been
held apart for long enough (`detectors.behaviour.habits.Known.hold`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectors.behaviour.habits import NEVER_US, Habits, Known, Observation, Unusual, short, size_of

HasDone = Callable[[str, int], bool]
"""Whether the principal has moved as many rows by an operation before."""

WEIGHTS = {
    "client_addr": 0.6,
    "application": 0.4,
    "relation": 0.5,
    "statement": 0.3,
    "columns": 0.2,
    "off_hours": 0.4,
    "volume": 0.95,
}
"""The most each part can add: how sure a person would be by this alone."""
VOLUME_N_MIN = 10
VOLUME_ROWS_MIN = 50
"""Fewer rows are never unusually many."""
DEVIATIONS = (4.0, 10.0)
"""Standard deviations above the mean where the volume's surprise starts, and where it is complete."""
RARE_N_MIN = 200
NETWORK_KNOWN_MIN = 3
"""Known addresses of one /24 (or /64), or of two in one /16 (or /48), from which on a further one there is no new
place: pods move."""
PEERS_KNOW = 0.4
"""What is left of the surprise when the principal's peers do the same."""
SURPRISE_MIN = 0.8
"""Whose every fifth query is a new one makes them up as its work: that another is new says nothing of it."""

ASKED = (
    ("client_addr", "address"),
    ("application", "application"),
    ("relation", "action"),
    ("statement", "statement"),
    ("columns", "set of columns"),
)
"""What is asked of an observation, in this order, and its word."""


WITH_DATA = ("relation", "statement", "columns")
"""What of an observation says which data it touched."""

LEARNING = Unusual(-1.0, [])
"""The principal is not known well enough: no score."""
ORDINARY = Unusual(0.0, [])


def score(
    habits: Habits,
    observation: Observation,
    *,
    adopt_us: int,
    has_done: HasDone,
    borrowed: str | None = None,
    peers: Habits | None = None,
    off_hours: float = 0.0,
) -> Unusual:
    """Score an observation by somebody's habits, or by those `borrowed` from a group of that name.

    Of one's own habits something new is held apart until it was there for long, and counts less when `peers` do it.
    """
    subject = f"members of {borrowed}" if borrowed else "this principal"
    reasons: list[dict[str, Any]] = []
    new: set[str] = set()
    foreign = 0.0
    unprecedented = False
    for name, word in ASKED:
        value = observation.value(name)
        if value is None or (name in ("statement", "columns") and "relation" in new):
            # In a relation that is new every statement is.
            continue
        value = short(value)
        known = habits.known(name)
        if value in known.counts:
            reasons += _rare(name, word, value, known, subject)
            continue
        if known.total == 0 or _is_adopted(known, name, value, observation, peers, borrowed, adopt_us):
            continue
        new.add(name)
        words = f"{word} {value or 'local socket'} was never seen of {subject} in {known.total:,} actions"
        weight = WEIGHTS[name] * known.surprise()
        if peers is not None and value in peers.known(name).counts:
            weight *= PEERS_KNOW
            words += ", though of its peers"
        elif name == "relation":
            foreign = known.surprise()
            unprecedented = foreign >= SURPRISE_MIN
        elif name == "statement":
            unprecedented = known.surprise() >= SURPRISE_MIN
        reasons.append(_reason(name, weight, words))
    reasons += _volume(habits, observation, subject, has_done)
    if not reasons:
        return ORDINARY
    if off_hours > 0:
        words = f"{subject} is not active at this hour of the week"
        reasons.append(_reason("off_hours", WEIGHTS["off_hours"] * off_hours, words))
    doubt = 1.0
    for reason in reasons:
        doubt *= 1.0 - reason["score"]
    reasons.sort(key=lambda reason: (-reason["score"], reason["feature"]))
    return Unusual(
        round(1.0 - doubt, 4),
        reasons,
        new_client_addr="client_addr" in new,
        new_application="application" in new,
        new_relation="relation" in new,
        new_statement="statement" in new,
        foreign=foreign,
        unprecedented=unprecedented,
    )


def _is_adopted(
    known: Known,
    name: str,
    value: str,
    observation: Observation,
    peers: Habits | None,
    borrowed: str | None,
    adopt_us: int,
) -> bool:
    """Return whether a value that is not known is none that is new: where it moves, or there for long enough."""
    if _moved(name, value, known, peers):
        known.learn(value)
        return True
    # What is sensitive does not become ordinary by time alone: a reviewer says so, or its peers do it, too.
    never = observation.sensitive and name in WITH_DATA
    return borrowed is None and known.hold(value, observation.now_us, NEVER_US if never else adopt_us)


def _volume(habits: Habits, observation: Observation, subject: str, has_done: HasDone) -> list[dict[str, Any]]:
    """Return the reason that lies in far more rows than usual, unless days like that are the principal's
    routine."""
    operation, rows = observation.operation, observation.rows
    if rows is None or rows < VOLUME_ROWS_MIN or has_done(operation, rows):
        return []
    # Of an operation it hardly uses, a principal's usual volume is that of what it does most.
    volume = habits.volumes.get(operation)
    if volume is None or volume.n < VOLUME_N_MIN:
        volume = max(habits.volumes.values(), key=lambda other: other.n, default=None)
    if volume is None or volume.n < VOLUME_N_MIN:
        return []
    low, high = DEVIATIONS
    above = min(1.0, max(0.0, (volume.deviation(size_of(rows)) - low) / (high - low)))
    words = f"{rows:,} rows by {operation} are far more than {subject} usually moves"
    return [_reason("volume", WEIGHTS["volume"] * above, words)] if above > 0 else []


def _rare(name: str, word: str, value: str, known: Known, subject: str) -> list[dict[str, Any]]:
    """Return the reason that lies in a value which is known, but hardly ever used."""
    if known.total <= RARE_N_MIN or (rare := known.rarity(value)) <= 0:
        return []
    seen = f"{known.counts[value]:,} of {known.total:,} times"
    words = f"{subject} rarely did so: {word} {value or 'local socket'} {seen}"
    return [_reason(name, WEIGHTS[name] * rare * 0.5, words)]


def _moved(name: str, value: str, known: Known, peers: Habits | None) -> bool:
    """Return whether a new address or application is where the principal moves, or where several of its peers have."""
    if name == "application":
        return peers is not None and value in peers.applications.counts
    if name != "client_addr":
        return False
    # With a slash it is a network that identities.yaml lists.
    near = "/" in value or known.is_near(value, NETWORK_KNOWN_MIN)
    return near or (peers is not None and peers.addresses.has_network_of(value))


def _reason(feature: str, score: float, words: str) -> dict[str, Any]:
    return {"feature": feature, "score": round(score, 4), "words": words}
