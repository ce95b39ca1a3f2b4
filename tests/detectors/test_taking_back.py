"""What was reported before its outcome was known is taken back when it was undone, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from detectors.alerts import findings
from detectors.alerts.alert import Alert
from detectors.judge import Judge
from detectors.policy.files import parse
from detectors.policy.policies import Bundle
from pgwitness.core.events import Event
from tests.detectors.material import SECOND_US, START_US, event
from tests.detectors.test_alert import conforms
from tests.detectors.test_closing import clock

THREE = """
id: three_drops
title: Three tables dropped
description: Somebody drops one table after the other.
severity: medium
kinds: [statement]
when: operation == "drop_table" && outcome != "rolled_back"
message: "{principal.name} dropped {seen.count}"
runbook: Ask.
threshold: {count: 3, window: 1h, by: [principal.name]}
tests:
  - {name: three, actions: [{operation: drop_table, repeat: 3}], match: true}
  - {name: two, actions: [{operation: drop_table, repeat: 2}], match: false}
"""


def judge() -> Judge:
    """A judge of the packaged policies alone."""
    return Judge(Bundle.packaged(), labels={}, behaviour=None)


def drop(number: int, outcome: str = "pending", settles: int | None = None, relation: str = "public.t") -> Event:
    """A DROP TABLE of the log; `settles` is the number of the one whose outcome it says."""
    detail: dict[str, Any] = {"operations": ["drop_table"], "where": "n/a", "functions": [], "utility": True}
    if settles is not None:
        detail["settles"] = f"{settles:032x}"
    return event(
        number,
        "statement",
        operation="drop_table",
        statement=f"DROP TABLE {relation}",
        relations=[relation],
        outcome=outcome,
        detail=detail,
        binding="log",
    )


def severe(alerts: list[Alert]) -> list[tuple[str, int]]:
    """Activity and count of what drop_table says of what was done or may be."""
    return [(a.activity, a.count) for a in alerts if a.policy == "drop_table" and a.severity == "high"]


@pytest.mark.parametrize("outcome", ["rolled_back", "failure"])
@pytest.mark.parametrize("before", ["pending", "unknown"])
def test_what_was_undone_is_closed_with_the_reason(outcome: str, before: str) -> None:
    """The Close says that nothing happened, counts nothing and pages nobody."""
    judging = judge()
    (asked,) = [a for a in judging.judge(drop(1, before)).alerts if a.policy == "drop_table"]
    settled = judging.judge(drop(2, outcome, settles=1)).alerts
    assert severe(settled) == [("close", 0)]
    closed = next(alert for alert in settled if alert.activity == "close")
    assert (closed.uid, closed.event_ids) == (asked.uid, [])
    assert closed.record_uid != asked.record_uid
    assert closed.message.startswith("Did not happen, ")
    finding = closed.ocsf()
    assert conforms(finding)
    assert (finding["status"], finding["is_alert"]) == ("Resolved", False)
    assert finding["unmapped"]["resolution"]["as"] == outcome
    assert severe(judging.note(clock(START_US + 10 * 3_600 * SECOND_US)).alerts) == []


def test_what_was_committed_stays() -> None:
    """It updates the finding and is not counted twice; its Close comes in its time, with its count."""
    judging = judge()
    judging.judge(drop(1))
    assert severe(judging.judge(drop(2, "success", settles=1)).alerts) == [("update", 1)]
    assert severe(judging.judge(drop(3, "rolled_back", settles=1)).alerts) == []
    assert severe(judging.note(clock(START_US + 10 * 3_600 * SECOND_US)).alerts) == [("close", 1)]


def test_of_several_only_the_one_that_was_undone_is_taken_back() -> None:
    """The finding goes on with one less; names of its records stay apart."""
    judging = judge()
    alerts = [*judging.judge(drop(1)).alerts, *judging.judge(drop(2, "success")).alerts]
    alerts += judging.judge(drop(3, "rolled_back", settles=1)).alerts
    alerts += judging.judge(drop(4, "success")).alerts
    assert severe(alerts) == [("create", 1), ("update", 2), ("update", 1), ("update", 2)]
    loud = [alert for alert in alerts if alert.severity == "high"]
    assert len({alert.record_uid for alert in loud}) == len(loud)
    assert [alert.ocsf()["is_alert"] for alert in loud] == [True, True, False, True]
    assert severe(judging.note(clock(START_US + 10 * 3_600 * SECOND_US)).alerts) == [("close", 2)]


def test_what_is_known_later_than_the_window_takes_back_too() -> None:
    """A transaction may be open for longer than its finding; the Close with its count is followed by one without."""
    judging = judge()
    judging.judge(drop(1))
    late = 10 * 3_600 * 10
    assert severe(judging.note(clock(START_US + 9 * 3_600 * SECOND_US)).alerts) == [("close", 1)]
    assert severe(judging.judge(drop(late, "rolled_back", settles=1)).alerts) == [("close", 0)]


def test_a_snapshot_keeps_what_may_be_taken_back() -> None:
    """Another judge goes on where this one was."""
    first, second = judge(), judge()
    first.judge(drop(1))
    second.restore(first.snapshot())
    assert severe(second.judge(drop(2, "rolled_back", settles=1)).alerts) == [("close", 0)]
    third = judge()
    third.restore(second.snapshot())
    assert severe(third.judge(drop(3)).alerts) == severe(second.judge(drop(3)).alerts) == [("update", 1)]


def test_a_threshold_counts_what_was_undone_no_more() -> None:
    """Of three drops one was rolled back: two, and the outcome of one is no further drop."""
    made = Bundle(parse(THREE, "t"))
    judging = Judge(made, labels={}, behaviour=None)
    outcomes = [drop(1), drop(2), drop(3, "rolled_back", settles=1), drop(4, "success", settles=2), drop(5)]
    assert [alert for each in outcomes for alert in judging.judge(each).alerts] == []
    assert [alert.policy for alert in judging.judge(drop(6)).alerts] == ["three_drops"]


def test_what_may_be_taken_back_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than are kept the oldest stay as they were reported."""
    monkeypatch.setattr(findings, "UNDECIDED_MAX", 5)
    judging = judge()
    for number in range(8):
        judging.judge(drop(number, relation=f"public.t{number}"))
    assert severe(judging.judge(drop(20, "rolled_back", settles=0, relation="public.t0")).alerts) == []
    assert severe(judging.judge(drop(21, "rolled_back", settles=7, relation="public.t7")).alerts) == [("close", 0)]
