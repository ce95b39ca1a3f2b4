"""Links of messages open once, for a while, and for the request that they were written for."""

from __future__ import annotations

import pytest

from pgwitness.approvals.links import Opened, link
from tests.approvals.signing import MINUTE_US, T0

KEY = b"k" * 32


def token_of(at: str) -> str:
    """The part of a link that is signed."""
    return at.rsplit("/", 1)[1]


def test_a_link_opens_once_and_until_its_time() -> None:
    """The same message has the same link, and another target's is another."""
    at = link("https://console.example/", "r1", T0, KEY, "slack")
    assert at.startswith("https://console.example/approvals/r1/from/")
    assert link("https://console.example", "r1", T0, KEY, "slack") == at
    other = link("https://console.example", "r1", T0, KEY, "teams")
    opened = Opened()
    assert opened.open(token_of(at), "r1", KEY, T0 - MINUTE_US) is None
    assert opened.open(token_of(at), "r1", KEY, T0 - MINUTE_US) == "used"
    assert opened.open(token_of(other), "r1", KEY, T0 - MINUTE_US) is None
    assert opened.open(token_of(at), "r1", KEY, T0 + MINUTE_US) == "expired"


@pytest.mark.parametrize("change", ["request", "key", "until", "nonce", "signature", "nothing", "letters"])
def test_what_was_altered_is_forged(change: str) -> None:
    """Every part of it is signed, and a link that is none uses none up."""
    token = token_of(link("https://console.example", "r1", T0, KEY, "slack"))
    until, nonce, signature = token.split(".")
    tried = {
        "until": f"{int(until) + 60}.{nonce}.{signature}",
        "nonce": f"{until}.{nonce[::-1]}.{signature}",
        "signature": f"{until}.{nonce}.{signature[::-1]}",
        "nothing": "",
        "letters": f"{until}.{nonce}.\u00e9\udcff",
    }.get(change, token)
    opened = Opened()
    request, key = ("r2" if change == "request" else "r1"), (b"x" * 32 if change == "key" else KEY)
    assert opened.open(tried, request, key, T0 - MINUTE_US) == "forged"
    assert opened.open(token, "r1", KEY, T0 - MINUTE_US) is None
