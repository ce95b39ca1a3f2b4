"""Sends alerts to a syslog server. A shell.

Over TCP or TLS an alert counts as taken once the connection is open and the kernel has the bytes, for the protocol has
no answer; over UDP nobody knows.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from pgwitness.core.config import Delivery
from pgwitness.core.contracts.alert_target import NotTaken
from pgwitness.core.errors import ConfigurationError
from sinks.deliveries import render
from sinks.deliveries.routing import Item


def make_syslog(where: str, settings: Delivery) -> Syslog:
    """Make the target; over TLS the server's certificate is checked."""
    host, _, port = settings.address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigurationError(f"{where}.address: host:port of the syslog server, such as siem.example:6514")
    context = None
    if settings.transport == "tls":
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise ConfigurationError(f"{where}.ca_file: {error}") from error
    return Syslog(settings, context)


class Syslog:
    """Sends RFC 5424 messages over UDP, TCP or TLS; a stream is kept open and opened again when it broke."""

    def __init__(self, settings: Delivery, context: ssl.SSLContext | None) -> None:
        host, _, port = settings.address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._settings = settings
        self._context = context
        self._hostname = socket.gethostname()
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, item: Item) -> None:
        """Send it; over a stream, once the connection is known to stand and the kernel has the bytes."""
        settings = self._settings
        try:
            async with asyncio.timeout(float(settings.timeout)):
                if settings.transport == "udp":
                    await self._datagram(render.syslog(item, self._hostname, settings.format, render.UDP_BYTES_MAX))
                else:
                    await self._streamed(render.framed(render.syslog(item, self._hostname, settings.format)))
        except (OSError, TimeoutError) as error:  # ssl's errors are OSErrors
            await self.close()
            raise NotTaken(f"syslog at {settings.address}: {type(error).__name__}: {error}") from error

    async def _datagram(self, message: bytes) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(self._host, self._port)
        )
        transport.sendto(message)
        transport.close()

    async def _streamed(self, message: bytes) -> None:
        if self._stream is not None and (self._stream[0].at_eof() or self._stream[1].is_closing()):
            await self.close()
        if self._stream is None:
            self._stream = await asyncio.open_connection(
                self._host, self._port, ssl=self._context, server_hostname=self._host if self._context else None
            )
        writer = self._stream[1]
        writer.write(message)
        await writer.drain()
        # A server that is gone says so as soon as the loop has looked.
        await asyncio.sleep(0)
        if self._stream[0].at_eof():
            raise ConnectionResetError("the server closed the connection")

    async def close(self) -> None:
        """Close the stream."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream[1].close()
            try:
                async with asyncio.timeout(2):
                    await stream[1].wait_closed()
            except (OSError, TimeoutError):
                pass
