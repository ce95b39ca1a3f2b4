"""Refused logins by the role that was claimed, until one of that role succeeds.

A refused login says less than one that succeeds: the server does not know the application's name yet, so a rule that
asks for it names nobody, and the two may be judged in different partitions. The fold sees every login of a cluster:
the login that succeeds carries how many were refused within `WITHIN_US` before it. Bounded, the oldest role first; of
a role the latest refusals.

One login is told twice, by a sample of the activity and by the log, and the sample may come between two lines of
refusals: so no login takes refusals away. Each counts those since the role's login before it, whichever source told
of that.
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

LOGINS_MAX = 32
"""Latest logins of a role that has refusals; before these nobody remembers which refusals were an earlier login's."""

Refused = tuple[int, str | None]
"""When, and from which address."""
Login = tuple[int, int, int]
"""Process, when it started in whole seconds, as the log has it, and when it had logged in."""
Claimed = tuple[tuple[Refused, ...], tuple[Login, ...]]
"""What is remembered of a role: its refusals, and the logins that came through."""
NOBODY: Claimed = ((), ())


class Refusals:
    """Refused logins of one cluster."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._by_role: dict[str, Claimed] = {}

    def see(self, raw: Session, event: Event) -> None:
        """Take up a login; one that succeeds is reported with those of its role that were refused before it."""
        role = raw.role
        if role is None:
            return
        if raw.operation == "login_failed" and (raw.sqlstate or "").startswith("28"):
            refused, logins = self._by_role.get(role, NOBODY)
            self._set(role, ((*refused, (raw.occurred_at_us, raw.client_addr))[-REFUSALS_MAX:], logins))
        elif raw.operation == "connect" and role in self._by_role:
            self._succeeded(raw, role, event)

    def _succeeded(self, raw: Session, role: str, event: Event) -> None:
        refused, logins = self._by_role[role]
        at_us = raw.occurred_at_us
        session = (raw.pid, raw.backend_start_us // 1_000_000)
        others = [login for login in logins if login[:2] != session]
        since_us = max((then for *_, then in others if then < at_us), default=at_us - WITHIN_US - 1)
        near = [item for item in refused if since_us < item[0] <= at_us and at_us - item[0] <= WITHIN_US]
        if near:
            event.detail["refused_before"] = len(near)
            event.detail["refused_within_s"] = (at_us - near[0][0]) // 1_000_000
            addresses = dict.fromkeys(address for _, address in near if address is not None)
            event.detail["refused_from"] = list(addresses)[:ADDRESSES_MAX]
        fresh = tuple(item for item in refused if at_us - item[0] <= WITHIN_US)
        self._set(role, (fresh, (*others, (*session, at_us))[-LOGINS_MAX:]))

    def _set(self, role: str, claimed: Claimed) -> None:
        before = self._by_role.pop(role, None)
        if claimed[0]:
            evict_oldest(self._by_role, ROLES_MAX)
            self._by_role[role] = claimed
        self._undo.add(lambda: self._put_back(role, before))

    def _put_back(self, role: str, before: Claimed | None) -> None:
        self._by_role.pop(role, None)
        if before is not None:
            self._by_role[role] = before

    def save(self, state: ClusterCheckpoint) -> None:
        """Put what must be known again into a checkpoint."""
        state.refusals = [(role, refused) for role, (refused, _) in self._by_role.items()]
        state.refused_logins = [(role, logins) for role, (_, logins) in self._by_role.items() if logins]

    def load(self, state: ClusterCheckpoint) -> None:
        """Take up what a checkpoint holds."""
        logins = dict(state.refused_logins)
        self._by_role = {role: (refused, logins.get(role, ())) for role, refused in state.refusals}
