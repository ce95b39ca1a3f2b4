"""The measuring of quality: the outside check, and that the suite itself counts right."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.quality import __main__ as command
from tests.quality import chores, shuttle
from tests.quality.attacks import ATTACKS, FIRST_DAY, plant
from tests.quality.heldout import HELD_OUT
from tests.quality.scoring import Alarm, Score
from tests.quality.suite import REPORTED_SEEDS, TUNING_SEEDS
from tests.quality.world import DAYS, at, build, live


def test_shuttle_is_told_apart_by_the_ensemble() -> None:
    """On the first 10,000 rows the calibrated ensemble reaches 0.97 and beats both of its models."""
    figures = shuttle.run()
    assert figures["rows"] == 10_000
    assert figures["ensemble"] >= 0.97
    assert figures["ensemble"] > max(figures["trees"], figures["loda"])


def test_seeds_for_tuning_and_for_reporting_are_apart() -> None:
    """No reported figure comes from days that the models were tuned on."""
    assert not set(TUNING_SEEDS) & set(REPORTED_SEEDS)


def test_the_same_seed_makes_the_same_days() -> None:
    """Events are the same to the last byte; another seed makes others."""

    def days(seed: int) -> bytes:
        world = build(seed, 0.1)
        live(world, 2)
        chores.work(world)
        return msgspec.json.encode(world.events)

    assert days(1) == days(1) != days(2)


def test_every_attack_befalls_somebody_else_after_the_warm_up() -> None:
    """Each kind is planted once, with a victim of its own, when habits are known."""
    world = build(3, 0.1)
    planted = plant(world)
    assert [one.attack.id for one in planted] == [attack.id for attack in ATTACKS]
    assert len({one.victim for one in planted}) == len(ATTACKS) >= 15
    assert all(at(FIRST_DAY, 0) <= min(one.times_us) and max(one.times_us) < at(DAYS, 0) for one in planted)


def test_held_out_attacks_befall_others_and_are_scored_apart() -> None:
    """No victim has two attacks, no kind is in both lists, and finding one that is held out is not recall."""
    world = build(3, 0.1)
    chores.work(world)
    planted = plant(world)
    others = plant(world, HELD_OUT, frozenset(one.victim for one in planted))
    assert len({one.victim for one in planted + others}) == len(planted) + len(others)
    assert len(HELD_OUT) >= 5
    assert not {attack.id for attack in ATTACKS} & {attack.id for attack in HELD_OUT}
    assert all(attack.held_out for attack in HELD_OUT)
    assert not any(attack.held_out for attack in ATTACKS)
    one = others[0]
    score = Score()
    score.add(planted + others, [Alarm("a", one.victim, min(one.times_us), max(one.times_us), 0, "low", "test")], 50)
    assert (score.recall, score.held_out_recall, score.alarms_false) == (0.0, 1 / len(others), 0)


def test_chores_are_what_policies_look_at_and_the_parser_read_them() -> None:
    """Schema changes, grants, roles, maintenance, backups, fixes and a restore test are among the ordinary days."""
    world = build(3, 0.1)
    chores.work(world)
    operations = {event.operation for event in world.events}
    assert {"CREATE TABLE", "ALTER TABLE", "vacuum", "grant", "create_role", "copy_to", "alter_system"} <= operations
    assert {"posture", "ddl", "statement", "change", "session"} <= {event.kind for event in world.events}
    assert "create_database" in operations or "reindex" in operations
    unread = [event for event in world.events if event.kind in ("statement", "ddl") and event.statement is None]
    assert unread == []


def test_an_alert_that_came_by_chance_counts_for_nothing() -> None:
    """Only an alert about the victim that covers one of the attack's events finds it; every other one is false."""
    world = build(3, 0.1)
    planted = plant(world)
    one = planted[0]
    time_us = one.times_us[0]

    def alarm(uid: str, who: str, first_us: int, last_us: int, severity: str = "low") -> Alarm:
        return Alarm(uid, who, first_us, last_us, last_us + 60_000_000, severity, "test")

    score = Score()
    alarms = [
        alarm("hit", one.victim, time_us, time_us),
        alarm("hit", one.victim, time_us, time_us + 5),
        alarm("before", one.victim, time_us - 10, time_us - 1),
        alarm("other", "nobody", time_us, time_us, "high"),
        alarm("warm-up", "nobody", at(1, 0), at(1, 1)),
    ]
    score.add(planted, alarms, 50)
    assert (score.found, score.alarms_true, score.alarms_false, score.loud_false) == (1, 1, 2, 1)
    assert score.median_seconds == 60
    assert score.false_a_day == 2 / (50 * (DAYS - FIRST_DAY))


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--json` gives every detector's figures, and the exit code says whether the targets hold."""
    scores = {name: Score(attacks=20, found=20, principal_days=100.0) for name in ("policies", "models", "both")}
    monkeypatch.setattr(command, "run", lambda seeds, scale: scores)
    monkeypatch.setattr("sys.argv", ["quality", "--json", "--seeds", "1"])
    assert command.main() == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["detectors"]["both"]["recall"] == 1.0
    assert printed["seeds"] == [101]
    scores["both"].loud_false = 1
    assert command.main() == 1
