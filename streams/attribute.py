"""The first stage: one raw partition through the fold into lanes of events.

Fold, emitter and checkpoint come together here. A record is done when what it let go is durable and a checkpoint
behind it is written; until then a restart reads it again and makes the same events. Not for several threads.
"""

from __future__ import annotations

import structlog
from confluent_kafka import Consumer

from pgwitness.codec import decode_raw
from pgwitness.errors import DeadLetter, Stop
from pgwitness.events import Event
from streams import metrics
from streams.aside import Problem
from streams.behind import Behind
from streams.checkpoints import Store
from streams.emitter import Emitter
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from streams.reading import holds

log = structlog.get_logger("worker")


class RawPartition:
    """One assigned partition of `raw`. `position` is the next offset to read."""

    def __init__(self, topic: str, fold: Fold, emitter: Emitter, store: Store) -> None:
        self.topic = topic
        self.fold = fold
        self.position = fold.resume_from
        self.behind = Behind()
        self._emitter = emitter
        self._store = store
        self._saved = fold.next_offset
        self._dropped = 0

    @classmethod
    def load(
        cls, topic: str, partition: int, reader: Consumer, store: Store, emitter: Emitter, start: tuple[Identities, int]
    ) -> RawPartition:
        """Load a partition's checkpoint; without one, `start` (identities, grace in µs) is written as the first.

        Raises `Stop` when the topic holds less than was read of it: then it is not the same topic any more.
        """
        identities, grace_us = start
        checkpoint = store.load(reader, partition)
        if checkpoint is None:
            fold = Fold(partition, identities, grace_us)
            store.save(partition, 0, fold.snapshot())
        else:
            fold = Fold.restore(checkpoint.data, grace_us)
        if fold.next_offset and not holds(reader, topic, partition, fold.next_offset - 1):
            raise Stop(
                f"topic {topic}, partition {partition} ends before {fold.next_offset}, where it was read to: it was "
                "made anew. Give the installation another kafka.prefix, or delete its topics state-* too"
            )
        return cls(topic, fold, emitter, store)

    def record(self, offset: int, key: bytes | None, value: bytes | None, written_us: int | None = None) -> None:
        """Process one record, written at `written_us`.

        Raises `NewerSchema` (nothing is changed then) and `Retry` when sending failed.
        """
        fold = self.fold
        if offset < self.position:
            return
        try:
            batch = decode_raw(value)
        except DeadLetter as error:
            if offset >= fold.next_offset:
                self._emit(fold.skip(offset))
                self._set_aside(offset, key, value, [Problem(error.reason, str(error), cluster=_cluster_of(key))])
            self.position = offset + 1
            return
        if offset < fold.next_offset:
            fold.rehydrate(offset, batch)
        else:
            events = fold.apply(offset, batch, written_us)
            self._set_aside(offset, key, value, [*fold.refused, *self._emit(events)])
        self.position = offset + 1
        metrics.BATCHES.labels("raw").inc()

    def _set_aside(self, offset: int, key: bytes | None, value: bytes | None, problems: list[Problem]) -> None:
        """Keep a record of which something could not be taken, and tell that evidence is missing."""
        if problems:
            first = problems[0]
            log.warning(
                "dead_letter", partition=self.fold.partition, offset=offset, reason=first.cause, error=first.why
            )
            self._emitter.dead_letter("attribute", first.cause, (self.topic, self.fold.partition, offset), key, value)
            metrics.DEAD_LETTERS.labels("raw", first.cause).inc()
        self._emit(self.fold.set_aside(self.topic, problems))

    def _emit(self, events: list[Event]) -> list[Problem]:
        """Send events on and count them; returns what could not be sent."""
        if not events:
            return []
        refused = self._emitter.events(events, late=self.behind.late)
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
            data = fold.snapshot()
            self._store.save(fold.partition, store_offset, data)
            metrics.CHECKPOINT_BYTES.labels("fold", str(fold.partition)).set(len(data))
            self._saved = store_offset
            metrics.CHECKPOINTS.labels("fold").inc()


def _cluster_of(key: bytes | None) -> str | None:
    """Give the cluster that a record's key names, as every collector writes it."""
    return key.decode(errors="replace") if key else None
