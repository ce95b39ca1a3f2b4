"""Policies that change while a worker runs: what is taken on, what is refused, and what is told of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pgwitness.core.errors import ConfigurationError
from streams.worker.policy_file import PolicyFile, difference
from tests.streams.conftest import Installation, eventually
from tests.streams.test_worker import changes, read_all


def policy(name: str, when: str = "rows > 0", expected: str = "true") -> str:
    """Write a policy for changes."""
    return f"""
id: {name}
title: {name}
description: x
severity: low
kinds: [change]
when: {when}
message: "{{who}}"
runbook: x
tests:
  - {{name: a, match: {expected}, action: {{rows: 1}}}}
  - {{name: b, match: false, action: {{rows: 0}}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good policy."""
    path = tmp_path / "watched"
    path.mkdir()
    (path / "one.yaml").write_text(policy("one"))
    return path


def polled(file: PolicyFile) -> list[str]:
    """Look until the folder has stood still, and give the ids in force."""
    file.poll()
    return sorted(file.poll().policies)


def test_a_change_is_taken_on_when_it_stands_still(folder: Path) -> None:
    """The first look at a change only notes it; the second one, when nothing moved, loads it."""
    file = PolicyFile(folder)
    file.load()
    (folder / "two.yaml").write_text(policy("two"))
    assert sorted(file.poll().policies) == ["one"]
    assert sorted(file.poll().policies) == ["one", "two"]
    (folder / "one.yaml").unlink()
    assert polled(file) == ["two"]
    assert file.take_refusal() is None


@pytest.mark.parametrize("name", ["watched", "watched/one.yaml"])
def test_a_changed_calendar_is_a_change(folder: Path, name: str) -> None:
    """Calendars are taken on with the policies, in a folder and beside a single file; a wrong one is refused."""
    (folder / "calendars.yaml").write_text("freeze: {days: [2026-03-31]}")
    file = PolicyFile(folder.parent / name)
    file.load()
    before = file.last.sha256
    (folder / "calendars.yaml").write_text("freeze: {days: [2026-03-31, 2026-04-01]}")
    assert polled(file) == ["one"]
    assert file.last.sha256 != before
    assert file.last.calendars.holds("freeze", 1_775_001_600_000_000)  # the first of April
    (folder / "calendars.yaml").write_text("freeze: {zone: Mars}")
    assert polled(file) == ["one"]
    assert "no time zone 'Mars'" in str(file.take_refusal())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (policy("two", "rowz > 0"), "rowz"),
        (policy("two", expected="false"), "one with `match: true`"),
        (policy("two", "rows > 5"), "policy test"),
        ("id: [", "not YAML"),
        (policy("one"), "the id is used"),
    ],
)
def test_what_cannot_be_used_changes_nothing_and_is_reported_once(folder: Path, text: str, words: str) -> None:
    """A mistake, or a test that fails, leaves the last good policies in force, with the reason; correcting it works."""
    file = PolicyFile(folder)
    good = file.load()
    (folder / "two.yaml").write_text(text)
    assert polled(file) == ["one"]
    refusal = file.take_refusal()
    assert refusal is not None
    assert words in refusal
    assert polled(file) == ["one"]
    assert file.take_refusal() is None
    (folder / "two.yaml").write_text(policy("two"))
    assert polled(file) == ["one", "two"]
    assert difference(good, file.last) | {"sha256": "", "before_sha256": ""} == {
        "sha256": "",
        "before_sha256": "",
        "added": ["two"],
        "removed": [],
        "altered": [],
    }


def test_a_folder_that_is_gone_is_refused(folder: Path) -> None:
    """Without the folder the last good policies hold."""
    file = PolicyFile(folder)
    file.load()
    shutil.rmtree(folder)
    assert polled(file) == ["one"]
    assert "does not exist" in (file.take_refusal() or "")


def test_a_worker_does_not_begin_with_failing_tests(folder: Path) -> None:
    """At the start there is no last good bundle: what is not in order ends the command."""
    (folder / "one.yaml").write_text(policy("one", "rows > 5"))
    with pytest.raises(ConfigurationError, match=r"one\.yaml: one: test 'a' did not match"):
        PolicyFile(folder).load()


def test_a_running_worker_takes_on_changed_policies(installation: Installation, folder: Path) -> None:
    """Rows before the change carry the old policy, rows after it the new one; a broken change is an alert."""
    file = PolicyFile(folder)
    file.load()
    with installation.worker(policies=file):
        installation.send(*changes(10, 3))
        installation.landed(6)
        (folder / "one.yaml").write_text(policy("two"))
        found = eventually(
            lambda: installation.ask("SELECT detail FROM control WHERE operation = 'policies_changed'"), "the change"
        )
        told = json.loads(found[0][0])
        assert (told["added"], told["removed"], told["sha256"]) == (["two"], ["one"], file.last.sha256)
        assert told["from"]
        installation.send(*changes(20, 3))
        installation.landed(12)
        (folder / "one.yaml").write_text(policy("two", "rowz > 0"))
        alerts = eventually(
            lambda: [m for m in read_all(installation, "alerts") if b"policy_error:bundle" in m.value()], "the alert"
        )
        assert "rowz" in json.loads(alerts[0].value())["message"]
    judged = installation.ask("SELECT policies, count(*) FROM changes GROUP BY ALL ORDER BY policies")
    assert [(list(policies), n) for policies, n in judged] == [(["one"], 6), (["two"], 6)]
    # The next worker begins with what its checkpoint says, and takes on what the files say as a change.
    (folder / "one.yaml").write_text(policy("three"))
    file = PolicyFile(folder)
    file.load()
    with installation.worker(policies=file):
        eventually(
            lambda: any(
                json.loads(row[0])["added"] == ["three"] and json.loads(row[0])["removed"] == ["two"]
                for row in installation.ask("SELECT detail FROM control WHERE operation = 'policies_changed'")
            ),
            "the change from the checkpoint's policies to the files'",
        )
