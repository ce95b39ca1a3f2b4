"""How long the console waits for somebody who has connected to say what they want.

Without an end to that, a single machine that begins as many requests as there may be connections, and goes on with
none, would keep everybody else out, and need no password for it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 15.0
"""How long the beginning of a request, its head, may take: from connecting, or from the end of the answer before."""


class Impatient(H11Protocol):
    """Speaks HTTP with somebody, and hangs up when no request begins within `HEAD_S`."""

    _waited_for: object = None
    _hang_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read; with a request, waiting is over."""
        super().data_received(data)
        if self.cycle is not self._waited_for:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless that came already."""
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is answered and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._wait_no_more()
        self._waited_for: Any = self.cycle
        self._hang_up = self.loop.call_later(HEAD_S, self.transport.close)

    def _wait_no_more(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None
