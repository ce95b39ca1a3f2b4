"""`pgwitness policy try`: what would be decided on a statement, why, and what was assumed; without any server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.cli.trying import statements_of
from tests.cli.test_program import home, run
from tests.detectors.material import event

__all__ = ["home"]

PEOPLE = """rules:
  - {id: people, match: {role: [ada, grace]}, principal: "{role}", kind: human, peer_group: office}
  - {id: bot, match: {role: app, application: "bot-*"}, principal: helper, kind: agent, on_behalf_of: maria}
"""


@pytest.fixture
def where(home: Path) -> Path:
    """A folder whose identities know people and a bot."""
    (home / "identities.yaml").write_text(PEOPLE)
    return home


def tried(where: Path, sql: str, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Try a statement; gives the exit code and the rows."""
    done = run("policy", "try", sql, "--json", "--config", str(where / "pgwitness.toml"), *options)
    assert done.exit_code in (0, 1), done.output
    return done.exit_code, json.loads(done.stdout)


def says(row: dict[str, Any], policy: str) -> dict[str, Any]:
    """What one policy says of an action."""
    return next(each for each in row["policies"] if each["policy"] == policy)


def test_a_match_is_explained_part_by_part(where: Path) -> None:
    """Each part of a condition says whether it holds and what it read; the exit code says that it is not in order."""
    code, rows = tried(where, "DELETE FROM orders", "--as", "ada", "--rows", "12", "--kind", "statement")
    assert code == 1
    (row,) = rows
    assert row["decided"] == ["delete_without_where"]
    found = says(row, "delete_without_where")
    assert found["message"].startswith("ada changed 12 rows without a useful WHERE")
    parts = {part["text"]: part for part in found["why"][0]["parts"]}
    where_part = parts['statement.where in ["none", "useless"]']
    assert (where_part["holds"], where_part["read"]) == ("yes", {"statement.where": '"none"'})
    assert row["action"]["principal_kind"] == "human"
    assert row["action"]["peer_group"] == "office"
    assert row["action"]["role"] == "ada"


def test_what_lacks_one_part_is_said_and_decides_nothing(where: Path) -> None:
    """A policy about such statements that lacks one part is a near miss, and names the part."""
    code, rows = tried(where, "DELETE FROM orders WHERE id = 1", "--as", "ada", "--rows", "12", "--kind", "statement")
    assert code == 0
    assert rows[0]["decided"] == []
    found = says(rows[0], "delete_without_where")
    assert (found["says"], found["lacking"]) == ("near", 'statement.where in ["none", "useless"]')


@pytest.mark.parametrize(
    ("sql", "options"),
    [
        ("DELETE FROM orders", ["--rows", "12"]),
        ("SELECT * FROM customers", ["--rows", "90000"]),
        ("GRANT pg_read_all_data TO bob", []),
        ("DO $$ BEGIN DELETE FROM pay; END $$", ["--rows", "3"]),
        ("COPY t TO PROGRAM 'curl x'", []),
        ("ALTER SYSTEM SET log_statement = 'none'", []),
        ("DROP TABLE pay", ["--outcome", "denied"]),
    ],
)
def test_it_decides_as_the_judge_does(where: Path, sql: str, options: list[str]) -> None:
    """What matches is what the judge of a worker says of the same event."""
    _, rows = tried(where, sql, "--as", "ada", "--kind", "statement", *options)
    action = rows[0]["action"]
    facts = {"principal": "ada", "principal_kind": "human", "role": "ada", "binding": "log", "certainty": "exact"}
    facts |= {"outcome": action["outcome"], "statement": action["statement"], "detail": action["detail"]}
    facts |= {"operation": action["operation"], "relations": action.get("relations", []), "calls": 1}
    facts |= {"columns": action.get("columns", []), "cluster": "main"}
    facts |= {"row_count": action["rows"]} if "rows" in action else {}
    judge = Judge(Bundle.load(where / "policies"), labels={}, behaviour=None)
    verdict = judge.judge(event(0, "statement", **facts))
    matched = [each["policy"] for each in rows[0]["policies"] if each["says"] == "match"]
    assert sorted(matched) == sorted(verdict.policies)
    assert matched


def test_several_statements_are_several_actions(where: Path) -> None:
    """Each statement is tried in its turn, as the log, the WAL and event triggers would see it."""
    text = "UPDATE t SET a = 1 WHERE id = 2; selec 1; TRUNCATE x, y; ALTER TABLE t ADD b int"
    _, rows = tried(where, text, "--as", "ada")
    seen = [(row["number"], row["kind"], row["action"].get("operation", "")) for row in rows]
    assert seen == [
        (1, "statement", "update"),
        (1, "change", "update"),
        (2, "statement", ""),
        (3, "statement", "truncate"),
        (3, "change", "truncate"),
        (3, "change", "truncate"),
        (4, "statement", "alter_table"),
        (4, "ddl", "ALTER TABLE"),
    ]
    assert [row["action"]["relations"] for row in rows if row["kind"] == "change"] == [
        ["public.t"],
        ["public.x"],
        ["public.y"],
    ]
    assert any("cannot read" in assumed for assumed in rows[2]["assumed"])


