"""What the registry of now says of rows of then: whether a table was asked for, and whether it carried a beacon.

A collector reads late what was written while it was busy or down; by then an installation may have put a beacon on a
table, and a removal left another one out. Both stand in the catalogue as they are now. Taken for rows of before, the
one accuses who wrote before there was a beacon, and the other loses rows that were asked for. So an entry counts for a
transaction only if it was there when that committed: it had been read here before, its writer had ended at a known
place (`collectors.wal.database.catalogue`), or its writer, or an announcement of it, came in the stream first. An entry
that is gone counts until the stream has passed what took it away.

Where that cannot be told, rows are kept, and nobody is accused of having written past a beacon. `read` asks the
database, `Registry` is pure.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from msgspec import Struct
from msgspec.structs import replace
from psycopg import errors as pg

from collectors.installation import catalogue
from collectors.installation.source import UNREADABLE
from collectors.installation.sql import emission, templates
from collectors.installation.steps import wants
from collectors.wal.database.catalogue import Connection, Horizon, Horizons, Written
from collectors.wal.database.listing import Asked
from collectors.wal.decoding.described import Belongs
from collectors.wal.decoding.place import wide

VERSIONS_MAX = 16
"""Lists of what was asked for that are remembered."""


class Covered(Struct, frozen=True):
    """An entry of the registry: who wrote it and who made its table (32 bits), and where it was read first."""

    xid: int
    table_xid: int
    seen_lsn: int = 0


class Reading(Struct, frozen=True, kw_only=True):
    """What was read between two places of the WAL. `asked` is None where there is no publication of ours, `covered`
    where somebody holds a lock on the registry, which nobody is to wait for.
    """

    before_lsn: int
    after_lsn: int
    asked: Asked | None
    paused: bool
    covered: dict[int, Covered] | None


class _Gone(Struct, frozen=True):
    """An entry that is no more: it was there until `there_lsn` at least, and is not behind `absent_lsn`."""

    entry: Covered
    there_lsn: int
    absent_lsn: int


class Registry:
    """Says what held when, as far as it can be told. `asked` are the lists known from before, the newest last.

    `ours` says of a table (OID) whether it belongs to pgwitness or to an extension, so that nobody asked for it.
    """

    def __init__(self, horizons: Horizons, asked: Iterable[Asked] = ()) -> None:
        self.asked = list(asked)
        self._horizons = horizons
        self._covered: dict[int, Covered] = {}
        self._gone: dict[int, _Gone] = {}
        self._there_lsn = 0
        self._announced_lsn = 0
        self._paused = False
        self._pause_read: tuple[bool, int] | None = None
        self._first = True

    def take(self, reading: Reading, *, passed_lsn: int = 0) -> None:
        """Take a reading over. The stream has come to `passed_lsn`."""
        if reading.asked is not None and (not self.asked or self.asked[-1].globs != reading.asked.globs):
            self.asked = [*self.asked, replace(reading.asked, seen_lsn=reading.after_lsn)][-VERSIONS_MAX:]
        if self._first:
            self._paused, self._first = reading.paused, False
        self._pause_read = (reading.paused, reading.after_lsn)
        if reading.covered is not None:
            for oid in {*self._covered, *reading.covered}:
                self.take_one(oid, reading.covered.get(oid), reading.after_lsn)
            self._there_lsn = reading.before_lsn
        self._gone = {oid: gone for oid, gone in self._gone.items() if gone.absent_lsn >= passed_lsn}

    def take_one(self, oid: int, found: Covered | None, after_lsn: int) -> None:
        """Take over the entry of one table, or that it has none, read before the WAL stood at `after_lsn`."""
        if found is None:
            entry = self._covered.pop(oid, None)
            if entry is not None:
                self._gone[oid] = _Gone(entry, self._there_lsn, after_lsn)
        elif oid not in self._covered:
            gone = self._gone.pop(oid, None)
            # Lost and found again: a crash empties the registry, and it is made anew from the triggers.
            self._covered[oid] = gone.entry if gone else replace(found, seen_lsn=after_lsn)

    def covers(self, oid: int) -> bool:
        """Return whether a table has an entry; one without may have got it with the DDL that describes it again."""
        return oid in self._covered

    def announced(self, operation: str, lsn: int) -> None:
        """Learn that a transaction of pgwitness's own, which committed at `lsn`, came in the stream."""
        self._announced_lsn = lsn
        if operation in ("pause", "resume", "install"):
            self._paused, self._pause_read = operation == "pause", None

    def of(
        self, oid: int, names: tuple[str, ...], commit_lsn: int, xid: int, before: Container[int], *, ours: bool
    ) -> Belongs:
        """Say what held of a table for the transaction `xid` (64 bits) that committed at `commit_lsn`.

        `before` are those that came in the stream before it, as far as they may have changed what stands here.
        """
        horizon = self._horizons.at(commit_lsn)
        if self._pause_read is not None and commit_lsn > self._pause_read[1]:
            self._paused, self._pause_read = self._pause_read[0], None
        beacon, certain = self._carries(oid, commit_lsn, xid, horizon)
        if ours:
            return Belongs(beacon and not self._paused, beacon, certain)
        wanted, known = self._asks_for(names, commit_lsn, horizon, before)
        return Belongs(beacon and not self._paused, beacon or wanted, certain and known)

    def _carries(self, oid: int, commit_lsn: int, xid: int, horizon: Horizon) -> tuple[bool, bool]:
        gone = self._gone.get(oid)
        if gone is not None:
            there = commit_lsn <= gone.absent_lsn and self._announced_lsn <= gone.there_lsn
            return there, not there
        entry = self._covered.get(oid)
        if entry is None:
            return False, True
        held = (
            commit_lsn > entry.seen_lsn
            # Who began to write later could not write this table before: its writer held the lock against that.
            or 0 < wide(entry.xid, xid) <= xid
            or _ended(entry.xid, horizon)
            or not _ended(entry.table_xid, horizon)  # a new table, covered as it was made
        )
        return held, held

    def _asks_for(
        self, names: tuple[str, ...], commit_lsn: int, horizon: Horizon, before: Container[int]
    ) -> tuple[bool, bool]:
        answers = []
        for version in reversed(self.asked):
            answers.append(wants(version.globs, names))
            if commit_lsn > version.seen_lsn or Written((), (version.xid,)).held(horizon, before):
                break
        return any(answers), len(set(answers)) < 2


