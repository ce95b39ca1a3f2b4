"""How much of a relation a transaction took away or wrote over: judged by what the WAL counts, not by a WHERE.

The number of rows *before* comes from the server's statistics (`SIZES`), as read before the transaction committed, and
what the WAL has added and taken since. A reading that contradicts itself is not sent, so an older one goes on to hold;
where a transaction deleted clearly more than there can have been, nothing is said. A table that DDL made begins with 0.

What one principal did adds up over 24 hours and 30 days, and over 24 hours what everybody did, so that batches and
several names of one person count together. Rows of a relation from which about as much is deleted as is inserted (a
queue, an expiry) were born in the window themselves: of those only what it has shrunk counts. Updates count distinct
rows, by their keys; a service's only within one transaction. A deletion beside as many insertions in one transaction
has written over; a TRUNCATE took the rows before less the rows after. What came at the same hour on three days before
is `usual`.

Pure, of bounded memory, in the checkpoint; what is forgotten is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pgwitness.events import Ddl, Posture, Row, Transaction
from streams.fold.bounded import room

SIZES = "sizes"
"""The type of a posture record that tells how many rows relations hold; no event comes of it."""
RELATIONS_MAX = 20_000
READINGS_MAX = 3
WINDOWS_MAX = 5_000
DATABASES_MAX, TOLD_MAX = 100, 100
KEYS_MAX = 256
"""Hashes of keys kept of a window: the smallest ones, which tell how many there are in all."""
ROWS_LEAST, SHARE_LEAST = 10, 0.3
"""What is less is not told; policies have limits of their own above these."""
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
MONTH_US = 30 * DAY_US
EVERYBODY = ""
QUEUE = 0.5
"""Deletions by insertions, from which on a relation is one whose rows come to go."""
DOUBT = 1.2
USUAL_DAYS = 3
HASHES = 1 << 64
_WORDS = {"d": "delete", "u": "update", "t": "truncate"}
_rows = msgspec.json.Decoder(list[Row])


_Told = dict[str, object]
_Telling = Callable[[str, int, int, str], Iterator[_Told]]


class Size(Struct, array_like=True):
    """A reading: when, how many rows, and what the WAL has added since, less what it took."""

    at_us: int
    rows: int
    net: int = 0


class Turnover(Struct, array_like=True):
    """Insertions and deletions of a relation, in the present day and the one before."""

    day: int = 0
    inserted: int = 0
    deleted: int = 0
    inserted_before: int = 0
    deleted_before: int = 0


class Window(Struct, array_like=True):
    """What one principal, or everybody, did to a relation: deletions by hour and day, keys of rows written over."""

    gone: list[tuple[int, int]] = []
    keys: list[int] = []
    keys_since_us: int = 0
    large: list[int] = []
    """Hours, since the epoch, in which most of the relation went; the first of each day."""


class Shares(Struct):
    """What is known of one cluster, as in its checkpoint."""

    sizes: dict[str, list[Size]] = {}
    turnovers: dict[str, Turnover] = {}
    windows: dict[str, Window] = {}
    streamed: dict[str, None] = {}
    """Relations whose rows have been in the WAL stream, or that were made before its eyes."""
    parts: dict[str, tuple[int, list[dict[str, object]]]] = {}
    """By database the commit LSN of the transaction that is not whole yet, and what is told with its last part."""


class _Did(NamedTuple):
    """What one part of a transaction did to a relation."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    truncated: bool = False


def posture(shares: Shares, event: Posture) -> bool:
    """Take up a reading of sizes; says whether it was one."""
    if event.object_type != SIZES:
        return False
    after = event.after or {}
    rows, at_us = after.get("rows"), after.get("at_us")
    if isinstance(rows, dict) and isinstance(at_us, int):
        for name, number in rows.items():
            if isinstance(number, int) and number >= 0:
                _read(shares, _key(event.database or "", str(name)), at_us, number)
    return True


def ddl(shares: Shares, part: Transaction, commands: Iterable[Ddl]) -> None:
    """Take up tables that were made, which are empty, and forget those that are gone."""
    for command in commands:
        for item in command.dropped:
            if item.type == "table" and item.relation is not None:
                key = _key(part.database, item.relation)
                shares.sizes.pop(key, None)
                shares.turnovers.pop(key, None)
                shares.streamed.pop(key, None)
        if command.tag == "CREATE TABLE":
            for item in command.objects:
                if item.type == "table" and item.relation is not None:
                    key = _key(part.database, item.relation)
                    _read(shares, key, part.committed_at_us - 1, 0)
                    _streams(shares, key)


