"""Tokens, judged here and never passed on: of an application's transaction (`pgwitness.claim`), of a gateway's client.

A token is a JWT (RFC 7519) signed with EdDSA, ES256 or RS256 by one of the operator's keys, a JWKS (RFC 7517) or PEM
public keys. It must name its subject (`sub`), its audience (`aud`) and an end (`exp`), which counts as of the commit or
the login, so that a late collector or a replay says the same. What goes on is a verdict, the token's id and a bounded
choice of its claims; those of a refused token are there as evidence and nobody's name.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from pgwitness.core.config import File
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Token
from pgwitness.core.privacy import Tokenizer
from pgwitness.core.runtime.watchedfile import WatchedFile

ALGORITHMS = ("EdDSA", "ES256", "RS256")
TEXT_CHARACTERS_MAX = 200
ACTORS_MAX = 8
LIST_MAX = 16
"""Items of a claim that is a list."""
RSA_BITS_MIN = 2048
LEEWAY_S = 5.0
"""How far the issuer's clock may be from the database's."""

_NAMED = ("iss", "sub", "jti", "client_id", "kind", "traceparent")
_NUMBERS = ("exp", "iat", "nbf")
_AGENT = ("name", "instance", "model", "tool", "conversation")
_PLACES = {"person": ("sub",), "actor": ("act", "sub"), "kind": ("kind",), "client": ("client_id",)}
_PLACES |= {name: ("agent", name) for name in (*_AGENT, "tools")}
NAMES = frozenset(_PLACES)
"""What a claim can be of: an issuer may have its own name for each (`renamed`)."""
_PEM_END = "-----END PUBLIC KEY-----"


class Key(Struct, frozen=True):
    """A public key: its id, if it has one, the only algorithm it may verify, and the key itself."""

    kid: str | None
    algorithm: str
    key: Any


class Fields:
    """Further claims that the organisation's tokens carry, by name or path, and which of them are masked.

    Each is a text, a number or a boolean, or a list of such; longer ones are cut. Whatever else stands there is left
    out, so that what goes on is bounded.
    """

    def __init__(self, treatments: Mapping[str, str], token: Tokenizer | None) -> None:
        self._treatments = {name: (name.split("."), said) for name, said in treatments.items()}
        self._token = token

    def of(self, claims: dict[str, Any]) -> dict[str, object]:
        """Choose and bound them, those that are masked as tokens."""
        found: dict[str, object] = {}
        for name, (path, treatment) in self._treatments.items():
            value: object = claims
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            kept = [self._one(item, treatment) for item in _items(value)]
            kept = [item for item in kept if item is not None]
            if kept:
                found[name] = kept if isinstance(value, list) else kept[0]
        return found

    def _one(self, value: object, treatment: str) -> object:
        if treatment == "clear":
            return _text(value) if isinstance(value, str) else value
        return None if self._token is None else self._token(str(value).encode("utf-8", "replace")).decode()


def _items(value: object) -> list[object]:
    """List what a claim holds that can go on."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items[:LIST_MAX] if isinstance(item, str | bool) or _number(item)]


NO_FIELDS = Fields({}, None)


