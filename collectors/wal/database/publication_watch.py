"""Watches what our publications list, and tells when they list less and nobody announced it.

`snapshot` reads them; the rest is pure. A look finds what is gone since the one before; whether an installation or our
own job did it is known once the stream has passed the place of that look: they announce it there. The last snapshot is
remembered over restarts, so that what happened while the collector was down is told too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collectors.wal.database.listing import Listing, Listings
from collectors.wal.database.published import PUBLICATIONS
from collectors.wal.database.slot import Connection
from pgwitness.core.events import Gap, format_lsn, qualified

REASON = "publication_changed"
ANNOUNCES = ("install", "uninstall", "publications")
"""What a verified control message says when pgwitness itself changes what is published."""
TABLES_MAX = 100
"""Tables named in one gap; their number is always told."""


def snapshot(connection: Connection) -> tuple[Listings, frozenset[int]]:
    """Read our publications, and which tables of the database exist."""
    found: dict[str, dict[str, Any]] = {}
    for name, operations, owner, all_tables, via_root, oid, schema, table, restricted in connection.execute(
        _SNAPSHOT, {"publications": list(PUBLICATIONS)}
    ).fetchall():
        listing = found.setdefault(
            name,
            {"operations": operations, "owner": owner, "all_tables": all_tables, "via_root": via_root,
             "tables": {}, "restricted": []},
        )  # fmt: skip
        if oid is not None:
            listing["tables"][int(oid)] = qualified(schema, table)
            if restricted:
                listing["restricted"].append(int(oid))
    there = connection.execute("SELECT oid::int8 FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p')").fetchall()
    return {name: Listing(**facts) for name, facts in found.items()}, frozenset(int(oid) for (oid,) in there)


def lost(before: Mapping[str, Listing], now: Mapping[str, Listing], there: frozenset[int]) -> dict[str, object] | None:
    """Say what is published no more, or not whole, of what was and is still `there`; None when that is nothing."""
    detail: dict[str, object] = {}
    tables: dict[str, None] = {}
    for name, old in before.items():
        new = now.get(name)
        if new is None:
            detail[name] = "dropped"
            tables |= dict.fromkeys(old.tables.values())
            continue
        what = _less(old, new)
        gone = [] if new.all_tables else [t for oid, t in old.tables.items() if oid in there and oid not in new.tables]
        part = [new.tables[oid] for oid in new.restricted if oid not in old.restricted]
        if what or gone or part:
            detail[name] = {"options": what, "removed": gone[:TABLES_MAX], "restricted": part[:TABLES_MAX]}
        tables |= dict.fromkeys([*gone, *part, *(old.tables.values() if what else ())])
    if not detail:
        return None
    return {"publications": detail, "tables": list(tables)[:TABLES_MAX], "tables_total": len(tables)}


def _less(old: Listing, new: Listing) -> dict[str, object]:
    what: dict[str, object] = {}
    missing = [letter for letter in old.operations if letter not in new.operations]
    if missing:
        what["operations"] = {"before": old.operations, "now": new.operations}
    for option in ("owner", "via_root"):
        if getattr(old, option) != getattr(new, option):
            what[option] = {"before": getattr(old, option), "now": getattr(new, option)}
    if old.all_tables and not new.all_tables:
        what["all_tables"] = {"before": True, "now": False}
    return what


class Watch:
    """Compares look with look. `known` is the last snapshot, which the caller remembers."""

    def __init__(self, known: Listings) -> None:
        self.known = known
        self._since_lsn = 0
        self._pending: tuple[dict[str, object], int] | None = None
        self._before_lsn = 0
        self._announced: list[int] = []

    def announced(self, lsn: int) -> None:
        """Learn that a change of the publications was announced in the stream, by a message at `lsn`."""
        self._announced.append(lsn)

    def look(
        self, now: Listings, there: frozenset[int], *, end_lsn: int, passed_lsn: int, database: str, now_us: int
    ) -> list[Gap]:
        """Take a snapshot made when the WAL ended at `end_lsn` and the stream had come to `passed_lsn`."""
        gaps: list[Gap] = []
        if self._pending is not None:
            detail, lsn = self._pending
            if passed_lsn < lsn:
                return []
            # An announcement stands before the commit that it is of; what puts back what was taken out comes later.
            if not any(announced <= lsn for announced in self._announced):
                gaps.append(Gap(captured_at_us=now_us, reason=REASON, database=database, detail=detail))
            self._pending = None
        self._announced = [announced for announced in self._announced if announced > self._before_lsn]
        found = lost(self.known, now, there)
        if found is not None:
            found |= {"from_lsn": format_lsn(self._since_lsn), "to_lsn": format_lsn(end_lsn)}
            self._pending = (found, end_lsn)
        self._before_lsn = self._since_lsn
        self.known, self._since_lsn = now, end_lsn
        return gaps


_SNAPSHOT = """
SELECT p.pubname::text, pg_catalog.concat(CASE WHEN p.pubinsert THEN 'i' END, CASE WHEN p.pubupdate THEN 'u' END,
    CASE WHEN p.pubdelete THEN 'd' END, CASE WHEN p.pubtruncate THEN 't' END),
  pg_catalog.pg_get_userbyid(p.pubowner)::text, p.puballtables, p.pubviaroot,
  c.oid::int8, n.nspname::text, c.relname::text,
  r.prqual IS NOT NULL OR r.prattrs IS NOT NULL
FROM pg_catalog.pg_publication AS p LEFT JOIN pg_catalog.pg_publication_rel AS r ON r.prpubid = p.oid
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.pubname = ANY(%(publications)s) ORDER BY p.pubname, c.oid
"""
