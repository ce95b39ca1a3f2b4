"""The clusters of one partition, in the order in which they were last heard of; the oldest are forgotten first."""

from __future__ import annotations

from collections.abc import Iterable

from streams.fold.cluster import Cluster

CLUSTERS_MAX = 256
"""Clusters of one partition that are known; of more, the one that was idle the longest is forgotten."""


class Clusters(dict[str, Cluster]):
    """Clusters by name."""

    def touch(self, name: str) -> Cluster:
        """Return a cluster, new if it is not known, as the one that was heard of last."""
        cluster = self.pop(name) if name in self else Cluster()
        self[name] = cluster
        return cluster

    def surplus(self) -> Iterable[tuple[str, Cluster]]:
        """Yield the oldest for as long as there are too many; whoever asks takes each out."""
        while len(self) > CLUSTERS_MAX:
            yield next(iter(self.items()))

    @property
    def held(self) -> int:
        """How many transactions wait."""
        return sum(len(cluster.waiting) for cluster in self.values())

    @property
    def held_bytes(self) -> int:
        """How many bytes of rows wait."""
        return sum(cluster.waiting.bytes for cluster in self.values())

    @property
    def latest_us(self) -> int:
        """The latest record time of all clusters, for what belongs to none."""
        return max((cluster.clock_us for cluster in self.values()), default=0)

    def resume_from(self, next_offset: int) -> int:
        """Return the offset to read raw from after a restore: the oldest held part's, or the next one."""
        offsets = [offset for cluster in self.values() for offset in cluster.waiting.offsets()]
        return min([*offsets, next_offset])
