"""The life of a finding: Create, Update, Close; by the time in the records, the same in a replay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from detectors.alerts import ledger
from detectors.alerts.alert import Alert
from detectors.alerts.ledger import IDLE_US
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.events import Event, Position
from tests.detectors.material import SECOND_US, START_US, change, event
from tests.detectors.test_alert import conforms

HOUR_US = 3_600 * SECOND_US


def judge() -> Judge:
    """A judge of the packaged policies alone."""
    return Judge(Bundle.packaged(), labels={}, behaviour=None)


def clock(at_us: int) -> Event:
    """The record by which the worker tells the time."""
    return event(0, "control", operation="clock", occurred_at_us=at_us, captured_at_us=at_us, at=Position(-2, 1, 0))


def mass_delete(number: int, at_us: int, **facts: Any) -> Event:
    """A mass delete at a time."""
    return change(number, "d", 9_000, occurred_at_us=at_us, captured_at_us=at_us + 40_000, **facts)


def test_a_finding_is_closed_with_its_final_count() -> None:
    """Of 13 occurrences ten were emitted; the Close, when the window has passed, counts all 13."""
    judging = judge()
    emitted = [alert for n in range(13) for alert in judging.judge(mass_delete(n, START_US + n * SECOND_US)).alerts]
    assert [alert.activity for alert in emitted] == ["create"] + ["update"] * 9
    end_us = (START_US // HOUR_US + 1) * HOUR_US
    assert judging.note(clock(end_us + IDLE_US - 1)).alerts == []
    (closed,) = judging.note(clock(end_us + IDLE_US)).alerts
    finding = closed.ocsf()
    assert conforms(finding)
    assert (finding["activity_id"], finding["type_uid"], finding["count"]) == (3, 200403, 13)
    assert finding["finding_info"]["uid"] == emitted[0].uid
    assert finding["time"] == (end_us + IDLE_US) // 1000
    assert (finding["is_alert"], finding["metadata"]["uid"]) == (False, f"{emitted[0].uid}-13-closed")
    assert finding["finding_info"]["last_seen_time"] == (START_US + 12 * SECOND_US) // 1000
    assert finding["unmapped"]["principal"] == "checkout"
    assert judging.note(clock(end_us + HOUR_US)).alerts == []


def test_any_later_event_closes_it_too() -> None:
    """The time is that of the records, whoever they are about; the event's own alerts come first."""
    judging = judge()
    judging.judge(mass_delete(1, START_US))
    later = START_US + 3 * HOUR_US
    other = judging.judge(mass_delete(2, later, principal="somebody-else")).alerts
    assert [(alert.activity, alert.action.principal) for alert in other] == [
        ("create", "somebody-else"),
        ("close", "checkout"),
    ]


def test_an_occurrence_after_the_window_waits_for_its_own_end() -> None:
    """A backlog that brings a window hours later is one Create, Updates, and one Close, not a Close for each."""
    judging = judge()
    emitted = []
    for number in range(4):
        late = START_US + 5 * HOUR_US + number * SECOND_US
        emitted += judging.judge(change(number, "d", 9_000, captured_at_us=late)).alerts
    emitted += judging.note(clock(START_US + 6 * HOUR_US)).alerts
    assert [(alert.activity, alert.count) for alert in emitted] == [
        ("create", 1),
        ("update", 2),
        ("update", 3),
        ("update", 4),
        ("close", 4),
    ]


def test_closings_are_the_same_after_a_restart() -> None:
    """A judge restored in between closes the same findings with the same words."""
    first, second = judge(), judge()
    for number in range(40):
        first.judge(mass_delete(number, START_US + number * 60 * SECOND_US, principal=f"p{number % 7}"))
    second.restore(first.snapshot())
    assert second.due_us == first.due_us
    at = START_US + 9 * HOUR_US
    closed = [[alert.ocsf() for alert in each.note(clock(at)).alerts] for each in (first, second)]
    assert closed[0] == closed[1]
    assert sum(finding["count"] for finding in closed[0]) == 40


def test_what_is_evicted_is_closed_and_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over its bound the ledger closes the quietest finding early; it is counted on, and closed again in the end."""
    monkeypatch.setattr(ledger, "KEPT_BYTES_MAX", 4_000)
    judging = judge()
    emitted: list[Alert] = []
    for number in range(20):
        emitted += judging.judge(mass_delete(number, START_US + number * SECOND_US, principal=f"p{number}")).alerts
    early = [alert for alert in emitted if alert.activity == "close"]
    assert early
    assert early[0].action.principal == "p0"
    (again, *_) = judging.judge(mass_delete(20, START_US + 20 * SECOND_US, principal="p0")).alerts
    assert (again.activity, again.count, again.uid) == ("update", 2, early[0].uid)
    finally_closed = {alert.action.principal for alert in judging.note(clock(START_US + 9 * HOUR_US)).alerts}
    assert "p0" in finally_closed
    state = json.loads(judging.snapshot())
    assert len(json.dumps({name: value for name, value in state.items() if name != "bundle"})) < 20_000


def test_a_checkpoint_of_the_first_release_is_read() -> None:
    """Counts go on; what has no facts is not closed."""
    judging = judge()
    (alert,) = judging.judge(mass_delete(1, START_US)).alerts
    state = json.loads(judging.snapshot())
    del state["triage"]
    state["ledger"] = [entry[:5] for entry in state["ledger"]]
    restored = judge()
    restored.restore(json.dumps(state).encode())
    (again,) = restored.judge(mass_delete(2, START_US + SECOND_US)).alerts
    assert (again.uid, again.count) == (alert.uid, 2)
