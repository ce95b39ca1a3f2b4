"""Approvals in the console: what waits, who asks and what it would touch, and a decision that the browser signs."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest

from pgwitness.approvals import records
from pgwitness.approvals.ledger import Trust
from pgwitness.approvals.links import link
from sinks.console import users
from tests.approvals import signing
from tests.sinks.console.conftest import HOSTILE, PASSWORD, Book, World, document, token
from tests.sinks.console.test_pages import words
from tests.sinks.console.test_verdict import fields

WHY = "as agreed with the owner"
LINK_KEY = b"l" * 32


@pytest.fixture
def book() -> Book:
    """Two requests of now: one of an agent for maria, one full of hostile text."""
    found = Book()
    now_us = time.time_ns() // 1000
    life = {"at_us": now_us, "expires_us": now_us + 600_000_000}
    texts = ("principal", "on_behalf_of", "statement", "intent", "where", "application", "message")
    hostile: dict[str, Any] = dict.fromkeys(texts, HOSTILE)
    hostile["estimate"] = records.Estimate(
        values=[records.Value(name=HOSTILE, type=HOSTILE, length=3, column=HOSTILE, shown=HOSTILE)],
        columns=[HOSTILE, "b"],
        sample=[[HOSTILE, None]],
        why_not=HOSTILE,
        caveat=HOSTILE,
    )
    seen = records.Estimate(
        planned=7,
        counted=4,
        values=[
            records.Value(name="$1", type="integer", length=2, column="public.t.id", shown="12"),
            records.Value(name="$2", type="text", length=9),
        ],
        columns=["id", "email"],
        sample=[["1", "tok_1"], ["2", None]],
    )
    for request in (
        signing.request("r1", **life, intent="clear the queue", estimate=seen),
        signing.request("r2", **life, **hostile, relations=[HOSTILE]),
    ):
        found.append(request.request, records.sign(request, signing.GATEWAY))
    return found


@pytest.fixture
def world(make_world: Callable[..., World], book: Book, tmp_path: Any) -> World:
    """A console for approvers: ada and bob of the group, eve of another, root who may break glass."""
    stored = users.hashed(PASSWORD)
    file = tmp_path / "users.json"
    users.change(
        file,
        lambda _: (
            {name: users.User(name=name, roles=["approver"], password=stored) for name in ("ada", "bob", "eve", "root")}
            | {"ann": users.User(name="ann", roles=["analyst"], password=stored)}
        ),
    )
    return make_world(requests=book, users_file=file, link_key=LINK_KEY)


def decide(browser: Any, request: str, word: str, why: str = WHY, **more: str) -> Any:
    """Fill in the form of a request."""
    csrf = token(browser.get(f"/approvals/{request}"))
    return browser.post(f"/approvals/{request}/decision", data={"csrf": csrf, "word": word, "why": why, **more})


def send(browser: Any, form: dict[str, str], who: str, request: str = "r1", **more: str) -> Any:
    """Sign as the page's script does, and send."""
    signature = base64.b64encode(signing.KEYS[who].sign(records.DOMAIN + form["signed"].encode())).decode()
    return browser.post(f"/approvals/{request}/signed", data={**form, "signature": signature, **more})


def test_what_waits_is_shown_with_what_it_would_touch(world: World) -> None:
    """Who for whom, why, how many rows, until when; hostile text is text, also in highlighted SQL."""
    browser = world.visit("ann")
    listed = words(document(browser.get("/approvals")))
    assert (
        "bot, for maria DELETE FROM public.t WHERE id < $1 shop in shop · up to 10 rows · “clear the queue”" in listed
    )
    page = words(document(browser.get("/approvals/r1")))
    assert "4 counted when it was asked for, about 7 by the plan; more than 10 are undone" in page
    assert "$1 public.t.id integer 2 12 $2 text 9 not shown" in page
    assert "id email 1 tok_1 2 null Masked as everywhere." in page
    assert "0, 0 refused; this one 0 times before" in page
    assert "Decide" not in page
    hostile = browser.get("/approvals/r2")
    assert "<script>alert(1)</script>" in words(document(hostile))
    assert {e.get("src", "").split(".")[0] for e in document(hostile).iter("script")} <= {
        "/assets/htmx", "/assets/sse", "/assets/console",
    }  # fmt: skip
    assert list(document(hostile).iter("img")) == []
    assert browser.get("/approvals/none").status_code == 404


