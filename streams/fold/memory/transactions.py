"""How far the WAL was read, and transactions that wait or are open."""

from __future__ import annotations

from msgspec import Struct

from pgwitness.core.events import (
    Event,
    Outcome,
)
from streams.fold.memory.attribution import Attribution

Timeline = tuple[str, int, str]
"""What positions grow in: system id, timeline, database."""


class Watermark(Struct, array_like=True):
    """How far one timeline of one database has been read: the commit LSN, the ordinal that comes next, whether whole.

    While a transaction is not whole: `forged` messages already reported, whether the conflict was reported, whose it
    is, how many of its commands (`ddl`) were reported, and whether the refusal of a token was. `newest_us` is the
    latest commit that was read, 0 where that is not known; `incarnation` the server's (`streams.fold.positions`).
    """

    lsn: int
    next_ordinal: int
    whole: bool
    forged: int = 0
    conflict: bool = False
    attribution: Attribution | None = None
    ddl: int = 0
    refused: bool = False
    newest_us: int = 0
    incarnation: int = 0


class HeldPart(Struct, frozen=True, array_like=True):
    """Where a held part stands in raw: offset, place in the batch, and its first ordinal after trimming."""

    offset: int
    index: int
    first_ordinal: int


class HeldTransaction(Struct, frozen=True, array_like=True):
    """A held transaction: where its parts stand and until when (record time, µs) it waits."""

    timeline: Timeline
    lsn: int
    xid: int
    due_us: int
    parts: list[HeldPart]
    incarnation: int = 0


class Waiting(Struct, array_like=True):
    """A statement whose outcome is open: its event, when it has waited long enough, what is decided of its parts.

    `left` parts are open; `pending`: it went on as pending.
    """

    event: Event
    due_us: int
    left: int = 1
    results: list[Outcome] = []
    pending: bool = False


class OpenTransaction(Struct, array_like=True):
    """A session's transaction: its virtual id, what waits in it, and what may take that back.

    `begun`: a BEGIN was seen. `failed`: an ERROR stands. `known`: the session was seen before, so a BEGIN would have
    been. `entries` are places in `items`, -1 once decided; `marks` are savepoints and the entry that came next.
    `announced` are words of a text of which only the beginning is logged. `doubtful`: the text that would have begun it
    failed.
    """

    vxid: str | None
    begun: bool = False
    failed: bool = False
    known: bool = False
    xid: int | None = None
    items: list[Waiting] = []
    entries: list[int] = []
    marks: list[tuple[str, int]] = []
    announced: tuple[str, ...] = ()
    doubtful: bool = False
    lost: bool = False
    """It has ended, and how only the server can say, by its id."""


class Approved(Struct):
    """A statement that ran approved and waits for its transaction: what was approved, and how it differed.

    `rows` are those updated and deleted, `rows_approved` the most that was approved; `alone`: it was a transaction by
    itself. `reasons` are `more_rows`, `other_relations`, `nothing`; `others` are the relations that nobody approved.
    """

    approval: str
    policies: list[str]
    rows_approved: int
    relations: list[str]
    at_us: int
    alone: bool
    rows: int
    reasons: list[str] = []
    others: list[str] = []
    who: Attribution | None = None
    database: str | None = None
    instance: str | None = None


class Written(Struct, array_like=True, frozen=True):
    """Rows that a transaction updated and deleted, all relations that it wrote, and whether that is all of it."""

    rows: int = 0
    relations: list[str] = []
    whole: bool = False
