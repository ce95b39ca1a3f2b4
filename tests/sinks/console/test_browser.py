"""The pages in a real browser: nobody's text runs, nothing is asked of others, keyboard and screen reader find all."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from detectors.alerts import verdicts
from pgwitness.approvals import records
from pgwitness.approvals.ledger import Trust
from pgwitness.core.config import Approver, Reviewer
from pgwitness.core.printable import visible
from sinks.console import rendering
from sinks.console.asking import Asker
from sinks.console.reader import Reader
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.writer import Lake
from tests.approvals import signing
from tests.conftest import leave_out
from tests.sinks.console import browsing
from tests.sinks.console.browsing import PHONE, WIDE, Window
from tests.sinks.console.conftest import PASSWORD, SESSION, Book, World, alert
from tests.sinks.console.payloads import PAYLOADS
from tests.sinks.material import ORDINARY, Judgement, change, other

KEY = Ed25519PrivateKey.generate()
REVIEWERS = {"reviewer": Reviewer(key=verdicts.public_text(KEY.public_key()), scopes=["same-finding"])}
UIDS = [f"{number:032x}" for number in range(len(PAYLOADS))]
WHO = [text.replace("\x00", "") for text in PAYLOADS]
PATHS = ["/", "/alerts", f"/alerts/{UIDS[0]}", "/people", f"/people?name={quote(WHO[0])}", "/records", "/ask", "/none"]
PATHS += ["/policies", "/policies/drop_table", "/reports", "/approvals", "/approvals/r1", "/sessions"]


@pytest.fixture(scope="module")
def payload_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of today in which each payload is principal, role, application, relation, statement and alert."""
    path = tmp_path_factory.mktemp("payloads") / "lake"
    now_us = time.time_ns() // 1000 - 60_000_000
    events: list[Any] = []
    judged: list[Any] = []
    for number, text in enumerate(WHO):
        seen = {
            "occurred_at_us": now_us + number,
            "captured_at_us": now_us + number,
            "session_id": f"s{number}" if number % 5 else SESSION,
        }
        who: dict[str, Any] = {"principal": text, "role": text, "application": text, "client_addr": "203.0.113.9"}
        row = [0, "u", 0, {"id": number}, None, {"id": number}, {"id": number, "status": text}]
        deletes: dict[str, Any] = {"kind": "statement", "operation": "delete", "relations": [text], "statement": text}
        events += [change(2 * number, row, **seen, **who), other(2 * number + 1, **seen, **who, **deletes)]
        raised = alert(UIDS[number], f"{2 * number:032x}", 2 + number % 4, text, incident=f"i{number // 2}")
        judged += [Judgement(alerts=[raised]), ORDINARY]
    writer = Lake(path).writer("events", 0)
    writer.resume()
    writer.append(0, events, judged)
    writer.commit()
    return path


@pytest.fixture(scope="module")
def world(make_world: Callable[..., World], payload_lake: Path, readers: tuple[Reader, Asker]) -> Iterator[World]:
    """A console on that lake, with a reviewer."""
    reader = Reader(Folder(payload_lake, Files()), connections=1, memory_limit="256MB", timeout_s=20)
    now_us = time.time_ns() // 1000
    request = signing.request(
        "r1", at_us=now_us, expires_us=now_us + 3_600_000_000, principal=WHO[0], intent=WHO[1], statement=WHO[50]
    )
    approver = Approver(key=REVIEWERS["reviewer"].key, groups=["dba"])
    book = Book(Trust((signing.GATEWAY.public_key(),), {"approver": (approver, KEY.public_key())}))
    book.append("r1", records.sign(request, signing.GATEWAY))
    return make_world(reader=reader, reviewers=REVIEWERS, requests=book)


@pytest.fixture(scope="module")
def windows(world: World) -> Iterator[Callable[[str], Window]]:
    """Give a window in which somebody of a role is logged in; each role has one."""
    if not browsing.CHROMIUM.exists():
        leave_out(f"the console's pages in a browser: there is no {browsing.CHROMIUM} (Debian's package chromium)")
    from contextlib import ExitStack

    with ExitStack() as stack:
        url = stack.enter_context(browsing.served(world.app))
        browser = stack.enter_context(browsing.chromium())
        made: dict[str, Window] = {}

        def give(role: str) -> Window:
            if role not in made:
                made[role] = stack.enter_context(browsing.window(browser, url))
                made[role].log_in(role, PASSWORD)
            made[role].faults.clear()
            made[role].page.set_viewport_size(WIDE)  # type: ignore[arg-type]
            return made[role]

        yield give


def test_no_text_of_the_evidence_runs(windows: Callable[[str], Window]) -> None:
    """A hundred payloads in names, statements, applications, relations and alerts: text in each page, and no script of
    theirs is even kept from running by the policy; nothing is asked of another host."""
    window = windows("analyst")
    assert window.visit("/alerts") == 200
    shown = _words(window.page.locator(".inbox").inner_text())
    assert [text for text in WHO if _words(visible(text)) not in shown] == []
    assert window.visit("/people") == 200
    assert window.page.locator("tbody tr").count() == len(set(WHO))
    for uid in (UIDS[0], UIDS[50], UIDS[64]):  # out of an element, a text, an attribute
        assert window.visit(f"/alerts/{uid}") == 200
    assert window.page.locator("tbody tr", has_text="statement delete").count() == len(PAYLOADS) / 5
    for name in (WHO[1], WHO[51], WHO[65]):
        assert window.visit(f"/people?name={quote(name)}") == 200
    window.visit("/records")
    window.page.get_by_label("Relation").fill(WHO[50])
    window.page.get_by_label("Key").fill(WHO[50])
    window.page.get_by_role("button", name="Look").click()
    window.page.get_by_role("heading", name="What touched it").wait_for()
    window.visit("/ask")
    query = "SELECT '<img src=x onerror=ran(1)>' AS \"<script>ran(2)</script>\", '\"><svg onload=ran(3)>'"
    window.page.get_by_label("SQL").fill(query)
    window.page.get_by_role("button", name="Ask", exact=True).click()
    assert "<script>ran(2)" in window.page.locator("thead").inner_text()
    assert window.faults == []


