"""The tables that a stream has described, each with the plan by which its rows are written."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.plan import Masking, Plan, TableFacts


class Belongs(Struct, frozen=True):
    """What held of a table for a transaction; `settled` says that asking again later would tell no more."""

    beacon: bool
    wanted: bool
    settled: bool = True


class Described:
    """Keeps the plan of each table by its OID, as the stream writes it.

    `facts` tells what the catalogue knows of a relation as of a commit LSN; what it cannot say for certain yet is
    `unsettled`, and is asked again between transactions.
    """

    def __init__(self, masking: Masking, facts: Callable[[pgoutput.Relation, int], TableFacts]) -> None:
        self.plans: dict[bytes, Plan] = {}
        self.seen: dict[bytes, int] = {}
        """The greatest id of those transactions in which each of them was described."""
        self.types: dict[int, tuple[str, str]] = {}
        self.unsettled: set[bytes] = set()
        self._masking = masking
        self._facts = facts

    def describe(self, message: pgoutput.Relation, lsn: int, xid: int) -> str | None:
        """Take a description as of a place of the WAL; return why not, where its rows have no home then."""
        oid = message.oid.to_bytes(4, "big")
        facts = self._facts(message, lsn)
        known = self.plans.get(oid)
        self.seen[oid] = max(xid, self.seen.get(oid, 0))
        if known is None or not known.still(message, facts):
            try:
                self.plans[oid] = Plan(message, facts, self._masking, self.types)
            except Exception as error:
                # Each of its rows is set aside then.
                self.plans.pop(oid, None)
                self.seen.pop(oid, None)
                return f"a description that cannot be taken: {type(error).__name__}"
        if facts.settled:
            self.unsettled.discard(oid)
        else:
            self.unsettled.add(oid)
        return None

    def refresh(self, belongs: Callable[[pgoutput.Relation], Belongs]) -> None:
        """Take over which tables carry a beacon from here on, and which are asked for."""
        for oid, plan in self.plans.items():
            found = belongs(plan.described)
            plan.set_beacon(found.beacon, found.wanted)
            if not found.settled:
                self.unsettled.add(oid)

    def forget(self, oids: list[bytes]) -> None:
        """Let go of tables that nothing comes of any more, and of the types that no other has; between transactions."""
        for oid in oids:
            self.plans.pop(oid, None)
            self.seen.pop(oid, None)
            self.unsettled.discard(oid)
        used = {column.type_oid for plan in self.plans.values() for column in plan.described.columns}
        self.types = {oid: name for oid, name in self.types.items() if oid in used}
