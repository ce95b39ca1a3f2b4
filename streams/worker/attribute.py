"""The first stage: one raw partition through the fold into lanes of events.

Fold, emitter and checkpoint come together here. A record is done when what it let go is durable and a checkpoint
behind it is written; until then a restart reads it again and makes the same events. Not for several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from pgwitness.core.codec import decode_raw
from pgwitness.core.errors import DeadLetter, NewerSchema
from pgwitness.core.events import Event
from streams import metrics
from streams.aside import Problem, unexpected
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from streams.kafka import skipping
from streams.kafka.checkpoints import Store, StoredState
from streams.kafka.emitter import Emitter
from streams.kafka.origins import Origin, find
from streams.kafka.reading import BrokerReader
from streams.worker.lag import Lag

log = structlog.get_logger("worker")


class Start(Struct, frozen=True):
    """What a partition begins with when nothing is known of it: identities, grace in µs, and what the lake has seen.

    `reached` gives the last position of a raw partition that landed and when, None when nothing of it did.
    """

    identities: Identities
    grace_us: int
    reached: Callable[[int], tuple[int, int] | None]


class RawPartition:
    """One assigned partition of `raw`. `position` is the next offset to read, as the broker counts.

    The fold counts from `base` on (`streams.kafka.origins`), so that its positions grow though the topic is made again.
    """

    def __init__(
        self, topic: str, fold: Fold, emitter: Emitter, store: Store, known: StoredState, base: int = 0
    ) -> None:
        self.topic = topic
        self.fold = fold
        self.base = fold.base = base
        self.position = max(0, fold.resume_from - base)
        self.lag = Lag()
        self.trouble: str | None = None
        """Why its state cannot be written, None when it can."""
        self.skips = known.skips
        self._emitter = emitter
        self._store = store
        self._saved = fold.next_offset
        self._dropped = 0

    @classmethod
    def load(
        cls, topic: str, partition: int, broker: BrokerReader, store: Store, emitter: Emitter, start: Start
    ) -> RawPartition:
        """Load a partition's state: its newest checkpoint that can be used, else rebuilt from what `raw` holds.

        What was lost is reported before anything is written down, so that a crash in between reports it twice, not
        never.
        """
        known = store.load(broker.reader, partition)
        fold = _restore(known, partition, start.grace_us)
        written = bool(known.checkpoints or known.origin)
        if fold is None:
            fold = Fold(partition, start.identities, start.grace_us)
            fold.next_offset, origin = _restart(topic, partition, broker, known.origin, start)
            known = replace(known, origin=origin)
            if written:
                why = "no checkpoint of it can be read" if known.checkpoints else "its checkpoints are gone"
                log.error("state_rebuilt", topic=topic, partition=partition, reason=why, from_=fold.next_offset)
                emitter.lost("state_rebuilt", {"topic": topic, "partition": partition, "why": why})
                emitter.settle()
        expected = fold.next_offset - (known.origin.base if known.origin else 0)
        found = find(known.origin, fold.next_offset, broker.extent(topic, partition, expected))
        if found.lost is not None:
            detail: dict[str, object] = {"topic": topic, "partition": partition, "read_to": expected}
            log.error("raw_lost", how=found.lost, topic=topic, partition=partition, read_to=expected, on=found.start)
            emitter.lost(f"raw_{found.lost}", detail | {"resumes": found.start}, fold.clusters)
            emitter.settle()
        if found.origin != known.origin or not written:
            store.save_origin(partition, found.origin)
        if not known.checkpoints:
            store.save(partition, fold.next_offset, fold.snapshot())
        return cls(topic, fold, emitter, store, known, found.origin.base)

    def record(self, offset: int, key: bytes | None, value: bytes | None, written_us: int | None = None) -> None:
        """Process one record, written at `written_us`.

        Raise `NewerSchema` (nothing is changed then) and `Retry` when sending failed.
        """
        fold = self.fold
        if offset < self.position:
            return
        place = self.base + offset
        try:
            batch = decode_raw(value)
        except DeadLetter as error:
            if place >= fold.next_offset:
                self._emit(fold.skip(place))
                self._set_aside(offset, key, value, [Problem(error.reason, str(error), cluster=_cluster_of(key))])
            self.position = offset + 1
            return
        except NewerSchema as error:
            skip = self.skips.get(offset)
            if skip is None or not skipping.fits(skip, value):
                raise
            if place >= fold.next_offset:
                self._emit(fold.skip(place, skipping.said(skip, self.topic, fold.partition)))
                self._set_aside(offset, key, value, [skipping.problem(skip, error, key)])
            self.position = offset + 1
            return
        if place < fold.next_offset:
            fold.rehydrate(place, batch)
        else:
            events = fold.apply(place, batch, written_us)
            self._set_aside(offset, key, value, [*fold.refused, *self._emit(events)], fold.failed)
        self.position = offset + 1
        metrics.BATCHES.labels("raw").inc()

    def _set_aside(
        self,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        problems: list[Problem],
        earlier: Sequence[Problem] = (),
    ) -> None:
        """Keep a record of which something could not be taken, and report that evidence is missing.

        `earlier` are problems with what came before it.
        """
        if problems:
            first = problems[0]
            log.warning(
                "dead_letter", partition=self.fold.partition, offset=offset, reason=first.cause, error=first.why
            )
            self._emitter.dead_letter("attribute", first.cause, (self.topic, self.fold.partition, offset), key, value)
            metrics.DEAD_LETTERS.labels("raw", first.cause).inc()
        self._emit(self.fold.set_aside(self.topic, [*problems, *earlier]))

    def _emit(self, events: list[Event]) -> list[Problem]:
        """Send events on and count them; return what could not be sent."""
        if not events:
            return []
        refused = self._emitter.events(events, late=self.lag.late)
        kinds: dict[tuple[str, str], int] = {}
        rows: dict[str, int] = {}
        for event in events:
            pair: tuple[str, str] = (event.kind, event.certainty)
            kinds[pair] = kinds.get(pair, 0) + 1
            if event.n_rows:
                rows[event.certainty] = rows.get(event.certainty, 0) + event.n_rows
        for labels, number in kinds.items():
            metrics.EVENTS.labels(*labels).inc(number)
        for certainty, number in rows.items():
            metrics.ROWS.labels(certainty).inc(number)
        return refused

    def measure(self) -> None:
        """Bring the partition's gauges up to date."""
        label = str(self.fold.partition)
        metrics.HELD.labels(label).set(self.fold.held)
        metrics.HELD_BYTES.labels(label).set(self.fold.held_bytes)
        metrics.KNOWN.labels("attribute").inc(self.fold.dropped - self._dropped)
        self._dropped = self.fold.dropped

    def checkpoint(self) -> None:
        """Write a checkpoint if anything happened since the last; everything emitted must have been flushed."""
        fold = self.fold
        if fold.next_offset != self._saved:
            store_offset = fold.next_offset
            try:
                data = fold.snapshot()
            except Exception as error:
                # The state goes on in memory, and the next run begins at the last checkpoint that could be written.
                self.trouble = f"its state cannot be written: {unexpected(error)}; report it"
                log.exception("checkpoint_failed", topic=self.topic, partition=fold.partition)
                return
            self.trouble = None
            self._store.save(fold.partition, store_offset, data)
            metrics.CHECKPOINT_BYTES.labels("fold", str(fold.partition)).set(len(data))
            self._saved = store_offset
            metrics.CHECKPOINTS.labels("fold").inc()