class Verifier:
    """Judges the tokens of one database. Without a keys file every token's verdict is `no_keys`."""

    def __init__(
        self,
        keys: Callable[[], list[Key]] | None,
        audience: str,
        issuer: str | None = None,
        fields: Fields = NO_FIELDS,
        names: Mapping[str, str] | None = None,
        leeway_s: float = LEEWAY_S,
    ) -> None:
        self._names = dict(names or {})
        self._leeway_s = leeway_s
        self._load = keys
        self._keys = keys() if keys is not None else []
        self._audience = audience
        self._issuer = issuer
        self._fields = fields

    @classmethod
    def of(cls, settings: File, cluster: str, database: str, token: Tokenizer | None = None) -> Verifier:
        """Make the verifier of a database as configured. Raise `ConfigurationError` when the keys cannot be used.

        `token` is what stands for values that do not go on as they are; without it those are left out.
        """
        audience = settings.claims_audience.replace("{cluster}", cluster).replace("{database}", database)
        path = settings.claims_keys
        fields = Fields(settings.claims_fields, token)
        return cls(watched(path) if path is not None else None, audience, settings.claims_issuer or None, fields)

    def judge(self, token: str, at_us: int) -> Token:
        """Judge a token as of a moment, microseconds since the epoch. Total: any text gets a verdict."""
        said = _unverified(token)
        number = str(said.get("jti") or hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()[:32])
        verdict = "no_keys" if self._load is None else self._verdict(token, at_us / 1e6)
        claims = published(renamed(said, self._names), self._fields)
        return Token(verdict=verdict, token_id=number[:TEXT_CHARACTERS_MAX], claims=claims)

    def _verdict(self, token: str, at_s: float) -> str:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            return "malformed"
        algorithm, kid = header.get("alg"), header.get("kid")
        if str(algorithm).lower() == "none":
            return "unsigned"
        if algorithm not in ALGORITHMS:
            return "algorithm"
        keys = self._matching(algorithm, kid)
        claims = _signed(token, keys)
        if claims is None and self._load is not None:
            # The file may have another key by now: one in PEM has no id that would tell.
            self._keys = self._load()
            keys = self._matching(algorithm, kid)
            claims = _signed(token, keys)
        if claims is None:
            return "signature" if keys else "unknown_key"
        return self._claims(claims, at_s)

    def _matching(self, algorithm: str, kid: object) -> list[Key]:
        return [key for key in self._keys if key.algorithm == algorithm and (kid is None or key.kid in (None, kid))]

    def _claims(self, claims: dict[str, Any], at_s: float) -> str:
        """Judge the claims of a token whose signature holds."""
        end, begin, audience = claims.get("exp"), claims.get("nbf", 0), claims.get("aud")
        if end is None:
            return "no_expiry"
        if not _number(end) or not _number(begin):
            return "malformed"
        checks = (
            ("expired", end + self._leeway_s >= at_s),
            ("not_yet", begin - self._leeway_s <= at_s),
            ("audience", self._audience in (audience if isinstance(audience, list) else [audience])),
            ("issuer", self._issuer is None or claims.get("iss") == self._issuer),
            ("no_subject", isinstance(claims.get("sub"), str) and bool(claims["sub"])),
        )
        return next((verdict for verdict, holds in checks if not holds), "verified")


_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False),
    "verify_jti": False,
}
"""The rest is judged here, as of the commit and not of now."""
_NOTHING: Any = {**_SIGNATURE_ONLY, "verify_signature": False}


@functools.cache
def watched(path: Path) -> Callable[[], list[Key]]:
    """Return the keys of a file as of now, the same for all who ask: what was good outlives a collector's restart.

    The function raises `ConfigurationError` when the file never was one of keys.
    """
    return WatchedFile(path, functools.partial(load_keys, path), initial=list[Key]()).current


def load_keys(path: Path, setting: str = "identities.claims_keys") -> list[Key]:
    """Read a file of keys. Raise `ConfigurationError` when it cannot be read or has no usable one."""
    source = f"{setting}: {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source}: cannot be read: {error}; put a JWKS or PEM public keys there") from error
    return read_keys(text, source)


def read_keys(text: str, source: str) -> list[Key]:
    """Read a JWKS or PEM public keys. Raise `ConfigurationError` naming `source` when there is no usable key."""
    keys = _from_jwks(text, source) if text.lstrip().startswith("{") else _from_pem(text, source)
    if not keys:
        raise ConfigurationError(
            f"{source}: no usable key; there must be an Ed25519, P-256 or RSA public key (2,048 bits or more)"
        )
    return keys


