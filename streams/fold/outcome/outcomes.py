"""What came of the statements that the log tells: committed, rolled back, or nobody knows.

A line of success says that a statement ran, not that it lasts. The server writes the session's virtual transaction id
into each line: `3/0` is at rest, so what such a line tells of has been committed already. Else the statement waits in
its session's transaction until the log shows how that ended:

- its COMMIT, if no ERROR is left standing (the server answers COMMIT for a failed transaction, too), its ROLLBACK,
  PREPARE TRANSACTION, or the end of the session;
- ROLLBACK TO takes back what came since the savepoint, an ERROR among it;
- a transaction that nobody began (drivers that commit each statement) has been committed when the session's next line
  has another id. This takes a log that tells every statement (`sees_ends`);
- the WAL has a transaction of that id: it has been committed, and with it what stands before the first savepoint;
- the server was asked (`ASKED`): it says of an id whether it was committed or not. Where it is asked, a transaction
  whose end the log does not show waits under its id for the answer.

A text of several statements is replayed by its words (`pgwitness.core.sql.transactions`). What only read need not wait:
its rows have been read, whatever came of the transaction. What has waited for `PENDING_US` of record time goes on as
`pending`; its outcome, when it is known, comes as an event of its own that `settles` the first. Pure and bounded, and
in the checkpoint; what has to be forgotten goes on as `unknown`, which is never wrong.
"""

from __future__ import annotations

from copy import copy

from msgspec.structs import replace

from pgwitness.core.events import Event, Outcome, Posture, Statement
from pgwitness.core.sql.transactions import MANY, WORK
from pgwitness.core.undo import Undo
from streams.fold.bounded import room
from streams.fold.memory.checkpoint import ClusterState
from streams.fold.memory.sessions import LogSession
from streams.fold.memory.transactions import OpenTransaction, Waiting
from streams.fold.outcome.open_transaction import close, decide, resolve, savepoint, texts

