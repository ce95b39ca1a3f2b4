"""What an issuer of tokens is in these tests, and libpq's own hook by which a client hands a token over."""

from __future__ import annotations

import base64
import ctypes
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import psycopg_binary
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ISSUER = "https://idp.example"
AUDIENCE = "shop/*"


class Issuer:
    """Signs tokens, and writes the keys that they are checked with."""

    def __init__(self) -> None:
        self.keys = {"one": Ed25519PrivateKey.generate()}

    def jwks(self) -> str:
        """The public keys."""
        return json.dumps({"keys": [_jwk(name, key) for name, key in self.keys.items()]})

    def token(self, kid: str = "one", key: Any = None, algorithm: str = "EdDSA", **claims: object) -> str:
        """Sign a token that is in order but for what a test changes; a claim of None is left out."""
        given = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "maria", "exp": time.time() + 60, "jti": "t-1",
            "act": {"sub": "triage"}, "agent": {"name": "triage", "tools": ["sql"], "conversation": "c9"}, **claims,
        }  # fmt: skip
        said = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(said, key if key is not None else self.keys[kid], algorithm, {"kid": kid})


def _jwk(name: str, key: Ed25519PrivateKey) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": name, "x": x}


class _Request(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h (PostgreSQL 18)."""

    _fields_ = (
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    )


_BEARER_TOKEN = 1
"""PQAUTHDATA_OAUTH_BEARER_TOKEN."""
_Hook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Request))


@contextmanager
def handing_over(token: str) -> Iterator[list[str]]:
    """Have the libpq 18 of psycopg hand a token over; yields the metadata that it was told to look for one in."""
    folder = Path(psycopg_binary.__file__).parent.parent / "psycopg_binary.libs"
    libpq = ctypes.CDLL(str(next(folder.glob("libpq-*.so*"))))
    asked: list[str] = []

    def hook(kind: int, _: object, request: Any) -> int:
        if kind != _BEARER_TOKEN:
            return 0
        asked.append(request.contents.openid_configuration.decode())
        request.contents.token = token.encode()
        return 1

    taken = _Hook(hook)
    libpq.PQsetAuthDataHook.argtypes = (ctypes.c_void_p,)
    libpq.PQsetAuthDataHook(ctypes.cast(taken, ctypes.c_void_p))
    try:
        yield asked
    finally:
        libpq.PQsetAuthDataHook(ctypes.cast(libpq.PQdefaultAuthDataHook, ctypes.c_void_p))
