"""No input fills the memory: every container of a judge is counted after a flood, whichever it is."""

from __future__ import annotations

import pytest

from detectors import actions, sensitive
from detectors.actions import Parts
from detectors.alerts import findings, incidents, ledger, triage
from detectors.behaviour import presence
from detectors.behaviour.habits import Habits
from detectors.behaviour.habits_cache import VALUES_EACH, HabitsCache
from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy import correlation, evaluator
from detectors.policy.policies import Bundle
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.events import Count, Relation
from pgwitness.core.units import Duration
from tests.bench import flood
from tests.containers import beyond, longest
from tests.detectors.material import change

BOUND = 100
UNKNOWN_PRINCIPALS = 1_200
LIMITS = (
    (evaluator, "SHAPES_MAX"),
    (evaluator, "SELECTIONS_MAX"),
    (ledger, "FINDINGS_MAX"),
    (incidents, "INCIDENTS_MAX"),
    (presence, "KNOWN_MAX"),
    (presence, "NEW_MAX"),
    (findings, "UNDECIDED_MAX"),
    (triage, "ANSWERS_MAX"),
    (sensitive, "CACHE_MAX"),
    (correlation, "ENTRIES_MAX"),
)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """A judge with all policies and models, whose every bound is a hundred."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, BOUND)
    monkeypatch.setattr(flood, "LONG_EACH", 97)
    monkeypatch.setattr(flood, "LONG", "x" * 100_000)
    settings = Settings(principals_max=BOUND, warmup=Duration(0.001), warmup_observations=2)
    judge = Judge(Bundle.packaged(), labels={}, behaviour=Behaviour(settings))
    judge._findings.triage.suppress("- id: some\n  match: {principal: nobody-*}\n  reason: so that each is asked\n")
    return judge


def test_unknown_principals_fill_no_container(judge: Judge) -> None:
    """After a thousand names of which each is new, no container anywhere holds many, nor any text more than a few KiB.

    The longest names had a hundred thousand characters.
    """
    for number in range(UNKNOWN_PRINCIPALS):
        judge.judge(flood.stranger(number))
    code = (judge.bundle, judge._evaluator)
    assert beyond(judge, items_max=4 * BOUND, chars_max=8 * 1024, without=code) == []
    asked = [each for selection in judge._evaluator._selections.values() for each in selection.asked.values()]
    assert sum(len(each.answers) for each in asked if each is not None) <= BOUND
    assert len(judge._evaluator._shapes) <= BOUND
    assert len(judge._evaluator._selections) <= BOUND


def test_patient_unknown_principals_fill_no_container(judge: Judge) -> None:
    """Names that act until they are known, each time with something new, stay within the same bounds."""
    for number in range(6 * UNKNOWN_PRINCIPALS):
        judge.judge(flood.patient(number, 3 * BOUND))
    code = (judge.bundle, judge._evaluator)
    assert beyond(judge, items_max=4 * BOUND, chars_max=8 * 1024, without=code) == []


def test_a_cache_is_bounded_in_values() -> None:
    """Habits that are full make others leave, oldest first, until what is remembered together fits again."""
    room = HabitsCache(10)
    for number in range(10):
        room.enter(f"who-{number}", Habits(0))
    assert len(room) == 10
    for number in (9, 8, 7):
        habits = room[f"who-{number}"]
        for value in range(64):
            for name in ("client_addr", "application"):
                habits.known(name).learn(f"{value}")
        room.weigh(f"who-{number}", habits)
    assert room.values_held == sum(habits.weight for habits in room.values()) <= 10 * VALUES_EACH
    assert list(room) == ["who-8", "who-7"]


def test_a_cache_keeps_who_fills_it() -> None:
    """One who has more values than a room is for stays alone in it."""
    room = HabitsCache(1)
    habits = Habits(0)
    room.enter("only", habits)
    for value in range(64):
        habits.known("client_addr").learn(f"{value}")
    room.weigh("only", habits)
    assert list(room) == ["only"]


def test_open_transactions_are_bounded_in_what_they_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts whose last never comes, on relations without number, make the oldest transactions be forgotten."""
    monkeypatch.setattr(actions, "OPEN_COUNTS_MAX", 100)
    parts = Parts()
    for number in range(50):
        event = change(number, "d", 1, "public.t")
        event.last, event.part = False, 1
        event.relation_table = [Relation(f"public.t{relation}" + "x" * 1_000) for relation in range(10)]
        event.counts = [Count(relation, "d", 1) for relation in range(10)]
        assert parts.counts(event) is None
        assert len(parts) <= 100
    again = Parts()
    again.restore(parts.snapshot())
    assert len(again) == len(parts) == 100
    assert longest(parts)[0] <= actions.NAME_MAX


def test_what_holds_too_much_is_found_wherever_it_is() -> None:
    """A container with too many items and a text with too many characters are named, others are not."""
    room = HabitsCache(3)
    room.enter("x" * 40, Habits(0))
    assert beyond([room, {1, 2}], items_max=1_000, chars_max=40) == []
    assert [size for size, _ in beyond([room, set(range(1_001))], items_max=1_000, chars_max=39)] == [1_001, 40]
