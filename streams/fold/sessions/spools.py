"""How far the spools of gateways were read: what is sent again after a crash is known by its place there."""

from __future__ import annotations

from pgwitness.core.events import LogPlace
from pgwitness.core.undo import Undo
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint

SPOOLS_MAX = 1_000
STEP_MAX = 1 << 40
"""A tebibyte of spool between two events of one cluster."""


class Spools:
    """The spools of one cluster's gateways, by the name that each gave itself; forgotten oldest first."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._reached: dict[str, tuple[int, int]] = {}

    def is_known(self, place: LogPlace) -> bool:
        """Return whether what stands at a place was taken already; if not, it is now.

        Raise `ValueError` for a place that no spool can have come to: believed, it would silence the gateway.
        """
        reached = self._reached.get(place.log)
        if place.offset - (reached or (0, 0))[0] > STEP_MAX:
            raise ValueError(f"the place {place.offset} on a spool is not plausible")
        here = (place.offset, place.index)
        if reached is not None and here <= reached:
            return True
        self._reached.pop(place.log, None)
        evict_oldest(self._reached, SPOOLS_MAX)
        self._reached[place.log] = here
        self._undo.add(lambda: self._set(place.log, reached))
        return False

    def _set(self, spool: str, reached: tuple[int, int] | None) -> None:
        if reached is None:
            self._reached.pop(spool, None)
        else:
            self._reached[spool] = reached

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.spools = list(self._reached.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._reached = dict(state.spools)
