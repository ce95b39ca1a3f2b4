"""What the fold offers to those who handle a record: where it stands, whose cluster it is, and a way to emit.

`PartitionContext` is there as long as the fold; `FoldContext` is made for each record, and for each cluster of which
something is let go between records. Handlers (`streams.fold.records`) are functions of a context and a raw event: they
change the cluster, emit, and know nothing of the fold that called them.
"""

from __future__ import annotations

from pgwitness.core.events import Event, Position, RawHeader
from streams.aside import Problem
from streams.fold.cluster import Cluster
from streams.fold.clusters import Clusters
from streams.fold.events.base import WORKER
from streams.identity.identities import Identities


class PartitionContext:
    """What belongs to the partition as a whole, and the events of the record that is being handled."""

    __slots__ = (
        "base", "clusters", "dropped", "events", "failed", "grace_us", "held_bytes_max", "identities", "number",
        "offset",
    )  # fmt: skip

    def __init__(self, number: int, identities: Identities, grace_us: int, held_bytes_max: int) -> None:
        self.number = number
        self.identities = identities
        self.grace_us = grace_us
        self.held_bytes_max = held_bytes_max
        self.base = 0
        """What the positions of this partition are ahead of the broker's offsets (`streams.kafka.origins`)."""
        self.offset = 0
        self.clusters = Clusters()
        self.events: list[Event] = []
        self.dropped = 0
        """Parts and other events that were known already."""
        self.failed: list[Problem] = []
        """What waited since an earlier record and failed when its time came, with this one."""

    def emit(self, event: Event) -> None:
        """Emit an event, at its position."""
        event.at = Position(self.number, self.offset, len(self.events))
        self.events.append(event)


class FoldContext:
    """One record of one cluster, or one cluster where nothing of a record is concerned."""

    __slots__ = ("cluster", "emit", "header", "partition")

    def __init__(self, partition: PartitionContext, cluster: Cluster, header: RawHeader) -> None:
        self.partition = partition
        self.cluster = cluster
        self.header = header
        self.emit = partition.emit

    @classmethod
    def of(cls, partition: PartitionContext, name: str, cluster: Cluster) -> FoldContext:
        """Return the context of a cluster between its records."""
        return cls(partition, cluster, RawHeader(name, WORKER))

    @property
    def identities(self) -> Identities:
        """Who is who, from here on."""
        return self.partition.identities

    def emit_once(self, event: Event) -> bool:
        """Emit an event unless it was: a collector that crashed sends again what it is not sure of. Return whether."""
        if not self.cluster.is_new(event.event_id):
            self.partition.dropped += 1
            return False
        self.emit(event)
        return True