def streams(shares: Shares, database: str, relations: Iterable[str]) -> bool:
    """Say whether the WAL tells what becomes of all of these relations."""
    names = list(relations)
    return bool(names) and all(_key(database, name) in shares.streamed for name in names)


def holds(shares: Shares, database: str, relations: Iterable[str]) -> int | None:
    """Give how many rows the fullest of these relations holds, None where no size is known."""
    known = [shares.sizes[key][-1] for name in relations if (key := _key(database, name)) in shares.sizes]
    return max((max(0, size.rows + size.net) for size in known), default=None)


def change(shares: Shares, part: Transaction, who: str, service: bool) -> list[dict[str, object]]:
    """Take up a part of a transaction; gives, with its last one, what it took of relations that had more."""
    lsn, told = shares.parts.pop(part.database, (0, []))
    if lsn != part.lsn or not part.part:
        told = []
    for name, did in _did(part):
        key = _key(part.database, name)
        _streams(shares, key)
        before = _before(shares, key, part.committed_at_us)
        if did.deleted or did.updated or did.truncated:
            told += _judged(shares, part, name, did, who, service, before)
        _count(shares, key, did, before, part.committed_at_us)
    if not part.last:
        room(shares.parts, DATABASES_MAX)
        shares.parts[part.database] = (part.lsn, told[-TOLD_MAX:])
        return []
    return told[:TOLD_MAX]


def _did(part: Transaction) -> Iterator[tuple[str, _Did]]:
    totals: dict[str, _Did] = {}
    for count in part.counts:
        if not 0 <= count.relation < len(part.relations):
            continue
        name = part.relations[count.relation].name
        i, u, d, t = totals.get(name, _Did())
        match count.operation:
            case "i":
                i += count.rows
            case "u":
                u += count.rows
            case "d":
                d += count.rows
            case "t":
                t = True
        totals[name] = _Did(i, u, d, t)
    yield from totals.items()


def _judged(
    shares: Shares, part: Transaction, name: str, did: _Did, who: str, service: bool, before: Size | None
) -> Iterator[dict[str, object]]:
    key, at_us = _key(part.database, name), part.committed_at_us
    live = None if before is None else max(0, before.rows + before.net)
    if before is None or live is None:
        if did.deleted:
            _window(shares, key, who).gone = _added(_window(shares, key, who).gone, at_us, did.deleted)
        return

    def told(operation: str, rows: int, of: int, window: str) -> Iterator[dict[str, object]]:
        part_of = min(1.0, rows / of) if of else 0.0
        if operation != "truncate" and (rows < ROWS_LEAST or part_of < SHARE_LEAST):
            return
        usual = part_of >= 0.5 and _usual(_window(shares, key, who), at_us)
        found: dict[str, object] = {"relation": name, "operation": operation, "rows": min(rows, of), "of": of}
        found |= {"part": round(part_of, 3), "counted_at_us": before.at_us, "window": window, "usual": usual}
        yield found

    if did.truncated:
        after = max(0, did.inserted - did.deleted)
        gone = 0 if after >= 0.9 * live else live - after
        yield from told("truncate", gone, live, "transaction")
        return
    if did.deleted:
        yield from _deleted(shares, key, did, who, live, at_us, told)
    if did.updated:
        updated = did.updated
        if not service:
            window = _window(shares, key, who)
            if not 0 <= at_us - window.keys_since_us < DAY_US:
                window.keys, window.keys_since_us = [], at_us
            window.keys = _smallest(window.keys, _keys(part, name))
            updated = max(_distinct(window.keys), min(did.updated, live) if did.updated >= live > 0 else 0)
        elif did.updated > live * DOUBT + ROWS_LEAST:
            updated = live  # rows were updated twice
        yield from told("update", min(updated, live), live, "transaction" if service else "24h")


def _deleted(shares: Shares, key: str, did: _Did, who: str, live: int, at_us: int, told: _Telling) -> Iterator[_Told]:
    if did.deleted > live * DOUBT + ROWS_LEAST + did.inserted:
        return  # there were more rows than is known
    turnover = shares.turnovers.get(key, Turnover())
    inserted, deleted = turnover.inserted + turnover.inserted_before, turnover.deleted + turnover.deleted_before
    best: list[_Told] = []
    for name in (who, EVERYBODY):
        window = _window(shares, key, name)
        window.gone = _added(window.gone, at_us, did.deleted)
        spans = (("24h", DAY_US), ("30d", MONTH_US)) if name == who else (("24h by all", DAY_US),)
        for span, length_us in spans:
            gone = sum(rows for since_us, rows in window.gone if since_us > at_us - length_us)
            of = live + gone - did.deleted
            if _comes_to_go(turnover):
                gone = min(gone, max(0, deleted + did.deleted - inserted))
            best += told("delete", gone, of, "transaction" if gone == did.deleted else span)
    if best:  # one's own first, where they are equal
        found = max(best, key=lambda item: float(str(item["part"])))
        yield found | ({"replaced": True} if 2 * did.inserted >= did.deleted else {})


