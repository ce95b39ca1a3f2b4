"""Which sessions have a statement in progress, by the order of the log's lines, and so: which statement ran alone.

`log_statement` writes a statement down before it runs, and its end comes in a later line of its session. The server
writes lines in order, so a statement between whose two lines nobody else has one in progress ran alone: whatever was
committed between them was committed by its session. Time is not asked, but for one thing: what runs already when
reading begins, or where lines were lost, is not known before the server has been started anew, or `UNSEEN_US` of the
log's time have gone by.

A session that was lost without a word keeps its statement in progress: nobody is alone then, which is never wrong.
"""

from __future__ import annotations

from msgspec import Struct

SESSIONS_MAX = 10_000
UNSEEN_US = 3_600_000_000
"""How long nobody is believed to be alone after lines were not seen: a statement may have run since before."""

STARTED = "database system is ready to accept connections"


class Progress(Struct, frozen=True):
    """What a successor must know: sessions with a statement in progress, who of them is alone, since when lines count.

    `since_us` is None as long as nothing was read.
    """

    sessions: list[str] = []
    alone: str | None = None
    since_us: int | None = None


class Running:
    """Follows the statements of one server."""

    def __init__(self, progress: Progress | None = None) -> None:
        progress = progress or Progress()
        self._running = dict.fromkeys(progress.sessions)
        self._alone = progress.alone
        self._since_us = progress.since_us
        self._now_us = 0

    @property
    def progress(self) -> Progress:
        """Return what a successor must know."""
        return Progress(list(self._running), self._alone, self._since_us)

    def at(self, time_us: int) -> None:
        """Take the time of the line that comes next."""
        self._now_us = time_us
        if self._since_us is None:
            self._since_us = time_us + UNSEEN_US

    def begins(self, session: str) -> None:
        """A session's statement was announced that may write, whatever its text says."""
        self._running.pop(session, None)
        if self._alone == session or self._running:
            self._alone = None
        if not self._running:
            self._alone = session
        if len(self._running) >= SESSIONS_MAX:
            self.lost()
            self._running.clear()
        self._running[session] = None

    def ends(self, session: str) -> bool:
        """The session's statement is over; says whether it ran alone."""
        if session not in self._running:
            return False
        del self._running[session]
        alone = self._alone == session
        if alone:
            self._alone = None
        return alone and self._since_us is not None and self._now_us >= self._since_us

    def unannounced(self, session: str) -> None:
        """A session's statement is over that was not announced: who else runs one without a word nobody knows."""
        self._running.pop(session, None)
        self.lost()

    def lost(self) -> None:
        """Lines are missing, or not every statement is announced: what runs is not known any more."""
        self._alone = None
        self._since_us = self._now_us + UNSEEN_US

    def started(self) -> None:
        """The server has started: nothing runs."""
        self._running.clear()
        self._alone = None
        self._since_us = self._now_us
