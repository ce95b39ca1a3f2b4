"""What the fold makes of batches, for tests of what stands before it."""

from __future__ import annotations

from collections.abc import Sequence

from pgwitness.core.events import Event, RawBatch
from streams.fold.fold import Fold
from streams.identity.identities import Identities

GRACE_US = 2_000_000


def fold_all(batches: Sequence[RawBatch], identities: str = "rules: []\n") -> list[Event]:
    """Fold batches in order and give every event."""
    fold = Fold(0, Identities.parse(identities), GRACE_US)
    return [event for offset, batch in enumerate(batches) for event in fold.apply(offset, batch)]
