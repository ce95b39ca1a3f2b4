"""One connection on asyncio: what is read goes to whoever takes it, and what cannot be written stops its other side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, cast

from collectors.gateway.wire.frames import HEADER, Message
from collectors.gateway.wire.violation import ProtocolViolation

BUFFER_BYTES_MAX: Final = 128 * 1024
LINGER_S: Final = 5.0
LOGIN_MESSAGE_BYTES_MAX: Final = 64 * 1024


class Ended(Exception):
    """The other end has closed the connection."""


class Link(asyncio.Protocol):
    """A connection. Until `flow` is called its bytes are asked for; from then on they are handed over as they come."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = False
        self.other: Link | None = None
        self._stopped = False
        self._crowded = False
        """The other side takes nothing at the moment."""
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], None] | None = None
        self._on_end: Callable[[], None] | None = None
        self._on_error: Callable[[Exception], None] | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- asyncio's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand over what has come, or keep it for whoever asks."""
        take = self._take
        if take is not None:
            try:
                take(data)
            except Exception as error:
                self._failed(error)
            return
        self._buffer += data
        if len(self._buffer) > BUFFER_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take up that the connection is gone."""
        self.ended = True
        self._wake()
        if self.other is not None:
            self.other._crowded = False
            self.other.resume()
        if self._on_end is not None:
            self._on_end()
        if not self._done.done():
            self._done.set_result(None)

    def eof_received(self) -> bool:
        """Close: the protocol has no half of a connection."""
        return False

    def pause_writing(self) -> None:
        """Read no more from the other side while this one takes nothing."""
        if self.other is not None and self.other.transport is not None and not self.other.ended:
            self.other._crowded = True
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on from the other side."""
        if self.other is not None:
            self.other._crowded = False
            self.other.resume()

    def resume(self) -> None:
        """Read on here."""
        if self.transport is not None and not self.ended and not (self._stopped or self._crowded):
            self.transport.resume_reading()

    def stop(self) -> None:
        """Read no more, whatever the other side takes, until `go`."""
        self._stopped = True
        if self.transport is not None and not self.ended:
            self.transport.pause_reading()

    def go(self) -> None:
        """Read on after `stop`."""
        self._stopped = False
        self.resume()

    def _failed(self, error: Exception) -> None:
        if self._on_error is None:
            raise error
        self._on_error(error)

    # -- before the session ------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """How many bytes have come that nobody has asked for."""
        return len(self._buffer)

    async def exactly(self, size: int) -> bytes:
        """Wait for so many bytes. Raise `Ended`."""
        while len(self._buffer) < size:
            if self.ended:
                raise Ended
            self.resume()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def message(self) -> Message:
        """Wait for one whole message of a login. Raise `Ended`, or `ProtocolViolation` for one that is too long."""
        head = await self.exactly(HEADER)
        length = int.from_bytes(head[1:], "big")
        if not 4 <= length <= LOGIN_MESSAGE_BYTES_MAX:
            raise ProtocolViolation(f"invalid length {length} of a message before the login is done")
        return Message(head[0], head + await self.exactly(length - 4))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- the session -------------------------------------------------------------------------------------------

    def take_errors(self, on_error: Callable[[Exception], None]) -> None:
        """Have somebody handle what is raised while bytes are handed over."""
        self._on_error = on_error

    def flow(self, take: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Hand over all that comes from here on, what has come already first."""
        self._take, self._on_end = take, on_end
        held = bytes(self._buffer)
        self._buffer.clear()
        if held:
            self.data_received(held)
        self.resume()
        if self.ended:
            on_end()

    def shortcut(self, take: Callable[[bytes], None]) -> None:
        """Have all that comes from here on handed over to somebody directly, who gives back what is not for him."""
        if self.transport is not None and not self.ended:
            self.data_received = take  # type: ignore[method-assign, assignment]
            self.transport.set_protocol(self)  # it asks for that once

    def send(self, data: bytes) -> None:
        """Send; what the connection does not take now waits in its own bounded buffer, see `pause_writing`."""
        if self.transport is not None and not self.ended and data:
            self.transport.write(data)

    def close(self) -> None:
        """Send what waits, and end; who takes nothing for a while is cut off."""
        if self.transport is not None and not self.ended:
            self.transport.close()
            asyncio.get_running_loop().call_later(LINGER_S, self.abort)

    def leave(self) -> None:
        """Send what waits and no more, and take no notice of what comes until the other end closes (`left`).

        Closing at once would reset the connection where something is still coming, and take the last words back.
        """
        if self.transport is None or self.ended:
            return
        self._take, self._on_end, self.other = _nothing, None, None
        self._stopped = self._crowded = False
        self._buffer.clear()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.resume()
        else:
            self.transport.close()

    async def left(self) -> None:
        """Wait until the other end has closed, or for a while; then end."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self.closed()
        finally:
            self.abort()

    def abort(self) -> None:
        """End at once."""
        if self.transport is not None and not self.ended:
            self.transport.abort()

    async def closed(self) -> None:
        """Wait for the end."""
        await asyncio.shield(self._done)


def _nothing(_: bytes) -> None:
    """Take no notice."""