def test_several_actions_together_are_counted(where: Path) -> None:
    """A sequence over the statements of one text matches with the last, and says before what it waits for."""
    (where / "policies" / "own.yaml").write_text("""
id: grant_then_read
title: t
description: d
severity: high
kinds: [statement]
message: "{who} read what it gave itself"
runbook: r
sequence:
  window: 10m
  by: [cluster, principal.name]
  steps:
    - {name: grant, when: '"grant" in statement.operations'}
    - {name: read, when: '"select" in statement.operations'}
tests:
  - name: a
    match: true
    actions:
      - {principal: {name: ada}, statement: {operations: [grant]}}
      - {at: 1m, principal: {name: ada}, statement: {operations: [select]}}
  - {name: b, match: false, actions: [{principal: {name: ada}, statement: {operations: [select]}}]}
""")
    _, rows = tried(where, "GRANT SELECT ON pay TO ada; SELECT * FROM pay", "--as", "ada", "--kind", "statement")
    first, second = (says(row, "grant_then_read") for row in rows)
    assert (first["says"], first["note"]) == ("counts", "this is step grant; it matches with read within 10m")
    assert (second["says"], second["message"]) == ("match", "ada read what it gave itself")


def test_what_only_a_server_knows_is_said_and_can_be_given(where: Path) -> None:
    """What was assumed stands there; each of it can be said instead."""
    _, rows = tried(where, "DELETE FROM s.t", "--as", "helper", "--kind", "change")
    assert any("one row changed" in each for each in rows[0]["assumed"])
    assert any("rule bot" in each for each in rows[0]["assumed"])
    assert (rows[0]["action"]["principal_kind"], rows[0]["action"]["on_behalf_of"]) == ("agent", "maria")
    given = ["--rows", "60", "--at", "2026-03-29T01:30:00Z", "--for", "joe", "--with", "labels.scope=pci"]
    done = run("policy", "try", "DELETE FROM s.t", "--config", str(where / "pgwitness.toml"), *given)
    assert done.exit_code == 2
    assert "labels.scope" in done.stderr
    given[-1] = 'labels={"scope": "pci"}'
    code, rows = tried(where, "DELETE FROM s.t", "--as", "helper", "--kind", "change", *given)
    action = rows[0]["action"]
    assert (action["rows"], action["hour"], action["weekday"], action["labels"]) == (60, 1, 6, {"scope": "pci"})
    assert (code, action["on_behalf_of"]) == (1, "joe")
    assert "mass_change" in rows[0]["decided"]


def test_nobody_is_made_up(where: Path) -> None:
    """Of a name that no rule gives nothing else is known; without a name nobody acts."""
    _, rows = tried(where, "SELECT 1", "--as", "mallory")
    assert (rows[0]["action"]["principal"], rows[0]["action"].get("principal_kind", "unknown")) == (
        "mallory",
        "unknown",
    )
    assert any("no rule names mallory" in each for each in rows[0]["assumed"])
    _, rows = tried(where, "SELECT 1")
    assert "principal" not in rows[0]["action"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--outcome", "done"], "rolled_back"),
        (["--kind", "statment"], "statement"),
        (["--with", "rowz=1"], "did you mean rows"),
        (["--with", "rows=many"], "rows"),
        (["--identities", "absent.yaml"], "absent.yaml"),
        (["--policies", "absent"], "absent"),
    ],
)
def test_what_cannot_be_is_wrong_usage(where: Path, options: list[str], words: str) -> None:
    """A value that cannot occur ends with 2 and says what there is."""
    done = run("policy", "try", "SELECT 1", "--config", str(where / "pgwitness.toml"), *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_person_reads_why(where: Path) -> None:
    """The text shows statement, sentence, and what decided."""
    done = run("policy", "try", "DELETE FROM orders", "--as", "ada", "--config", str(where / "pgwitness.toml"))
    assert done.exit_code == 1
    assert "MATCH  delete_without_where (high, alert)" in done.stdout
    assert 'yes  statement.where in ["none", "useless"]   (statement.where is "none")' in done.stdout
    assert "1 statement, 1 finding against it" in done.stderr


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT ';'; SELECT 2;", ["SELECT ';'", "SELECT 2"]),
        ("selec 1; SELECT ';' -- ;", ["selec 1", "SELECT ';' -- ;"]),
        ("'", ["'"]),
        (";;", [";;"]),
    ],
)
def test_a_text_is_cut_as_the_server_cuts_it(text: str, cut: list[str]) -> None:
    """Semicolons in strings and comments end nothing, and nothing gets lost."""
    assert statements_of(text) == cut
