"""Statements of the log that others are joined to, readings that wait for them, and bodies that they run."""

from __future__ import annotations

from msgspec import Struct

from pgwitness.core.events import (
    Posture,
    QueryStats,
    RawHeader,
)
from streams.fold.memory.sessions import LogSession
from streams.fold.memory.transactions import Timeline


class Ran(Struct, array_like=True):
    """A statement that the log reported without a transaction id: when it ran (µs), and what it may have committed.

    `end_us` is the last moment that it can have committed. `alone`: nobody else had a statement in progress.
    `relations` are those it names, if it writes; `inserts`: it made a row, if nothing took it away.
    """

    session: LogSession
    start_us: int
    end_us: int
    alone: bool
    relations: tuple[str, ...]
    inserts: bool


class Committed(Struct, array_like=True):
    """A transaction: when and where it was committed, the relations it inserted into, whose process that was."""

    at_us: int
    timeline: Timeline
    lsn: int
    inserted: list[str]
    pid: int | None = None

    @property
    def start_us(self) -> int:
        """A commit is a moment: its beginning."""
        return self.at_us

    @property
    def end_us(self) -> int:
        """A commit is a moment: its end."""
        return self.at_us


class Did(Struct, array_like=True):
    """A statement of the log that may have changed posture: when it was at work (µs), and what the parser said of it.

    `end_us` is the last moment at which it can have been committed: a transaction that is open has no end yet.
    `sure`: nothing says that it failed or was rolled back. `ended`: its end is known, else only its announcement.
    `used_us` is the end of the two looks between which it had its effect, 0 before that is known.
    """

    session: LogSession
    start_us: int
    end_us: int
    text: str | None
    operations: tuple[str, ...]
    relations: tuple[str, ...]
    objects: tuple[str, ...]
    settings: tuple[str, ...]
    event_id: str
    sure: bool = True
    ended: bool = True
    used_us: int = 0


class Runs(Struct, array_like=True):
    """How often the log reported a statement of a role in one second, and by whom.

    `session` is the last that ran it, `name` its principal and the person that acted for. `several` sessions ran it;
    `mixed`, if not all of them have that name. `undone` of them were rolled back, `temporary` ran on such tables alone.
    """

    second: int
    count: int
    session: LogSession
    name: tuple[str | None, str | None]
    several: bool = False
    mixed: bool = False
    undone: int = 0
    temporary: int = 0
    behind: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    """Relations and columns of what its name stands for (FETCH, EXECUTE), where all of them ran the same."""


class HeldReading(Struct, frozen=True, array_like=True):
    """What a snapshot found or the statistics counted, and until when (record time, µs) it waits for the log.

    `whole`: until then every session's statements were logged, COMMIT and ROLLBACK too.
    """

    header: RawHeader
    raw: Posture | QueryStats
    due_us: int
    whole: bool

    @property
    def instance(self) -> str | None:
        """Where it was read."""
        return self.header.instance

    @property
    def chars(self) -> int:
        """How long the text is that waits with it."""
        return len(self.raw.statement or "") if isinstance(self.raw, QueryStats) else 0


class FunctionBody(Struct, frozen=True, array_like=True):
    """What a function runs, as read at a moment of the server's clock; `certain`: all of it, whenever it is called."""

    at_us: int
    certain: bool
    operations: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    """Of these relations every row, as far as its text tells."""


class ViewBody(Struct, frozen=True, array_like=True):
    """What a view reads, as read at a moment of the server's clock; `whole`: it leaves no row out.

    `shown` are the names of the view's own columns.
    """

    at_us: int
    whole: bool
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