def test_an_approval_is_one_that_gateways_believe(world: World, book: Book) -> None:
    """Signed by the approver's key, with who and why; it stands in the evidence, and is shown."""
    browser = world.visit("ada")
    form = fields(decide(browser, "r1", "approve"))
    answer = send(browser, form, "ada")
    assert answer.status_code == 303
    page = words(document(browser.get(answer.headers["location"])))
    assert "Your decision was sent." in page
    assert f"approve by ada: {WHY}" in page
    assert book.ledger.requests["r1"].state(time.time_ns() // 1000) == "approved"
    told = [what for operation, _, what in world.records.told if operation == "console_approval"]
    assert told == [
        {"page": "approval, decided", "outcome": "success", "request": "r1", "as": "approve", "break_glass": False},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "more", "sentence"),
    [
        ("eve", {}, "members of other groups"),
        ("ada", {"why": " "}, "say why"),
        ("ada", {"word": ""}, "Say whether it may run"),
        ("ada", {"break_glass": "yes"}, "break_glass"),
    ],
)
def test_what_would_not_count_is_not_put_together(world: World, who: str, more: dict[str, str], sentence: str) -> None:
    """With the reason why."""
    browser = world.visit(who)
    form = {"word": "approve", "why": WHY} | more
    answer = decide(browser, "r1", form.pop("word"), form.pop("why"), **form)
    assert answer.status_code == 422
    assert sentence in words(document(answer))


def test_nothing_else_is_sent(world: World, book: Book) -> None:
    """Not by another's key, not altered, not on another request, and not twice."""
    browser = world.visit("ada")
    form = fields(decide(browser, "r1", "approve"))
    appended = book.appended
    tries = [
        send(browser, form, "bob"),
        send(browser, form, "ada", signature="none"),
        send(browser, form | {"signed": form["signed"].replace('"ada"', '"bob"')}, "ada"),
        send(browser, form, "ada", request="r2"),
        send(world.visit("bob"), form, "ada"),
    ]
    assert [answer.status_code for answer in tries] == [422] * 4 + [403]
    assert book.appended == appended
    assert send(browser, form, "ada").status_code == 303
    assert send(browser, form, "ada").status_code == 422


def test_who_may_break_glass_is_asked_whether(world: World, book: Book) -> None:
    """Alone, past the policy; others are not offered it."""
    browser = world.visit("root")
    assert "this is an alert" in browser.get("/approvals/r1").text
    assert "this is an alert" not in world.visit("ada").get("/approvals/r1").text
    form = fields(decide(browser, "r1", "approve", break_glass="yes"))
    assert send(browser, form, "root").status_code == 303
    assert book.ledger.requests["r1"].broken_glass


def test_who_is_no_approver_decides_nothing(world: World, make_world: Callable[..., World]) -> None:
    """An analyst sees, and no more; where nothing waits the page says how that comes."""
    analyst = world.visit("ann")
    csrf = token(analyst.get("/approvals"))
    assert analyst.post("/approvals/r1/decision", data={"csrf": csrf, "word": "approve", "why": WHY}).status_code == 403
    assert make_world().visit("viewer").get("/approvals").status_code == 403
    assert "effect: approve" in words(document(make_world().visit("approver").get("/approvals")))


def test_an_approver_without_a_key_is_told(make_world: Callable[..., World], book: Book) -> None:
    """Before the form, not when it is filled in."""
    other = Book(Trust((signing.GATEWAY.public_key(),), {}))
    other.ledger = book.ledger
    page = words(document(make_world(requests=other).visit("approver").get("/approvals/r1")))
    assert "No [approvers.approver] of the configuration is you" in page


def test_a_link_of_a_message_opens_the_page_once_and_decides_nothing(world: World, book: Book) -> None:
    """After a login, with the visitor's own rights; who only fetches it, as a chat's preview does, uses nothing up."""
    until_us = time.time_ns() // 1000 + 60_000_000
    path = link("http://127.0.0.1:8432", "r1", until_us, LINK_KEY, "slack").removeprefix("http://127.0.0.1:8432")
    assert world.browser().get(path).headers["location"].startswith("/login?next=/approvals/r1/from/")
    browser = world.visit("ada")
    assert browser.get(path.replace("/r1/", "/r2/")).status_code == 404
    assert browser.get(path).headers["location"] == "/approvals/r1"
    assert book.ledger.requests["r1"].state(time.time_ns() // 1000) == "open"
    assert "was opened before" in words(document(browser.get(path)))
    late = link("", "r1", 1_000_000, LINK_KEY, "slack")
    assert "has expired" in words(document(browser.get(late)))
    assert book.appended == 2


def test_what_waits_stands_on_the_first_page(world: World) -> None:
    """With a link to where it is decided on."""
    page = document(world.visit("ada").get("/"))
    assert "2 wait for a decision" in words(page)
    assert "/approvals" in {e.get("href") for e in page.iter("a")}
