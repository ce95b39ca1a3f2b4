"""Whose call it is: the token that an agent's host shows, judged here, and the one that the gateway is shown for it.

The gateway judges its token again and goes by that alone. What is judged here keeps strangers from using this server
at all, as MCP's authorization asks of a resource server, and keeps apart the conversations that share a process.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
import urllib.error
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import jwt
from mcp.server.auth.provider import AccessToken
from msgspec.structs import replace

from collectors.gateway.auth.tokens import VERIFIED, Tokens
from pgwitness.core.config.capture import OF_DATABASE
from pgwitness.core.config.serving import Mcp, McpExchange
from pgwitness.core.errors import ConfigurationError, Retry
from pgwitness.core.privacy import Tokenizer
from pgwitness.core.runtime import web

TOKEN_BYTES_MAX: Final = 64 * 1024
EXCHANGE_S: Final = 10.0
_PASSING: Final = ("exp", "iat", "nbf", "jti", "auth_time", "sid", "at_hash", "nonce")
"""Claims that every new token of the same agent has others of."""


class Refused(Exception):
    """No token, or one that opens nothing; the text is for the agent's host."""


class Caller(NamedTuple):
    """Who calls: the token itself, and a key that all tokens of the same agent, person and task share."""

    token: str
    key: str


def caller(token: str) -> Caller:
    """Say who a token is of, without judging it: what tells its bearer from others, not what is different each time."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        claims = {"token": token}
    lasting = {name: value for name, value in claims.items() if name not in _PASSING}
    said = json.dumps(lasting, sort_keys=True, default=str)
    return Caller(token, hashlib.sha256(said.encode("utf-8", "replace")).hexdigest())


def from_file(path: Path) -> Caller:
    """Read the token of the one agent that this process serves. Raise `Refused`."""
    try:
        with path.open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise Refused(f"mcp.token_file: {path} cannot be read ({error}); put the agent's token there") from error
    if not token:
        raise Refused(f"mcp.token_file: {path} is empty; put the agent's token there")
    return caller(token)


class Verifier:
    """Judges the tokens of HTTP clients, as the SDK asks for it (`TokenVerifier`)."""

    def __init__(self, tokens: Tokens, url: str) -> None:
        self._tokens = tokens
        self._url = url

    @classmethod
    def of(cls, config: Mcp, token: Tokenizer) -> Verifier:
        """Make it of `[mcp.token]`; the audience is `mcp.url` where none is set. Raise `ConfigurationError`."""
        if config.token is None:
            raise ConfigurationError(
                "mcp.token: over HTTP anybody could call; say whose tokens are believed (issuer, and keys or keys_url)"
            )
        settings = config.token
        if settings.audience == OF_DATABASE:
            settings = replace(settings, audience=config.url)
        return cls(Tokens.of(settings, ("mcp.token", "", ""), {}, token), config.url)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Judge a token; None for one that does not count, and while nobody can know."""
        try:
            found = await self._tokens.judge(token, time.time_ns() // 1000)
        except Retry:
            return None
        if found.verdict != VERIFIED:
            return None
        claims: Mapping[str, Any] = jwt.decode(token, options={"verify_signature": False})
        scopes = claims.get("scope", claims.get("scp", []))
        return AccessToken(
            token=token,
            client_id=str(claims.get("client_id") or claims.get("azp") or claims["sub"]),
            scopes=scopes.split() if isinstance(scopes, str) else [str(one) for one in scopes],
            expires_at=int(claims["exp"]),
            resource=self._url,
            subject=str(claims["sub"]),
            claims={"iss": claims.get("iss"), "act": claims.get("act")},
        )


class Exchange:
    """Gets the gateway's token for a client's own (RFC 8693), and keeps it until it has nearly expired."""

    SPARE_S: Final = 30.0
    KEPT_MAX: Final = 1_000

    def __init__(self, settings: McpExchange, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[str, float]] = {}

    async def token(self, shown: str, audience: str) -> str:
        """Return a token for an audience. Raise `Refused` where the issuer gives none."""
        key = (hashlib.sha256(shown.encode()).hexdigest(), audience)
        kept = self._kept.get(key)
        if kept is not None and kept[1] - self.SPARE_S > self._clock():
            return kept[0]
        token, lives_s = await asyncio.get_running_loop().run_in_executor(None, self._ask, shown, audience)
        if len(self._kept) >= self.KEPT_MAX:
            self._kept.clear()
        self._kept[key] = (token, self._clock() + lives_s)
        return token

    def _ask(self, shown: str, audience: str) -> tuple[str, float]:
        settings = self._settings
        try:
            secret = settings.client_secret_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"mcp.exchange.client_secret_file: {error}") from error
        named = f"{quote(settings.client_id, safe='')}:{quote(secret, safe='')}"
        form = urlencode({
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": shown,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": audience,
        })  # fmt: skip
        headers = {
            "authorization": f"Basic {base64.b64encode(named.encode()).decode()}",
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        try:
            content = web.answer(settings.url, headers, form.encode(), timeout_s=EXCHANGE_S, at_most=TOKEN_BYTES_MAX)
            given = json.loads(content)
            return str(given["access_token"]), float(given.get("expires_in", 0))
        except urllib.error.HTTPError as error:
            error.close()
            raise Refused(f"{settings.url} gives no token for {audience}: it answers {error.code}") from error
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            raise Refused(f"{settings.url} gives no token for {audience}: {error}") from error
