"""How far the topics reach whose positions events carry: what lies beyond is not believed.

A position that is believed makes everything before it known, so that one event of a position to come would silence its
lane. The broker is asked only when an event claims more than is known of its topic; what this worker itself has read it
knows for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from streams.kafka.checkpoints import Store
from streams.kafka.notes import APPROVALS, FEEDBACK
from streams.kafka.reading import BrokerReader, ends

ORIGIN_S = 5.0
"""How long the origin of a partition's positions is believed, when an event does not fit it."""
FAR = 1 << 32
"""An event that claims so many records more than there were a moment ago is not worth a question."""


class Ends:
    """The ends of `raw` by partition, in positions (`streams.kafka.origins`), and of `feedback` and
    `approvals` as partitions `FEEDBACK` and `APPROVALS`.

    `own` gives the next position of a raw partition that this worker reads, None of others.
    """

    def __init__(
        self,
        topics: tuple[str, str, str],
        fold_store: Store,
        broker: Callable[[], BrokerReader],
        own: Callable[[int], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._raw, feedback, approvals = topics
        self._single = {FEEDBACK: feedback, APPROVALS: approvals}
        self._store = fold_store
        self._make = broker
        self._own = own
        self._clock = clock
        self._broker: BrokerReader | None = None
        self._known: dict[int, int] = {}
        self._bases: dict[int, tuple[int, float]] = {}

    def holds(self, partition: int, position: int) -> bool:
        """Return whether a partition has reached a position. Raise `Unreachable` without a broker."""
        end = self._known.get(partition, 0)
        if position < end:
            return True
        own = self._own(partition) if partition >= 0 else None
        if own is not None:
            self._known[partition] = end = max(end, own)
            if position < end:
                return True
        asked = self._bases.get(partition)
        now = self._clock()
        recent = asked is not None and now - asked[1] < ORIGIN_S
        if recent and position - end > FAR:
            return False
        self._known[partition] = end = max(end, self._ask(partition, position, now if not recent else None))
        return position < end

    def close(self) -> None:
        """Let go of the connection."""
        if self._broker is not None:
            self._broker.close()
            self._broker = None

    def _ask(self, partition: int, position: int, now: float | None) -> int:
        """Ask how far a partition reaches; `now`: where its positions begin is to be asked again."""
        if self._broker is None:
            self._broker = self._make()
        reader = self._broker.reader
        if now is not None:
            origin = self._store.look(reader, partition).origin
            self._bases[partition] = (origin.base if origin is not None else 0, now)
        base = self._bases[partition][0]
        topic, number = (single, 0) if (single := self._single.get(partition)) else (self._raw, partition)
        return base + ends(reader, topic, number, position + 1 - base)[1]
