"""What an issuer of tokens is in these tests."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
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
