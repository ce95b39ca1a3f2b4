"""Policies and reports in the console: what each policy did, what a change would have found, a page for the auditor."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from detectors.policy.files import parse
from pgwitness.cli import main
from pgwitness.core.errors import ConfigurationError
from sinks.console import policies, report_pages
from sinks.console.asking import LONG_S, Replaying
from sinks.console.reader import Cached
from sinks.report.page import STYLE
from tests.sinks.console.conftest import DRAFTED, HOSTILE, PACK, UID, World, document, token
from tests.sinks.console.test_pages import words

POLICY = """
id: every_change
title: Somebody changed something
description: Every row change.
severity: low
kinds: [change]
when: operation == "insert" || operation == "update"
message: "{who} did {operation} at {where}"
runbook: Look.
tests:
  - {name: an insert, match: true, action: {operation: insert, kind: change}}
  - {name: a delete, match: EXPECTED, action: {operation: delete, kind: change}}
"""


@pytest.fixture(scope="module")
def kept() -> policies.Kept:
    """The packaged policies, and whether their tests hold."""
    return policies.read(PACK)


def test_each_policy_stands_there_with_its_tests_and_what_it_did(world: World, kept: policies.Kept) -> None:
    """Also what a policy found that this host does not keep."""
    tree = document(world.visit("viewer").get("/policies"))
    rows = {" ".join(row[0].itertext()).split()[0]: words(row) for row in tree.findall(".//tbody/tr")}
    assert set(kept.bundle.policies) <= set(rows)
    assert f"{len(kept.bundle.policies['drop_table'].document.tests)} pass" in rows["drop_table"]
    (foreign,) = [text for name, text in rows.items() if name not in kept.bundle.policies]
    assert (
        "a policy that this host does not keep 3 6 1 0 0 0 / 0" in foreign
    )  # found, times, staged, would stop, suppressed, verdicts
    assert "pass 0 0 0 1 0 0 / 0" in rows["drop_table"]


def test_a_policy_that_cannot_be_read_is_said(world: World, make_world: Callable[..., World], tmp_path: Path) -> None:
    """What policies did is in the lake, and shown all the same."""
    there = make_world(policies=tmp_path / "none")
    said = words(document(there.visit("viewer").get("/policies")))
    assert "does not exist" in said
    assert "a policy that this host does not keep" in said
    assert there.visit("viewer").get("/policies/drop_table").status_code == 422
    assert world.visit("viewer").get("/policies/none").status_code == 404


def test_a_failing_test_shows(kept: policies.Kept, make_world: Callable[..., World], tmp_path: Path) -> None:
    """Red, with the test's name and what came of it."""
    (tmp_path / "own.yaml").write_text(
        POLICY.replace("EXPECTED", "true")
        + "  - {name: none, match: false, action: {operation: truncate, kind: change}}\n"
    )
    there = make_world(policies=tmp_path)
    browser = there.visit("viewer")
    assert "1 of 3 fail" in words(document(browser.get("/policies")))
    assert "a delete: " in words(document(browser.get("/policies/every_change")))
    assert kept.text_of(kept.bundle.policies["drop_table"]).startswith("id: drop_table")


def test_an_alert_becomes_a_draft_that_nobody_installs(world: World) -> None:
    """Reviewers see it with its tests and what it would have stopped; what cannot be drafted says why."""
    browser = world.visit("reviewer")
    page = browser.get(f"/alerts/{UID}/draft")
    if page.status_code == 422:  # the alert's own texts are hostile: it says why, and breaks nothing
        assert "No policy can be drafted" in words(document(page))
    assert world.visit("analyst").get(f"/alerts/{UID}/draft").status_code == 403
    assert world.visit("analyst").get(f"/alerts/{UID}/draft.yaml").status_code == 403
    assert browser.get(f"/alerts/{'d' * 32}/draft").status_code == 404
    page = browser.get(f"/alerts/{DRAFTED}/draft")
    said = words(document(page))
    assert "mode: staged" in page.text
    assert "what the alert told, before it runs: matches" in said
    file = browser.get(f"/alerts/{DRAFTED}/draft.yaml")
    assert file.headers["content-disposition"].startswith("attachment")
    (drafted,) = parse(file.text, "draft")
    assert [drafted.run_case(case) for case in drafted.document.tests] == [None] * len(drafted.document.tests)
    replayed = browser.post(f"/alerts/{DRAFTED}/draft", data={"csrf": token(page)})
    assert "actions it would have stopped" in words(document(replayed))


def test_a_draft_needs_the_lake_alone(lake: Path, tmp_path: Path) -> None:
    """The command drafts of an alert in the lake, replays it, and says that nobody wrote it down without a broker."""
    config = tmp_path / "pgwitness.toml"
    config.write_text(
        f'[kafka]\nbootstrap = "127.0.0.1:9"\n[clusters.shop]\ndsn = "host=127.0.0.1"\ndatabases = ["shop"]\n'
        f'[lake]\npath = "{lake}"\n[policies]\npath = "{PACK}"\n'
    )
    done = CliRunner().invoke(main, ["policy", "draft", DRAFTED[:8], "--since", "1d", "--config", str(config)])
    assert done.exit_code == 0, done.output
    (drafted,) = parse(done.stdout, "draft")
    assert drafted.document.mode == "staged"
    assert f"{drafted.id} would have stopped" in done.stderr


