"""The join by session and time: whose is a transaction whose id no line of the log has?

psql's single statements are logged after their commit, without a transaction id. A session is named only where what is
known excludes everybody else; there are two proofs, and without one of them nobody is named:

- **It ran alone** (`strong`, or `weak` where the statement does not name a relation of the transaction): every session
  announces its statements, and from this one's announcement to its end nobody else had any in progress. Then whatever
  was committed in between is its session's, by whatever function, trigger or procedure.
- **It inserted** (`weak`): the statement is nothing but INSERTs of listed values and succeeded, so it has committed a
  transaction with a row of that relation in the time it ran; there is only one in the WAL that can be that, and no
  other session is known to have run anything meanwhile. An UPDATE may have changed nothing, so it proves nothing.

Both need the time of the commit to lie in the time the statement ran, and to be of one session alone. Times are the
server's own; the log's have milliseconds. Pure, of bounded memory: what is forgotten names nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pgwitness.core.events import Statement, Transaction
from pgwitness.core.sql.statements import IDLE, StatementFacts
from streams.fold.hold_buffer import Held
from streams.fold.joins.spans import Spans
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.sessions import LogSession
from streams.fold.memory.statements import Committed, Ran
from streams.fold.memory.transactions import Timeline

RAN_MAX = 4_000
COMMITTED_MAX = 4_000
OPEN_MAX = 2_000
SHORT_US = 100_000
"""How long an INSERT may have run to prove anything."""
LINE_US = 1_000
"""The log's times are cut to milliseconds."""
LATE_US = 5_000
"""How far a session's line and its commit may lie apart, when others are to be excluded."""
HOUR_US = 3_600_000_000
ENDLESS_US = (1 << 63) - 1
_READS = frozenset({"select", "select_nothing"})
_ORDINARY = frozenset({*_READS, "insert", "update", "delete", "merge"})
_NOTHING = IDLE | {"commit"}
_SOURCES = frozenset({"duration", "statement", "error"})
"""Lines about what a client sent; auto_explain and pgAudit report what ran inside of it, too."""

Who = tuple[str | None, int, int | None]


