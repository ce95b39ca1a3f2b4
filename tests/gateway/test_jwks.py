"""The keys of tokens from a URL: asked for when they are old or one is missing, and not oftener."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from collectors.gateway.auth.jwks import AGAIN_S, BYTES_MAX, HOLD_S, UrlKeys, fetched
from collectors.gateway.auth.tokens import Tokens
from collectors.tokens import NO_FIELDS
from pgwitness.core.config.gateway import GatewayToken
from pgwitness.core.errors import Retry
from tests.gateway.oauth import AUDIENCE, ISSUER, Issuer

AGE_S = 300.0


class Asked:
    """An issuer whose answers a test decides on, and a clock of its own."""

    def __init__(self) -> None:
        self.issuer = Issuer()
        self.times = 0
        self.now_s = 1_000.0
        self.down = False

    def fetch(self, url: str) -> str:
        """Answer."""
        self.times += 1
        if self.down:
            raise OSError("down")
        return self.issuer.jwks()

    def tokens(self) -> Tokens:
        """Judge by what is answered."""
        settings = GatewayToken(issuer=ISSUER, audience=AUDIENCE, keys_url="https://idp.example/jwks")
        return Tokens(settings, AUDIENCE, UrlKeys("url", AGE_S, lambda: self.now_s, self.fetch), NO_FIELDS)


async def _verdict(tokens: Tokens, token: str) -> str:
    return (await tokens.judge(token, 0)).verdict


def test_a_new_key_is_asked_for_and_a_withdrawn_one_ends() -> None:
    """An unknown key makes the gateway ask, at most every ten seconds whoever comes; an old answer makes it ask too."""

    async def run() -> None:
        asked = Asked()
        tokens = asked.tokens()
        old = asked.issuer.token(exp=10**9)
        for _ in range(3):
            assert await _verdict(tokens, old) == "verified"
        assert asked.times == 1
        asked.issuer.keys = {"two": Ed25519PrivateKey.generate()}
        new = asked.issuer.token("two", exp=10**9)
        for _ in range(100):
            assert await _verdict(tokens, new) == "unknown_key"
        assert asked.times == 1
        asked.now_s += AGAIN_S
        assert await _verdict(tokens, new) == "verified"
        assert await _verdict(tokens, old) == "unknown_key"
        assert asked.times == 2
        asked.issuer.keys = {"three": Ed25519PrivateKey.generate()}
        asked.now_s += AGE_S
        assert await _verdict(tokens, new) == "unknown_key"

    asyncio.run(run())


def test_the_last_answer_holds_for_an_hour() -> None:
    """While the issuer does not answer, its last keys hold; then nobody comes in, nor before the first answer."""

    async def run() -> None:
        asked = Asked()
        tokens, token = asked.tokens(), asked.issuer.token(exp=10**9)
        asked.down = True
        with pytest.raises(Retry, match="nobody comes in by token"):
            await tokens.judge(token, 0)
        asked.down = False
        asked.now_s += AGAIN_S
        assert await _verdict(tokens, token) == "verified"
        asked.down = True
        asked.now_s += HOLD_S - 1
        assert await _verdict(tokens, token) == "verified"
        asked.now_s += 2
        with pytest.raises(Retry):
            await tokens.judge(token, 0)

    asyncio.run(run())


@contextmanager
def serving(status: int, content: bytes, **headers: str) -> Iterator[str]:
    """Serve one answer on this host."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks"
        finally:
            server.shutdown()


def test_what_is_fetched() -> None:
    """A whole answer of a bounded size, from where it was asked and from nowhere else."""
    with serving(200, b"{}") as url:
        assert fetched(url) == "{}"
    with serving(200, b"x" * (BYTES_MAX + 1)) as url, pytest.raises(ValueError, match="more than"):
        fetched(url)
    with (
        serving(200, b"{}") as elsewhere,
        serving(302, b"", Location=elsewhere) as url,
        pytest.raises(OSError, match="302"),
    ):
        fetched(url)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"keys_url": "http://idp.example/jwks"}, "https"),
        ({"keys_url": "file:///etc/passwd"}, "https"),
        ({"keys_url": "http://127.0.0.1@idp.example/"}, "https"),
        ({}, "the one or the other"),
        ({"keys": "a", "keys_url": "https://b"}, "the one or the other"),
        ({"keys": "a", "audience": ""}, "audience"),
        ({"keys": "a", "issuer": ""}, "issuer"),
    ],
)
def test_whose_tokens_are_believed_has_to_be_said(given: dict[str, str], why: str) -> None:
    """An issuer, an audience, and keys from a place that nobody between can change."""
    settings: dict[str, Any] = {"issuer": ISSUER, **given}
    if "keys" in given:
        settings["keys"] = Path(given["keys"])
    with pytest.raises(ValueError, match=why):
        GatewayToken(**settings)
