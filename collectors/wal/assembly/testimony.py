"""What a transaction's messages say of who wrote it: proven beacons, unproven claims, forgeries, sessions kept silent.

Beacons follow the rows that they speak of. What is unproven speaks only where nothing proven does, and then only of
tables that carry a beacon; what contradicts a proof was not written by the beacon and is told as forged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from collectors.beacon.mac import same_session
from collectors.wal.beacons.messages import Said, Unproven, Unsigned
from collectors.wal.decoding.pgoutput import LogicalMessage
from pgwitness.core.events import Beacon, Forgery, Silenced

BEACONS_MAX = 64
"""Beacons kept for one part; more says nothing new."""
CLAIMS_MAX = 4
"""Unproven beacons of one transaction that are looked at; they are either alike, or somebody's invention."""
FORGERIES_MAX = 20
"""Forgeries written down for one transaction; a flood of them must not be a way to fill the topic."""


class Judge(Protocol):
    """What the shell knows of logical messages: which prefixes are ours, and whether a message is genuine."""

    def expects_beacons(self) -> bool:
        """Return whether a beacon is installed, so that waiting for it makes sense."""

    def lost(self, lsn: int) -> bool:
        """Return whether the database may have had no key at a place of the WAL, so that nothing could be proven."""

    unproven: Unproven
    sizes_max: Mapping[bytes, int]
    """How much of a message is looked at, by the prefixes that are ours."""

    def claimed(self, said: Unsigned) -> Beacon | None:
        """Read a beacon without a proof; None for what is not of the form of one."""

    def tells(self, reason: str, lsn: int) -> bool:
        """Return whether a forgery may be told by itself now; else it is counted under its reason."""

    def message(self, message: LogicalMessage, xid: int | None, committed_at_us: int = 0) -> Said | None:
        """Judge a message of the transaction `xid` (32 bits; none outside of one); None when it is not ours."""


class Testimony:
    """What is said of one transaction after the other; `total` counts the forgeries of all of them."""

    def __init__(self, judge: Judge) -> None:
        self.total = 0
        self._judge = judge
        self.begin()

    def begin(self) -> None:
        """Forget what was said of the transaction before."""
        self.beacons: list[Beacon] = []
        self.forged: list[Forgery] = []
        self.silenced: list[Silenced] = []
        self._speaks_from = 0
        self._forgeries = 0
        self._claims: list[Unsigned] = []

    def verified(self, said: Beacon, ordinal: int) -> bool:
        """Note a beacon and whether it is the first: it speaks of the rows since the one before it, up to `ordinal`."""
        first = not self.beacons
        if first:
            self.beacons.append(said)
        elif len(self.beacons) < BEACONS_MAX:
            beacon = msgspec.structs.replace(said, ordinal=self._speaks_from)
            if not same_session(self.beacons[-1], beacon):
                self.beacons.append(beacon)
        self._speaks_from = ordinal
        return first

    def claims(self, said: Unsigned) -> None:
        """Keep an unproven beacon until the transaction ends."""
        if len(self._claims) < CLAIMS_MAX and all(said.content != other.content for other in self._claims):
            self._claims.append(said)

    def forgery(self, said: Forgery) -> None:
        """Note a forgery in the transaction."""
        self.total += 1
        self._forgeries += 1
        if self._forgeries <= FORGERIES_MAX:
            self.forged.append(said)

    def silences(self, said: Silenced) -> None:
        """Note that a session turned off what would speak of it."""
        if len(self.silenced) < FORGERIES_MAX:
            self.silenced.append(said)

    def decide(self, lsn: int, covered: bool) -> None:
        """Decide what unproven beacons are worth, now that the transaction ends; `covered` has a table with a beacon.

        One speaks where a table with a beacon was written and nothing proven speaks. One that contradicts what is
        proven, or that stands alone while the database had its key, was not written by the beacon.
        """
        if not self._claims:
            return
        speaks = not self.beacons and covered
        lost = not self.beacons and self._judge.lost(lsn)
        who = {(said.session_user, said.pid, said.backend_start_us) for said in self.beacons}
        for claim in self._claims:
            # Nobody has to read what nobody needs: anybody can write many of them.
            said = self._judge.claimed(claim) if speaks or lost or who else None
            if said is not None and (speaks or lost):
                self._judge.unproven.note(claim.lsn, claim.xid, said)
                if speaks and said not in self.beacons:
                    self.beacons.append(said)
            elif said is None or (said.session_user, said.pid, said.backend_start_us) not in who:
                self._invented(claim, lsn)

    def _invented(self, claim: Unsigned, lsn: int) -> None:
        """Tell of an unproven beacon that the database did not write."""
        self.total += 1
        if len(self.forged) >= FORGERIES_MAX or not self._judge.tells("unsigned", lsn):
            return
        said = self._judge.claimed(claim)
        claims: dict[str, str | int | None] = {}
        if said is not None:
            claims = {"session_user": said.session_user, "pid": said.pid}
        self.forged.append(Forgery(reason="unsigned" if said is not None else "malformed", claims=claims))

    def beacons_of(self, first_ordinal: int) -> list[Beacon]:
        """Return the beacons that speak of a part, the first and from the one in force on, and forget the others."""
        if len(self.beacons) > 2:
            in_force = max(n for n, beacon in enumerate(self.beacons) if n == 0 or beacon.ordinal <= first_ordinal)
            self.beacons = self.beacons[:1] + self.beacons[max(1, in_force) :]
        return self.beacons