PENDING_US = 5_000_000
SESSIONS_MAX = 2_000
"""Sessions with a transaction in which something waits or was begun."""
WAITING_MAX = 200
"""Statements of one transaction that wait."""
SEEN_MAX = 4_000
COMMITTED_MAX = 4_000
XID_MODULUS = 1 << 32
READS = frozenset(
    {
        "select", "show", "fetch", "close", "declare", "begin", "start", "set", "set_role", "explain", "copy_to",
        "prepare", "deallocate", "discard", "listen", "unlisten", "checkpoint",
    }
)  # fmt: skip
"""What is done when it has run: ROLLBACK does not give back what was read."""
_ENDED_BY = ("57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
"""SQLSTATEs with which the server ends a session."""
_SILENT = ("log_min_messages=", "?=", "all=")
"""Settings after which a session's errors may not be logged."""

ASKED = "transactions"
"""The type of a posture record that tells what became of transactions; no event comes of it."""

Who = tuple[str | None, int, int | None]


class Outcomes:
    """The transactions of one cluster's sessions that may still end one way or another."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._open: dict[Who, OpenTransaction] = {}
        self._by_xid: dict[int, Who] = {}
        self._seen: dict[Who, bool] = {}
        """Sessions of which a line was read, and whether they may keep errors out of the log."""
        self._committed: dict[int, None] = {}
        self._due_us = 0
        self._asked = False

    # -- what the log tells ------------------------------------------------------------------------------------

    def statement(
        self,
        line: Statement,
        session: LogSession,
        words: tuple[str, ...] | None,
        event: Event,
        sees_ends: bool | None,
    ) -> list[Event]:
        """Take up a statement; gives the events whose outcome is decided by it, `event` among them if its own is.

        `words` are what it says about transactions, None where nobody can tell. `sees_ends`: every statement of every
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
                decide(event, "success" if line.xid in self._committed else "unknown")
            return [event]
        step = _Step(self, who, line, event, sees_ends if not self._seen.get(who, False) else False)
        self._keep(who)
        step.knows = who in self._seen
        step.take(at_rest, ended, words)
        self._note(who, event)
        return step.out

    def begins(self, session: LogSession) -> None:
        """A session has begun: all that it says will be seen."""
        room(self._seen, SEEN_MAX)
        self._seen[_who(session)] = False

    def ends(self, session: LogSession, now_us: int) -> list[Event]:
        """A session has ended, and with it the transaction that it was in."""
        who = _who(session)
        self._seen.pop(who, None)
        open_ = self._open.get(who)
        if open_ is None:
            return []
        self._keep(who)
        out: list[Event] = []
        del self._open[who]
        if open_.begun or open_.failed:
            close(open_, "rolled_back", out, now_us)
        else:  # it may have been committed just before the session ended
            self.lose(who, open_, out, now_us)
        return out

    def lost(self, now_us: int) -> list[Event]:
        """Lines of the log are missing: how what is open ends nobody will know but by the WAL."""
        out: list[Event] = []
        for who in list(self._open):
            if not self._open[who].lost:
                self._keep(who)
                self.lose(who, self._open.pop(who), out, now_us)
        self._seen.clear()
        return out

    def lose(self, who: Who, open_: OpenTransaction, out: list[Event], now_us: int) -> None:
        """Let a transaction whose end the log does not show wait for the server's answer, where it is asked."""
        if not self._asked or open_.xid is None:
            close(open_, "unknown", out, now_us)
            return
        open_.lost = True
        place = (who[0], -open_.xid, None)
        self._keep(place)
        self.begin(place, open_, out, now_us)
        if self.has_id(place, open_.xid):
            self._committed_before_marks(open_, out, now_us)

    def answered(self, event: Posture) -> list[Event]:
        """Take up what the server said of transactions; gives what is decided by it."""
        self._asked = True
        after, out = event.after or {}, list[Event]()
        for word in ("committed", "aborted"):
            xids = after.get(word)
            for xid in xids if isinstance(xids, list) else ():
                if isinstance(xid, int) and not isinstance(xid, bool):
                    out += self._ended(xid, word == "committed", event.captured_at_us)
        return out

    def _ended(self, xid: int, was_committed: bool, now_us: int) -> list[Event]:
        out = self.committed(xid, now_us) if was_committed else []
        who = self._by_xid.get(xid % XID_MODULUS)
        open_ = self._open.get(who) if who is not None else None
        if who is None or open_ is None or open_.xid is None or open_.xid % XID_MODULUS != xid % XID_MODULUS:
            return out
        self._keep(who)
        if not was_committed:
            close(open_, "rolled_back", out, now_us)
        elif open_.lost:  # what came behind a savepoint, and may have been taken back
            close(open_, "unknown", out, now_us)
        if open_.lost:
            del self._open[who]
        return out

    def committed(self, xid: int, now_us: int) -> list[Event]:
        """The WAL has a transaction: what stands in it before its first savepoint has been committed."""
        xid %= XID_MODULUS
        if xid not in self._committed:
            room(self._committed, COMMITTED_MAX)
            self._committed[xid] = None
        who = self._by_xid.get(xid)
        open_ = self._open.get(who) if who is not None else None
        if who is None or open_ is None or open_.xid != xid:
            return []
        self._keep(who)
        out: list[Event] = []
        self._committed_before_marks(open_, out, now_us)
        return out

    def _committed_before_marks(self, open_: OpenTransaction, out: list[Event], now_us: int) -> None:
        first = open_.marks[0][1] if open_.marks else len(open_.entries)
        for place in range(first):
            resolve(open_, place, "success", out, now_us)

    def due(self, now_us: int) -> list[Event]:
        """Give what has waited long enough: its outcome is pending."""
        if now_us < self._due_us:
            return []
        out: list[Event] = []
        self._due_us = now_us + PENDING_US
        for open_ in self._open.values():
            for item in open_.items:
                if item.told or not item.left:
                    continue
                if item.due_us <= now_us:
                    item.told = True
                    out.append(replace(item.event, outcome="unknown" if open_.lost else "pending"))
                else:
                    self._due_us = min(self._due_us, item.due_us)
        return out

    def forget_xids(self) -> None:
        """Forget which transactions the WAL had: ids of a server that was put back come again."""
        self._committed.clear()
        self._by_xid.clear()

    # -- memory ------------------------------------------------------------------------------------------------

    def _note(self, who: Who, event: Event) -> None:
        settings = event.detail.get("settings")
        silent = isinstance(settings, list) and any(str(item).startswith(_SILENT) for item in settings)
        if who not in self._seen:
            room(self._seen, SEEN_MAX)
            self._seen[who] = silent
        elif silent:
            self._seen[who] = True

    def _keep(self, who: Who) -> None:
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

    def begin(self, who: Who, open_: OpenTransaction, out: list[Event], now_us: int) -> None:
        """Keep a transaction, and let go the oldest where there is no room."""
        if who not in self._open:
            while len(self._open) >= SESSIONS_MAX:
                oldest = next(iter(self._open))
                self._keep(oldest)
                close(self._open.pop(oldest), "unknown", out, now_us)
        self._open[who] = open_

    def drop(self, who: Who) -> None:
        """Forget a session's transaction: it has ended."""
        self._open.pop(who, None)

    def get(self, who: Who) -> OpenTransaction | None:
        """Give a session's transaction."""
        return self._open.get(who)

    def waits(self, item: Waiting) -> None:
        """Take note of when something is due."""
        self._due_us = min(self._due_us, item.due_us)

    def has_id(self, who: Who, xid: int) -> bool:
        """Take up the transaction id of a session; says whether the WAL had it already."""
        if len(self._by_xid) >= 2 * SESSIONS_MAX:
            self._by_xid = {known.xid: name for name, known in self._open.items() if known.xid is not None}
        self._by_xid[xid] = who
        return xid in self._committed

    def save(self, state: ClusterState) -> None:
        """Put what must be known again into a checkpoint."""
        state.open = list(self._open.items())
        state.open_seen = list(self._seen.items())
        state.wal_xids = list(self._committed)
        state.open_due_us = self._due_us
        state.open_asked = self._asked

    def load(self, state: ClusterState) -> None:
        """Take up what a checkpoint holds."""
        self._open = dict(state.open)
        self._seen = dict(state.open_seen)
        self._committed = dict.fromkeys(state.wal_xids)
        self._by_xid = {known.xid: who for who, known in self._open.items() if known.xid is not None}
        self._due_us = state.open_due_us
        self._asked = state.open_asked


class _Step:
    """What one line does to its session's transaction."""

    def __init__(self, known: Outcomes, who: Who, line: Statement, event: Event, sees_ends: bool | None) -> None:
        self.known = known
        self.who = who
        self.line = line
        self.event = event
        self.sees_ends = sees_ends
        self.knows = False
        """Whether the session was seen before, so that its BEGIN would have been."""
        self.now_us = line.captured_at_us
        self.out: list[Event] = []
        self.item: Waiting | None = None

    @property
    def open(self) -> OpenTransaction | None:
        """The session's transaction as it is now."""
        return self.known.get(self.who)

    def take(self, at_rest: bool, ended: bool, words: tuple[str, ...] | None) -> None:
        """Take up the line: `ended` says that what it tells of has run and succeeded."""
        error = self.line.source == "error"
        self._announced(error)
        if words is None or words == (MANY,) or self._doubtful(words):
            self._opaque(at_rest, error)
        elif error:
            self._error(words)
        elif not ended and words:
            self._moved(words)
            self._ensure(begun=False).announced = words
            if any(word == WORK for word in words):
                self._wait()
            else:
                self.out.append(self.event)
        else:
            self._moved(words)
            self._replay(words or (WORK,), at_rest and ended)
        if self.item is None and not any(event is self.event for event in self.out):
            self.out.append(self.event)

    def _announced(self, error: bool) -> None:
        """Do what a text said that was announced before: its end has no line of its own."""
        open_ = self.open
        if open_ is None or not open_.announced:
            return
        words, open_.announced = open_.announced, ()
        if error and self.line.vxid == open_.vxid:
            open_.failed = True
        else:
            self._control([word for word in words if word != WORK])

    def _doubtful(self, words: tuple[str, ...]) -> bool:
        """Say whether nobody knows if the text before, which failed, has begun the transaction that this one ends."""
        open_ = self.open
        if open_ is None or not open_.doubtful or open_.vxid == self.line.vxid:
            return False
        self.known.drop(self.who)
        return any(_ends(word) or word.startswith("rollback_to") for word in words)

    def _moved(self, words: tuple[str, ...]) -> None:
        """Close what was open if this line is of another transaction, and none of its own words has ended it."""
        open_, vxid = self.open, self.line.vxid
        if open_ is None:
            return
        if open_.vxid is None and open_.begun:
            open_.vxid = vxid if vxid is not None and not vxid.endswith("/0") else None
            return
        if vxid is not None and open_.vxid == vxid:
            return
        if open_.begun or not self._implicit(open_):
            if any(_ends(word) for word in words):
                return  # by its own words, when they are replayed
            if vxid is None and open_.vxid is None:
                return
            self._close("unknown")
        elif any(word in ("rollback", "rollback+") for word in words):
            self._close("unknown")  # in one pipeline with it, it takes it back; behind it, it comes too late
        else:
            self._close("success")

    def _implicit(self, open_: OpenTransaction) -> bool:
        """Say whether it is certain that nobody began a transaction: a BEGIN would have been seen."""
        return open_.known and self.sees_ends is True

    def _opaque(self, at_rest: bool, error: bool) -> None:
        """A text that nobody can read may have ended and begun anything."""
        open_ = self.open
        if open_ is not None and open_.vxid == self.line.vxid:
            open_.failed = open_.failed or error
            if not error:
                self._wait()
            return
        if open_ is not None:
            self._close("success" if self._implicit(open_) and not open_.begun and self.sees_ends else "unknown")
        if not error:
            decide(self.event, "unknown")
            if not at_rest and self.line.vxid is not None:
                self._ensure(begun=True)
        self.out.append(self.event)

    def _error(self, words: tuple[str, ...]) -> None:
        self._moved(words)
        open_ = self.open
        if open_ is not None and open_.vxid == self.line.vxid:
            open_.failed = True
        elif open_ is not None:
            first = next((word for word in words if _ends(word)), None)
            self._close("unknown" if first is None or first == "prepare" else self._by(first))
        if "begin" in words:  # whether it had ended again shows the next line's id
            left = OpenTransaction(self.line.vxid, begun=True, failed=True, doubtful=True)
            self.known.begin(self.who, left, self.out, self.now_us)
        if self.line.sqlstate in _ENDED_BY and self.open is not None:
            self._close("rolled_back")
        if any(word.startswith(("commit", "prepare")) for word in words[:-1]):
            decide(self.event, "unknown")  # what stands before that COMMIT may have been done
        else:
            decide(self.event, self.event.outcome)
        self.out.append(self.event)

    def _replay(self, words: tuple[str, ...], at_rest: bool) -> None:
        work = sum(word == WORK for word in words)
        waits = work > 1 or not self._only_read()
        for word in words:
            if word != WORK:
                self._control([word])
            elif waits:
                self._wait(work)
        open_ = self.open
        if open_ is None:
            return
        if at_rest:
            self._close("unknown" if open_.begun else "success")
        else:
            open_.vxid = self.line.vxid

    def _only_read(self) -> bool:
        """Say whether a statement has changed nothing that a transaction can take back."""
        operations = texts(self.event, "operations")
        plain = bool(operations) and READS.issuperset(operations)
        return plain and (self.line.xid is None or not texts(self.event, "functions"))

    def _ensure(self, *, begun: bool) -> OpenTransaction:
        open_ = self.open
        if open_ is None:
            open_ = OpenTransaction(self.line.vxid, begun=begun, known=self.knows)
            self.known.begin(self.who, open_, self.out, self.now_us)
        return open_

    def _wait(self, entries: int = 1) -> None:
        """Let the statement wait in its transaction; a text of several has several entries."""
        open_ = self._ensure(begun=False)
        if self.item is None:
            self.item = Waiting(self.event, self.now_us + PENDING_US, left=entries)
            self.known.waits(self.item)
            if len(open_.items) >= WAITING_MAX:
                self._forget(open_)
        if not any(item is self.item for item in open_.items):
            open_.items.append(self.item)
        open_.entries.append(next(n for n, item in enumerate(open_.items) if item is self.item))
        xid = self.line.xid
        if xid is not None:
            open_.xid = xid
            if self.known.has_id(self.who, xid) and not open_.marks:
                resolve(open_, len(open_.entries) - 1, "success", self.out, self.now_us)

    def _forget(self, open_: OpenTransaction) -> None:
        """Make room: of so many statements of one transaction only the last ones wait."""
        for place in range(len(open_.entries)):
            resolve(open_, place, "unknown", self.out, self.now_us)
        open_.items.clear()
        open_.entries.clear()
        open_.marks = [(name, 0) for name, _ in open_.marks]

    def _control(self, words: list[str]) -> None:
        for word in words:
            verb, _, name = word.partition(" ")
            if verb == "begin":
                self._ensure(begun=True).begun = True
            elif verb in ("savepoint", "release", "rollback_to"):
                savepoint(self._ensure(begun=True), verb, name, self.out, self.now_us)
            elif verb == "prepare":
                self._prepared()
            else:
                if self.open is not None:
                    self._close(self._by(verb))
                if verb.endswith("+"):
                    chained = OpenTransaction(None, begun=True, known=True)
                    self.known.begin(self.who, chained, self.out, self.now_us)

    def _by(self, verb: str) -> Outcome:
        """Say how a COMMIT or ROLLBACK ended what is open."""
        open_ = self.open
        assert open_ is not None
        if open_.failed:
            return "rolled_back"
        sure = self.sees_ends or (self.sees_ends is None and open_.begun) or open_.vxid == self.line.vxid
        if not sure or (verb.startswith("rollback") and not open_.begun and not open_.known and self.sees_ends):
            # Of one that nobody was seen to begin a ROLLBACK may have come too late to take back anything.
            own = all(open_.items[place] is self.item for place in open_.entries)
            if not own:
                return "unknown"
        return "success" if verb.startswith("commit") else "rolled_back"

    def _prepared(self) -> None:
        """PREPARE TRANSACTION: it is nobody's session's any more, and the WAL tells when it was committed."""
        open_ = self.open
        if open_ is None:
            return
        self.known.drop(self.who)
        if open_.failed:
            close(open_, "rolled_back", self.out, self.now_us)
        elif open_.xid is None:
            close(open_, "unknown", self.out, self.now_us)
        else:
            place = (self.who[0], -open_.xid, None)
            self.known.begin(place, open_, self.out, self.now_us)
            self.known.has_id(place, open_.xid)

    def _close(self, outcome: Outcome) -> None:
        open_ = self.open
        assert open_ is not None
        self.known.drop(self.who)
        if outcome == "unknown" and not open_.failed:
            self.known.lose(self.who, open_, self.out, self.now_us)
        else:
            close(open_, "rolled_back" if open_.failed else outcome, self.out, self.now_us)


def _ends(word: str) -> bool:
    return (word.startswith(("commit", "rollback")) and not word.startswith("rollback_to")) or word == "prepare"


def _who(session: LogSession) -> Who:
    return session.instance, session.pid, session.start_us
