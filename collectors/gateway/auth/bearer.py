"""The server's end of SASL OAUTHBEARER (RFC 7628) as PostgreSQL speaks it (manual, 53.3.3): pure.

The client sends its token in its first message, or an empty one to ask where tokens come from. What is refused gets a
JSON text that says so and names the issuer's metadata, to which the client has to answer once more before it fails.
"""

from __future__ import annotations

import json
import re
from typing import Final

MECHANISM: Final = "OAUTHBEARER"
KVSEP: Final = b"\x01"
FAILED_ANSWER: Final = KVSEP
"""What a client says to the JSON text of its failure, and nothing else."""
_TOKEN: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)")


class BearerError(Exception):
    """A message that is none of OAUTHBEARER; what it holds is never quoted, for it may be a token."""


def token_of(message: bytes) -> str | None:
    """Read the token out of a client's first message; None where it has none and asks where to get one.

    Raise `BearerError`.
    """
    header, separator, rest = message.partition(KVSEP)
    if not separator or header not in (b"n,,", b"y,,"):
        raise BearerError("malformed OAUTHBEARER message: its header has to be without channel binding and identity")
    if not rest.endswith(KVSEP * 2) and rest != KVSEP:
        raise BearerError("malformed OAUTHBEARER message: it does not end as it has to")
    said: str | None = None
    for pair in rest[:-1].split(KVSEP)[:-1]:
        name, equals, value = pair.partition(b"=")
        if not equals or not name.isalpha():
            raise BearerError("malformed OAUTHBEARER message: a key without a value")
        if name == b"auth":
            if said is not None:
                raise BearerError("malformed OAUTHBEARER message: auth stands there twice")
            said = value.decode("ascii", "replace")
    if said is None:
        raise BearerError("malformed OAUTHBEARER message: no auth")
    if not said:
        return None
    match = _TOKEN.fullmatch(said)
    if match is None:
        raise BearerError("malformed OAUTHBEARER message: auth is no bearer token")
    return match[1]


def failure(issuer: str, scope: str) -> bytes:
    """Write that a token is not taken, and where there are others (RFC 7628, 3.2.2)."""
    where = issuer.rstrip("/") + "/.well-known/openid-configuration"
    return json.dumps({"status": "invalid_token", "openid-configuration": where, "scope": scope}).encode()
