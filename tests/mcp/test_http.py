"""The tools over HTTP: whose token opens them, and that nobody's conversation is another's."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from pgwitness.core.config import load
from pgwitness.core.config.serving import McpExchange
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.runtime.health import Health
from pgwitness.mcp.serving import run_http
from pgwitness.mcp.tokens import Exchange, Refused
from tests.mcp.conftest import BOTH, World, serving

PURPOSE = "TICKET-12: why it is late"
LEGACY = "2025-06-18"


def post(
    world: World, message: dict[str, Any] | bytes, token: str | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Send one message as software that knows nothing of the SDK; return status, headers and body."""
    given = {"content-type": "application/json", "accept": "application/json, text/event-stream", **headers}
    if token is not None:
        given["authorization"] = f"Bearer {token}"
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    request = urllib.request.Request(world.url, data=body, headers=given)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def said(body: str) -> dict[str, Any]:
    """What an answer holds, be it JSON or a stream of events."""
    lines = [line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:")]
    found: dict[str, Any] = json.loads(next(line for line in lines if line) if lines else body)
    return found


def opened(world: World, token: str) -> dict[str, str]:
    """Begin a conversation of the protocol before 2026; return the headers that continue it."""
    hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "by hand", "version": "1"}}
    status, headers, _ = post(world, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, token)
    assert status == 200
    more = {"mcp-session-id": headers["mcp-session-id"], "mcp-protocol-version": LEGACY}
    assert post(world, {"jsonrpc": "2.0", "method": "notifications/initialized"}, token, **more)[0] == 202
    return more


def called(world: World, token: str, sql: str, **headers: str) -> tuple[int, dict[str, Any]]:
    """Call `query` by hand."""
    params = {"name": "query", "arguments": {"sql": sql, "purpose": PURPOSE}}
    status, _, body = post(
        world, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}, token, **headers
    )
    return status, said(body) if status == 200 else {}


def too_long(world: World, token: str) -> int:
    """Say that a message is too long, and send nothing of it: the answer must not wait for it."""
    client = http.client.HTTPConnection("127.0.0.1", world.port, timeout=20)
    with closing(client):
        client.putrequest("POST", "/mcp")
        for name, value in {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }.items():
            client.putheader(name, value)
        client.putheader("authorization", f"Bearer {token}")
        client.putheader("content-length", "2000000")
        client.endheaders()
        return client.getresponse().status


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[World]:
    """The tools over HTTP."""
    with serving(world):
        yield world


def test_strangers_are_shown_the_door(served: World) -> None:
    """No token, none that counts, one for somebody else: 401, and where to get one. The host's name must be right."""
    hello = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for token in (
        None, "no.token.at.all", served.issuer.token(aud="shop/*"), served.issuer.token(aud=BOTH, exp=1),
        served.issuer.token(aud=BOTH, iss="https://other.example"), served.issuer.token(key="", algorithm="none"),
    ):  # fmt: skip
        status, headers, _ = post(served, hello, token)
        assert status == 401, token
        assert "resource_metadata=" in headers["www-authenticate"]
    place = served.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
    with urllib.request.urlopen(place, timeout=20) as answer:
        assert json.load(answer)["authorization_servers"] == ["https://idp.example"]
    good = served.issuer.token(aud=BOTH)
    assert post(served, hello, good, host="evil.example")[0] == 421
    assert post(served, hello, good, origin="http://evil.example")[0] == 403
    assert too_long(served, good) == 413


def test_a_client_that_knows_nothing_of_the_sdk(served: World) -> None:
    """JSON-RPC by hand, as the protocol of 2025 has it; its session is the conversation."""
    token = served.issuer.token(aud=BOTH, agent={"name": "triage"})
    more = opened(served, token)
    status, answer = called(served, token, "SELECT id, 'by hand' FROM ticket WHERE id = 7", **more)
    assert (status, answer["result"]["structuredContent"]["rows"]) == (200, [[7, "by hand"]])
    _, answer = called(served, token, "DELETE FROM ticket", **more)
    assert answer["result"]["isError"]
    assert "refused by policy no_delete" in answer["result"]["content"][0]["text"]
    (begun,) = served.begun("WHERE id = $2")[-1:]
    assert begun.said.tags["conversation_id"] == more["mcp-session-id"]


