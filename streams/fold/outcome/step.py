"""What one line of the log does to its session's transaction: replayed by its words about transactions."""

from __future__ import annotations

from pgwitness.core.events import Event, Outcome, Statement
from pgwitness.core.sql.transactions import MANY, WORK
from streams.fold.memory.transactions import OpenTransaction, Waiting
from streams.fold.outcome.deciding import close, decide, resolve, savepoint, texts
from streams.fold.outcome.open_transactions import OpenTransactions, Who

PENDING_US = 5_000_000
WAITING_MAX = 200
"""Statements of one transaction that wait."""
READS = frozenset(
    {
        "select", "select_nothing", "show", "fetch", "close", "declare", "begin", "start", "set", "set_role", "explain",
        "copy_to", "prepare", "deallocate", "discard", "listen", "unlisten", "checkpoint",
    }
)  # fmt: skip
"""What is done when it has run: ROLLBACK does not give back what was read."""
_ENDED_BY = ("57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
"""SQLSTATEs with which the server ends a session."""


class Step:
    """What one line does to its session's transaction."""

    def __init__(
        self, known: OpenTransactions, who: Who, line: Statement, event: Event, sees_ends: bool | None
    ) -> None:
        self.known = known
        self.who = who
        self.line = line
        self.event = event
        self.sees_ends = sees_ends
        self.is_known = False
        """Whether the session was seen before, so that its BEGIN would have been."""
        self.now_us = line.captured_at_us
        self.out: list[Event] = []
        self.item: Waiting | None = None

    @property
    def open(self) -> OpenTransaction | None:
        """The session's transaction as it is now."""
        return self.known.get(self.who)

    def take(self, at_rest: bool, ended: bool, words: tuple[str, ...] | None) -> None:
        """Take up the line: `ended` says that what it reports has run and succeeded."""
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
        """Return whether nobody knows if the text before, which failed, began the transaction that this one ends."""
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
        """Return whether it is certain that nobody began a transaction: a BEGIN would have been seen."""
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
        """Return whether a statement has changed nothing that a transaction can take back."""
        operations = texts(self.event, "operations")
        plain = bool(operations) and READS.issuperset(operations)
        return plain and (self.line.xid is None or not texts(self.event, "functions"))

    def _ensure(self, *, begun: bool) -> OpenTransaction:
        open_ = self.open
        if open_ is None:
            open_ = OpenTransaction(self.line.vxid, begun=begun, known=self.is_known)
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
        """Return how a COMMIT or ROLLBACK ended what is open."""
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
        """PREPARE TRANSACTION: it is nobody's session's any more, and the WAL shows when it was committed."""
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
