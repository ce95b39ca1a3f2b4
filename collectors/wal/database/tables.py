"""What is known of the tables of a stream: of the catalogue, and of what pgwitness installed at them."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from collectors.installation.sql.templates import SCHEMA
from collectors.wal.assembly.transaction import Assembler
from collectors.wal.database import registry
from collectors.wal.database.catalogue import Catalogue, Horizon
from collectors.wal.database.forgetting import Forgetting
from collectors.wal.database.listing import Asked
from collectors.wal.database.registry import Registry
from collectors.wal.database.slot import Connection
from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.described import Belongs
from collectors.wal.decoding.plan import TableFacts
from pgwitness.core.events import qualified


class Tables:
    """Asks one database about the tables that an assembler meets; `attach` names that assembler, once."""

    def __init__(self, sql: Connection, horizon: Horizon) -> None:
        self.catalogue = Catalogue(sql, horizon)
        self.registry: Registry
        self._sql = sql
        self._ours: dict[int, bool] = {}
        self._forgetting = Forgetting()
        self._assembler: Assembler

    def attach(self, assembler: Assembler) -> None:
        """Name the assembler whose tables these are; nothing is asked before."""
        self._assembler = assembler

    def begin(self, asked: Iterable[Asked]) -> None:
        """Begin with what is written down of the tables that were asked for."""
        self.registry = Registry(self.catalogue.horizons, asked)

    def forget_before(self) -> None:
        """Forget what the catalogue said of another server or of another time of this one."""
        self.catalogue = Catalogue(self._sql, Horizon())

    def facts(self, relation: pgoutput.Relation, commit_lsn: int) -> TableFacts:
        """Ask the catalogue what the stream does not say, as far as it held for a transaction with this commit LSN."""
        facts = self.catalogue.facts(relation, commit_lsn, self._assembler.ddl_before)
        oid = relation.oid
        if not self.registry.covers(oid) and (found := registry.read_one(self._sql, oid)) is not None:
            self.registry.take_one(oid, *found)
        self._ours[oid] = relation.schema == SCHEMA or registry.member(self._sql, oid)
        held = self.belongs(relation, commit_lsn)
        settled = facts.settled and held.settled
        return replace(facts, beacon=held.beacon, wanted=held.wanted, settled=settled)

    def belongs(self, relation: pgoutput.Relation, commit_lsn: int) -> Belongs:
        """Return whether a table carried a beacon and was asked for when a transaction committed."""
        names = (qualified(relation.schema, relation.name), f"{relation.schema}.{relation.name}")
        ours = self._ours.get(relation.oid, False)
        xid, before = self._assembler.xid, self._assembler.ddl_before
        return self.registry.of(relation.oid, names, commit_lsn, xid, before, ours=ours)

    def look(self, *, passed_lsn: int) -> None:
        """Read the registry of now, which holds for what comes behind `passed_lsn`."""
        self.registry.take(registry.read(self._sql), passed_lsn=passed_lsn)
        lsn = max(passed_lsn, self._assembler.commit_lsn)
        self._assembler.tables.refresh(lambda relation: self.belongs(relation, lsn))

    def forget(self, passed_lsn: int) -> None:
        """Let go of tables that are gone, as far as the stream has passed their end; between transactions."""
        gone = self._forgetting.look(self._sql, self._assembler.tables.seen, passed_lsn)
        if gone:
            self._assembler.tables.forget(gone)
            for oid in gone:
                self._ours.pop(int.from_bytes(oid, "big"), None)
