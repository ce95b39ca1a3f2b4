"""Long texts are read in another process before they are judged, so that one client's megabyte holds up nobody else.

Reading a text takes time that grows with it, a tenth of a second for a megabyte of the worst, and Python reads one at a
time. What the other process says is just what this one would have said; where it fails, this one reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Final

import structlog

from collectors.gateway.judging.judge import Judging
from collectors.gateway.session.actions import Reading
from collectors.gateway.wire.lexing import Settings
from pgwitness.core.privacy import tokenizer
from pgwitness.core.runtime import logs

LONG_BYTES: Final = 32 * 1024
"""From here on a text is long: a shorter one is read in some milliseconds at most."""

log = structlog.get_logger("gateway")


class Ahead:
    """Reads long texts, one after the other; the process is started for the first. `key` is the masking key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._thread = ThreadPoolExecutor(1, "long texts")
        self._pipe: Connection | None = None

    async def read(self, text: bytes, settings: Settings) -> Reading | None:
        """Return what a text says under settings; None where the process has failed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, text, settings)

    def close(self) -> None:
        """End the process, and with it what it reads."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._pipe is not None:
            self._pipe.close()

    def _ask(self, text: bytes, settings: Settings) -> Reading | None:
        try:
            if self._pipe is None:
                self._pipe = self._start()
            self._pipe.send((text, settings))
            reading: Reading = self._pipe.recv()
        except (EOFError, OSError) as error:
            log.warning("the process that reads long texts has ended; another one is started", error=str(error))
            if self._pipe is not None:
                self._pipe.close()
            self._pipe = None
            return None
        return reading

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        context.Process(target=read_texts, args=(there, self._key), name="long texts", daemon=True).start()
        there.close()
        return here


@logs.process
def read_texts(pipe: Connection, key: bytes) -> None:
    """Be the reading process, until the gateway's end of the pipe is closed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    judging = Judging(tokenizer(key))
    with contextlib.suppress(EOFError, OSError):
        while True:
            text, settings = pipe.recv()
            pipe.send(judging.read(text, settings))
