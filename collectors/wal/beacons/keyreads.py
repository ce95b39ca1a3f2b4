"""When the keys of the beacon are read again: as seldom as can be, and before any message is called a forgery; pure.

Which key a message was signed with is known once the keys were read by somebody who saw its transaction as ended: all
that this one changed, or that was changed before it began, is seen then. The place in the WAL does not say that: a
transaction that makes a key has its messages in the WAL long before, and its commit a moment before, others see the key
(with a synchronous standby that moment lasts). So a message that no known key has signed waits for such a reading.

They are read in even steps, so that a flood of forgeries makes no more of them, and whoever waits does so for one step.
Where the reading stays impossible (somebody holds a lock on the keys, or a commit hangs in the replication), the wait
is bounded, and nobody is accused.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from collectors.beacon.keyring import Key, Keyring
from collectors.wal.decoding.place import wide

KEYS_A_SECOND = 20
"""How often the keys are read again for messages that do not verify."""
PATIENCE_S = 3.0
"""How long a message waits for a reading that can judge it."""
IMPATIENT_S = 60.0
"""How long nothing waits after one has waited in vain."""


class Stand(Struct, frozen=True):
    """Which transactions had ended when it was asked: those below `xmax` (64 bits) that are not among `running`."""

    xmax: int
    running: frozenset[int] = frozenset()

    def ended(self, xid: int) -> bool:
        """Return whether a transaction, by the 32 bits that the WAL has of its id, had ended."""
        whole = wide(xid, self.xmax)
        return 0 < whole < self.xmax and whole not in self.running


def stand_of(snapshot: str) -> Stand:
    """Read a snapshot as PostgreSQL writes it: `xmin:xmax:running`."""
    _, xmax, running = snapshot.split(":")
    return Stand(int(xmax), frozenset(map(int, filter(None, running.split(",")))))


class KeyReads:
    """Reads the keys of one database into `ring`.

    `load` gives those that the database has; none where no beacon is installed or the key is lost, None where they
    cannot be read now. `stand` tells which transactions have ended; without it nothing waits. `changed` is told of each
    change.
    """

    def __init__(
        self,
        load: Callable[[], list[Key] | None],
        ring: Keyring,
        clock: Callable[[], float] = time.monotonic,
        stand: Callable[[], Stand] | None = None,
        wait: Callable[[float], None] = time.sleep,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.ring = ring
        self.here = False
        self._load = load
        self._clock = clock
        self._stand = stand
        self._wait = wait
        self._changed = changed
        self._read_at_s = self._impatient_until_s = float("-inf")
        self._stood = Stand(0)
        self._below: int | None = None
        """All ids up to this one had ended: of a flood's messages, most are asked for no more than that."""

    def refresh(self) -> bool:
        """Read the keys of the database; says whether there is another one."""
        return bool(self._read())

    def _read(self) -> bool | None:
        found = self._load()
        if found is None:
            return None
        self.here = bool(found)
        changed = self.ring.take(found)
        if changed:
            self._changed()
        return changed

    def again(self, xid: int) -> bool | None:
        """Read the keys that may have signed a message of the transaction `xid`; says whether there is another one.

        False: none but those known may have signed it. None: that cannot be said.
        """
        if self._below is not None and ((self._below - xid) & 0xFFFFFFFF < 1 << 31 or self._stood.ended(xid)):
            return False
        began_s = self._clock()
        while True:
            due_s = self._read_at_s + 1 / KEYS_A_SECOND - self._clock()
            if due_s > 0:
                if self._stand is None:
                    return False
                if self._clock() < self._impatient_until_s:
                    return None
                self._wait(due_s)
            # First who has ended, then the keys: they are those of that moment or later.
            stood = self._stand() if self._stand is not None else None
            news = self._read()
            self._read_at_s = self._clock()
            if news is not None and stood is not None:
                self._stood, self._below = stood, min(stood.running, default=stood.xmax) - 1
            if news or stood is None:
                return bool(news)
            if news is not None and stood.ended(xid):
                return False
            if self._clock() < self._impatient_until_s:
                return None
            if self._clock() - began_s >= PATIENCE_S:
                self._impatient_until_s = self._clock() + IMPATIENT_S
                return None
