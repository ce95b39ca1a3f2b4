"""Thresholds and sequences: by the time of the actions, whatever order they come in, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from detectors.actions import Action
from detectors.judge import Judge
from detectors.policy import correlation, tracks
from detectors.policy.correlation import Correlations
from detectors.policy.document import Document
from detectors.policy.files import parse
from detectors.policy.plan import Plan
from detectors.policy.policies import Bundle
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Event
from tests.detectors.material import START_US, event

MINUTE_US = 60_000_000


def plan(**facts: Any) -> Plan:
    """Make the plan of a policy that has this besides what every policy has."""
    document = {
        "id": "it",
        "title": "x",
        "description": "x",
        "severity": "low",
        "kinds": ["session"],
        "when": "true",
        "message": "x",
        "runbook": "x",
        "tests": [],
    }
    found = Plan.of(msgspec.convert(document | facts, Document))
    assert found is not None
    return found


def action(minute: float, number: int = 0, **facts: Any) -> Action:
    """Make an action at a minute."""
    return Action(
        kind="session",
        occurred_at_us=START_US + int(minute * MINUTE_US),
        event_id=str(number),
        **({"principal": "ada"} | facts),
    )


def fired(found: Plan, actions: Iterable[tuple[Action, list[int]]]) -> list[int]:
    """Return the places of the actions that completed something."""
    state = Correlations([found])
    return [n for n, (each, steps) in enumerate(actions) if state.see("it", steps, each) is not None]


COUNT = plan(threshold={"count": 3, "window": "10m"})


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        ([0, 5, 10], [2]),
        ([0, 5, 10.1], []),
        ([0, 1, 2, 3], [2, 3]),
        ([0, 1, 20, 21, 22], [4]),
        ([10, 5, 0], [2]),
        ([0, 600, 1, 2], [3]),
        ([0, 9, 18, 5], [3]),
    ],
)
def test_a_threshold_counts_within_its_window(minutes: list[float], expected: list[int]) -> None:
    """Three within ten minutes, counted by the time they happened, also when one comes late or from the future."""
    assert fired(COUNT, [(action(minute, n), [0]) for n, minute in enumerate(minutes)]) == expected


def test_keys_are_counted_apart() -> None:
    """What two principals do is not added up."""
    names = ["ada", "bob", "ada", "bob", "ada"]
    assert fired(COUNT, [(action(n, n, principal=name), [0]) for n, name in enumerate(names)]) == [4]


def test_different_values_are_counted_once_each() -> None:
    """The same address again renews its time and does not count twice; a list counts each of its values."""
    found = plan(threshold={"count": 3, "window": "10m", "distinct": "client_addr"})
    addresses = ["a", "a", "b", "a", "c"]
    actions = [(action(n, n, client_addr=address), [0]) for n, address in enumerate(addresses)]
    assert fired(found, actions) == [4]
    renewed = [(action(minute, minute, client_addr=a), [0]) for minute, a in ((0, "a"), (1, "b"), (9, "a"), (15, "c"))]
    assert fired(found, renewed) == []
    listed = plan(threshold={"count": 3, "window": "10m", "distinct": "relations"})
    assert fired(listed, [(action(0, relations=["x", "y"]), [0]), (action(1, relations=["y", "z"]), [0])]) == [1]


def test_sums_add_up_over_the_window() -> None:
    """Ten portions reach a hundred within the hour, and not in two; negative numbers take nothing away."""
    found = plan(threshold={"count": 100, "window": "1h", "sum": "rows"})
    assert fired(found, [(action(n * 5, n, rows=10), [0]) for n in range(12)]) == [9, 10, 11]
    assert fired(found, [(action(n * 12, n, rows=10), [0]) for n in range(12)]) == []
    assert fired(found, [(action(0, rows=90), [0]), (action(1, rows=-50), [0]), (action(2, rows=10), [0])]) == [2]


ORDERED = plan(
    when=None,
    sequence={
        "window": "10m",
        "steps": [{"name": "a", "when": "true", "count": 2}, {"name": "b", "when": "true"}],
    },
)


@pytest.mark.parametrize(
    ("met", "expected"),
    [
        ([(0, 0), (1, 0), (2, 1)], [2]),
        ([(0, 1), (1, 0), (2, 0)], []),
        ([(0, 0), (2, 1), (1, 0)], [2]),
        ([(0, 0), (1, 0), (11, 1)], []),
        ([(0, 0), (1, 1), (2, 0), (3, 1)], [3]),
        ([(0, 0), (1, 0), (2, 1), (3, 1)], [2]),
        ([(0, 0), (1, 0), (900, 1), (2, 1)], [3]),
    ],
)
def test_an_ordered_sequence_needs_its_order(met: list[tuple[float, int]], expected: list[int]) -> None:
    """Two of the first, then one of the second, by their times; afterwards it begins anew."""
    actions = [(action(minute, n), [step]) for n, (minute, step) in enumerate(met)]
    assert fired(ORDERED, actions) == expected


def test_an_unordered_sequence_needs_all_of_it() -> None:
    """In any order, but within the window; one action may meet several steps."""
    steps = [{"name": name, "when": "true"} for name in "abc"]
    found = plan(when=None, sequence={"type": "temporal", "window": "10m", "steps": steps})
    assert fired(found, [(action(0), [2]), (action(1, 1), [0]), (action(2, 2), [1])]) == [2]
    assert fired(found, [(action(0), [2]), (action(9, 1), [0]), (action(11, 2), [1])]) == []
    assert fired(found, [(action(0), [0, 1, 2])]) == [0]


def test_what_is_found_names_its_evidence() -> None:
    """The count, the span and the events are those that made it; of many events the first and the latest."""
    state = Correlations([plan(threshold={"count": 30, "window": "1h"})])
    seen = [state.see("it", [0], action(n, n)) for n in range(30)][-1]
    assert seen is not None
    assert (seen.count, seen.last_us - seen.first_us) == (30, 29 * MINUTE_US)
    assert len(seen.event_ids) == tracks.EVENT_IDS_MAX
    assert (seen.event_ids[0], seen.event_ids[-1]) == ("0", "29")


@given(
    st.lists(
        st.tuples(st.integers(-(2**60), 2**60), st.sampled_from("abcd"), st.integers(-(2**62), 2**62)), max_size=60
    ),
    st.sampled_from(["event_count", "value_count", "value_sum", "temporal", "temporal_ordered"]),
    st.integers(0, 60),
)
def test_state_goes_on_after_a_snapshot(actions: list[tuple[int, str, int]], kind: str, cut: int) -> None:
    """Whatever the times and values, a restored state says the same of what follows, and never raises."""
    field = {"value_count": {"distinct": "client_addr"}, "value_sum": {"sum": "rows"}}.get(kind, {})
    steps = [{"name": name, "when": "true"} for name in "ab"]
    facts: dict[str, Any] = {"threshold": {"count": 3, "window": "10m", **field}}
    if kind.startswith("temporal"):
        facts = {"sequence": {"type": kind, "window": "10m", "steps": steps}}
    found = plan(**facts)
    made = [
        (Action(kind="session", occurred_at_us=at, client_addr=value, rows=rows, event_id=str(n)), [rows % 2])
        for n, (at, value, rows) in enumerate(actions)
    ]
    if not kind.startswith("temporal"):
        made = [(each, [0]) for each, _ in made]
    one, other = Correlations([found]), Correlations([found])
    for each, met in made[:cut]:
        one.see("it", met, each)
    state = one.snapshot()
    other.restore(json.loads(json.dumps(state)))
    for each, met in made[cut:]:
        assert one.see("it", met, each) == other.see("it", met, each)
    assert json.dumps(one.snapshot()) == json.dumps(other.snapshot())


def test_a_flood_of_keys_evicts_the_longest_inactive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stops growing; a key that goes on acting is kept."""
    monkeypatch.setattr(correlation, "ENTRIES_MAX", 100)
    state = Correlations([COUNT])
    for number in range(1_000):
        state.see("it", [0], action(0, number, principal=f"stranger-{number}"))
        if number in (300, 320):
            assert state.see("it", [0], action(1, number, principal="ada")) is None
    assert len(state.snapshot()[0][2]) <= 100
    state = Correlations([COUNT])
    found = []
    for number in range(300):
        state.see("it", [0], action(0, number, principal=f"stranger-{number}"))
        if number % 30 == 0:
            found.append(state.see("it", [0], action(1, number, principal="ada")) is not None)
    assert found[:3] == [False, False, True]