def _restore(known: StoredState, partition: int, grace_us: int) -> Fold | None:
    """Make the fold of the newest checkpoint that can be used; what is wrong with others is logged in a sentence."""
    for checkpoint in known.checkpoints:
        try:
            return Fold.restore(checkpoint.data, grace_us, partition=partition)
        except Exception as error:
            log.error("checkpoint_damaged", partition=partition, sequence=checkpoint.sequence, reason=unexpected(error))
            metrics.CHECKPOINTS_DAMAGED.labels("fold").inc()
    return None


def _restart(
    topic: str, partition: int, broker: BrokerReader, known: Origin | None, start: Start
) -> tuple[int, Origin]:
    """Return where a fold that remembers nothing begins: where the topic does, with the positions it had.

    So it makes the events that were made before once more, and the lake drops those that it has. Where positions cannot
    be the same, since the topic is another one, they go on behind all that landed, with what was written after that.
    """
    extent = broker.extent(topic, partition)
    if known is not None and known.topic_id == extent.topic_id:
        return known.base + extent.first, known
    seen = start.reached(partition)
    if seen is None or (known is None and seen[0] < extent.end):
        return extent.first, Origin(extent.topic_id, 0)
    position, landed_us = seen
    first = broker.written_after(topic, partition, landed_us)
    return position + 1, Origin(extent.topic_id, position + 1 - first)


def _cluster_of(key: bytes | None) -> str | None:
    """Return the cluster that a record's key names, as every collector writes it."""
    return key.decode(errors="replace") if key else None
