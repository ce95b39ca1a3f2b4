"""A verdict from the page: what the browser signs is what the worker believes, and nothing else is sent."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from detectors.alerts import verdicts
from pgwitness.core.config import Reviewer
from tests.sinks.console.conftest import HOSTILE, UID, World, document, token
from tests.sinks.console.test_pages import words

KEY = Ed25519PrivateKey.generate()
REVIEWERS = {"reviewer": Reviewer(key=verdicts.public_text(KEY.public_key()), scopes=["same-finding"])}
FORM = {"word": "false-positive", "why": HOSTILE, "scope": "same-finding", "expires": "7d"}


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A console that knows one reviewer."""
    return make_world(reviewers=REVIEWERS)


def draft(browser: TestClient, **more: str) -> httpx2.Response:
    """Fill in the form of an alert."""
    csrf = token(browser.get(f"/alerts/{UID}"))
    return browser.post(f"/alerts/{UID}/verdict", data={"csrf": csrf, **FORM, **more})


def fields(page: httpx2.Response) -> dict[str, str]:
    """Take the hidden fields out of a page's form."""
    form = next(one for one in document(page).iter("form") if one.get("id") == "sign")
    return {one.get("name"): one.get("value", "") for one in form.iter("input") if one.get("name")}


def signature(text: str, key: Ed25519PrivateKey = KEY) -> str:
    """Sign as the page's script does."""
    return base64.b64encode(key.sign(verdicts.DOMAIN + text.encode())).decode()


def send(browser: TestClient, form: dict[str, str], **more: str) -> httpx2.Response:
    """Send what was signed."""
    return browser.post(f"/alerts/{UID}/signed", data={**form, "signature": signature(form["signed"]), **more})


def test_a_signed_verdict_is_one_that_the_worker_believes(world: World) -> None:
    """With who, why, scope and end; what a page shows as something else is escaped, and means the same."""
    browser = world.visit("reviewer")
    form = fields(draft(browser))
    assert form["signed"].isprintable()
    answer = send(browser, form)
    assert answer.status_code == 303
    assert "Your verdict was sent" in words(document(browser.get(answer.headers["location"])))
    ((uid, value),) = world.sent
    checked = verdicts.check(value, REVIEWERS, time.time_ns() // 1000)
    assert checked.verdict is not None
    assert uid == checked.verdict.uid == UID
    assert (checked.verdict.who, checked.verdict.why, checked.verdict.match) == ("reviewer", HOSTILE, {"finding": "k1"})
    told = [what for operation, _, what in world.records.told if operation == "console_verdict"]
    assert told == [
        {"page": "verdict", "outcome": "success", "uid": UID, "verdict": checked.id, "as": "false-positive",
         "scope": "same-finding"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"word": ""}, "say whether"),
        ({"why": " "}, "say why"),
        ({"scope": "policy-and-cluster"}, "scopes allows same-finding"),
        ({"scope": "none"}, "scopes allows"),
        ({"expires": "soon"}, "expires"),
        ({"expires": "900d"}, "longest"),
    ],
)
def test_what_the_worker_would_refuse_is_not_put_together(world: World, more: dict[str, str], sentence: str) -> None:
    """With a sentence that says what does not go."""
    answer = draft(world.visit("reviewer"), **more)
    assert answer.status_code == 422
    assert sentence in words(document(answer))


def test_nothing_else_is_sent(world: World) -> None:
    """Neither with another's key, nor altered, of another alert, another person, or long ago."""
    browser = world.visit("reviewer")
    form = fields(draft(browser))

    def altered(**fields: Any) -> dict[str, str]:
        text = msgspec.json.encode(msgspec.json.decode(form["signed"]) | fields).decode()
        return form | {"signed": text}

    tries = [
        send(browser, form, signature=signature(form["signed"], Ed25519PrivateKey.generate())),
        send(browser, form, signature=""),
        send(browser, form, signature="no base64"),
        send(browser, form, signed=form["signed"] + " "),
        send(browser, form, signed="none"),
        send(browser, altered(uid="b" * 32)),
        send(browser, altered(who="somebody")),
        send(browser, altered(decided_us=1)),
        send(browser, altered(scope="policy-and-cluster", match={"policy": "p", "cluster": "shop"})),
    ]
    assert [answer.status_code for answer in tries] == [422] * len(tries)
    assert world.sent == []


def test_who_is_no_reviewer_decides_nothing(world: World, make_world: Callable[..., World]) -> None:
    """Neither by role, nor where the configuration lists nobody of that name."""
    browser = world.visit("analyst")
    assert 'action="/alerts/' not in browser.get(f"/alerts/{UID}").text
    assert draft(browser).status_code == 403
    unlisted = make_world().visit("reviewer")
    answer = draft(unlisted)
    assert answer.status_code == 422
    assert "pgwitness alerts key" in words(document(answer))


def test_who_has_no_key_is_told_before_the_form(make_world: Callable[..., World], world: World) -> None:
    """Not when it is filled in."""
    for there, has_key in ((world, True), (make_world(), False)):
        page = words(document(there.visit("reviewer").get(f"/alerts/{UID}")))
        assert ("You have no key yet" not in page) == has_key
