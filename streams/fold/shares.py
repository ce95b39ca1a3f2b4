"""How much of a relation a transaction took away or wrote over: judged by what the WAL counts, not by a WHERE.

The number of rows *before* comes from the server's statistics (`SIZES`), as read before the transaction committed, and
what the WAL has added and taken since. A reading that contradicts itself is not sent, so an older one goes on to hold;
where a transaction deleted clearly more than there can have been, nothing is said. A table that DDL made begins with 0.

What one principal did adds up over 24 hours and 30 days, and over 24 hours what everybody did, so that batches and
several names of one person count together. Rows of a relation from which about as much is deleted as is inserted (a
queue, an expiry) were born in the window themselves: of those only what it has shrunk counts. Updates count distinct
rows by their keys, of people and agents; of others only within one transaction. A deletion beside as many insertions
in one transaction has written over; a TRUNCATE took the rows before less the rows after. What came at the same hour on
three days before is `usual`.

Pure, of bounded memory, in the checkpoint; what is forgotten is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pgwitness.core.events import Ddl, Event, Posture, Row, Transaction
from streams.fold.bounded import room
from streams.fold.moves import attached

SIZES = "sizes"
"""The type of a posture record that tells how many rows relations hold; no event comes of it."""
PUBLICATION = "pgwitness"
"""The one that updates and deletions are read from; insertions and TRUNCATE are of every table of it, too."""
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
_BY_KEY = frozenset({"human", "agent"})
"""Kinds of principals whose updated rows are told apart by their keys: what a service updates comes by the thousand."""
_SPANS = ((("24h", DAY_US), ("30d", MONTH_US)), (("24h by all", DAY_US),))
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

    gone: list[list[int]] = []
    """Pairs of the end of an hour or day, and how many rows."""
    total: int = 0
    """Rows in `gone`, those included whose time is over."""
    keys: list[int] = []
    keys_since_us: int = 0
    large: list[int] = []
    """Hours, since the epoch, in which most of the relation went; the first of each day."""


class Known(Struct, array_like=True):
    """What is known of one relation. `streamed`: it is published, its rows have been in the stream, or DDL made it."""

    sizes: list[Size] = []
    turnover: Turnover = msgspec.field(default_factory=Turnover)
    streamed: bool = False


class Shares(Struct):
    """What is known of one cluster, as in its checkpoint."""

    relations: dict[str, Known] = {}
    windows: dict[str, Window] = {}
    parts: dict[str, tuple[int, list[dict[str, object]]]] = {}
    """By database the commit LSN of the transaction that is not whole yet, and what is told with its last part."""


class _Did(NamedTuple):
    """What one part of a transaction did to a relation."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    truncated: bool = False


_NOTHING = _Did()
_TRUNCATED = _Did(truncated=True)


def posture(shares: Shares, event: Posture) -> bool:
    """Take up a reading of sizes, and what is published; says whether it was a reading, of which no event comes."""
    if event.object_type == "publication" and event.name == PUBLICATION:
        _published(shares, event)
    before = (event.after or {}).get("renamed_from")
    if event.object_type == "table" and isinstance(before, str):
        moved(shares, event.database or "", [(before, event.name)])
    if event.object_type != SIZES:
        return False
    after = event.after or {}
    rows, at_us = after.get("rows"), after.get("at_us")
    if isinstance(rows, dict) and isinstance(at_us, int):
        for name, number in rows.items():
            if isinstance(number, int) and number >= 0:
                _read(shares, _key(event.database or "", str(name)), at_us, number)
    return True


def _published(shares: Shares, event: Posture) -> None:
    """Learn of which tables the stream has every change, and of which not any more."""
    names = [set[str](), set[str]()]
    for found, listed in zip(names, (event.before or {}, event.after or {}), strict=True):
        tables = listed.get("tables")
        if isinstance(tables, list) and listed.get("update") is True and listed.get("delete") is True:
            found |= {str(name) for name in tables[:RELATIONS_MAX]}
    before, after = names
    for name in sorted(after | before):
        key = _key(event.database or "", name)
        if name in after or key in shares.relations:
            (shares.relations.get(key) or _made(shares, key)).streamed = name in after