class LogJoin:
    """Statements without a transaction id, and transactions, of one cluster; forgotten oldest first."""

    def __init__(self) -> None:
        self._order: deque[Ran] = deque()
        self._ran: Spans[Ran] = Spans(LATE_US)
        self._open: dict[Who, Ran] = {}
        self._committed: dict[tuple[Timeline, int], Committed] = {}
        self._commits: Spans[Committed] = Spans()
        self._forgotten_until_us = 0

    # -- what is seen ------------------------------------------------------------------------------------------

    def begin(self, now_us: int) -> None:
        """The log is followed from here on: before, nobody counted transactions."""
        self._forget(now_us)

    def statement(self, event: Statement, session: LogSession, known: StatementFacts | None) -> None:
        """Take up a statement of the log; `known` is what the parser says of its text, None when there is none."""
        if event.source not in _SOURCES:
            return
        self.ends(session, event.occurred_at_us)
        words = set(known.operations) if known is not None and known.parse_error is None else set()
        if event.xid is not None and words and words <= _ORDINARY:
            return  # it ran in that transaction, and so committed no other
        if known is None or not words:
            relations: tuple[str, ...] = ()
            inserts = False
        elif words <= IDLE or (words <= _READS and not known.functions):
            return
        elif event.source == "statement" and event.xid is None and session.sure and words <= _NOTHING:
            return  # announced when its transaction had no id, so it has written nothing
        else:
            relations = () if words <= _READS else known.relations
            inserts = known.inserts and session.sure
        end_us = event.occurred_at_us + LINE_US
        if event.source == "error":
            if not words or not words <= _ORDINARY:  # else nothing of it was committed
                self._add(Ran(session, max(0, end_us - HOUR_US), end_us, False, (), False))
        elif event.duration_ms is None:
            self._begin(Ran(session, event.occurred_at_us, ENDLESS_US, False, (), False))
        else:
            start_us = max(0, event.occurred_at_us - int(event.duration_ms * 1_000))
            alone = event.alone and session.sure and session.start_us is not None
            self._add(Ran(session, start_us, end_us, alone, relations, inserts))

    def ends(self, session: LogSession, at_us: int) -> None:
        """A session has gone on, or has ended: what it had begun is over."""
        begun = self._open.pop(_who(session), None) if self._open else None
        if begun is not None:
            begun.end_us = max(begun.start_us, at_us) + LINE_US
            self._add(begun)

    def committed(self, timeline: Timeline, part: Transaction, pid: int | None) -> None:
        """Take up a part of a transaction, and the process that is known to have committed it."""
        inserted = [part.relations[count.relation].name for count in part.counts if count.operation == "i"]
        known = self._committed.get((timeline, part.lsn))
        if known is None:
            if inserted:
                self._commit(Committed(part.committed_at_us, timeline, part.lsn, inserted, pid))
        else:
            known.inserted += [name for name in inserted if name not in known.inserted]
            known.pid = known.pid if pid is None else pid

    def named(self, held: Held, attribution: Attribution) -> None:
        """Take up who a transaction that waited turned out to be of."""
        known = self._committed.get(held.key)
        if known is not None:
            known.pid = attribution.pid

    # -- who it was --------------------------------------------------------------------------------------------

    def decide(self, held: Held, announced: bool) -> tuple[LogSession, str] | None:
        """Return whose a transaction is that nothing else has named, and how that is known; None where it is not.

        `announced`: every session writes its statements into the log before they run.
        """
        parts = [part for _, _, part in held.parts if part is not None]
        if not parts or len(parts) < len(held.parts):
            return None
        at_us = parts[0].committed_at_us
        if at_us <= self._forgotten_until_us:
            return None
        near = [*self._ran.at(at_us), *(ran for ran in self._open.values() if ran.start_us - LATE_US <= at_us)]
        near = [ran for ran in near if ran.session.database in (None, held.database)]
        if len({ran.session for ran in near}) != 1:
            return None  # nobody, or several; behind a pooler one session is several, with names of their own
        around = [ran for ran in near if ran.start_us <= at_us <= ran.end_us]
        alone = [ran for ran in around if ran.alone] if announced else []
        if alone:
            relations = [relation.name for part in parts for relation in part.relations]
            named = next((ran for ran in alone if _any(ran.relations, relations)), None)
            return (named.session, "ran alone") if named is not None else (alone[0].session, "time")
        sole = next((ran for ran in around if self._inserted(ran, held)), None)
        return (sole.session, "time") if sole is not None else None

    def _inserted(self, ran: Ran, held: Held) -> bool:
        """Return whether a statement has inserted, and a transaction is the only one in which that can have been."""
        if not ran.inserts or ran.end_us - ran.start_us > SHORT_US:
            return False
        possible = [
            other
            for other in self._commits.between(ran.start_us - LATE_US, ran.end_us + LATE_US)
            if other.timeline[2] == held.database
            and other.pid in (None, ran.session.pid)
            and _any(ran.relations, other.inserted)
        ]
        return len(possible) == 1 and (possible[0].timeline, possible[0].lsn) == held.key

    # -- bounded memory ----------------------------------------------------------------------------------------

    def _begin(self, ran: Ran) -> None:
        who = _who(ran.session)
        if len(self._open) >= OPEN_MAX and who not in self._open:
            # Who is forgotten may have committed anything since, and may still.
            del self._open[next(iter(self._open))]
            self._forget(ran.start_us + HOUR_US)
        self._open[who] = ran

    def _add(self, ran: Ran) -> None:
        if len(self._order) >= RAN_MAX:
            gone = self._order.popleft()
            self._ran.remove(gone)
            self._forget(gone.end_us + LATE_US)
        self._order.append(ran)
        self._ran.add(ran)

    def _commit(self, made: Committed) -> None:
        if len(self._committed) >= COMMITTED_MAX:
            gone = self._committed.pop(next(iter(self._committed)))
            self._commits.remove(gone)
            self._forget(gone.at_us + SHORT_US + 2 * LATE_US)
        self._committed[made.timeline, made.lsn] = made
        self._commits.add(made)

    def _forget(self, until_us: int) -> None:
        self._forgotten_until_us = max(self._forgotten_until_us, until_us)

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.ran = [*self._order, *self._open.values()]
        state.committed = list(self._committed.values())
        state.forgotten_until_us = self._forgotten_until_us

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        for ran in state.ran:
            if ran.end_us == ENDLESS_US:
                self._open[_who(ran.session)] = ran
            else:
                self._add(ran)
        for made in state.committed:
            self._commit(made)
        self._forgotten_until_us = state.forgotten_until_us


def _who(session: LogSession) -> Who:
    return session.instance, session.pid, session.start_us


def _any(names: Iterable[str], relations: Iterable[str]) -> bool:
    """Return whether one of the names, as a statement writes them, can be a relation's; without a schema it has any."""
    return any(name == relation or relation.endswith("." + name) for name in names for relation in relations)
