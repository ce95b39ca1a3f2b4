"""The targets: each takes one delivery and returns when it has it. Shells; `sinks.deliveries.render` writes.

`send` raises `NotTaken` when trying again may help and `Refused` when it cannot. How sure it is that something arrived
is the target's: a webhook answered 2xx, a file was synced, a syslog server over TCP or TLS has the connection open and
the kernel took the bytes (the protocol has no answer), over UDP nobody knows.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import aiohttp

from pgwitness.core.config import Delivery
from pgwitness.core.errors import ConfigurationError, PgwitnessError
from pgwitness.core.runtime.disk import advice
from sinks.deliveries import render
from sinks.deliveries.routing import Item

RETRY_AFTER_S_MAX = 300.0
ANSWER_BYTES_MAX = 2_000


class NotTaken(PgwitnessError):
    """The target did not take it at the moment; `after_s` is when it asks to be tried again."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Refused(PgwitnessError):
    """The target will never take this."""


class Target(Protocol):
    """Where alerts go."""

    async def send(self, item: Item) -> None:
        """Deliver; returns when the target has it. Raises `NotTaken` or `Refused`."""

    async def close(self) -> None:
        """Let go of connections."""


class Webhook:
    """Posts each delivery as JSON; `secret` signs it, `write` says how the body is written."""

    def __init__(self, url: str, write: Callable[[Item], bytes], secret: bytes | None, timeout_s: float) -> None:
        self._url = url
        self._write = write
        self._secret = secret
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, item: Item) -> None:
        """Post it; any 2xx is an answer, a redirect is none."""
        body = self._write(item)
        now_s = int(time.time())
        headers = {"content-type": "application/json", "user-agent": "pgwitness", "webhook-id": item.uid}
        headers["webhook-timestamp"] = str(now_s)
        if self._secret is not None:
            headers |= render.signed(body, item.uid, now_s, self._secret)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
                said = (await answer.content.read(ANSWER_BYTES_MAX)).decode(errors="replace").strip()[:200]
                after = answer.headers.get("retry-after", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The address may be a secret: the error's own words can hold it.
            raise NotTaken(f"no answer: {type(error).__name__}") from None
        if 200 <= status < 300:
            return
        if status in (408, 425, 429) or status >= 500:
            wait_s = min(RETRY_AFTER_S_MAX, float(after)) if after.isdecimal() else 0.0
            raise NotTaken(f"HTTP {status}: {said}", wait_s)
        raise Refused(f"HTTP {status}: {said}")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


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


class File:
    """Appends JSON lines; a file that was moved away or removed is made anew under its name.

    What a full disk took of a line is cut off again; behind what a killed daemon left of one, the next begins anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    async def send(self, item: Item) -> None:
        """Append it and wait until it is on the disk."""
        try:
            await asyncio.to_thread(self._append, render.line(item))
        except OSError as error:
            await self.close()
            raise NotTaken(f"{self._path}: {error.strerror or error}: {advice(error)}") from error

    def _append(self, line: bytes) -> None:
        if self._descriptor is not None and not self._current(self._descriptor):
            os.close(self._descriptor)
            self._descriptor = None
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            if self._ends_within_a_line():
                line = b"\n" + line
        before = os.fstat(self._descriptor).st_size
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):  # what is no ordinary file has no end to cut
                if os.fstat(self._descriptor).st_size == before + written:
                    os.ftruncate(self._descriptor, before)
            raise

    def _ends_within_a_line(self) -> bool:
        if not self._path.is_file():
            return False
        try:
            with self._path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:  # it is empty, or not ours to read
            return False

    def _current(self, descriptor: int) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(descriptor)
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    async def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def make(name: str, settings: Delivery) -> Target:
    """Make the target of `[deliveries.NAME]`. Raises `ConfigurationError` naming what is missing."""
    where = f"deliveries.{name}"
    if not 1 <= settings.tries <= 100 or settings.rate < 1:
        raise ConfigurationError(f"{where}: tries is 1 to 100, and rate at least 1 a minute")
    if settings.kind in ("webhook", "slack"):
        url = secret(settings.url_file, f"{where}.url_file").decode() if settings.url_file is not None else settings.url
        if not url.startswith(("https://", "http://")):
            raise ConfigurationError(f"{where}: url, or url_file with an address that begins with https://")
        key = secret(settings.secret_file, f"{where}.secret_file") if settings.secret_file is not None else None
        write = render.body if settings.kind == "webhook" else render.slack
        return Webhook(url, write, key, float(settings.timeout))
    if settings.kind == "syslog":
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
    if settings.path is None:
        raise ConfigurationError(f"{where}.path: the file to write to")
    return File(settings.path)


def secret(path: Path, where: str) -> bytes:
    """Read a secret from its file. Raises `ConfigurationError`."""
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"{where}: {path}: {error.strerror}") from error
    if not content:
        raise ConfigurationError(f"{where}: {path} is empty")
    return content
