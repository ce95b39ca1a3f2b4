"""What is asked of the evidence is evidence too: each query through `pgwitness sql`, each token of `pgwitness token`,
each replay, each reading of the alerts or of a dead letter.

It becomes a `control` event in `raw`, under a cluster of its own, `pgwitness`, because the lake is of all clusters.
Without a broker the question is answered all the same, and a line on stderr says that nobody wrote it down.
"""

from __future__ import annotations

import getpass
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from pgwitness.cli.output import say
from pgwitness.core.errors import PgwitnessError
from pgwitness.core.topics import OURSELVES

if TYPE_CHECKING:
    from collectors.publisher import Publisher
    from pgwitness.core.config import Config
    from sinks.console.witness import Visitor

REACH_S = 1.0
DELIVERY_S_MAX = 5.0


class Recorder:
    """Writes down what is asked; `close` ends its connection to the broker. Several threads may ask.

    It is the `sinks.console.witness.Witness` of the console, too.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._publisher: Publisher | None = None
        self._lock = threading.Lock()
        self._doubtful = True

    def asking(self, query: str) -> AbstractContextManager[None]:
        """Write down one query with its literals taken out, who asked, and whether it was answered.

        What is SQL of DuckDB's alone shows by DuckDB's own reading.
        """
        return self._ending("query", "sql", _without_literals(query))

    def reporting(self, subject: dict[str, str | None]) -> AbstractContextManager[None]:
        """Write down that somebody had a report made, and of what."""
        return self._ending("report", "report", subject)

    def exporting(self, subject: dict[str, str | None]) -> AbstractContextManager[None]:
        """Write down that somebody took evidence out, what, and whether all of it was written."""
        return self._ending("export", "export", subject)

    def reading(self, what: str, subject: Mapping[str, object]) -> AbstractContextManager[None]:
        """Write down that somebody read of the evidence with the command `what`, and of what."""
        return self._ending(what, what, subject)

    @contextmanager
    def _ending(self, operation: str, source: str, asked: Mapping[str, object]) -> Iterator[None]:
        """Write down what is done in this context, however it ends: part of an answer may have been seen."""
        try:
            yield
        except BaseException:
            self._record(operation, source, {**asked, "outcome": "failure"})
            raise
        self._record(operation, source, {**asked, "outcome": "success"})

    def token(self, column: str, token: str) -> None:
        """Write down that somebody asked for the token of a value of a column; the value itself nobody keeps."""
        self._record("token", "token", {"column": column, "token": token, "outcome": "success"})

    def did(self, operation: str, detail: dict[str, object]) -> None:
        """Write down that somebody changed the keys of tokens; no key and no person stands there."""
        self._record(operation, "privacy", {**detail, "outcome": "success"})

    def record(self, operation: str, visitor: Visitor, what: Mapping[str, object]) -> None:
        """Write down what somebody did in the console. Raise `PgwitnessError` when it was not written down."""
        self._write(operation, "console", {"user": visitor.name, "address": visitor.address, **what})

    def asked(self, query: str, visitor: Visitor, outcome: str) -> None:
        """Write down a query of the console, as `asking` does. Raise as `record` does."""
        self.record("query", visitor, {**_without_literals(query), "outcome": outcome})

    def _record(self, operation: str, source: str, asked: Mapping[str, object]) -> None:
        try:
            self._write(operation, source, {"user": _user(), **asked})
        except PgwitnessError as error:
            say(f"pgwitness: that this was asked was not written down as evidence: {error}")

    def _write(self, operation: str, source: str, detail: Mapping[str, object]) -> None:
        """Write an event down and wait until the broker has it. Raise `PgwitnessError` when it does not take it."""
        from pgwitness.core.events import Control

        channel = self._reached().channel(OURSELVES, source, None)
        written: dict[str, object] = {"host": socket.gethostname(), **detail}
        try:
            channel.send(Control(captured_at_us=time.time_ns() // 1000, operation=operation, detail=written))
            channel.flush(DELIVERY_S_MAX)
        except PgwitnessError:
            self._doubtful = True
            raise
        finally:
            channel.close()

    def _reached(self) -> Publisher:
        """Return the way to the broker; after a failure it is asked first whether it is there, which is quick."""
        from collectors.publisher import Publisher
        from pgwitness.cli import kafka

        with self._lock:
            if self._doubtful:
                kafka.reach(self._config, REACH_S)
                self._doubtful = False
            if self._publisher is None:
                self._publisher = Publisher(self._config)
            return self._publisher

    def close(self) -> None:
        """End the connection."""
        if self._publisher is not None:
            self._publisher.close(1.0)


def _without_literals(query: str) -> dict[str, str | None]:
    from pgwitness.core.sql.statements import facts
    from sinks.sql.shape import shape

    found = facts(query)
    statement = found.statement if found.statement is not None else shape(query)
    return {"statement": statement, "statement_sha256": found.sha256}


@contextmanager
def recorded(config: Config, what: str, **subject: object) -> Iterator[None]:
    """Write down that the command `what` reads of the evidence in this context, and of what."""
    recorder = Recorder(config)
    try:
        with recorder.reading(what, subject):
            yield
    finally:
        recorder.close()


def user_at_host() -> str:
    """Name who gives an order on this machine; it says so itself, nobody vouches for it."""
    return f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"  # a container's user need not have a name