def test_what_a_changed_policy_had_seen_is_forgotten_and_the_rest_is_kept() -> None:
    """State belongs to what was asked: another threshold begins anew, the same one goes on."""
    state = Correlations([COUNT])
    state.see("it", [0], action(0))
    same, other = Correlations([COUNT]), Correlations([plan(threshold={"count": 4, "window": "10m"})])
    same.restore(state.snapshot())
    other.restore(state.snapshot())
    assert same.snapshot() == state.snapshot()
    assert other.snapshot() == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"threshold": {"count": 1, "window": "1m"}}, "2 to 1000"),
        ({"threshold": {"count": 1001, "window": "1m"}}, "2 to 1000"),
        ({"threshold": {"count": 3, "window": "32d"}}, "31 days"),
        ({"threshold": {"count": 3, "window": "soon"}}, "threshold.window"),
        ({"threshold": {"count": 3, "window": "1m", "by": ["cluster"]}}, "principal.name or role"),
        ({"threshold": {"count": 3, "window": "1m", "by": ["role", "x"]}}, "'x' is no field"),
        ({"threshold": {"count": 3, "window": "1m", "distinct": "x"}}, "threshold.distinct"),
        ({"threshold": {"count": 3, "window": "1m", "sum": "role"}}, "role is string"),
        ({"threshold": {"count": 3, "window": "1m", "sum": "rows", "distinct": "role"}}, "not both"),
        ({"sequence": {"window": "1m", "steps": [{"name": "a", "when": "true"}]}}, "2 to 8"),
        ({"sequence": {"window": "1m", "steps": [{"name": "a", "when": "true"}] * 2}}, "name of its own"),
    ],
)
def test_what_cannot_be_counted_is_refused(facts: dict[str, Any], words: str) -> None:
    """A threshold or sequence that could never work says why when it is loaded."""
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        plan(**facts)