def _from_jwks(text: str, source: str) -> list[Key]:
    try:
        tree = json.loads(text)
        entries = jwt.PyJWKSet.from_dict(tree if "keys" in tree else {"keys": [tree]}).keys
    except (ValueError, RecursionError, AttributeError, TypeError, jwt.PyJWTError) as error:
        raise ConfigurationError(f"{source}: not a JWKS: {error}") from error
    found = []
    for entry in entries:
        algorithm = _algorithm(entry.key)
        if algorithm is not None and entry.public_key_use in (None, "sig"):
            found.append(Key(entry.key_id, algorithm, entry.key))
    return found


def _from_pem(text: str, source: str) -> list[Key]:
    found = []
    for block in text.split(_PEM_END)[:-1]:
        try:
            key = load_pem_public_key((block + _PEM_END + "\n").lstrip().encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(f"{source}: not a PEM public key: {error}") from error
        algorithm = _algorithm(key)
        if algorithm is not None:
            found.append(Key(None, algorithm, key))
    return found


def _algorithm(key: object) -> str | None:
    """Return the one algorithm a public key is for: a key never verifies under another one's name."""
    if isinstance(key, Ed25519PublicKey):
        return "EdDSA"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
        return "RS256"
    return None


def published(claims: dict[str, Any], fields: Fields = NO_FIELDS) -> dict[str, object]:
    """Choose what goes on of a token's claims, each bounded; whatever has not the type it should have is left out."""
    found: dict[str, object] = {name: _text(claims[name]) for name in _NAMED if isinstance(claims.get(name), str)}
    found |= {name: claims[name] for name in _NUMBERS if _number(claims.get(name))}
    audience = claims.get("aud")
    texts = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    if texts:
        found["aud"] = [_text(item) for item in texts[:ACTORS_MAX] if isinstance(item, str)]
    actors: list[str] = []
    actor = claims.get("act")
    while isinstance(actor, dict) and isinstance(actor.get("sub"), str) and len(actors) < ACTORS_MAX:
        actors.append(_text(actor["sub"]))
        actor = actor.get("act")
    if actors:
        found["actors"] = actors
    agent = claims.get("agent")
    if isinstance(agent, dict):
        kept: dict[str, object] = {name: _text(agent[name]) for name in _AGENT if isinstance(agent.get(name), str)}
        if tools := _texts(agent.get("tools")):
            kept["tools"] = tools
        found["agent"] = kept
    if further := fields.of(claims):
        found["fields"] = further
    return found


def renamed(claims: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Put claims that an issuer calls otherwise where `published` looks for them; `names` are paths by `NAMES`.

    All are read before any is written, so that `person` and `actor` may change places.
    """
    found = [(_PLACES[name], value) for name, path in names.items() if (value := at_path(claims, path)) is not None]
    if not found:
        return claims
    made = dict(claims)
    for place, value in found:
        inner = made
        for step in place[:-1]:
            below = inner.get(step)
            inner[step] = dict(below) if isinstance(below, dict) else {}
            inner = inner[step]
        inner[place[-1]] = value
    return made


def at_path(claims: dict[str, Any], path: str) -> object:
    """Return the claim at a path such as `agent.model`, None where there is none; a name may have dots of its own."""
    if path in claims:
        return claims[path]
    value: object = claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _texts(value: object) -> list[str]:
    """List the texts of a claim that is a list, or a text of several words as `scope` is."""
    items = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return [_text(item) for item in items[:LIST_MAX] if isinstance(item, str)]


def _signed(token: str, keys: list[Key]) -> dict[str, Any] | None:
    """Return the claims of a token that one of the keys has signed."""
    for key in keys:
        try:
            return jwt.decode(token, key.key, algorithms=[key.algorithm], options=_SIGNATURE_ONLY)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            continue
    return None


def _unverified(token: str) -> dict[str, Any]:
    try:
        claims = jwt.decode(token, options=_NOTHING)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def _text(value: str) -> str:
    return value[:TEXT_CHARACTERS_MAX]
