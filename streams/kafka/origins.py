"""Positions that only grow, though a topic may be deleted and made again, or lose its end with a broker.

What the fold and the lake keep as an offset is `base` plus the broker's offset. As long as the topic stays the same,
its base stays; when it is another one (Kafka gives each an id), or ends before what was read of it, a new base puts its
records behind everything that came before. So what follows lands, and is never taken for what had the same offset.
Pure: who asks the broker is `streams.kafka.reading`.
"""

from __future__ import annotations

from msgspec import Struct

READ_AGAIN = 1_000
"""Records of a topic that lost its end that are read once more: which of them are new cannot be known.

The fold knows what it had by its positions and by the ids it remembers.
"""


TRUNCATED, RECREATED = "truncated", "recreated"


class Origin(Struct, frozen=True):
    """Which topic positions are counted in: its id, and what is added to an offset of it."""

    topic_id: str | None
    base: int


class Extent(Struct, frozen=True):
    """A partition as the broker reports it: the topic's id (None where it does not say), first and next offset."""

    topic_id: str | None
    first: int
    end: int


class Found(Struct, frozen=True):
    """Where to read on: `origin`, the broker's offset `start`; `lost` says what happened to the topic, if anything."""

    origin: Origin
    start: int
    lost: str | None = None


def find(known: Origin | None, read_to: int, extent: Extent) -> Found:
    """Return how positions go on behind `read_to`, the next one that is expected."""
    base = known.base if known is not None else 0
    before = known.topic_id if known is not None else None
    same = before is None or extent.topic_id is None or before == extent.topic_id
    expected = max(0, read_to - base)
    if same and expected <= extent.end:
        return Found(Origin(extent.topic_id or before, base), expected)
    start = max(extent.first, extent.end - READ_AGAIN) if same else extent.first
    return Found(Origin(extent.topic_id, read_to - start), start, TRUNCATED if same else RECREATED)
