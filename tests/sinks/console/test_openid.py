"""Logging in with OpenID Connect, against a small provider on this machine that does what a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from jwt.algorithms import ECAlgorithm
from starlette.testclient import TestClient

from pgwitness.core.config.serving import ConsoleOpenid
from pgwitness.core.errors import ConfigurationError
from sinks.console.openid import Provider
from tests.sinks.console.conftest import World, document
from tests.sinks.console.test_pages import words

SECRET = "a secret that is long enough"


class Authority:
    """A provider: `claims` is what it says of whoever logs in, `key` what it signs with."""

    def __init__(self) -> None:
        self.key = self.published = generate_private_key(SECP256R1())
        self.algorithm = "ES256"
        self.claims: dict[str, Any] = {}
        self.asked: list[dict[str, str]] = []
        self.status = 200
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(200, authority.keys() if self.path == "/keys" else authority.metadata())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                authority.asked.append({name: values[0] for name, values in parse_qs(body).items()})
                self._say(authority.status, {"id_token": authority.token()})

            def _say(self, status: int, what: object) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(what).encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def metadata(self) -> dict[str, object]:
        """Say what it is."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }

    def keys(self) -> dict[str, object]:
        """Publish its key."""
        return {"keys": [{**ECAlgorithm.to_jwk(self.published.public_key(), as_dict=True), "kid": "k"}]}

    def token(self) -> str:
        """Sign what it says."""
        key: Any = self.key if self.algorithm == "ES256" else None if self.algorithm == "none" else "x" * 32
        return jwt.encode(self.claims, key, self.algorithm, headers={"kid": "k"})


@pytest.fixture(scope="module")
def running() -> Iterator[Authority]:
    """The provider."""
    authority = Authority()
    yield authority
    authority.server.shutdown()
    authority.server.server_close()


@pytest.fixture
def authority(running: Authority) -> Authority:
    """The provider, as it is at first."""
    running.key, running.algorithm, running.status, running.claims = running.published, "ES256", 200, {}
    running.asked.clear()
    return running


@pytest.fixture
def settings(authority: Authority, tmp_path: Path) -> ConsoleOpenid:
    """A table of the configuration with that provider."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return ConsoleOpenid(
        issuer=authority.issuer,
        client_id="console",
        client_secret_file=file,
        url="http://127.0.0.1:8432",
        roles={"soc": ["analyst"], "all": ["viewer"]},
    )


@pytest.fixture
def world(make_world: Callable[..., World], settings: ConsoleOpenid) -> World:
    """A console that lets people in whom the provider vouches for."""
    return make_world(openid=settings)


def begin(browser: TestClient, after: str = "/") -> dict[str, str]:
    """Go to the provider; returns what it is asked for."""
    answer = browser.get("/login/with", params={"next": after})
    assert answer.status_code == 303
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def finish(browser: TestClient, authority: Authority, asked: dict[str, str], **claims: Any) -> httpx2.Response:
    """Come back from the provider, which says this of whoever logged in."""
    now_s = int(time.time())
    authority.claims = {
        "iss": authority.issuer, "aud": "console", "sub": "u-17", "iat": now_s, "exp": now_s + 60,
        "nonce": asked["nonce"],
        "email": "ada@example.org", "email_verified": True, "groups": ["soc", "others"], **claims,
    }  # fmt: skip
    return browser.get("/login/openid", params={"code": "c-1", "state": asked["state"]})


def test_groups_become_roles(world: World, authority: Authority) -> None:
    """By the code flow with PKCE; the login is evidence with who vouched for whom."""
    browser = world.browser()
    assert "Log in with 127.0.0.1" in words(document(browser.get("/login")))
    asked = begin(browser, "/alerts?state=all")
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    answer = finish(browser, authority, asked)
    assert (answer.status_code, answer.headers["location"]) == (303, "/alerts?state=all")
    assert authority.asked[0]["client_secret"] == SECRET
    assert len(authority.asked[0]["code_verifier"]) >= 43
    page = browser.get("/ask")
    assert page.status_code == 200
    assert "ada@example.org" in words(document(page))
    assert browser.get("/now/none").status_code == 404
    operation, who, what = world.records.told[0]
    assert (operation, who.name) == ("console_login", "ada@example.org")
    assert what == {"issuer": authority.issuer, "subject": "u-17", "outcome": "success"}


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"aud": "another"},
        {"aud": ["console", "another"]},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"iat": 2**40},
        {"email_verified": False},
        {"email": "ada@example.org\x1b"},
        {"email": ["ada@example.org"]},
        {"groups": []},
        {"groups": "soc"},
        {"groups": [["soc"], {"soc": 1}]},
        {"email": "analyst"},  # which is a user of the console's own
    ],
)
def test_what_was_not_signed_for_this_login_lets_nobody_in(
    world: World, authority: Authority, claims: dict[str, Any]
) -> None:
    """Another's nonce, audience, issuer or time, a name that nobody vouches for, no group with a role, a taken name."""
    browser = world.browser()
    answer = finish(browser, authority, begin(browser), **claims)
    assert answer.status_code == 403
    assert browser.get("/").status_code == 303
    assert world.records.told[-1][2]["outcome"] == "denied"


@pytest.mark.parametrize("how", ["foreign key", "HS256", "none", "refused"])
def test_what_the_provider_did_not_sign_lets_nobody_in(world: World, authority: Authority, how: str) -> None:
    """A foreign key under the provider's name, a shared secret, no signature, a code that was refused."""
    browser = world.browser()
    if how == "foreign key":
        foreign: EllipticCurvePrivateKey = generate_private_key(SECP256R1())
        authority.key = foreign
    elif how == "refused":
        authority.status = 400
    else:
        authority.algorithm = how
    assert finish(browser, authority, begin(browser)).status_code == 403
    assert browser.get("/").status_code == 303


def test_an_answer_is_of_the_browser_that_began_and_taken_once(world: World, authority: Authority) -> None:
    """A state of another browser, a made-up one, one that is used again, and one that took too long."""
    browser, other = world.browser(), world.browser()
    asked = begin(browser)
    assert finish(other, authority, asked).status_code == 403
    assert finish(browser, authority, asked | {"state": "made-up"}).status_code == 403
    assert finish(browser, authority, asked).status_code == 303
    assert finish(browser, authority, asked).status_code == 403
    late = begin(other)
    world.now_s[0] += 601
    assert finish(other, authority, late).status_code == 403


def test_a_provider_is_asked_over_an_encrypted_connection(settings: ConsoleOpenid, tmp_path: Path) -> None:
    """Except on this machine; roles must be such."""
    import msgspec

    for wrong in ({"issuer": "http://idp.example"}, {"url": "http://console.example"}, {"roles": {"soc": ["root"]}}):
        with pytest.raises(ConfigurationError):
            Provider(msgspec.structs.replace(settings, **wrong), time.monotonic)


def test_a_console_without_a_provider_has_no_such_login(make_world: Callable[..., World]) -> None:
    """Its addresses are not there."""
    browser = make_world().browser()
    assert browser.get("/login/with").status_code == browser.get("/login/openid?state=x&code=y").status_code == 404
