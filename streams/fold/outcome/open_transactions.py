"""The transactions of one cluster's sessions that may still end one way or another; bounded, and in the checkpoint.

`streams.fold.outcome.outcomes` says what happens to them, `streams.fold.outcome.step` what one line of the log does.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

from msgspec.structs import replace

from pgwitness.core.events import Event
from pgwitness.core.undo import Undo
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.transactions import OpenTransaction, Waiting
from streams.fold.outcome.deciding import close, resolve

SESSIONS_MAX = 2_000
"""Sessions with a transaction in which something waits or was begun."""
COMMITTED_MAX = 4_000
XID_MODULUS = 1 << 32
Who = tuple[str | None, int, int | None]
"""A session: its instance, process and start; without a process, a transaction that is no session's any more."""


class OpenTransactions:
    """Transactions by session, what is known of ids, and when the first of what waits is due."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._open: dict[Who, OpenTransaction] = {}
        self._by_xid: dict[int, Who] = {}
        self._committed: dict[int, None] = {}
        """Ids that the WAL had."""
        self.due_us = 0
        self.is_asked = False
        """Whether the server is asked what became of transactions."""

    def get(self, who: Who) -> OpenTransaction | None:
        """Return a session's transaction."""
        return self._open.get(who)

    def begin(self, who: Who, open_: OpenTransaction, out: list[Event], now_us: int) -> None:
        """Keep a transaction, and let go the oldest where there is no room."""
        if who not in self._open:
            while len(self._open) >= SESSIONS_MAX:
                oldest = next(iter(self._open))
                self.keep(oldest)
                close(self._open.pop(oldest), "unknown", out, now_us)
        self._open[who] = open_

    def drop(self, who: Who) -> None:
        """Forget a session's transaction: it has ended."""
        self._open.pop(who, None)

    def lose(self, who: Who, open_: OpenTransaction, out: list[Event], now_us: int) -> None:
        """Let a transaction whose end the log does not show wait for the server's answer, where it is asked."""
        if not self.is_asked or open_.xid is None:
            close(open_, "unknown", out, now_us)
            return
        open_.lost = True
        place = (who[0], -open_.xid, None)
        self.keep(place)
        self.begin(place, open_, out, now_us)
        if self.has_id(place, open_.xid):
            self.committed_before_marks(open_, out, now_us)

    def committed_before_marks(self, open_: OpenTransaction, out: list[Event], now_us: int) -> None:
        """Decide what stands before the first savepoint: it has been committed."""
        first = open_.marks[0][1] if open_.marks else len(open_.entries)
        for place in range(first):
            resolve(open_, place, "success", out, now_us)

    def has_id(self, who: Who, xid: int) -> bool:
        """Take up the transaction id of a session; return whether the WAL had it already."""
        if len(self._by_xid) >= 2 * SESSIONS_MAX:
            self._by_xid = {known.xid: name for name, known in self._open.items() if known.xid is not None}
        self._by_xid[xid] = who
        return xid in self._committed

    def waits(self, item: Waiting) -> None:
        """Take note of when something is due."""
        self.due_us = min(self.due_us, item.due_us)

    def keep(self, who: Who) -> None:
        """Keep how a session's transaction stands, should the event that changes it fail."""
        before = self._open.get(who)
        if before is not None:
            items = [copy(item) for item in before.items]
            before = replace(before, items=items, entries=list(before.entries), marks=list(before.marks))
        self._undo.add(lambda: self._set(who, before))

    def _set(self, who: Who, open_: OpenTransaction | None) -> None:
        if open_ is None:
            self._open.pop(who, None)
        else:
            self._open[who] = open_

    def with_id(self, xid: int) -> tuple[Who, OpenTransaction] | None:
        """Return the transaction of an id that was taken up, and whose it is."""
        who = self._by_xid.get(xid % XID_MODULUS)
        open_ = self._open.get(who) if who is not None else None
        if who is None or open_ is None or open_.xid is None or open_.xid % XID_MODULUS != xid % XID_MODULUS:
            return None
        return who, open_

    def is_committed(self, xid: int | None) -> bool:
        """Return whether the WAL had a transaction of that id."""
        return xid in self._committed

    def add_committed(self, xid: int) -> None:
        """Remember that the WAL had a transaction of that id."""
        if xid not in self._committed:
            evict_oldest(self._committed, COMMITTED_MAX)
            self._committed[xid] = None

    def sessions(self) -> list[Who]:
        """Return whose transactions are open."""
        return list(self._open)

    def all(self) -> Iterable[OpenTransaction]:
        """Return all that is open, the oldest first."""
        return self._open.values()

    def forget_xids(self) -> None:
        """Forget which transactions the WAL had: ids of a server that was put back come again."""
        self._committed.clear()
        self._by_xid.clear()

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.open = list(self._open.items())
        state.wal_xids = list(self._committed)
        state.open_due_us = self.due_us
        state.open_asked = self.is_asked

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._open = dict(state.open)
        self._committed = dict.fromkeys(state.wal_xids)
        self._by_xid = {known.xid: who for who, known in self._open.items() if known.xid is not None}
        self.due_us = state.open_due_us
        self.is_asked = state.open_asked
