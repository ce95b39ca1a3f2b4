"""What was approved against what was done: the WAL's rows and relations of the transaction that ran approved.

The gateway's check tells the transaction's id, so both meet exactly, whichever comes first. A statement that was a
transaction by itself is compared whole. Of one in a block the WAL does not say which rows were its own: then what the
server counted of it stands, and its relations are not compared, so that nobody is accused of another statement's.
"""

from __future__ import annotations

from typing import Final

from pgwitness.core.events import Event, Statement, Transaction
from pgwitness.core.undo import Undo
from streams.fold.bounded import evict_oldest
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.checkpoint import ClusterCheckpoint
from streams.fold.memory.transactions import Approved, Written

SEEN_MAX: Final = 1_000
"""Transactions that are remembered until the gateway tells of an approved one among them."""
RUNS_MAX: Final = 1_000
NAMES_MAX: Final = 50
_COUNTED: Final = frozenset("ud")
_WRITES: Final = frozenset({"insert", "update", "delete", "merge", "truncate"})
AT_REST: Final = "/0"


class Drift:
    """Approved runs and transactions of one cluster that wait for each other."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._runs: dict[int, Approved] = {}
        self._seen: dict[int, Written] = {}

    def ran(self, event: Event, raw: Statement, who: Attribution) -> Approved | None:
        """Take up a statement that ran approved; return it with how it differs where that is known now."""
        decided, ran = raw.decided, raw.ran
        if decided is None or not decided.approval or ran is None or raw.outcome not in ("success", "pending"):
            return None
        run = Approved(
            approval=decided.approval,
            policies=list(decided.policies),
            rows_approved=decided.rows or 0,
            relations=list(event.relations[:NAMES_MAX]),
            at_us=event.occurred_at_us,
            alone=raw.vxid is None or raw.vxid.endswith(AT_REST),
            rows=ran.rows,
            who=who,
            database=event.database,
            instance=event.instance,
        )
        operations = event.detail.get("operations")
        writes = isinstance(operations, list) and not _WRITES.isdisjoint(operations)
        if writes and ran.xid is None:
            run.reasons.append("nothing")
        if ran.rows > run.rows_approved:
            run.reasons.append("more_rows")
        if ran.xid is None or not run.alone:
            return run if run.reasons else None
        written = self._seen.get(ran.xid)
        if written is not None and written.whole:
            return _compared(run, written)
        before = dict(self._runs)
        self._undo.add(lambda: setattr(self, "_runs", before))
        evict_oldest(self._runs, RUNS_MAX)
        self._runs[ran.xid] = run
        return None

    def wrote(self, part: Transaction) -> Approved | None:
        """Take up a part of a transaction; return an approved run that it completes and that differs."""
        before = self._seen.get(part.xid)
        kept = Written() if before is None else before
        rows = kept.rows + sum(count.rows for count in part.counts if count.operation in _COUNTED)
        names = [part.relations[count.relation].name for count in part.counts if count.relation < len(part.relations)]
        written = Written(rows, list(dict.fromkeys([*kept.relations, *names]))[:NAMES_MAX], part.last)
        self._undo.add(lambda: self._put(part.xid, before))
        evict_oldest(self._seen, SEEN_MAX)
        self._seen[part.xid] = written
        if not part.last or part.xid not in self._runs:
            return None
        run = self._runs.pop(part.xid)
        self._undo.add(lambda: self._runs.__setitem__(part.xid, run))
        return _compared(run, written)

    def _put(self, xid: int, written: Written | None) -> None:
        if written is None:
            self._seen.pop(xid, None)
        else:
            self._seen[xid] = written

    def forget_xids(self) -> None:
        """Forget transactions of a server that was put back: their ids come again."""
        self._runs.clear()
        self._seen.clear()

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.approved = list(self._runs.items())
        state.written = list(self._seen.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._runs, self._seen = dict(state.approved), dict(state.written)


def _compared(run: Approved, written: Written) -> Approved | None:
    run.rows = written.rows
    if written.rows > run.rows_approved and "more_rows" not in run.reasons:
        run.reasons.append("more_rows")
    bare = {name.rpartition(".")[2] for name in run.relations if "." not in name}
    known = set(run.relations)
    run.others = [name for name in written.relations if name not in known and name.rpartition(".")[2] not in bare]
    if run.others:
        run.reasons.append("other_relations")
    return run if run.reasons else None