def _ended(xid: int, horizon: Horizon) -> bool:
    return horizon.xid > 0 and Written((), (xid,)).held(horizon, ())


def read(connection: Connection) -> Reading:
    """Read what stands in the database now."""
    row = connection.execute(_ASKED, (templates.PUBLICATION_INSERTS,)).fetchone()
    assert row is not None
    before, paused, description, xid = row
    asked = Asked(catalogue.listed(description) or ("*",), int(xid)) if xid is not None else None
    covered, after = _entries(connection, _COVERED)
    return Reading(before_lsn=int(before), after_lsn=after, asked=asked, paused=bool(paused), covered=covered)


def read_one(connection: Connection, oid: int) -> tuple[Covered | None, int] | None:
    """Read the entry of one table, if it has one, and where the WAL stood then; None while the registry is locked."""
    covered, after = _entries(connection, f"{_COVERED} WHERE r.relation = {int(oid)}::oid")
    return None if covered is None else (covered.get(oid), after)


def _entries(connection: Connection, query: str) -> tuple[dict[int, Covered] | None, int]:
    """Read entries, and where the WAL stood then; in one round trip, because every table that is described asks."""
    try:
        cursor = connection.execute(f"SET LOCAL lock_timeout = '50ms'; {query}; {WRITTEN}")
        cursor.nextset()
        rows = cursor.fetchall()
        cursor.nextset()
        row = cursor.fetchone()
    except pg.LockNotAvailable:
        return None, 0
    except UNREADABLE:
        return {}, _written(connection)
    return {int(oid): Covered(int(xid), int(made or 0)) for oid, xid, made in rows}, int(row[0]) if row else 0


def seen(connection: Connection, xid: int) -> bool:
    """Return whether what a transaction did is seen now: it stands in the WAL a moment before that."""
    row = connection.execute(
        "SELECT pg_catalog.pg_visible_in_snapshot(%s::text::pg_catalog.xid8, pg_catalog.pg_current_snapshot())",
        (str(xid),),
    ).fetchone()
    return row is not None and bool(row[0])


def member(connection: Connection, oid: int) -> bool:
    """Return whether a table belongs to an extension."""
    found = connection.execute(_MEMBER, (oid,)).fetchone()
    return found is not None


def _written(connection: Connection) -> int:
    row = connection.execute(WRITTEN).fetchone()
    return int(row[0]) if row is not None else 0


WRITTEN = """
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')
       ELSE pg_catalog.pg_current_wal_insert_lsn() END - '0/0'::pg_catalog.pg_lsn
"""
"""How far the server's WAL goes now."""

_ASKED = f"""
SELECT ({WRITTEN}), {emission.PAUSED}, d.description, COALESCE(d.xmin, p.xmin)::text
FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_publication AS p ON p.pubname = %s
LEFT JOIN pg_catalog.pg_description AS d
    ON d.classoid = 'pg_catalog.pg_publication'::pg_catalog.regclass AND d.objoid = p.oid AND d.objsubid = 0
"""

_COVERED = f"""
SELECT r.relation::oid::int8, r.xmin::text, a.xmin::text FROM {templates.SCHEMA}.covered AS r
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.relation AND a.attnum = -1
"""
"""The columns that every table has are written when it is made, and never again."""

_MEMBER = """
SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid = %s
    AND deptype = 'e'
"""
