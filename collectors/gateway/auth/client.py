"""The login of a client at the gateway: SCRAM, ended here."""

from __future__ import annotations

import secrets

from collectors.gateway.auth.scram import Keys, ScramError, ServerExchange, Verifier
from collectors.gateway.link import Link
from collectors.gateway.wire import backend
from collectors.gateway.wire.frames import Message
from collectors.gateway.wire.frontend import PASSWORD
from collectors.gateway.wire.violation import ProtocolViolation

SASL, SASL_CONTINUE, SASL_FINAL = 10, 11, 12


async def scram(link: Link, role: str, verifier: Verifier | None, secret: bytes, binding: bytes | None) -> Keys:
    """Let a client prove that it knows a role's password; return what logs in as that role at the server.

    Raise `ScramError`, of which `denied` says that the name or password is wrong.
    """
    exchange = ServerExchange(verifier, role, secret, secrets.token_urlsafe(18), binding)
    offered = b"".join(name.encode() + b"\0" for name in exchange.mechanisms) + b"\0"
    link.send(backend.authentication(SASL, offered))
    mechanism, _, rest = _password(await link.message()).partition(b"\0")
    length = int.from_bytes(rest[:4], "big", signed=True)
    if len(rest) < 4 or length != len(rest) - 4:
        raise ScramError("malformed SCRAM message: no first message")
    answer = exchange.first(mechanism.decode(errors="replace"), rest[4:])
    link.send(backend.authentication(SASL_CONTINUE, answer))
    ending, keys = exchange.final(_password(await link.message()))
    link.send(backend.authentication(SASL_FINAL, ending))
    return keys


def _password(message: Message) -> bytes:
    if message.type != PASSWORD:
        raise ProtocolViolation(f"expected a SASL response, got a message of type 0x{message.type:02X}")
    return message.body