def _words(text: str) -> str:
    return " ".join(text.split())


def test_what_would_run_is_noticed(windows: Callable[[str], Window], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: where a page forgets to escape, the policy keeps scripts from running, which shows."""
    window = windows("analyst")
    monkeypatch.setattr(rendering.ENVIRONMENT, "autoescape", False)
    rendering.ENVIRONMENT.cache.clear()
    try:
        window.visit(f"/alerts/{UIDS[0]}")
        window.page.wait_for_function("document.readyState === 'complete'")
        assert any(fault.startswith("policy: script-src") for fault in window.faults)
        assert not any(fault.startswith("ran") for fault in window.faults)
    finally:
        monkeypatch.undo()
        rendering.ENVIRONMENT.cache.clear()
        window.visit("/")


@pytest.mark.parametrize("path", PATHS)
def test_axe_finds_nothing(windows: Callable[[str], Window], path: str) -> None:
    """WCAG 2.2 AA and axe's best practice, wide and as wide as a phone, dark and light; no page is wider than that."""
    window = windows("reviewer" if path.startswith("/alerts/") else "analyst")
    window.visit(path)
    assert window.barriers() == []
    window.page.emulate_media(color_scheme="dark")
    window.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert window.barriers(["color-contrast", "link-in-text-block", "target-size", "scrollable-region-focusable"]) == []
    assert window.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    window.page.emulate_media(color_scheme="light")
    assert window.faults == []


def test_the_inbox_works_by_keyboard(windows: Callable[[str], Window]) -> None:
    """The way past the header, down and up by j and k or arrows, and in; keys mean nothing outside of it."""
    window = windows("viewer")
    page = window.page
    window.visit("/alerts")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement === document.body")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # "Skip to the alerts"
    links = page.locator(".inbox a")
    focused = "document.activeElement.getAttribute('href')"
    page.keyboard.press("j")
    assert page.evaluate(focused) == links.nth(0).get_attribute("href")
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    assert page.evaluate(focused) == links.nth(1).get_attribute("href")
    page.keyboard.press("End")
    assert page.evaluate(focused) == links.last.get_attribute("href")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url("**/alerts/*")
    assert window.faults == []


def test_a_verdict_is_signed_in_the_browser(windows: Callable[[str], Window], world: World, tmp_path: Path) -> None:
    """A false alarm is silenced for a week as a person does it; the key does not leave the browser."""
    key = tmp_path / "reviewer.key"
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key.write_bytes(pem)
    window = windows("reviewer")
    page = window.page
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    window.visit(f"/alerts/{UIDS[1]}")
    page.get_by_label("It was a").select_option("false-positive")
    page.get_by_role("textbox", name="Why").fill("the nightly load, as every week")
    page.get_by_label("It holds for").fill("7d")
    page.get_by_role("button", name="Go on to sign it").click()
    assert window.barriers() == []
    page.get_by_label("Your private key").set_input_files(key)
    page.get_by_role("button", name="Sign and send").click()
    page.get_by_text("Your verdict was sent").wait_for()
    ((uid, value),) = world.sent
    checked = verdicts.check(value, REVIEWERS, time.time_ns() // 1000)
    assert checked.verdict is not None
    assert (uid, checked.verdict.who, checked.verdict.verdict) == (UIDS[1], "reviewer", "false-positive")
    private = base64.b64encode(KEY.private_bytes_raw()).decode()[:40]
    assert not any("PRIVATE" in body or private in body for body in sent)
    assert window.faults == []


def test_an_approval_is_signed_on_a_phone(windows: Callable[[str], Window], tmp_path: Path) -> None:
    """From what waits to the statement, a reason, the key, and done; no page is wider than the phone."""
    key = tmp_path / "approver.key"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    window = windows("approver")
    page = window.page
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    window.visit("/approvals")
    page.get_by_role("link", name=WHO[0]).first.click()
    page.get_by_role("textbox", name="Why").fill("agreed with the owner")
    page.get_by_role("button", name="Approve").click()
    page.get_by_label("Your private key").set_input_files(key)
    assert window.barriers() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.get_by_role("button", name="Sign and send").click()
    page.get_by_text("Your decision was sent").wait_for()
    assert "approve by approver: agreed with the owner" in _words(page.locator("main").inner_text())
    assert window.faults == []


def test_now_changes_by_itself_and_shows_local_times(windows: Callable[[str], Window]) -> None:
    """The feed begins, and its times have the reader's clock beside UTC."""
    window = windows("viewer")
    with window.page.expect_request("**/now/live"):
        window.visit("/")
    titles = window.page.locator("time[title]")
    titles.first.wait_for()
    assert "your time" in (titles.first.get_attribute("title") or "")
    assert window.faults == []
