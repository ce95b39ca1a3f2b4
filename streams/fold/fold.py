"""The fold: one raw partition in, attributed events out; deterministic, and it never waits for what may not come.

`Fold.apply(offset, batch)` must see every record of the partition in order of offsets. The same records from the
same state give byte-identical events: time is the time in the records, nothing else is asked. What it promises:

- A re-sent transaction, or part of one, is dropped or trimmed by its position (`Watermark`), a line of the server's log
  by its place in the log; any other event that a collector sends again after a crash is dropped by its id, among the
  last `RECENT_MAX` of its cluster.
- A transaction is bound by its verified beacon (`exact`), its replication origin, a line of the server's log or a
  session sample with its transaction id, or goes on as `none`. Only one without any of these, on tables without a
  beacon, waits, at most `grace_us` of record time and within `held_bytes_max`.
- What a snapshot of posture found changed waits for the log, where there is one, and is bound by the statement that
  says just that (`streams.fold.joins.posture_join`), or goes on as `none`. So does what the statistics counted, where
  every statement is logged: by the runs that the log has (`streams.fold.joins.stats_join`), else by the role.
- An event that cannot be taken, for whatever reason, is left out (`refused`) and leaves nothing behind
  (`pgwitness.core.undo`); the others of its record go on. `set_aside` reports it as a gap, within bounds.
- An event's `at` is the record that let it go. `snapshot` is the state at a record's end; `restore`, then
  `rehydrate` from `resume_from` on, brings held transactions back.

This module takes records in order and dispatches their events; `streams.fold.records` has a module for each kind,
`streams.fold.holding` lets transactions wait, and `streams.fold.context` is what they work with.

All memory is bounded: sessions, transaction ids and watermarks are forgotten oldest first.
"""

from __future__ import annotations

from pgwitness.core.events import (
    Control,
    Decision,
    Event,
    Gap,
    Position,
    Posture,
    QueryStats,
    RawBatch,
    RawEvent,
    Session,
    Statement,
    Tick,
    Transaction,
)
from pgwitness.core.events import Identities as IdentitiesRecord
from pgwitness.core.topics import OURSELVES
from streams.aside import Aside, Problem, unexpected
from streams.fold.cluster import Cluster
from streams.fold.context import FoldContext, PartitionContext
from streams.fold.events.gaps import clock_set_back, raw_lost, record_skipped, set_aside
from streams.fold.holding import HELD_BYTES_MAX, abandon, release_due, touch
from streams.fold.memory import checkpoint
from streams.fold.memory.checkpoint import FoldCheckpoint
from streams.fold.memory.statements import HeldReading
from streams.fold.records import gateway, identities, notices, posture, session, statement, statistics, transaction
from streams.fold.records.decided import emit_after_ddl, emit_decided
from streams.fold.sanity import bounded, bounded_header, check_event
from streams.identity.identities import Identities

SET_BACK_US = 5_000_000
"""By how much a captured event may lie behind the latest: collectors' threads and hosts are not one clock."""
SET_BACK_REPORTED_US = 60_000_000
SET_BACK_RECORDS = 1_000
"""Of collectors whose clocks differ, it is emitted once in so many records."""