SHARED = """
id: shared
title: t
description: d
severity: low
kinds: [session]
when: operation == "connect"
threshold: {distinct: client_addr, count: 3, window: 10m, by: [cluster, principal.name]}
message: "{who}: {seen.count} from {seen.values} in {seen.span}"
runbook: r
tests:
  - name: a
    match: true
    actions:
      - {client_addr: a, operation: connect}
      - {client_addr: b, operation: connect}
      - {client_addr: c, operation: connect}
  - {name: b, match: false, action: {operation: connect, client_addr: a}}
"""


def test_the_alert_of_a_threshold_shows_what_led_to_it() -> None:
    """The sentence tells number, values and time; the evidence holds the earlier events; a restart does not forget."""
    bundle = Bundle(parse(SHARED, "x.yaml"))
    assert bundle.run_tests() == []
    judge = Judge(bundle, labels={}, behaviour=None)
    events = [
        event(number * 100, "session", operation="connect", principal="ada", client_addr=f"10.0.0.{number}")
        for number in range(3)
    ]
    assert [judge.judge(each).policies for each in events[:2]] == [[], []]
    again = Judge(bundle, labels={}, behaviour=None)
    again.restore(judge.snapshot())
    verdict = again.judge(events[2])
    assert verdict.policies == ["shared"]
    (alert,) = verdict.alerts
    assert alert.message == "ada: 3 from 10.0.0.0, 10.0.0.1, 10.0.0.2 in 20 seconds"
    assert alert.event_ids == [each.event_id for each in events]
    assert alert.first_seen_us == events[0].occurred_at_us


ABSENT = """
id: not_switched_on
title: t
description: d
severity: high
kinds: [statement]
message: "{who} did not switch it on again"
runbook: r
sequence:
  window: 10m
  by: [principal.name]
  steps:
    - {name: copy, absent: true, when: operation == "copy_to"}
    - {name: disable, when: operation == "disable_trigger"}
    - {name: enable, absent: true, when: operation == "enable_trigger"}
tests:
  - {name: a, match: true, actions: [{operation: disable_trigger, principal: {name: ada}}]}
  - name: b
    match: false
    actions:
      - {operation: disable_trigger, principal: {name: ada}}
      - {at: 1m, operation: enable_trigger, principal: {name: ada}}
"""
MINUTE = 600
"""Events of `material.event` are a tenth of a second apart."""


def absences() -> Judge:
    """Make a judge that looks for what does not come, and that has looked for long enough already."""
    bundle = Bundle(parse(ABSENT, "x.yaml"))
    assert bundle.run_tests() == []
    judge = Judge(bundle, labels={}, behaviour=None)
    assert judge.judge(said(-20, "select")).alerts == []
    return judge


def said(minute: float, operation: str, who: str = "ada") -> Event:
    """Make a statement."""
    return event(int(10_000 * MINUTE + minute * MINUTE), "statement", operation=operation, principal=who)


def told(judge: Judge, *events: Event) -> list[tuple[int, str]]:
    """Judge events; return what was told at which."""
    return [
        (number, alert.message)
        for number, each in enumerate(events)
        for alert in judge.judge(each).alerts
        if alert.activity == "create"
    ]


def test_what_does_not_come_is_reported_when_its_time_has_passed() -> None:
    """Nothing is said before; then it is told with the first event that says that it is late enough, whoever's."""
    quiet = [said(9, "select", "joe"), said(10.5, "select", "joe"), said(11.1, "select", "joe"), said(12, "select")]
    judge = absences()
    assert told(judge, said(0, "disable_trigger"), *quiet) == [(3, "ada did not switch it on again")]
    assert told(judge, said(60, "select")) == []


