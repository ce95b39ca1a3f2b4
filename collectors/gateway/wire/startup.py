"""What a client sends before it is somebody: requests for encryption or a cancel, and its start (manual, 55.2.1, 55.7).

These have no type: a length that counts itself, a code, and what follows. `decode` is total on any bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from collectors.gateway.wire.violation import ProtocolViolation

LENGTH_MIN: Final = 8
LENGTH_MAX: Final = 10_000
"""PostgreSQL's own limit (`MAX_STARTUP_PACKET_LENGTH`)."""
CANCEL: Final = 80877102
SSL: Final = 80877103
GSSENC: Final = 80877104
TLS_RECORD: Final = 0x16
"""The first byte of a client that begins with TLS at once; no startup packet begins with it, being shorter."""
ALPN: Final = "postgresql"
MAJOR: Final = 3
MINOR_MAX: Final = 2
"""The newest minor version that is spoken: 3.2 has longer keys to cancel by; there is no 3.1."""
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 4, 256
_HEADER: Final = Struct("!II")


@dataclass(frozen=True)
class EncryptionRequest:
    """A client asks for TLS, or for encryption by GSSAPI."""

    gss: bool = False


@dataclass(frozen=True)
class CancelRequest:
    """Somebody asks to end what a session runs; `secret` is what that session was given as its key."""

    pid: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Startup:
    """A client begins. `options` are the protocol's own (`_pq_.…`), which the gateway knows none of."""

    minor: int
    parameters: dict[str, str]
    options: tuple[str, ...] = ()

    @property
    def negotiates(self) -> bool:
        """Whether the client asks for more than is spoken, and has to be told so."""
        return self.minor > MINOR_MAX or bool(self.options)


Request = EncryptionRequest | CancelRequest | Startup


def length_of(head: bytes) -> int:
    """Return how long the packet is that begins with these four bytes; raise `ProtocolViolation` where it cannot be."""
    length = int.from_bytes(head[:4], "big")
    if not LENGTH_MIN <= length <= LENGTH_MAX:
        raise ProtocolViolation("invalid length of startup packet")
    return length


def decode(packet: bytes) -> Request:
    """Read a whole packet. Raise `ProtocolViolation` for one that says nothing that can be done."""
    if len(packet) < LENGTH_MIN or length_of(packet) != len(packet):
        raise ProtocolViolation("invalid length of startup packet")
    _, code = _HEADER.unpack_from(packet)
    body = packet[LENGTH_MIN:]
    if code in (SSL, GSSENC):
        if body:
            raise ProtocolViolation("invalid length of a request for encryption")
        return EncryptionRequest(gss=code == GSSENC)
    if code == CANCEL:
        if not 4 + SECRET_BYTES_MIN <= len(body) <= 4 + SECRET_BYTES_MAX:
            raise ProtocolViolation("invalid length of cancel request")
        return CancelRequest(int.from_bytes(body[:4], "big"), body[4:])
    if code >> 16 != MAJOR:
        raise ProtocolViolation(
            f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: the gateway speaks 3.0 to 3.{MINOR_MAX}",
            "0A000",
        )
    return _startup(code & 0xFFFF, body)


def _startup(minor: int, body: bytes) -> Startup:
    """Read names and values, each ended by a zero byte, and one more zero byte at the end."""
    if not body.endswith(b"\0") or (len(body) > 1 and not body.endswith(b"\0\0")):
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    try:
        texts = body[:-1].decode().split("\0")[:-1]
    except UnicodeDecodeError:
        raise ProtocolViolation("a startup packet that is not UTF-8: the gateway takes no other names") from None
    if len(texts) % 2:
        raise ProtocolViolation("invalid startup packet layout: a name without a value")
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    if any(not name for name, _ in pairs):
        raise ProtocolViolation("invalid startup packet layout: a value without a name")
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise ProtocolViolation("invalid startup packet layout: a name stands twice")
    options = tuple(name for name in parameters if name.startswith("_pq_."))
    for name in options:
        del parameters[name]
    if not parameters.get("user"):
        raise ProtocolViolation("no PostgreSQL user name specified in startup packet", "28000")
    return Startup(minor, parameters, options)


def startup_packet(parameters: dict[str, str], minor: int = 0) -> bytes:
    """Write the packet by which a client begins."""
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return _HEADER.pack(len(body) + LENGTH_MIN, MAJOR << 16 | minor) + body


def ssl_request() -> bytes:
    """Write the request for TLS."""
    return _HEADER.pack(LENGTH_MIN, SSL)


def cancel_request(pid: int, secret: bytes) -> bytes:
    """Write a request to end what a session runs."""
    return _HEADER.pack(12 + len(secret), CANCEL) + pid.to_bytes(4, "big") + secret
