"""The first bytes of a client, on its bare socket: whether it wants TLS, a cancel, or a session.

Nothing that follows is read here, so that what comes before encryption is never taken for what comes after.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from collectors.gateway.link import Ended, Link
from collectors.gateway.wire import startup
from collectors.gateway.wire.startup import EncryptionRequest, Request
from collectors.gateway.wire.violation import ProtocolViolation

HANDSHAKE_S = 10.0
ROUNDS_MAX = 4
"""A client may ask for GSSAPI, then for TLS, then begin."""


class Way:
    """How a client can be answered: on its bare socket until there is a `link`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.link: Link | None = None

    def last_words(self, said: bytes) -> None:
        """Say something and close, without waiting for either."""
        if self.link is not None:
            self.link.send(said)
            self.link.leave()
            return
        with contextlib.suppress(OSError):
            self.sock.send(said)
        self.sock.close()

    def abandon(self) -> None:
        """Close at once; a socket that was never made a connection of, too."""
        if self.link is not None and self.link.transport is not None:
            self.link.abort()
        else:
            self.sock.close()


async def greet(way: Way, tls: ssl.SSLContext | None) -> tuple[Link, Request]:
    """Agree on encryption and return the connection with what the client wants first.

    Raise `Ended`, `ProtocolViolation`, or `OSError` of TLS.
    """
    sock = way.sock
    first = await _peek(sock)
    if first == startup.TLS_RECORD:
        if tls is None:
            raise Ended
        link = await _link(way, tls)
        assert link.transport is not None
        if link.transport.get_extra_info("ssl_object").selected_alpn_protocol() != startup.ALPN:
            raise Ended  # the protocol that the client speaks is another one's
        return link, await _over(link)
    for _ in range(ROUNDS_MAX):
        request = startup.decode(await _packet(sock))
        if not isinstance(request, EncryptionRequest):
            return await _link(way, None), request
        if tls is not None and not request.gss:
            await asyncio.get_running_loop().sock_sendall(sock, b"S")
            link = await _link(way, tls)
            return link, await _over(link)
        await asyncio.get_running_loop().sock_sendall(sock, b"N")
    raise ProtocolViolation("too many requests for encryption")


async def _over(link: Link) -> Request:
    """Read what the client wants, over TLS."""
    head = await link.exactly(4)
    request = startup.decode(head + await link.exactly(startup.length_of(head) - 4))
    if isinstance(request, EncryptionRequest):
        raise ProtocolViolation("a request for encryption where there is one already")
    return request


async def _link(way: Way, tls: ssl.SSLContext | None) -> Link:
    """Make a connection of the socket, which is its from here on."""
    loop = asyncio.get_running_loop()
    timeout = HANDSHAKE_S if tls is not None else None
    link = way.link = Link()
    await loop.connect_accepted_socket(lambda: link, way.sock, ssl=tls, ssl_handshake_timeout=timeout)
    return link


async def _packet(sock: socket.socket) -> bytes:
    head = await _exactly(sock, 4)
    return head + await _exactly(sock, startup.length_of(head) - 4)


async def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not more:
            raise Ended
        data += more
    return data


async def _peek(sock: socket.socket) -> int:
    """Wait for the first byte and leave it where it is."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def readable() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock.fileno(), readable)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())
    data = sock.recv(1, socket.MSG_PEEK)
    if not data:
        raise Ended
    return data[0]