class Fold:
    """The fold over one raw partition. `next_offset` is the record it expects, from 0."""

    def __init__(
        self, partition: int, identities: Identities, grace_us: int, held_bytes_max: int = HELD_BYTES_MAX
    ) -> None:
        self.partition = partition
        self.next_offset = 0
        self.refused: list[Problem] = []
        """Why events of the last record were left out; the record is then a dead letter too."""
        self._context = PartitionContext(partition, identities, grace_us, held_bytes_max)
        self._clusters = self._context.clusters
        self._whole = True
        self._emitted = 0
        self._aside = Aside()

    # -- records -----------------------------------------------------------------------------------------------

    def apply(self, offset: int, batch: RawBatch, written_us: int | None = None) -> list[Event]:
        """Take the next record and return what it lets go, in order. A record from before `next_offset` gives [] .

        `written_us` is the record's own time, which bounds what its events may say of theirs.
        """
        if offset < self.next_offset:
            return []
        header = bounded_header(batch.header)
        self._begin(offset, header.cluster)
        cluster = touch(self._context, header.cluster)
        context = FoldContext(self._context, cluster, header)
        for index, event in enumerate(batch.events):
            self._take(context, index, event, written_us)
        if cluster.waiting:
            release_due(context)
        emit_decided(context, cluster.outcomes.due(cluster.clock_us))
        for waited in cluster.beside_ddl.due(cluster.clock_us):
            emit_after_ddl(context, waited)
        if cluster.readings.waiting:
            for held in cluster.readings.due(cluster.clock_us):
                self._emit_late(context, held)
        return self._end(offset)

    def _take(self, context: FoldContext, index: int, event: RawEvent, written_us: int | None) -> None:
        """Take one event, or nothing of it: whatever is wrong with it is its own affair."""
        cluster, events = context.cluster, self._context.events
        cluster.undo.begin()
        emitted, clock_us = len(events), cluster.clock_us
        try:
            check_event(event, written_us)
            event = bounded(event)
            captured_us = event.captured_at_us
            if captured_us > clock_us:
                cluster.clock_us = captured_us
            elif captured_us < clock_us - SET_BACK_US:
                self._set_back(context, clock_us, captured_us)
            if type(event) is Transaction:
                transaction.take(context, index, event)
            else:
                _dispatch(context, event)
        except Exception as error:
            cluster.undo.back()
            del events[emitted:]
            cluster.clock_us = clock_us
            # The text of any other error may hold what stood in a row.
            expected = type(error) in (ValueError, OverflowError)
            why = str(error) if expected else unexpected(error)
            database = getattr(event, "database", None)
            cause = "nonsense" if expected else "failed"
            self.refused.append(Problem(cause, f"event {index}: {why}", index, context.header.cluster, database))

    def _set_back(self, context: FoldContext, before_us: int, after_us: int) -> None:
        """Take up that the collectors' clock was put back, or that two of them differ; the latter not each time."""
        cluster, offset = context.cluster, self._context.offset
        cluster.set_back(after_us, self._context.grace_us)
        if before_us - after_us < SET_BACK_REPORTED_US or 0 <= offset - cluster.set_back_reported < SET_BACK_RECORDS:
            return
        cluster.set_back_reported = offset
        context.emit(clock_set_back(context.header, before_us, after_us, (self.partition, offset)))

    def _emit_late(self, context: FoldContext, held: HeldReading) -> None:
        """Emit a reading that has waited; should that fail, it is its own affair."""
        events, undo = self._context.events, context.cluster.undo
        emitted = len(events)
        undo.begin()
        try:
            if isinstance(held.raw, Posture):
                posture.emit(context, held, held.raw)
            else:
                statistics.emit(context, held, held.raw)
        except Exception as error:
            undo.back()
            del events[emitted:]
            why = f"a reading of {held.header.source} that waited: {unexpected(error)}"
            self.failed.append(Problem("failed", why, None, held.header.cluster, held.raw.database))

    def set_aside(self, topic: str, problems: list[Problem]) -> list[Event]:
        """Return what is to be reported of what was set aside of the last record, and of those before it."""
        now_us, offset = self._clusters.latest_us, self._context.offset
        due = [] if problems else self._aside.due(now_us)
        for problem in problems:
            due += self._aside.add(problem, offset, now_us)
        events: list[Event] = []
        for problem, summary in due:
            name = problem.cluster
            if name is None or name not in self._clusters:
                name = OURSELVES
            event = set_aside(name, problem, summary, (topic, self.partition, self.base), now_us)
            event.at = Position(self.partition, offset, self._emitted)
            self._emitted += 1
            events.append(event)
        return events

    def skip(self, offset: int, said: dict[str, object] | None = None) -> list[Event]:
        """Pass a record that was no batch and went to the dead letters; `said` is by whose order, if by anybody's."""
        if offset < self.next_offset:
            return []
        self._begin(offset, None)
        if said is not None:
            self._context.emit(record_skipped(said, self._clusters.latest_us))
        return self._end(offset)

    def _begin(self, offset: int, cluster: str | None) -> None:
        self.refused, self._context.failed = [], []
        self._context.offset = offset
        if not self._whole:
            self._whole = True
            abandon(self._context)
        if offset > self.next_offset:
            self._lost(self.next_offset, offset, cluster)

    def _end(self, offset: int) -> list[Event]:
        events, self._context.events = self._context.events, []
        self._emitted = len(events)
        self.next_offset = offset + 1
        return events

    def _lost(self, first: int, end: int, cluster: str | None) -> None:
        """Records that are no longer in raw are missing evidence, and emitted as such for every cluster known here."""
        names = sorted(set(self._clusters) | ({cluster} if cluster is not None else set()))
        for name in filter(None, names):
            self._context.emit(raw_lost(name, self.partition, first, end, touch(self._context, name).clock_us))

    # -- what is known -----------------------------------------------------------------------------------------

    @property
    def identities(self) -> Identities:
        """Who is who, after the last record."""
        return self._context.identities

    @identities.setter
    def identities(self, identities: Identities) -> None:
        self._context.identities = identities

    @property
    def base(self) -> int:
        """What the positions of this partition are ahead of the broker's offsets (`streams.kafka.origins`)."""
        return self._context.base

    @base.setter
    def base(self, base: int) -> None:
        self._context.base = base

    @property
    def dropped(self) -> int:
        """Parts and other events that were known already, since this object was made."""
        return self._context.dropped

    @property
    def failed(self) -> list[Problem]:
        """What waited since an earlier record and failed when its time came, with the last one."""
        return self._context.failed

    @property
    def clusters(self) -> list[str]:
        """The clusters that are known."""
        return [name for name in self._clusters if name]

    @property
    def held(self) -> int:
        """How many transactions wait."""
        return self._clusters.held

    @property
    def held_bytes(self) -> int:
        """How many bytes of rows wait."""
        return self._clusters.held_bytes

    @property
    def resume_from(self) -> int:
        """The raw offset to read from after `restore`: the oldest held part's, or `next_offset`."""
        return self._clusters.resume_from(self.next_offset)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return the state after the last record, as JSON."""
        return checkpoint.encode(
            FoldCheckpoint(
                version=1,
                partition=self.partition,
                next_offset=self.next_offset,
                identities=self.identities.content,
                clusters={name: cluster.save() for name, cluster in self._clusters.items()},
                aside=self._aside,
            )
        )

    @classmethod
    def restore(
        cls, data: bytes, grace_us: int, held_bytes_max: int = HELD_BYTES_MAX, *, partition: int | None = None
    ) -> Fold:
        """Return the fold of a checkpoint, of a certain partition if that is given.

        Raise `ValueError` or another error of a lookup when the checkpoint is none, or cannot be true.
        """
        state = checkpoint.decode(data)
        checkpoint.check(state, partition)
        fold = cls(state.partition, Identities.parse(state.identities), grace_us, held_bytes_max)
        fold.next_offset = state.next_offset
        fold._clusters.update({name: Cluster.load(saved) for name, saved in state.clusters.items()})
        fold._whole = not fold.held
        fold._aside = state.aside
        return fold

    def rehydrate(self, offset: int, batch: RawBatch) -> None:
        """Take a record from before `next_offset` again, only to refill what is held."""
        for cluster in self._clusters.values():
            cluster.waiting.refill(offset, batch)


def _dispatch(context: FoldContext, event: RawEvent) -> None:
    """Have an event that is no part of a transaction handled by the module of its kind."""
    match event:
        case Tick():
            if context.header.source == "log":
                context.cluster.readings.looked(context.header.instance, event.captured_at_us)
        case Session() if event.place is not None and context.header.source == gateway.SOURCE:
            gateway.take_session(context, event)
        case Statement() | Decision() if context.header.source == gateway.SOURCE:
            gateway.take(context, event)
        case Session():
            session.take(context, event)
        case Statement():
            statement.take(context, event)
        case QueryStats():
            statistics.take(context, event)
        case IdentitiesRecord():
            identities.take(context.partition, event)
        case Posture():
            posture.take(context, event)
        case Gap() | Control():
            notices.take(context, event)
        case Transaction() | Decision():
            raise ValueError("what only the gateway decides, or `apply` takes")
