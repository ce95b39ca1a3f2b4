"""People's own questions: each is asked in a process of its own, which a question may exhaust and the console outlives.

DuckDB's limits do not hold for everything: texts that a query makes up are in no account, and nothing interrupts it
while it makes them. So a process that takes too long is killed, and has no more memory than it may. Processes wait for
the next question, because opening a lake takes a second; `sinks.console.child` is what runs in them.
"""

from __future__ import annotations

import io
import os
import pickle
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from detectors.replay import Difference
from pgwitness.core.config import Config
from pgwitness.core.errors import NotInOrder
from sinks.console.reader import Places

START_S = 60.0
LONG_S = 120.0
"""How long a report or a replay may take."""
WAITING_MAX = 8
LATE_S = 3.0
"""How long after its time a query may take to say so by itself."""
ANSWER_BYTES_MAX = 32 * 1024**2
LENGTH_BYTES, CHUNK_BYTES = 4, 1024**2
Cell = None | bool | int | float | str | datetime


class Question(Struct, frozen=True, tag=True):
    """A query."""

    query: str
    rows_max: int


class Reporting(Struct, frozen=True, tag=True):
    """A report that is wanted (`sinks.report`), and by which standard, if by one."""

    principal: str | None
    relation: str | None
    since_us: int
    until_us: int | None
    standard: str | None


class Replaying(Struct, frozen=True, tag=True):
    """A policy, as it is written, to be run over past evidence in the place of the one with its id."""

    text: str
    since_us: int


Task = Question | Reporting | Replaying


class Replayed(Struct, frozen=True):
    """What became of a policy: the failures of its tests, and what it finds that was found then, or was not."""

    failures: list[str]
    difference: Difference


class Found(Struct, frozen=True):
    """What a child answers: columns and rows, and whether there were more; or why not."""

    columns: list[str] = []
    rows: list[list[Any]] = []
    """Of `Cell`s; times come as such."""
    more: bool = False
    page: str = ""
    """A report."""
    replayed: Replayed | None = None
    error: str = ""
    last: bool = False
    """Whether the process ends after this answer."""


class Gone(Exception):
    """A child has ended, or its time has."""


class Asker:
    """A few processes to ask. Several threads may; who finds all of them busy waits, and is told so then."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._timeout_s = float(config.console.query_timeout)
        self._places: Places[_Child] = Places(config.console.query_parallel, WAITING_MAX)

    def ask(self, query: str) -> Found:
        """Ask. Raise `NotInOrder` where the query cannot be answered, and `Busy`."""
        return self.do(Question(query, self._config.console.query_rows), self._timeout_s, "the query")

    def do(self, task: Task, timeout_s: float, what: str) -> Found:
        """Have something done, which `what` names. Raise `NotInOrder` where it cannot be, and `Busy`."""
        with self._child() as child:
            child.send(msgspec.msgpack.encode(task))
            try:
                found = msgspec.msgpack.decode(child.receive(timeout_s + LATE_S), type=Found)
            except TimeoutError:
                raise Gone(f"{what} took longer than {timeout_s:g} s and was ended; ask for less") from None
            except EOFError:
                raise Gone(f"{what} needed more memory than console.query_memory allows, and was ended") from None
            if found.last:
                child.kill()
        if found.error:
            raise NotInOrder(found.error)
        return found

    def close(self) -> None:
        """End the processes that wait."""
        for child in self._places.free():
            child.kill()

    @contextmanager
    def _child(self) -> Iterator[_Child]:
        child = self._places.take()
        try:
            if child is None or not child.lives:
                child = _Child(self._config)
            yield child
        except BaseException as error:
            if child is not None:
                child.kill()
            child = None
            if isinstance(error, Gone | BrokenPipeError):
                raise NotInOrder(str(error) or "the query's process has ended; ask again") from error
            raise
        finally:
            self._places.give(child)


class _Child:
    """One process."""

    def __init__(self, config: Config) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sinks.console.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is for the console alone
        )
        self.send(pickle.dumps(config))
        try:
            said = self.receive(START_S)
        except (TimeoutError, EOFError):
            raise Gone("the lake could not be opened; the console's log says why") from None
        if said:
            self.kill()
            raise NotInOrder(said.decode())

    @property
    def lives(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def send(self, content: bytes) -> None:
        """Send a message."""
        assert self._process.stdin is not None
        self._process.stdin.write(framed(content))
        self._process.stdin.flush()

    def receive(self, timeout_s: float) -> bytes:
        """Read a message. Raise `TimeoutError`, and `EOFError` when there is nobody any more."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        stdout = self._process.stdout.fileno()
        content = io.BytesIO()
        wanted = LENGTH_BYTES
        length = None
        while length is None or content.tell() < wanted:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise TimeoutError
            chunk = os.read(stdout, min(wanted - content.tell(), CHUNK_BYTES))
            if not chunk:
                raise EOFError
            content.write(chunk)
            if length is None and content.tell() == LENGTH_BYTES:
                length = int.from_bytes(content.getvalue())
                wanted, content = length, io.BytesIO()
        return content.getvalue()

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def framed(content: bytes) -> bytes:
    """Put its length before a message."""
    return len(content).to_bytes(LENGTH_BYTES) + content