def _comes_to_go(turnover: Turnover) -> bool:
    """Say whether rows of a relation ordinarily go again; by the day before, if known, which nobody can change."""
    if turnover.inserted_before:
        return turnover.deleted_before >= QUEUE * turnover.inserted_before
    return 0 < QUEUE * turnover.inserted <= turnover.deleted


def _count(shares: Shares, key: str, did: _Did, before: Size | None, at_us: int) -> None:
    """Add what a part did to the sizes that were read before it, and to the turnover."""
    for size in shares.sizes.get(key, []):
        if size.at_us < at_us:
            size.net = (-size.rows if did.truncated else size.net) + did.inserted - did.deleted
    if not (did.inserted or did.deleted):
        return
    day = at_us // DAY_US
    turnover = shares.turnovers.get(key)
    if turnover is None:
        room(shares.turnovers, RELATIONS_MAX)
        turnover = shares.turnovers[key] = Turnover(day)
    if day > turnover.day:
        one = day == turnover.day + 1
        turnover.inserted_before = turnover.inserted if one else 0
        turnover.deleted_before = turnover.deleted if one else 0
        turnover.day, turnover.inserted, turnover.deleted = day, 0, 0
    turnover.inserted += did.inserted
    turnover.deleted += did.deleted


def _before(shares: Shares, key: str, at_us: int) -> Size | None:
    """Give the latest reading from before a time: one from after the deed has its result in it."""
    return next((size for size in reversed(shares.sizes.get(key, [])) if size.at_us < at_us), None)


def _read(shares: Shares, key: str, at_us: int, rows: int) -> None:
    sizes = shares.sizes.get(key)
    if sizes is None:
        room(shares.sizes, RELATIONS_MAX)
        sizes = shares.sizes[key] = []
    if not sizes or at_us > sizes[-1].at_us:
        sizes.append(Size(at_us, rows))
        del sizes[:-READINGS_MAX]


def _streams(shares: Shares, key: str) -> None:
    if key not in shares.streamed:
        room(shares.streamed, RELATIONS_MAX)
        shares.streamed[key] = None


def _window(shares: Shares, key: str, who: str) -> Window:
    name = f"{key}\n{who[:300]}"
    window = shares.windows.pop(name, None)
    if window is None:
        room(shares.windows, WINDOWS_MAX)
        window = Window()
    shares.windows[name] = window
    return window


def _added(gone: list[tuple[int, int]], at_us: int, rows: int) -> list[tuple[int, int]]:
    """Add rows in their hour; hours of which a day has passed become parts of their day."""
    sums: dict[int, int] = {}
    for since_us, number in [*gone, (at_us, rows)]:
        if since_us > at_us - MONTH_US:
            grain = HOUR_US if since_us > at_us - DAY_US else DAY_US
            slot = since_us // grain * grain + grain - 1  # its end: it counts for as long as any row of it may
            sums[slot] = sums.get(slot, 0) + number
    return sorted(sums.items())


def _usual(window: Window, at_us: int) -> bool:
    """Say whether as much went at this hour on several days before; now it has once more."""
    hour = at_us // HOUR_US
    day = hour // 24
    same = {past // 24 for past in window.large if past // 24 != day and (past - hour + 1) % 24 <= 2}
    if not any(past // 24 == day for past in window.large):
        window.large = [*window.large, hour][-10:]
    return len(same) >= USUAL_DAYS


def _keys(part: Transaction, name: str) -> Iterator[int]:
    """Give hashes of the keys of the rows of a relation that were updated."""
    try:
        rows = _rows.decode(part.rows)
    except msgspec.MsgspecError:
        return
    for row in rows:
        if (
            row.operation == "u"
            and 0 <= row.relation < len(part.relations)
            and part.relations[row.relation].name == name
        ):
            yield int.from_bytes(blake2b(bytes(row.key), digest_size=8).digest())


def _smallest(known: list[int], more: Iterable[int]) -> list[int]:
    return sorted({*known, *more})[:KEYS_MAX]


def _distinct(keys: list[int]) -> int:
    """Estimate how many different keys there were (k minimum values); exact as long as all are kept."""
    return len(keys) if len(keys) < KEYS_MAX else int((KEYS_MAX - 1) * HASHES / max(1, keys[-1]))


def _key(database: str, relation: str) -> str:
    return f"{database}\n{relation}"
