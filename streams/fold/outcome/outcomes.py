"""What came of the statements that the log reports: committed, rolled back, or nobody knows.

A line of success says that a statement ran, not that it lasts. The server writes the session's virtual transaction id
into each line: `3/0` is at rest, so what such a line reports has been committed already. Else the statement waits in
its session's transaction until the log shows how that ended:

- its COMMIT, if no ERROR is left standing (the server answers COMMIT for a failed transaction, too), its ROLLBACK,
  PREPARE TRANSACTION, or the end of the session;
- ROLLBACK TO takes back what came since the savepoint, an ERROR among it;
- a transaction that nobody began (drivers that commit each statement) has been committed when the session's next line
  has another id. This takes a log that reports every statement (`sees_ends`);
- the WAL has a transaction of that id: it has been committed, and with it what stands before the first savepoint;
- the server was asked (`ASKED`): it says of an id whether it was committed or not. Where it is asked, a transaction
  whose end the log does not show waits under its id for the answer.

A text of several statements is replayed by its words (`pgwitness.core.sql.transactions`). What only read need not wait:
its rows have been read, whatever came of the transaction. What has waited for `PENDING_US` of record time goes on as
`pending`; its outcome, when it is known, comes as an event of its own that `settles` the first. Pure and bounded, and
in the checkpoint; what has to be forgotten goes on as `unknown`, which is never wrong.
"""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import Event, Posture, Statement
from pgwitness.core.undo import Undo
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.sessions import LogSession
from streams.fold.outcome import forwarded
from streams.fold.outcome.deciding import close, decide, texts
from streams.fold.outcome.open_transactions import XID_MODULUS, OpenTransactions, Who
from streams.fold.outcome.step import PENDING_US, READS, Step

ASKED = "transactions"
"""The type of a posture record that reports what became of transactions; no event comes of it."""
SEEN_MAX = 4_000
"""Sessions of which it is known that they were seen before."""
_SILENT = ("log_min_messages=", "?=", "all=")
"""Settings after which a session's errors may not be logged."""