def test_a_change_is_tried_on_past_evidence(world: World) -> None:
    """What it would have found is counted and shown, its tests are run, lines are compared, and nothing is changed."""
    browser = world.visit("analyst")
    page = browser.get("/policies/drop_table")
    form = {"csrf": token(page), "since": "1d", "text": POLICY.replace("EXPECTED", "false")}
    answer = browser.post("/policies/drop_table", data=form)
    assert answer.status_code == 200
    said = words(document(answer))
    assert "Its tests pass. Of 5 actions since 1d it finds 2 that were not found then, does not find 0" in said
    assert "maria did update at" in said
    assert "+ id: every_change" in said
    assert "- id: drop_table" in said
    (told,) = [what for operation, _, what in world.records.told if operation == "replay"]
    assert (told["policy"], told["since"], told["outcome"]) == ("drop_table", "1d", "success")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"text": "id: [1"}, "not YAML"),
        ({"text": POLICY.replace("EXPECTED", "false").replace('== "insert"', "= 1")}, "every_change: when"),
        ({"text": "---\n".join([POLICY.replace("EXPECTED", "false")] * 2)}, "write one policy"),
        ({"since": "soon"}, "is no time"),
    ],
)
def test_what_is_no_policy_is_said(world: World, more: dict[str, str], sentence: str) -> None:
    """With what somebody has written still there."""
    browser = world.visit("analyst")
    form = {"csrf": token(browser.get("/policies/drop_table")), "since": "1d", "text": POLICY, **more}
    answer = browser.post("/policies/drop_table", data=form)
    assert answer.status_code == 422
    assert sentence in words(document(answer))
    assert next(document(answer).iter("textarea")).text.strip() == form["text"].strip()


def test_who_may_not_ask_replays_nothing(world: World) -> None:
    """A replay runs an expression of theirs over all evidence."""
    browser = world.visit("viewer")
    page = browser.get("/policies/drop_table")
    assert "textarea" not in page.text
    assert (
        browser.post("/policies/drop_table", data={"csrf": token(page), "since": "1d", "text": POLICY}).status_code
        == 403
    )


def test_a_change_that_takes_too_long_is_ended(world: World) -> None:
    """The process goes, and the next one is asked."""
    with pytest.raises(Exception, match="took longer than"):
        world.asker.do(Replaying(POLICY.replace("EXPECTED", "false"), 0), -3.0, "the replay")
    assert world.asker.do(Replaying(POLICY.replace("EXPECTED", "false"), 0), LONG_S, "the replay").replayed is not None


def report(browser: Any, **fields: str) -> Any:
    """Fill in the form."""
    csrf = token(browser.get("/reports"))
    return browser.post("/reports", data={"csrf": csrf, "since": "1d", "until": "", "as": "page", **fields})


def test_a_report_is_a_page_with_its_own_policy(world: World) -> None:
    """That of the command: figures, requirements with answers, text that is text; nothing but its own style."""
    answer = report(world.visit("analyst"), standard="pci", relation="public.orders")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == report_pages.POLICY
    assert f"<style>{STYLE}</style>" in answer.text
    said = words(document(answer))
    assert "Who accessed public.orders" in said
    assert "Who accessed cardholder data? (10.2.1.1)" in said
    assert "relation = 'public.orders'" in said
    assert "<script>alert(1)</script>" in said
    assert HOSTILE not in answer.text
    (told,) = [what for operation, _, what in world.records.told if operation == "report"]
    assert told == {
        "page": "report", "outcome": "success", "since": "1d", "standard": "pci", "relation": "public.orders",
    }  # fmt: skip


def test_a_report_can_be_taken_along(world: World) -> None:
    """As a file; without a relation the question on cardholder data says what it needs."""
    answer = report(world.visit("reviewer"), standard="pci", **{"as": "file"})
    assert answer.headers["content-disposition"] == 'attachment; filename="report.html"'
    assert "Not asked: name the relation that holds cardholder data." in answer.text


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"since": "soon"}, "is no time"),
        ({"since": "2026-03-02", "until": "2026-03-01"}, "ends before it begins"),
        ({"standard": "none"}, "no standard"),
        ({"principal": "nobody"}, "nobody"),
    ],
)
def test_what_is_no_report_is_said(world: World, fields: dict[str, str], sentence: str) -> None:
    """And stands in the evidence as what failed."""
    answer = report(world.visit("analyst"), **fields)
    assert answer.status_code == 422
    assert sentence in words(document(answer))
    assert [what["outcome"] for operation, _, what in world.records.told if operation == "report"] == ["failure"]


def test_evidence_is_needed_for_a_report(world: World) -> None:
    """A viewer sees no evidence."""
    assert world.visit("viewer").get("/reports").status_code == 403


@pytest.mark.parametrize(
    ("at", "period"),
    [((2026, 1, 31), ("2025-12-01", "2026-01-01")), ((2026, 3, 1), ("2026-02-01", "2026-03-01"))],
)
def test_the_last_month_is_a_whole_one(at: tuple[int, int, int], period: tuple[str, str]) -> None:
    """Also in January."""
    assert report_pages.last_month(datetime(*at, tzinfo=UTC)) == period


def test_policies_are_read_again_when_they_are_others(tmp_path: Path) -> None:
    """And not before: their tests take a third of a second."""
    file = tmp_path / "own.yaml"
    file.write_text(POLICY.replace("EXPECTED", "false"))
    folder = policies.Folder(tmp_path)
    first = folder.read()
    assert folder.read() is first
    file.write_text(POLICY.replace("EXPECTED", "false").replace("severity: low", "severity: high"))
    assert folder.read().bundle.policies["every_change"].document.severity == "high"
    file.unlink()
    with pytest.raises(ConfigurationError):
        folder.read()


def test_what_was_read_of_the_policies_is_kept_a_while(kept: policies.Kept) -> None:
    """They are not read for each page."""
    made: list[int] = []
    cached = Cached(lambda: (made.append(1), kept)[1], 30.0, lambda: 0.0)
    assert cached.get() is cached.get()
    assert made == [1]
