"""Refused logins by the role that was claimed, until one of that role succeeds.

A refused login says less than one that succeeds: the server does not know the application's name yet, so a rule that
asks for it names nobody, and the two may be judged in different partitions. The fold sees every login of a cluster:
the login that succeeds carries how many were refused within `WITHIN_US` before it. Bounded, the oldest role first; of
a role the latest refusals.
"""

from __future__ import annotations

from pgwitness.core.events import Event, Session
from pgwitness.core.undo import Undo
from streams.fold.bounded import evict_oldest
from streams.fold.memory.checkpoint import ClusterCheckpoint

WITHIN_US = 600_000_000
ROLES_MAX = 10_000
REFUSALS_MAX = 100
"""Refusals of one role that are kept; more are counted as so many."""
ADDRESSES_MAX = 10

Refused = tuple[int, str | None]
"""When, and from which address."""


class Refusals:
    """Refused logins of one cluster."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._by_role: dict[str, tuple[Refused, ...]] = {}

    def see(self, raw: Session, event: Event) -> None:
        """Take up a login; one that succeeds is reported with those of its role that were refused before, once."""
        role = raw.role
        if role is None:
            return
        if raw.operation == "login_failed" and (raw.sqlstate or "").startswith("28"):
            refused = (*self._by_role.get(role, ()), (raw.occurred_at_us, raw.client_addr))
            self._set(role, refused[-REFUSALS_MAX:])
        elif raw.operation == "connect" and role in self._by_role:
            at_us = raw.occurred_at_us
            near = [item for item in self._by_role[role] if 0 <= at_us - item[0] <= WITHIN_US]
            if near:
                event.detail["refused_before"] = len(near)
                event.detail["refused_within_s"] = (at_us - near[0][0]) // 1_000_000
                addresses = dict.fromkeys(address for _, address in near if address is not None)
                event.detail["refused_from"] = list(addresses)[:ADDRESSES_MAX]
            self._set(role, ())

    def _set(self, role: str, refused: tuple[Refused, ...]) -> None:
        before = self._by_role.pop(role, None)
        if refused:
            evict_oldest(self._by_role, ROLES_MAX)
            self._by_role[role] = refused
        self._undo.add(lambda: self._put_back(role, before))

    def _put_back(self, role: str, before: tuple[Refused, ...] | None) -> None:
        self._by_role.pop(role, None)
        if before is not None:
            self._by_role[role] = before

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.refusals = list(self._by_role.items())

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        self._by_role = dict(state.refusals)
