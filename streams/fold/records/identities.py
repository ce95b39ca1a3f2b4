"""Another `identities.yaml`: from this record on its names count, in every cluster of the partition."""

from __future__ import annotations

from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Identities as IdentitiesRecord
from pgwitness.core.topics import OURSELVES
from streams.fold.context import PartitionContext
from streams.fold.events.gaps import identities_changed
from streams.identity.identities import Identities


def take(partition: PartitionContext, raw: IdentitiesRecord) -> None:
    """Take the content of a file; one that cannot be read changes nothing, which is emitted as well."""
    if raw.sha256 == partition.identities.sha256:
        return
    try:
        partition.identities = Identities.parse(raw.content)
        error = None
    except ConfigurationError as refused:
        error = str(refused)
    for cluster in partition.clusters.values():
        cluster.activity.forget_names()
        cluster.log.forget_names()
    for name in sorted(name for name in partition.clusters if name not in ("", OURSELVES)):
        partition.emit(identities_changed(name, raw, partition.number, partition.offset, error))