def ddl(shares: Shares, part: Transaction, command: Ddl, known: Callable[[str], set[str]]) -> None:
    """Take up tables that a command made, which are empty, and forget those that are gone.

    `known` gives the schemas in which there is a relation of a name.
    """
    for item in command.dropped:
        if item.type == "table" and item.relation is not None:
            shares.relations.pop(_key(part.database, item.relation), None)
    if command.tag == "CREATE TABLE":
        for item in command.objects:
            if item.type == "table" and item.relation is not None:
                key = _key(part.database, item.relation)
                _read(shares, key, part.committed_at_us - 1, 0)
                shares.relations[key].streamed = True
    below = attached(command, known)
    if below is not None:
        parent, child = (shares.relations.get(_key(part.database, name)) for name in below)
        if parent is not None and child is not None and parent.sizes and child.sizes:
            rows = sum(max(0, each.sizes[-1].rows + each.sizes[-1].net) for each in (parent, child))
            _read(shares, _key(part.database, below[0]), part.committed_at_us - 1, rows)


def moved(shares: Shares, database: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Let what is known of relations go on under the names that they have now."""
    for old, new in pairs:
        was, now = _key(database, old), _key(database, new)
        known, already = shares.relations.get(was), shares.relations.get(now)
        if known is None or (already is not None and already.sizes):
            continue
        del shares.relations[was]
        shares.relations[now] = known
        for name in [name for name in shares.windows if name.startswith(f"{was}\n")]:
            shares.windows[now + name[len(was) :]] = shares.windows.pop(name)


def by_effect(shares: Shares, statement: Event) -> None:
    """Mark a statement if the WAL tells what becomes of all of its relations: then that is judged, not its text."""
    database = statement.database
    if database is None or not statement.relations:
        return
    through = statement.detail.get("through")
    views = {item.get("view") for item in through if isinstance(item, dict)} if isinstance(through, list) else set()
    found = [shares.relations.get(_key(database, name)) for name in statement.relations if name not in views]
    if found and all(known is not None and known.streamed for known in found):
        statement.detail["by_effect"] = True


def holds(shares: Shares, database: str, relations: Iterable[str]) -> int | None:
    """Give how many rows the fullest of these relations holds, None where no size is known."""
    found = [shares.relations.get(_key(database, name)) for name in relations]
    sizes = [known.sizes[-1] for known in found if known is not None and known.sizes]
    return max((max(0, size.rows + size.net) for size in sizes), default=None)


def change(shares: Shares, part: Transaction, who: str, kind: str) -> list[dict[str, object]]:
    """Take up a part of a transaction; gives, with its last one, what it took of relations that had more.

    `kind` is the principal's. This runs for every transaction: what only inserts costs a look-up.
    """
    told: list[dict[str, object]] = []
    if part.part:
        lsn, earlier = shares.parts.pop(part.database, (0, told))
        told = earlier if lsn == part.lsn else told
    for name, did in _did(part):
        key = _key(part.database, name)
        known = shares.relations.get(key) or _made(shares, key)
        known.streamed = True
        if (known.sizes or did.truncated) and (
            did.deleted or did.truncated or did.updated >= ROWS_LEAST or (did.updated and kind in _BY_KEY)
        ):  # of how many nobody has counted, no share is known
            told += _judged(shares, known, part, key, name, did, who, kind)
        if did.inserted or did.deleted or did.truncated:
            _count(known, did, part.committed_at_us)
    if part.last:
        return told[:TOLD_MAX]
    room(shares.parts, DATABASES_MAX)
    shares.parts[part.database] = (part.lsn, told[-TOLD_MAX:])
    return []


def _made(shares: Shares, key: str) -> Known:
    room(shares.relations, RELATIONS_MAX)
    known = shares.relations[key] = Known()
    return known


def _did(part: Transaction) -> list[tuple[str, _Did]]:
    if len(part.counts) == 1 and 0 <= part.counts[0].relation < len(part.relations):
        one = part.counts[0]
        return [(part.relations[one.relation].name, _one(one.operation, one.rows))]
    totals: dict[str, _Did] = {}
    for count in part.counts:
        if 0 <= count.relation < len(part.relations):
            name = part.relations[count.relation].name
            i, u, d, t = totals.get(name, _NOTHING)
            more = _one(count.operation, count.rows)
            totals[name] = _Did(i + more.inserted, u + more.updated, d + more.deleted, t or more.truncated)
    return list(totals.items())


def _one(operation: str, rows: int) -> _Did:
    if operation == "i":
        return _Did(rows)
    if operation == "u":
        return _Did(0, rows)
    if operation == "d":
        return _Did(0, 0, rows)
    return _TRUNCATED if operation == "t" else _NOTHING


def _judged(
    shares: Shares, known: Known, part: Transaction, key: str, name: str, did: _Did, who: str, kind: str
) -> Iterator[_Told]:
    at_us = part.committed_at_us
    before = _before(known, at_us)
    live = 0 if before is None else max(0, before.rows + before.net)

    def told(operation: str, rows: int, of: int, window: str) -> Iterator[_Told]:
        share = min(1.0, rows / of) if of else 0.0
        if before is None or (operation != "truncate" and (rows < ROWS_LEAST or share < SHARE_LEAST)):
            return
        usual = share >= 0.5 and _usual(_window(shares, key, who), at_us)
        found: _Told = {"relation": name, "operation": operation, "rows": min(rows, of), "of": of}
        found |= {"part": round(share, 3), "counted_at_us": before.at_us, "window": window, "usual": usual}
        yield found

    if did.truncated:
        after = max(0, did.inserted - did.deleted)
        yield from told("truncate", 0 if after >= 0.9 * live else live - after, live, "transaction")
        return
    if before is None:
        return
    if did.deleted:
        yield from _deleted(shares, known, key, did, who, live, at_us, told)
    if did.updated:
        updated = did.updated
        if kind in _BY_KEY:
            window = _window(shares, key, who)
            if not 0 <= at_us - window.keys_since_us < DAY_US:
                window.keys, window.keys_since_us = [], at_us
            window.keys = _smallest(window.keys, _keys(part, name))
            updated = max(_distinct(window.keys), min(did.updated, live) if did.updated >= live > 0 else 0)
        elif did.updated > live * DOUBT + ROWS_LEAST:
            updated = live  # rows were updated twice
        yield from told("update", min(updated, live), live, "24h" if kind in _BY_KEY else "transaction")


def _deleted(
    shares: Shares, known: Known, key: str, did: _Did, who: str, live: int, at_us: int, told: _Telling
) -> Iterator[_Told]:
    windows = (_window(shares, key, who), _window(shares, key, EVERYBODY))
    for window in windows:
        _add(window, at_us, did.deleted)
    if max(windows[0].total, windows[1].total) < max(ROWS_LEAST, SHARE_LEAST * live):
        return  # whatever is added up, it is too little
    if did.deleted > live * DOUBT + ROWS_LEAST + did.inserted:
        return  # there were more rows than is known
    turnover = known.turnover
    inserted, deleted = turnover.inserted + turnover.inserted_before, turnover.deleted + turnover.deleted_before
    best: list[_Told] = []
    for window, spans in zip(windows, _SPANS, strict=True):
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


def _count(known: Known, did: _Did, at_us: int) -> None:
    """Add what a part did to the sizes that were read before it, and to the turnover."""
    for size in known.sizes:
        if size.at_us < at_us:
            size.net = (-size.rows if did.truncated else size.net) + did.inserted - did.deleted
    turnover, day = known.turnover, at_us // DAY_US
    if day > turnover.day:
        one = day == turnover.day + 1
        turnover.inserted_before = turnover.inserted if one else 0
        turnover.deleted_before = turnover.deleted if one else 0
        turnover.day, turnover.inserted, turnover.deleted = day, 0, 0
    turnover.inserted += did.inserted
    turnover.deleted += did.deleted


def _before(known: Known, at_us: int) -> Size | None:
    """Give the latest reading from before a time: one from after the deed has its result in it."""
    return next((size for size in reversed(known.sizes) if size.at_us < at_us), None)


def _read(shares: Shares, key: str, at_us: int, rows: int) -> None:
    sizes = (shares.relations.get(key) or _made(shares, key)).sizes
    if not sizes or at_us > sizes[-1].at_us:
        sizes.append(Size(at_us, rows))
        del sizes[:-READINGS_MAX]


def _window(shares: Shares, key: str, who: str) -> Window:
    name = f"{key}\n{who[:300]}"
    window = shares.windows.pop(name, None)
    if window is None:
        room(shares.windows, WINDOWS_MAX)
        window = Window()
    shares.windows[name] = window
    return window


def _add(window: Window, at_us: int, rows: int) -> None:
    """Add rows in their hour; hours of which a day has passed become parts of their day."""
    slot = at_us // HOUR_US * HOUR_US + HOUR_US - 1  # its end: it counts for as long as any row of it may
    window.total += rows
    if window.gone and window.gone[-1][0] == slot:
        window.gone[-1][1] += rows
        return
    sums: dict[int, int] = {}
    for since_us, number in [*window.gone, (slot, rows)]:
        if since_us > at_us - MONTH_US:
            grain = HOUR_US if since_us > at_us - DAY_US else DAY_US
            end = since_us // grain * grain + grain - 1
            sums[end] = sums.get(end, 0) + number
    window.gone = [[end, number] for end, number in sorted(sums.items())]
    window.total = sum(sums.values())


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


@lru_cache(2_000)
def _key(database: str, relation: str) -> str:
    return f"{database}\n{relation}"
