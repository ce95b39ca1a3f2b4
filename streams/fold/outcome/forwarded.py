"""What came of statements that the gateway forwarded: it sees every end, so nothing is left to guess.

Of a statement whose session was in no transaction any more at the ReadyForQuery behind it the gateway knows the
outcome. One that is `pending` waits in its session's transaction, until that ends by a statement (COMMIT, ROLLBACK, or
one that failed) or with its session; ROLLBACK TO takes back what came since the savepoint. What only read does not
wait. It shares the transactions of `streams.fold.outcome.outcomes`, under sessions of its own, and so their bounds.
"""

from __future__ import annotations

from pgwitness.core.events import Event, Outcome, Statement
from pgwitness.core.sql.transactions import WORK
from streams.fold.memory.sessions import LogSession
from streams.fold.memory.transactions import OpenTransaction, Waiting
from streams.fold.outcome.deciding import close, decide, resolve, savepoint, texts
from streams.fold.outcome.open_transactions import OpenTransactions, Who
from streams.fold.outcome.step import PENDING_US, READS, WAITING_MAX

AT_REST = "/0"
FAILED = "gateway/failed/"
PREFIX = "gateway "


def forwarded_by(session: LogSession) -> Who:
    """Return under which name a session of the gateway is known: the log's session of the same backend is another."""
    return f"{PREFIX}{session.instance}", session.pid, session.start_us


def take(
    known: OpenTransactions, who: Who, line: Statement, words: tuple[str, ...] | None, event: Event
) -> list[Event]:
    """Take up a statement; return the events whose outcome is decided by it, `event` among them if its own is.

    `words` are what it says about transactions, None where nobody knows.
    """
    known.keep(who)
    out: list[Event] = []
    now_us = line.captured_at_us
    at_rest = line.vxid is None or line.vxid.endswith(AT_REST)
    before = known.get(who)
    if before is not None and line.vxid is not None and line.vxid.startswith(FAILED):
        before.failed = True
    _closed(known, who, line, words, at_rest, out)
    if not at_rest:
        open_ = known.get(who)
        if open_ is None:
            open_ = OpenTransaction(line.vxid, begun=True, known=True)
            known.begin(who, open_, out, now_us)
        open_.failed = open_.failed or line.outcome == "failure"
        _savepoints(open_, words or (), out, now_us)
        if line.outcome == "pending" and _waits(words, event):
            _wait(known, open_, event, out, now_us)
            return out
    decide(event, _own(line, words))
    return [*out, event]


def ends(known: OpenTransactions, who: Who, outcome: Outcome, now_us: int) -> list[Event]:
    """Take up that a session has ended, and with it the transaction that it was in."""
    open_ = known.get(who)
    if open_ is None:
        return []
    known.keep(who)
    known.drop(who)
    out: list[Event] = []
    close(open_, outcome, out, now_us)
    return out


def _closed(
    known: OpenTransactions,
    who: Who,
    line: Statement,
    words: tuple[str, ...] | None,
    at_rest: bool,
    out: list[Event],
) -> None:
    """Close the transaction that was open before a statement, if the statement ended it."""
    open_ = known.get(who)
    first = next(filter(_may_end, words or ()), None)
    if open_ is None or (not at_rest and first is None and words is not None):
        return
    outcome: Outcome = "unknown"
    if words is not None and (line.outcome in ("success", "pending") or len(words) == 1):
        outcome = _by(first, line.outcome)
    elif line.outcome == "failure" and words is not None and first is None:
        outcome = "rolled_back"
    if words is None and not at_rest:
        return  # it may have been about anything; how the transaction ends shows its end
    known.drop(who)
    close(open_, "rolled_back" if open_.failed and outcome != "unknown" else outcome, out, line.captured_at_us)


def _by(first: str | None, outcome: Outcome) -> Outcome:
    """Return what became of a transaction by the first word that ended it."""
    if first is None or first == "prepare" or outcome == "unknown":
        return "rolled_back" if outcome == "failure" else "unknown"  # who ends what was prepared may be somebody else
    return "success" if first.startswith("commit") and outcome != "failure" else "rolled_back"


def _own(line: Statement, words: tuple[str, ...] | None) -> Outcome:
    """Return what came of a statement itself; of a text of several that ends transactions, part by part."""
    if line.outcome == "failure":
        ended = any(word.startswith(("commit", "prepare")) for word in (words or ())[:-1])
        return "unknown" if ended else "failure"
    if line.outcome not in ("success", "pending"):
        return line.outcome
    found, work = set[Outcome](), False
    for word in words or ():
        if word == WORK:
            work = True
        elif work and word.startswith(("commit", "rollback", "prepare")):
            found.add("unknown" if word.startswith(("rollback_to", "prepare")) else _by(word, "success"))
            work = False
    if work or (not found and line.outcome == "success"):
        found.add("success" if line.outcome == "success" else "unknown")
    return found.pop() if len(found) == 1 else "unknown" if found else "success"


def _waits(words: tuple[str, ...] | None, event: Event) -> bool:
    """Return whether what came of a statement depends on how its transaction ends, as a whole."""
    if words == ():
        return not _only_read(event)
    return words is None or (WORK in words and not any(word.startswith("rollback") or _may_end(word) for word in words))


def _savepoints(open_: OpenTransaction, words: tuple[str, ...], out: list[Event], now_us: int) -> None:
    for word in words:
        verb, _, name = word.partition(" ")
        if verb in ("savepoint", "release", "rollback_to"):
            savepoint(open_, verb, name, out, now_us)


def _may_end(word: str) -> bool:
    return word.startswith(("commit", "rollback", "prepare")) and not word.startswith("rollback_to")


def _only_read(event: Event) -> bool:
    operations = texts(event, "operations")
    return bool(operations) and READS.issuperset(operations) and not texts(event, "functions")


def _wait(known: OpenTransactions, open_: OpenTransaction, event: Event, out: list[Event], now_us: int) -> None:
    if len(open_.items) >= WAITING_MAX:
        for place in range(len(open_.entries)):
            resolve(open_, place, "unknown", out, now_us)
        open_.items.clear()
        open_.entries.clear()
        open_.marks = [(name, 0) for name, _ in open_.marks]
    item = Waiting(event, now_us + PENDING_US, left=1)
    known.waits(item)
    open_.items.append(item)
    open_.entries.append(len(open_.items) - 1)
