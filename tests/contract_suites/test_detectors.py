"""What every registered detector promises (`detectors.builtin`); `tests/detectors/laws.py` is about all together.

A new detector is added to `DETECTORS` and to `MATERIAL`: actions that it reports, and some that it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pytest

from detectors.actions import Action, count, of_change, of_event
from detectors.alerts.reports import POLICIES_REFUSED, Report
from detectors.behaviour.model import Behaviour
from detectors.builtin import DETECTORS, AnyDetector
from detectors.builtin.found import Found
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.events import Event, Position
from tests.detectors import laws
from tests.detectors.material import START_US, change, day, hostile

STATE_BYTES_MAX = 1024**2
CROWD = 3_000
FOUND = Found("0" * 64)


def control(number: int, operation: str, **detail: object) -> Event:
    """Make an event of a worker."""
    return Event(
        kind="control",
        event_id=f"c{number}",
        at=Position(0, number, 0),
        occurred_at_us=START_US + number,
        captured_at_us=START_US + number,
        cluster="shop",
        operation=operation,
        outcome="success",
        detail=detail,
    )


@dataclass(frozen=True)
class Material:
    """Events after whose last one a detector has reported, and events of which it reports nothing."""

    positive: Sequence[Event]
    negative: Sequence[Event]


MATERIAL = {
    "policies_refused": Material(
        positive=[control(1, POLICIES_REFUSED, host="db1", error="not YAML")],
        negative=[control(1, "policies_changed", host="db1"), change(2, "d", 50_000, "public.orders")],
    ),
}


@pytest.fixture(params=DETECTORS)
def name(request: pytest.FixtureRequest) -> str:
    """Each registered detector in turn."""
    return str(request.param)


def seen(detector: AnyDetector, events: Sequence[Event]) -> list[Report]:
    """Show a detector what it is asked about, as the judge does, and give what it reports."""
    asked = [event for event in events if event.kind in detector.kinds]
    return [report for event in asked for action in actions(event) for report in detector.look(action, FOUND)]


def actions(event: Event) -> list[Action]:
    """Make the actions of an event; a transaction is one for each relation and operation."""
    if event.kind != "change":
        return [of_event(event, {}, None)]
    return [of_change(event, *pair, rows, {}) for pair, rows in count(event).items()]


def everything(name: str) -> list[Event]:
    """What an ordinary day, an enemy and the detector's own material hold."""
    material = MATERIAL[name]
    return [*day(1), *material.negative, *material.positive, *hostile(1), *material.positive]


def test_it_has_material(name: str) -> None:
    """Nothing is registered that this suite does not try."""
    assert name in MATERIAL


def test_it_reports_what_it_is_for_and_nothing_else(name: str) -> None:
    """Each report says in words what was found, how bad it is and what to do."""
    reports = seen(DETECTORS[name](), MATERIAL[name].positive)
    assert reports
    for report in reports:
        assert report.severity in ("info", "low", "medium", "high", "critical")
        assert all((report.detector, report.title, report.message, report.description, report.runbook))
        assert report.window_us > 0
    assert seen(DETECTORS[name](), MATERIAL[name].negative) == []


def test_it_changes_nothing_that_it_is_shown(name: str) -> None:
    """An action is the same after it was looked at."""
    detector = DETECTORS[name]()
    for event in everything(name):
        if event.kind in detector.kinds:
            for action in actions(event):
                before = msgspec.json.encode(action)
                detector.look(action, FOUND)
                assert msgspec.json.encode(action) == before


def test_it_goes_on_after_a_snapshot(name: str) -> None:
    """A detector restored in mid-stream reports of the rest what the first one does; its state is JSON."""
    events = everything(name)
    whole = seen(DETECTORS[name](), events)
    for middle in (0, len(events) // 2, len(events) - 1):
        first, second = DETECTORS[name](), DETECTORS[name]()
        before = seen(first, events[:middle])
        state = first.snapshot()
        second.restore(msgspec.json.decode(msgspec.json.encode(state)))
        assert second.snapshot() == state
        assert before + seen(second, events[middle:]) == whole


def test_a_crowd_does_not_fill_its_memory(name: str) -> None:
    """However many names come, the state stays within a bound."""
    detector = DETECTORS[name]()
    for number in range(CROWD):
        stranger = laws.stranger(number)
        action = Action(kind="change", principal=stranger.principal or "", client_addr=stranger.client_addr or "")
        for kind in detector.kinds:
            detector.look(msgspec.structs.replace(action, kind=kind, operation=f"o{number}"), FOUND)
    assert len(msgspec.json.encode(detector.snapshot())) < STATE_BYTES_MAX


def judge() -> Judge:
    """A judge without policies: what it says comes from the detectors and the models."""
    return Judge(Bundle([]), labels={}, behaviour=Behaviour(Settings()))


def test_what_it_reports_is_one_alert_that_counts(name: str) -> None:
    """The judge asks it; the same finding again is the same alert; a restored judge goes on with it."""
    first = judge()
    raised = [alert for event in MATERIAL[name].positive for alert in first.judge(event).alerts]
    assert raised
    second = judge()
    second.restore(first.snapshot())
    assert second.snapshot() == first.snapshot()
    again = [alert for event in MATERIAL[name].positive for alert in second.judge(event).alerts]
    assert {alert.uid for alert in again} <= {alert.uid for alert in raised}
