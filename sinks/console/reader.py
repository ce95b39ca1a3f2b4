"""How the console reads the lake: a few connections of `sinks.sql.catalogue`, each for one question at a time.

Every question has a time limit, and DuckDB its memory; who finds all connections taken waits, and is told so then.
Questions of our own have their values apart from their text. `Cached` answers many viewers with one question.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Generic, TypeVar

import duckdb
import structlog

from pgwitness.core.errors import NotInOrder, Unreachable
from sinks.lake.storage.store import Store
from sinks.sql import catalogue, query

BORROW_S = 10.0
WAITING_MAX = 1_000
OTHERS = "others are asking at this moment; try again in a while"
Row = dict[str, Any]
_OF_A_FILE = re.compile(r"\.parquet|\bparquet file|^IO Error|^Fatal Error|^INTERNAL Error", re.IGNORECASE)
"""In what DuckDB says where it is no sentence of a view of ours."""
log = structlog.get_logger("console")
T = TypeVar("T")


class Busy(NotInOrder):
    """All connections are taken."""


class Places(Generic[T]):
    """A few of something, each for one at a time. Who finds none waits; so many can, others are told at once.

    Whoever waits does so in a thread, of which all pages together have forty: they must not all stand where one
    person can hold them up.
    """

    def __init__(self, number: int, waiting: int) -> None:
        self._free: queue.LifoQueue[T | None] = queue.LifoQueue()
        self._wait = threading.Semaphore(waiting)
        for _ in range(number):
            self._free.put(None)

    def take(self) -> T | None:
        """Have one to oneself, None where it has to be made yet; `give` it back. Raise `Busy`."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            pass
        if not self._wait.acquire(blocking=False):
            raise Busy(OTHERS)
        try:
            return self._free.get(timeout=BORROW_S)
        except queue.Empty:
            raise Busy(OTHERS) from None
        finally:
            self._wait.release()

    def give(self, one: T | None) -> None:
        """Give one back, None where another has to be made."""
        self._free.put(one)

    def free(self) -> Iterator[T]:
        """Take all that nobody has."""
        while not self._free.empty():
            one = self._free.get()
            if one is not None:
                yield one


class Answer:
    """Columns and rows of an answer; `more` says that there were others behind."""

    def __init__(self, columns: Sequence[str], rows: list[tuple[Any, ...]], *, more: bool) -> None:
        self.columns, self.rows, self.more = list(columns), rows, more

    def dicts(self) -> list[Row]:
        """Give the rows by the names of their columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Reader:
    """A few connections to one lake; they are opened when they are first needed."""

    def __init__(self, lake: Store, *, connections: int, memory_limit: str, timeout_s: float) -> None:
        self._lake, self._memory_limit, self._timeout_s = lake, memory_limit, timeout_s
        self._places: Places[duckdb.DuckDBPyConnection] = Places(connections, WAITING_MAX)

    def rows(self, text: str, *values: object, rows_max: int = 1_000) -> list[Row]:
        """Ask a question of our own. Raise `NotInOrder` as `query.ask` does, `Busy`, and `Unreachable`."""
        return self.ask(text, *values, rows_max=rows_max).dicts()

    def ask(self, text: str, *values: object, rows_max: int) -> Answer:
        """Ask, and read `rows_max` rows at most."""
        deadline = time.monotonic() + self._timeout_s
        with _in_words(), self.connection() as connection:
            found = query.ask(connection, text, timeout_s=self._timeout_s, values=values)
            rows = []
            for row in islice(found.rows, rows_max + 1):
                rows.append(row)
                if not len(rows) % query.FETCH_ROWS and time.monotonic() > deadline:
                    raise NotInOrder(f"the answer was not complete after {self._timeout_s:g} s; ask for less")
            return Answer(found.columns, rows[:rows_max], more=len(rows) > rows_max)

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Have a connection to oneself. What an answer left unread is dropped with it."""
        found = self._places.take()
        try:
            if found is None:
                found = catalogue.connect(self._lake, memory_limit=self._memory_limit)
            yield found
        except NotInOrder as error:
            if isinstance(error.__cause__, duckdb.FatalException):
                found = None  # nothing can be asked on it any more
            raise
        finally:
            self._places.give(found)


@contextmanager
def _in_words() -> Iterator[None]:
    """Say in words that a file of the lake cannot be read: what DuckDB says of it is for the log."""
    try:
        yield
    except (NotInOrder, duckdb.Error) as error:
        cause = error if isinstance(error, duckdb.Error) else error.__cause__
        if isinstance(cause, duckdb.Error) and _OF_A_FILE.search(str(cause)):
            log.error("the lake cannot be read", error=str(error))
            raise Unreachable(
                "Files of the lake cannot be read, so nothing is shown: somebody may have damaged or removed them. "
                "`pgwitness verify` names them; the console's log has what DuckDB says."
            ) from error
        raise


class Cached(Generic[T]):
    """What `make` gives, made anew when it is older than `age_s`; who comes meanwhile waits for the same making."""

    def __init__(self, make: Callable[[], T], age_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._make, self._age_s, self._clock = make, age_s, clock
        self._lock = threading.Lock()
        self._made: tuple[float, T] | None = None

    def get(self) -> T:
        """Return it. Raise what `make` raises; then it is made anew the next time."""
        with self._lock:
            if self._made is None or self._clock() - self._made[0] >= self._age_s:
                self._made = None
                value = self._make()
                self._made = (self._clock(), value)
            return self._made[1]
