"""`pgwitness policy`: what is wrong is named, tests are run, and past evidence is judged as it was when it happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from detectors.behaviour.model import Behaviour
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from detectors.replay import Replay
from pgwitness.core.config import Behaviour as Settings
from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Count, Event, Position, Relation
from pgwitness.core.moments import when
from pgwitness.core.units import Duration
from sinks.lake.writer import Lake
from sinks.sql.evidence import Evidence
from tests.cli.test_program import home, run
from tests.detectors.material import START_US, change, day, event

__all__ = ["home"]

ROOM = 1_000_000_000


def landed(lake: Lake, judge: Judge, events: list[Event], partition: int = 0, cut: int = 100) -> list[list[str]]:
    """Judge events as the worker does and land them in several files; gives what was said of each."""
    lake.prepare()
    writer = lake.writer("pgwitness.events", partition)
    start, _ = writer.resume()
    said: list[list[str]] = []
    for number in range(0, len(events), cut):
        part = [
            replace(each, at=Position(partition, 1_000 * start + number + n, 0))
            for n, each in enumerate(events[number:][:cut])
        ]
        verdicts = [judge.judge(each) for each in part]
        said += [verdict.policies for verdict in verdicts]
        writer.append(start + number, part, verdicts, 0)
        writer.commit()
    return said


def with_rows(found: Event) -> Event:
    """Give a change the rows that its counts speak of, so that it can be landed."""
    if found.kind != "change":
        return found
    rows = [
        [found.first_ordinal + n, count.operation, count.relation, {"id": n}, None, None, None]
        for count in found.counts
        for n in range(count.rows)
    ]
    return replace(found, rows=Raw(json.dumps(rows).encode()), n_rows=len(rows))


def work() -> list[Event]:
    """An ordinary stretch with misdeeds, thresholds, sequences, news and several relations in a transaction."""
    events = [with_rows(each) for each in day(11, 400)]
    first = 1_000
    two = [Relation("public.orders", ["id"]), Relation("billing.items", ["id"])]
    failed: dict[str, Any] = {"operation": "login_failed", "sqlstate": "28P01", "role": "ada", "outcome": "denied"}
    events += [event(first + n, "session", **failed) for n in range(5)]
    ada = {"role": "ada", "principal": "ada", "principal_kind": "human"}
    events.append(event(first + 6, "session", operation="connect", detail={"refused_before": 5}, **ada))
    for n in range(60):
        facts: dict[str, Any] = {"principal": "helper", "principal_kind": "agent", "detail": {"owner": "ai"}}
        events.append(with_rows(change(first + 10 + n, "d", 40, **facts)))
    joined = change(first + 80, principal="helper", principal_kind="agent", relation_table=two)
    events.append(with_rows(replace(joined, counts=[Count(0, "u", 2), Count(1, "d", 60), Count(1, "i", 1)])))
    events.append(with_rows(change(first + 81, "t", 1)))
    detail = {"operations": ["alter_system"], "where": "n/a", "functions": [], "settings": ["log_statement=none"]}
    events.append(event(first + 82, "statement", statement="ALTER SYSTEM SET log_statement TO $1", detail=detail))
    posture = {"object_type": "role", "name": "x", "change": "added", "after": {"rolsuper": True}}
    events.append(event(first + 83, "posture", operation="added", detail=posture))
    events.append(event(first + 84, "gap", operation="slot_lost", detail={"reason": "slot_lost"}))
    events.append(change(first + 85, counts=[], n_rows=0, relation_table=[], detail={"finding": "shadow_write"}))
    events += [with_rows(change(first + 100 + n, principal="checkout")) for n in range(40)]
    events.append(with_rows(change(first + 150, principal="checkout", client_addr="10.66.6.6")))
    return events


def config_of(lake: Lake) -> Config:
    """A configuration whose labels are those that the judge had."""
    return Config(behaviour=Settings(warmup=Duration(1.0), warmup_observations=10))


def judge_now(config: Config) -> Judge:
    """The judge of a worker."""
    return Judge(Bundle.packaged(), labels={}, behaviour=Behaviour(config.behaviour))


def test_past_evidence_is_judged_as_it_was(tmp_path: Path) -> None:
    """With the same policies, the replay says of every event exactly what the lake says was said then."""
    lake = Lake(tmp_path / "lake")
    config = config_of(lake)
    events = work()
    said = landed(lake, judge_now(config), events) + landed(lake, judge_now(config), work()[::-1], partition=1)
    assert {policy for policies in said for policy in policies} >= {
        "login_after_failures",
        "steady_delete",
        "mass_change",
        "agent_outside_schemas",
        "logging_off",
        "superuser",
        "evidence_gap",
        "shadow_write",
        "new_address",
        "bulk_read",
    }
    replayed = Replay(Bundle.packaged(), config, START_US - ROOM)
    with Evidence(lake.path, replayed.from_us) as evidence:
        pasts = list(evidence)
        assert len(pasts) == evidence.total()
        for past in pasts:
            assert set(replayed.take(past).policies) == set(past.policies), past.event
    difference = replayed.difference()
    assert [(each.policy, each.added, each.removed) for each in difference.policies if each.added or each.removed] == []
    assert sum(each.same for each in difference.policies) == sum(len(set(policies)) for policies in said)


def test_thresholds_look_back_before_the_beginning(tmp_path: Path) -> None:
    """A replay that begins in the middle of a burst counts what came before, and reports only what comes after."""
    lake = Lake(tmp_path / "lake")
    config = config_of(lake)
    events = [
        event(n, "session", operation="login_failed", sqlstate="28P01", role="ada", outcome="denied") for n in range(30)
    ]
    landed(lake, judge_now(config), events)
    replayed = Replay(Bundle.packaged(), config, events[25].occurred_at_us)
    with Evidence(lake.path, replayed.from_us) as evidence:
        for past in evidence:
            replayed.take(past)
    (found,) = [each for each in replayed.difference().policies if each.policy == "login_failures"]
    assert (found.same, found.added, found.removed) == (5, 0, 0)
    assert replayed.difference().actions == 5


def test_a_changed_policy_shows_as_a_difference(home: Path) -> None:
    """A stricter limit adds, a policy that is gone removes; each with an event and a sentence; the rest is the same."""
    lake = Lake(home / "lake")
    config = config_of(lake)
    landed(lake, judge_now(config), [with_rows(change(n, "d", 30, principal_kind="human")) for n in range(3)])
    gone = [with_rows(change(9, "t", 1))]
    landed(lake, judge_now(config), gone)
    file = home / "policies" / "changes.yaml"
    other = home / "other"
    other.mkdir()
    text = file.read_text().split("\n---\n")[0]
    (other / "changes.yaml").write_text(text.replace('operation == "truncate"', "false").replace(": 1000)", ": 20)"))
    arguments = ["--config", str(home / "pgwitness.toml"), "--since", "2026-01-01", "--policies", str(other)]
    failed = run("policy", "test", *arguments[:2], *arguments[4:])
    assert failed.exit_code == 1, failed.stderr
    assert "mass_change" in failed.stdout
    result = run("policy", "replay", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    (found,) = [each for each in rows if each["policy"] == "mass_change"]
    assert {each["bundle_sha256"] for each in rows} == {Bundle.load(other).sha256}
    assert (found["added"], found["removed"], found["same"]) == (3, 1, 0)
    assert found["samples_added"][0]["event_id"] == f"{0:032x}"
    assert "deleted 30 rows from public.orders" in found["samples_added"][0]["sentence"]
    assert found["samples_removed"][0]["event_id"] == f"{9:032x}"
    table = run("policy", "replay", *arguments)
    assert "mass_change" in table.stdout
    assert f"+ mass_change  {0:032x}" in table.stdout


def test_a_replay_needs_a_lake_and_a_time(home: Path) -> None:
    """Without evidence there is nothing to compare; a time that is none says how one is written."""
    config = str(home / "pgwitness.toml")
    assert run("policy", "replay", "--config", config, "--since", "24h").exit_code == 1
    assert run("policy", "replay", "--config", config).exit_code == 2
    wrong = run("policy", "replay", "--config", config, "--since", "yesterday")
    assert wrong.exit_code == 2
    assert "24h" in wrong.stderr


def test_times_are_read_in_utc() -> None:
    """A date, a time with or without its zone, and so long ago."""
    hour_us = 3_600_000_000
    assert when("1970-01-02", 0) == 24 * hour_us
    assert when("1970-01-01T02:00:00", 0) == 2 * hour_us
    assert when("1970-01-01T02:00:00+02:00", 0) == 0
    assert when("90m", 2 * hour_us) == hour_us // 2
    with pytest.raises(ConfigurationError):
        when("soon", 0)


def test_check_names_file_policy_and_reason(home: Path) -> None:
    """All that is wrong is listed at once, one a line, and the exit code says that something is."""
    config = str(home / "pgwitness.toml")
    good = run("policy", "check", "--config", config)
    assert (good.exit_code, good.stdout) == (0, "")
    (home / "policies" / "bad.yaml").write_text("id: [")
    file = home / "policies" / "access.yaml"
    file.write_text(file.read_text().replace("new.client_addr &&", "new.client_adr &&").replace("T1110]", "T11]"))
    bad = run("policy", "check", "--config", config)
    assert bad.exit_code == 1
    lines = bad.stdout.splitlines()
    assert len(lines) == 3
    assert any(line.startswith(f"{file}: new_address: when: ") and "new.client_addr" in line for line in lines)
    assert any(line.startswith(f"{file}: login_failures: attack: ") for line in lines)
    assert any(line.startswith(f"{home / 'policies' / 'bad.yaml'}: not YAML") for line in lines)
    told = json.loads(run("policy", "check", "--config", config, "--json").stdout)
    assert {(each["policy"]) for each in told} == {"", "new_address", "login_failures"}


def test_tests_of_policies_are_run_and_counted(home: Path) -> None:
    """Each policy has its row, with effect and mode; `--json` is a list of objects."""
    rows = json.loads(run("policy", "test", "--config", str(home / "pgwitness.toml"), "--json").stdout)
    assert len(rows) == len(Bundle.packaged().policies)
    assert all(row["failed"] == 0 and row["tests"] >= 2 for row in rows)
    assert {row["effect"] for row in rows} == {"alert", "deny", "mask", "approve"}


def test_a_folder_without_policies_is_an_error(home: Path) -> None:
    """Neither check, test nor try take a folder without policies for one in order; they say what to do."""
    empty = home / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("nothing")
    for words in (["check"], ["test"], ["try", "SELECT 1"]):
        done = run("policy", *words, "--config", str(home / "pgwitness.toml"), "--policies", str(empty))
        assert (done.exit_code, done.stdout) == (2, "")
        assert "has no *.yaml" in done.stderr
        assert "pgwitness init" in done.stderr


def test_a_file_without_policies_or_of_no_text_is_named_and_the_rest_checked(home: Path) -> None:
    """A file with comments only, and one that is no text, are problems; the good ones are checked all the same."""
    (home / "policies" / "empty.yaml").write_text("# nothing yet\n---\n")
    (home / "policies" / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    done = run("policy", "check", "--config", str(home / "pgwitness.toml"), "--json")
    assert done.exit_code == 1
    problems = {Path(row["file"]).name: row["reason"] for row in json.loads(done.stdout)}
    assert set(problems) == {"empty.yaml", "bytes.yaml"}
    assert "there is no policy in it" in problems["empty.yaml"]
    assert "cannot be read" in problems["bytes.yaml"]
