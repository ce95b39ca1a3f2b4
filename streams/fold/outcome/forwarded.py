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
    if line.vxid is None or line.vxid.endswith(AT_REST):
        open_ = known.get(who)
        if open_ is not None:
            known.drop(who)
            close(open_, _ended_by(line, words, open_), out, now_us)
        decide(event, line.outcome)
        return [*out, event]
    open_ = known.get(who)
    if open_ is None:
        open_ = OpenTransaction(line.vxid, begun=True, known=True)
        known.begin(who, open_, out, now_us)
    if line.outcome == "unknown" and (words is None or any(map(_may_end, words))):
        known.drop(who)
        close(open_, "unknown", out, now_us)
    if line.outcome != "pending":
        open_.failed = open_.failed or line.outcome == "failure"
        decide(event, line.outcome)
        return [*out, event]
    for word in words or ():
        verb, _, name = word.partition(" ")
        if verb in ("savepoint", "release", "rollback_to"):
            savepoint(open_, verb, name, out, now_us)
    if words == () and _only_read(event):
        decide(event, "success")
        return [*out, event]
    if words is not None and WORK not in (words or (WORK,)):
        decide(event, "success")  # it is about the transaction itself, and is done
        return [*out, event]
    _wait(known, open_, event, out, now_us)
    return out


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


def _ended_by(line: Statement, words: tuple[str, ...] | None, open_: OpenTransaction) -> Outcome:
    """Return what became of a transaction that is not open any more, by the statement after which it was not."""
    if line.outcome == "failure" or open_.failed:
        return "rolled_back"
    last = next((word for word in reversed(words or ()) if _may_end(word)), None)
    if last is None or last == "prepare" or line.outcome != "success" or words is None or words.count("begin"):
        return "unknown"  # PREPARE TRANSACTION: whoever ends it may be somebody else
    return "success" if last.startswith("commit") else "rolled_back"


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
