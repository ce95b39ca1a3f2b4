"""Tokens of clients: what is found of one, and what its client is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from collectors.gateway.auth.jwks import FileKeys, Keys, UrlKeys
from collectors.tokens import NAMES, Fields, Key, Verifier
from pgwitness.core.config.gateway import GatewayToken
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Token
from pgwitness.core.privacy import Tokenizer

VERIFIED: Final = "verified"
CHARS_MAX: Final = 16 * 1024
"""A longer token is not looked at."""
_RETRIED: Final = ("unknown_key", "signature")
_SAID: Final = {
    "expired": "it has expired; get a new one",
    "not_yet": "it is not valid yet; compare the clocks of its issuer and of the gateway",
    "audience": "it is for somebody else (aud)",
    "issuer": "it is of another issuer (iss)",
    "algorithm": "its algorithm is not taken; EdDSA, ES256 and RS256 are",
    "unsigned": "it is not signed",
    "no_expiry": "it has no end (exp)",
    "no_subject": "it names nobody (sub)",
    "malformed": "it is no JWT",
    "too_long": f"it has more than {CHARS_MAX} characters",
}


class Tokens:
    """Judges the tokens of one database, with the keys that hold at that moment."""

    def __init__(self, settings: GatewayToken, audience: str, keys: Keys, fields: Fields) -> None:
        self.settings = settings
        self._audience = audience
        self._source = keys
        self._fields = fields
        self._known: list[Key] = []
        self._verifier = self._made([])

    @classmethod
    def of(
        cls,
        settings: GatewayToken,
        where: tuple[str, str, str],
        treatments: Mapping[str, str],
        token: Tokenizer,
    ) -> Tokens:
        """Make the judge of a database; `where` is its table, its cluster and its name. Raise `ConfigurationError`."""
        table, cluster, database = where
        if unknown := sorted(set(settings.claims) - NAMES):
            known = ", ".join(sorted(NAMES))
            raise ConfigurationError(f"{table}.claims: {unknown[0]} is nothing that is read; there are {known}")
        keys: Keys
        if settings.keys is not None:
            keys = FileKeys(settings.keys, f"{table}.keys")
        else:
            keys = UrlKeys(cast("str", settings.keys_url), float(settings.keys_age))
        audience = settings.audience.replace("{cluster}", cluster).replace("{database}", database)
        return cls(settings, audience, keys, Fields(treatments, token))

    async def keys(self) -> list[Key]:
        """Return the keys that hold now. Raise `Retry` where that cannot be known."""
        return await self._source.now()

    async def judge(self, text: str, at_us: int) -> Token:
        """Judge a token as of a moment. Raise `Retry` where its keys cannot be known."""
        if len(text) > CHARS_MAX:
            return Token(verdict="too_long", token_id="")
        self._take(await self._source.now())
        found = self._verifier.judge(text, at_us)
        if found.verdict in _RETRIED and self._take(await self._source.again()):
            found = self._verifier.judge(text, at_us)
        return found

    def _take(self, keys: list[Key]) -> bool:
        """Take up which keys hold; return whether they are others than before."""
        if keys is self._known:
            return False
        self._known, self._verifier = keys, self._made(keys)
        return True

    def _made(self, keys: list[Key]) -> Verifier:
        settings = self.settings
        return Verifier(
            lambda: keys,
            self._audience,
            settings.issuer,
            self._fields,
            settings.claims,
            float(settings.leeway),
        )


def said_of(verdict: str) -> str:
    """Return what a client is told of its token that is not taken."""
    return _SAID.get(verdict, "its signature is of nobody whose tokens are taken here")