class Outcomes:
    """The transactions of one cluster's sessions that may still end one way or another."""

    def __init__(self, undo: Undo) -> None:
        self._open = OpenTransactions(undo)
        self._seen: dict[Who, bool] = {}
        """Sessions of which a line was read, and whether they may keep errors out of the log."""

    # -- what the log reports ------------------------------------------------------------------------------------

    def statement(
        self,
        line: Statement,
        session: LogSession,
        words: tuple[str, ...] | None,
        event: Event,
        sees_ends: bool | None,
    ) -> list[Event]:
        """Take up a statement; return the events whose outcome is decided by it, `event` among them if its own is.

        `words` are what it says about transactions, None where nobody knows. `sees_ends`: every statement of every
        session is logged; None where that is not known.
        """
        who = _who(session)
        at_rest = line.vxid is not None and line.vxid.endswith("/0")
        open_ = self._open.get(who)
        ended = line.source != "error" and line.outcome == "success" and line.source != "auto_explain"
        if open_ is None and at_rest and ended and words == ():
            self._note(who, event)
            return [event]
        if open_ is None and line.vxid is None and sees_ends is not True and ended and words == ():
            # A prefix without the virtual id, and nobody knows whether the end of its transaction would be seen.
            self._note(who, event)
            if not READS.issuperset(texts(event, "operations")):
                decide(event, "success" if self._open.is_committed(line.xid) else "unknown")
            return [event]
        step = Step(self._open, who, line, event, sees_ends if not self._seen.get(who, False) else False)
        self._open.keep(who)
        step.is_known = who in self._seen
        step.take(at_rest, ended, words)
        self._note(who, event)
        return step.out

    def forwarded(
        self, line: Statement, session: LogSession, words: tuple[str, ...] | None, event: Event
    ) -> list[Event]:
        """Take up a statement that the gateway forwarded (`streams.fold.outcome.forwarded`)."""
        return forwarded.take(self._open, forwarded.forwarded_by(session), line, words, event)

    def forwarded_ends(self, session: LogSession, now_us: int) -> list[Event]:
        """Take up that a session of the gateway has ended: what it had open was rolled back."""
        return forwarded.ends(self._open, forwarded.forwarded_by(session), "rolled_back", now_us)

    def begins(self, session: LogSession) -> None:
        """A session has begun: all that it says will be seen."""
        evict_oldest(self._seen, SEEN_MAX)
        self._seen[_who(session)] = False

    def ends(self, session: LogSession, now_us: int) -> list[Event]:
        """A session has ended, and with it the transaction that it was in."""
        who = _who(session)
        self._seen.pop(who, None)
        open_ = self._open.get(who)
        if open_ is None:
            return []
        self._open.keep(who)
        out: list[Event] = []
        self._open.drop(who)
        if open_.begun or open_.failed:
            close(open_, "rolled_back", out, now_us)
        else:  # it may have been committed just before the session ended
            self._open.lose(who, open_, out, now_us)
        return out

    def lost(self, now_us: int) -> list[Event]:
        """Lines of the log are missing: how what is open ends nobody will know but by the WAL."""
        out: list[Event] = []
        for who in self._open.sessions():
            open_ = self._open.get(who)
            if open_ is not None and not open_.lost and not str(who[0]).startswith(forwarded.PREFIX):
                self._open.keep(who)
                self._open.drop(who)
                self._open.lose(who, open_, out, now_us)
        self._seen.clear()
        return out

    def answered(self, event: Posture) -> list[Event]:
        """Take up what the server said of transactions; return what is decided by it."""
        self._open.is_asked = True
        after, out = event.after or {}, list[Event]()
        for word in ("committed", "aborted"):
            xids = after.get(word)
            for xid in xids if isinstance(xids, list) else ():
                if isinstance(xid, int) and not isinstance(xid, bool):
                    out += self._ended(xid, word == "committed", event.captured_at_us)
        return out

    def _ended(self, xid: int, was_committed: bool, now_us: int) -> list[Event]:
        out = self.committed(xid, now_us) if was_committed else []
        found = self._open.with_id(xid)
        if found is None:
            return out
        who, open_ = found
        self._open.keep(who)
        if not was_committed:
            close(open_, "rolled_back", out, now_us)
        elif open_.lost:  # what came behind a savepoint, and may have been taken back
            close(open_, "unknown", out, now_us)
        if open_.lost:
            self._open.drop(who)
        return out

    def committed(self, xid: int, now_us: int) -> list[Event]:
        """The WAL has a transaction: what stands in it before its first savepoint has been committed."""
        xid %= XID_MODULUS
        self._open.add_committed(xid)
        found = self._open.with_id(xid)
        if found is None or found[1].xid != xid:
            return []
        who, open_ = found
        self._open.keep(who)
        out: list[Event] = []
        self._open.committed_before_marks(open_, out, now_us)
        return out

    def due(self, now_us: int) -> list[Event]:
        """Return what has waited long enough: its outcome is pending."""
        if now_us < self._open.due_us:
            return []
        out: list[Event] = []
        self._open.due_us = now_us + PENDING_US
        for open_ in self._open.all():
            for item in open_.items:
                if item.pending or not item.left:
                    continue
                if item.due_us <= now_us:
                    item.pending = True
                    out.append(replace(item.event, outcome="unknown" if open_.lost else "pending"))
                else:
                    self._open.due_us = min(self._open.due_us, item.due_us)
        return out

    def forget_xids(self) -> None:
        """Forget which transactions the WAL had: ids of a server that was put back come again."""
        self._open.forget_xids()

    def _note(self, who: Who, event: Event) -> None:
        settings = event.detail.get("settings")
        silent = isinstance(settings, list) and any(str(item).startswith(_SILENT) for item in settings)
        if who not in self._seen:
            evict_oldest(self._seen, SEEN_MAX)
            self._seen[who] = silent
        elif silent:
            self._seen[who] = True

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        self._open.save(state)
        state.open_seen = list(self._seen.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._open.load(state)
        self._seen = dict(state.open_seen)


def _who(session: LogSession) -> Who:
    return session.instance, session.pid, session.start_us