def test_a_clock_says_nothing_of_what_is_on_its_way() -> None:
    """Neither another cluster's events nor the worker's note of the time tell what has not come."""
    judge = absences()
    other = replace(said(30, "select"), cluster="billing")
    note = replace(said(31, "clock"), kind="control", cluster="")
    assert told(judge, said(0, "disable_trigger"), other) == []
    assert judge.note(note).alerts == []
    assert told(judge, said(5, "enable_trigger"), said(32, "select")) == []
    judge = absences()
    assert len(told(judge, said(0, "disable_trigger"), other, said(12, "select"))) == 1


@pytest.mark.parametrize("minute", [0.1, 5, 10])
def test_what_comes_in_time_takes_it_back(minute: float) -> None:
    """In the window it is in time, also when it is seen late; another's does not count, nor does one after it."""
    judge = absences()
    assert told(judge, said(0, "disable_trigger"), said(minute, "enable_trigger"), said(30, "select")) == []
    judge = absences()
    late = [said(10.5, "select"), said(minute, "enable_trigger"), said(30, "select")]
    assert told(judge, said(0, "disable_trigger"), *late) == []
    assert told(absences(), said(minute, "enable_trigger"), said(0, "disable_trigger"), said(30, "select")) == []
    for other in (said(minute, "enable_trigger", "joe"), said(10.2, "enable_trigger")):
        assert len(told(absences(), said(0, "disable_trigger"), other, said(30, "select"))) == 1


def test_what_was_there_before_answers_for_all_in_its_window() -> None:
    """An absence before holds for as long as the window, and is not used up."""
    judge = absences()
    assert (
        told(judge, said(0, "copy_to"), said(1, "disable_trigger"), said(10, "disable_trigger"), said(25, "select"))
        == []
    )
    assert len(told(absences(), said(0, "copy_to"), said(10.1, "disable_trigger"), said(25, "select"))) == 1


def test_nothing_is_reported_absent_that_nobody_looked_for() -> None:
    """A judge that began less than a window ago does not know what was before; a restart does not begin anew."""
    bundle = Bundle(parse(ABSENT, "x.yaml"))
    young = Judge(bundle, labels={}, behaviour=None)
    young.judge(replace(said(0, "select"), occurred_at_us=0))  # one that claims to be old makes the judge no older
    assert told(young, said(9, "disable_trigger"), said(30, "select")) == []
    again = Judge(bundle, labels={}, behaviour=None)
    again.restore(young.snapshot())
    assert len(told(again, said(31, "disable_trigger"), said(50, "select"))) == 1


def test_waiting_goes_on_after_a_restart_and_a_change_of_policies() -> None:
    """What waits is in the checkpoint, is reported once, and not by a policy that asks something else by then."""
    judge = absences()
    judge.judge(said(0, "disable_trigger"))
    again = Judge(Bundle([]), labels={}, behaviour=None)
    again.restore(judge.snapshot())
    assert again.snapshot() == judge.snapshot()
    again.adopt(Bundle(parse(ABSENT.replace("severity: high", "severity: low"), "x.yaml")))
    assert len(told(again, said(30, "select"), said(31, "select"))) == 1
    judge.adopt(Bundle(parse(ABSENT.replace("window: 10m", "window: 11m"), "x.yaml")))
    assert told(judge, said(30, "select")) == []


def test_a_flood_of_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than there is room for the oldest are forgotten; long actions are kept short."""
    monkeypatch.setattr("detectors.policy.absence.WAITING_MAX", 50)
    judge = absences()
    for number in range(200):
        long = said(number / 100, "disable_trigger", f"p{number}")
        judge.judge(replace(long, statement="x" * 50_000, detail={"error": "y" * 50_000}))
    assert len(judge.snapshot()) < 400_000
    assert {who for _, who in told(judge, said(30, "select"))} == {
        f"p{number} did not switch it on again" for number in range(150, 200)
    }


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('when: operation == "disable_trigger"}', "absent: true, when: rows > 1}", "one that happens is needed"),
        ("  window: 10m", "  type: temporal\n  window: 10m", "there is none"),
        ("{name: copy, absent: true,", "{name: copy, absent: true, count: 2,", "there is no count"),
        (
            "{name: disable,",
            "{name: x, absent: true, when: rows > 9}\n    - {name: disable,",
            "two absent ones in a row",
        ),
    ],
)
def test_what_cannot_be_absent_is_refused(before: str, after: str, words: str) -> None:
    """Steps that are absent need one that happens, an order and no count."""
    assert before in ABSENT
    with pytest.raises(ConfigurationError, match=words):
        parse(ABSENT.replace(before, after), "x.yaml")