def test_nobody_goes_on_with_anothers_conversation(served: World) -> None:
    """A session's id opens it to its own agent and person only, by whatever token of theirs."""
    mine = {"aud": BOTH, "jti": "t-2"}
    more = opened(served, served.issuer.token(**mine))
    setting = "SELECT set_config('test.mine', 'yes', false)"
    assert called(served, served.issuer.token(**mine), setting, **more)[0] == 200
    read = "SELECT current_setting('test.mine', true)"
    _, answer = called(served, served.issuer.token(**{**mine, "jti": "t-3"}), read, **more)
    assert answer["result"]["structuredContent"]["rows"] == [["yes"]]
    assert called(served, served.issuer.token(**mine, sub="eve"), read, **more)[0] == 404
    # The same person through another agent, which the transport does not tell apart, has a session of its own.
    other = served.issuer.token(**mine, act={"sub": "other"}, agent={"name": "other"})
    _, answer = called(served, other, read, **more)
    assert answer["result"]["structuredContent"]["rows"] in ([[None]], [[""]])


@pytest.mark.anyio
async def test_the_sdk_speaks_the_protocol_of_2026(served: World) -> None:
    """Which has no sessions: the conversation is what the host says in `_meta`."""
    headers = {"authorization": f"Bearer {served.issuer.token(aud=BOTH)}"}
    async with (
        create_mcp_http_client(headers=headers) as http,
        Client(streamable_http_client(served.url, http_client=http)) as client,
    ):
        arguments = {"sql": "SELECT 'modern' FROM ticket WHERE id = 8", "purpose": PURPOSE}
        result = await client.call_tool("query", arguments, meta={"conversation_id": "c-2026"})  # type: ignore[typeddict-unknown-key]
        assert result.structured_content is not None
        assert result.structured_content["rows"] == [["modern"]]
    assert served.begun("FROM ticket WHERE id = $2")[-1].said.tags["conversation_id"] == "c-2026"


@pytest.fixture
def anyio_backend() -> str:
    """These run on asyncio, as psycopg does."""
    return "asyncio"


@contextmanager
def exchanging(answers: list[tuple[int, dict[str, object]]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An issuer's endpoint for exchanges: gives these answers in turn, and keeps what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            asked.append({**{key: value[0] for key, value in form.items()}, "by": self.headers["authorization"]})
            status, answer = answers[len(asked) - 1]
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.anyio
async def test_a_token_is_exchanged_for_the_gateways(tmp_path: Path) -> None:
    """As RFC 8693 has it; kept until it has nearly expired; what the issuer refuses opens nothing."""
    (tmp_path / "secret").write_text("s3cret/\n")
    now = [1000.0]
    with exchanging([(200, {"access_token": "a", "expires_in": 100}), (200, {"access_token": "b"}), (400, {})]) as (
        url,
        asked,
    ):
        settings = McpExchange(url=url, client_id="mcp", client_secret_file=tmp_path / "secret")
        exchange = Exchange(settings, clock=lambda: now[0])
        assert [await exchange.token("shown", "shop/shop") for _ in range(2)] == ["a", "a"]
        now[0] += 80
        assert await exchange.token("shown", "shop/shop") == "b"
        with pytest.raises(Refused, match="it answers 400"):
            await exchange.token("shown", "shop/other")
    assert base64.b64decode(asked[0].pop("by").split()[1]) == b"mcp:s3cret%2F"
    assert asked[0] == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": "shown",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token", "audience": "shop/shop",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[mcp.token]\n", "[mcp.none]\n"), "mcp.none"),
        (('listen = "127.0.0.1', 'listen = "0.0.0.0'), "in clear"),
        (('/mcp"', '"'), "mcp.url"),
        (('databases = ["', "databases = []#"), "mcp.databases"),
    ],
)
def test_what_cannot_be_served_is_said(world: World, tmp_path: Path, change: tuple[str, str], said: str) -> None:
    """Before anything listens."""
    text = (world.folder / "pgwitness.toml").read_text().replace(*change)
    (tmp_path / "pgwitness.toml").write_text(text.replace('"jwks.json"', f'"{world.folder}/jwks.json"'))
    with pytest.raises(ConfigurationError, match=said):
        run_http(load(tmp_path / "pgwitness.toml", {}), Health(), threading.Event())
