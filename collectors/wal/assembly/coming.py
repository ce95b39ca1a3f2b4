"""Tables that were made a moment ago, by the stream itself, and have not come into the update publication yet.

Their inserts are read from the start; their updates and deletes once the collector's job lists them, some seconds after
a primary key is there. What the catalogue says when a transaction is read is too late for that: the job has been there
by then, or the table is gone. The stream has both in their order: DDL that makes a table, and the job's own. A
transaction that was open when the job listed the table may have been written before that. Bounded in number and in
time, so that a table which is taken out later is no table that is still to come.
"""

from __future__ import annotations

from collectors.installation.sql.templates import PUBLICATION
from pgwitness.core.events import Ddl

LASTS_US = 60_000_000
"""How long a table may be coming; the job looks every few seconds. Where it cannot list it, its trigger says so."""
TABLES_MAX = 10_000
MAKES = ("CREATE TABLE", "CREATE TABLE AS", "SELECT INTO")
_LISTED = f" in publication {PUBLICATION}"


class Coming:
    """Keeps which tables are coming, by name, and what the stream calls each OID."""

    def __init__(self) -> None:
        self._until_us: dict[str, int] = {}
        self._listed_xid: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def described(self, oid: int, name: str) -> None:
        """Learn a relation's name as the stream has it; the last one holds."""
        self._names.pop(oid, None)
        while len(self._names) >= TABLES_MAX:
            del self._names[next(iter(self._names))]
        self._names[oid] = name

    def ddl(self, said: Ddl, at_us: int) -> None:
        """Take a verified command that was committed at a moment."""
        for made in said.objects:
            if made.relation is None:
                continue
            if made.type == "table" and said.tag in MAKES:
                self._until_us.pop(made.relation, None)
                while len(self._until_us) >= TABLES_MAX:
                    del self._until_us[next(iter(self._until_us))]
                self._until_us[made.relation] = at_us + LASTS_US
            elif (
                made.type == "publication relation"
                and made.identity.endswith(_LISTED)
                and self._until_us.pop(made.relation, None) is not None
            ):
                while len(self._listed_xid) >= TABLES_MAX:
                    del self._listed_xid[next(iter(self._listed_xid))]
                self._listed_xid[made.relation] = said.beacon.xid

    def name(self, oid: int) -> str | None:
        """Return what the stream called a relation."""
        return self._names.get(oid)

    def waits(self, name: str | None, at_us: int, xid: int) -> bool:
        """Return whether a table may not have come into the update publication for a transaction, as of its commit."""
        if name is None:
            return False
        return at_us < self._until_us.get(name, 0) or xid < self._listed_xid.get(name, 0)
