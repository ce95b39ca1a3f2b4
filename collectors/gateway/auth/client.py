"""What a client and the gateway say to each other at a login: SCRAM, a token as a password, OAUTHBEARER."""

from __future__ import annotations

import secrets

from collectors.gateway.auth import bearer
from collectors.gateway.auth.bearer import BearerError
from collectors.gateway.auth.scram import Keys, ScramError, ServerExchange, Verifier
from collectors.gateway.link import Link
from collectors.gateway.wire import backend
from collectors.gateway.wire.frames import Message
from collectors.gateway.wire.frontend import PASSWORD
from collectors.gateway.wire.violation import ProtocolViolation

CLEARTEXT = 3
SASL, SASL_CONTINUE, SASL_FINAL = 10, 11, 12


async def scram(link: Link, role: str, verifier: Verifier | None, secret: bytes, binding: bytes | None) -> Keys:
    """Let a client prove that it knows a role's password; return what logs in as that role at the server.

    Raise `ScramError`, of which `denied` says that the name or password is wrong.
    """
    exchange = ServerExchange(verifier, role, secret, secrets.token_urlsafe(18), binding)
    offered = b"".join(name.encode() + b"\0" for name in exchange.mechanisms) + b"\0"
    link.send(backend.authentication(SASL, offered))
    mechanism, first = _first(await link.message())
    if first is None:
        raise ScramError("malformed SCRAM message: no first message")
    answer = exchange.first(mechanism, first)
    link.send(backend.authentication(SASL_CONTINUE, answer))
    ending, keys = exchange.final(_password(await link.message()))
    link.send(backend.authentication(SASL_FINAL, ending))
    return keys


async def password(link: Link) -> str:
    """Ask for a password as it is, which must go over TLS only. Raise `ProtocolViolation`."""
    link.send(backend.authentication(CLEARTEXT))
    return _password(await link.message()).removesuffix(b"\0").decode("utf-8", "replace")


async def bearer_token(link: Link) -> str | None:
    """Ask for a token by OAUTHBEARER; None where the client asks where to get one. Raise `BearerError`."""
    link.send(backend.authentication(SASL, bearer.MECHANISM.encode() + b"\0\0"))
    mechanism, first = _first(await link.message())
    if mechanism != bearer.MECHANISM:
        raise BearerError("client selected an invalid SASL authentication mechanism")
    if first is None:
        link.send(backend.authentication(SASL_CONTINUE))
        first = _password(await link.message())
    return bearer.token_of(first)


async def bearer_failed(link: Link, issuer: str, scope: str) -> None:
    """Say that no token is taken, and wait for the client to take note. Raise `BearerError` for any other answer."""
    link.send(backend.authentication(SASL_CONTINUE, bearer.failure(issuer, scope)))
    if _password(await link.message()) != bearer.FAILED_ANSWER:
        raise BearerError("malformed OAUTHBEARER message: its answer to a failure is another one")


def _first(message: Message) -> tuple[str, bytes | None]:
    """Read a SASLInitialResponse: the mechanism, and the first message where there is one."""
    mechanism, _, rest = _password(message).partition(b"\0")
    length = int.from_bytes(rest[:4], "big", signed=True)
    if len(rest) < 4 or (length != len(rest) - 4 and not (length == -1 and len(rest) == 4)):
        raise ProtocolViolation("a SASL response whose length is wrong")
    return mechanism.decode(errors="replace"), rest[4:] if length >= 0 else None


def _password(message: Message) -> bytes:
    if message.type != PASSWORD:
        raise ProtocolViolation(f"expected a SASL response, got a message of type 0x{message.type:02X}")
    return message.body
