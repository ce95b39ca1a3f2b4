"""The pages: what they show, that they are HTML, that they can be used, and that nobody's name becomes markup."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from sinks.console import app, rendering
from sinks.console.http import POLICY
from sinks.console.reader import Reader
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from tests.sinks.console.conftest import HOSTILE, UID, World, document

PATHS = ["/", "/alerts", "/alerts?state=staged", "/alerts?state=all", f"/alerts/{UID}", "/alerts/none"]
PATHS += ["/people", "/people?name=maria", f"/people?name={quote(HOSTILE)}", "/records", "/ask", "/ask?question=1"]
PATHS += ["/policies", "/policies/drop_table", "/reports"]


@pytest.fixture(scope="module")
def pages(make_world: Callable[..., World]) -> dict[str, httpx2.Response]:
    """Every page, as an analyst sees it."""
    browser = make_world().visit("analyst")
    return {path: browser.get(path) for path in PATHS}


def words(tree: Any) -> str:
    """Give the text of a page, as it is read."""
    return " ".join(" ".join(tree.itertext()).split())


@pytest.mark.parametrize("path", PATHS)
def test_pages_are_html_in_which_a_strangers_text_is_text(pages: dict[str, httpx2.Response], path: str) -> None:
    """No element and no attribute that the templates do not have, whatever client, schema or statement is called."""
    tree = document(pages[path])
    elements = list(tree.iter())
    assert {"img", "iframe", "object", "style"}.isdisjoint(element.tag for element in elements)
    assert [e.get("src", "").split(".")[0] for e in elements if e.tag == "script"] == [
        "/assets/htmx", "/assets/sse", "/assets/console",
    ]  # fmt: skip
    names = {name for element in elements for name in element.attrib}
    assert [name for name in names if name.startswith("on") or name == "style"] == []
    assert "\u202e" not in "".join(tree.itertext())
    assert "\x1b" not in "".join(tree.itertext())


@pytest.mark.parametrize("path", PATHS)
def test_pages_can_be_used_by_keyboard_and_reader(pages: dict[str, httpx2.Response], path: str) -> None:
    """One heading of the first level, no level left out, names for inputs, tables with heads, unique ids, a title."""
    tree = document(pages[path])
    elements = list(tree.iter())
    assert tree.get("lang") == "en"
    levels = [int(e.tag[1]) for e in elements if e.tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [e.get("id") for e in elements if e.get("id")]
    assert len(ids) == len(set(ids))
    labelled = {e.get("for") for e in elements if e.tag == "label"}
    inputs = [e for e in elements if e.tag in ("input", "textarea", "select") and e.get("type") != "hidden"]
    assert all(e.get("id") in labelled or e.get("aria-label") for e in inputs)
    assert all(e.find(".//th") is not None for e in elements if e.tag == "table")
    assert {e.get("aria-labelledby") for e in elements if e.get("aria-labelledby")} <= set(ids)
    assert all(e.get("aria-label") for e in elements if e.tag.endswith("svg"))


@pytest.mark.parametrize("content", [b"no Parquet " * 100, b"", None])
def test_a_damaged_lake_is_said_in_words(
    make_world: Callable[..., World], lake: Path, tmp_path: Path, content: bytes | None
) -> None:
    """Where files were altered, cut or removed: what to do, and neither a path nor what DuckDB says."""
    damaged = tmp_path / "lake"
    shutil.copytree(lake, damaged)
    reader = Reader(Folder(damaged, Files()), connections=1, memory_limit="256MB", timeout_s=20)
    browser = make_world(reader=reader).visit("analyst")
    assert browser.get("/people").status_code == 200
    for file in damaged.rglob("*.parquet"):
        file.unlink() if content is None else file.write_bytes(content)
    for path in ("/people", "/alerts", "/"):
        answer = browser.get(path)
        assert answer.status_code == 503
        assert "pgwitness verify" in words(document(answer))
        assert str(tmp_path) not in answer.text


def test_now_shows_what_flows_what_is_open_missing_and_sealed(world: World) -> None:
    """Figures by severity without what is staged, a light with its reason, the gap, how far it is sealed."""
    said = words(document(world.visit("viewer").get("/")))
    assert "1 Critical 1 High 0 Medium 0 Low" in said
    assert "shop yellow 1 gaps in the last 24 hours" in said
    assert "sealed to entry 7; 2 newer ones are not sealed yet" in said
    assert "WAL: 2" in said
    assert "server log: 1" in said


def test_the_inbox_has_a_story_an_incident_the_worst_first(world: World) -> None:
    """Two findings of one incident are one story; what is staged is on its own page."""
    browser = world.visit("viewer")
    tree = document(browser.get("/alerts"))
    assert len(tree.findall(".//article")) == 1
    assert next(link.text for link in tree.findall(".//article//a")) == "Somebody dropped a table"
    assert "Staged only" in words(document(browser.get("/alerts?state=staged")))
    assert "There are none." in words(document(browser.get("/alerts?state=decided")))


def test_an_alert_shows_reasons_evidence_and_what_its_session_did(pages: dict[str, httpx2.Response]) -> None:
    """Its row, the statement of the session, the other finding of the incident; bars as wide as the score."""
    tree = document(pages[f"/alerts/{UID}"])
    said = words(tree)
    assert '{"id":1}' in said
    assert "change insert (this alert)" in said
    assert "statement delete" in said
    assert [meter.get("value") for meter in tree.iter("meter")] == ["0.93", "0"]
    assert [link.get("href") for link in tree.iter("a") if "b" * 32 in link.get("href", "")]
    assert "<script>alert(1)</script>" in said  # as text


def test_a_viewer_sees_an_alerts_words_and_no_statement(world: World) -> None:
    """Evidence takes a right of its own."""
    said = words(document(world.visit("viewer").get(f"/alerts/{UID}")))
    assert "What the session did" not in said
    assert '{"id":1}' not in said


def test_assets_are_ours_and_have_their_hash(world: World) -> None:
    """What pages load is served here, for ever, with the hash that pages name; other names are not found."""
    browser = world.browser()
    for asset in rendering.ASSETS.values():
        answer = browser.get(asset.path)
        assert answer.content == asset.content
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-security-policy"] == POLICY
    page = browser.get("/login").text
    for name in ("htmx.js", "sse.js", "console.js", "console.css"):
        assert rendering.ASSETS[name].integrity in page
    assert sum(len(asset.content) for asset in rendering.ASSETS.values()) < 300_000
    for path in ("/assets/..%2fapp.py", "/assets/htmx.js", "/assets/%2e%2e%2f%2e%2e%2fusers.py", "/assets/../app.py"):
        assert browser.get(path).status_code == 404


def test_vendored_scripts_are_those_that_were_published() -> None:
    """Their hashes stand beside them."""
    told = json.loads((rendering.HERE / "assets" / "vendored.json").read_text())
    assert {name: one["sha256"] for name, one in told.items()} == {
        name: hashlib.sha256(rendering.ASSETS[name].content).hexdigest() for name in ("htmx.js", "sse.js")
    }


def test_a_text_is_shown_that_looks_like_a_template(pages: dict[str, httpx2.Response]) -> None:
    """Braces in a name are no template."""
    assert "{{7*7}}" in words(document(pages["/alerts"]))
    assert HOSTILE not in pages["/alerts"].text


def test_what_lives_is_sent_when_it_is_another(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, then signs of life; it ends with the session, and being open keeps no session alive."""
    left = iter([False, False, False, True, False, True])
    world = make_world(stop=lambda: next(left))
    monkeypatch.setattr(app, "LIVE_S", 0.0)
    browser = world.visit("viewer")
    answer = browser.get("/now/live")
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, *others = answer.text.split("\n\n")
    assert first.startswith("event: now\ndata: ")
    assert "Alerts that wait for a verdict" in first
    assert set(others) == {": alive", ""}
    world.now_s[0] += 1_801
    assert browser.get("/now/live").status_code == 401
    assert world.browser().get("/now/live").status_code == 401


def test_what_lives_is_written_once_for_all_who_look(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred viewers cost what one does."""
    left = iter([False, False, True] * 3 + [True] * 3)
    world = make_world(stop=lambda: next(left))
    monkeypatch.setattr(app, "LIVE_S", 0.0)
    written: list[str] = []
    render = rendering.render

    def counted(template: str, values: Any) -> str:
        written.append(template)
        return render(template, values)

    browsers = [world.visit("viewer") for _ in range(3)]
    monkeypatch.setattr(rendering, "render", counted)
    for browser in browsers:
        assert browser.get("/now/live").text.startswith("event: now")
    assert written == ["_now.html"]


def test_what_lives_says_when_it_does_no_more(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes a page that stands still for how it is now."""
    hours = iter([0.0, 3_600.0])

    def later() -> bool:
        world.now_s[0] += next(hours)
        return False

    world = make_world(stop=later)
    monkeypatch.setattr(app, "LIVE_S", 0.0)
    answer = world.visit("viewer").get("/now/live")
    assert [app.OVER in part for part in answer.text.split("\n\n")] == [False, True, False]
