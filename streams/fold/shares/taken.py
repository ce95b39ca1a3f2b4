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

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from pgwitness.core.events import Row, Transaction, Unpublished
from streams.fold.bounded import evict_oldest
from streams.fold.memory.shares import KnownRelation, Shares, Turnover
from streams.fold.shares.sizes import known_of, relation_key, size_before
from streams.fold.shares.windows import DAY_US, MONTH_US, add_rows, distinct, is_usual, smallest, window_of

DATABASES_MAX, SHARES_MAX = 100, 100
ROWS_LEAST, SHARE_LEAST = 10, 0.3
"""What is less is not reported; policies have limits of their own above these."""
EVERYBODY = ""
QUEUE = 0.5
"""Deletions by insertions, from which on a relation is one whose rows come to go."""
DOUBT = 1.2
_BY_KEY = frozenset({"human", "agent"})
"""Kinds of principals whose updated rows are told apart by their keys: what a service updates comes by the thousand."""
_SPANS = ((("24h", DAY_US), ("30d", MONTH_US)), (("24h by all", DAY_US),))
_rows = msgspec.json.Decoder(list[Row])
_Share = dict[str, object]
_ShareOf = Callable[[str, int, int, str], Iterator[_Share]]


class _Did(NamedTuple):
    """What one part of a transaction did to a relation."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    truncated: bool = False


_NOTHING = _Did()
_TRUNCATED = _Did(truncated=True)


def take_change(shares: Shares, part: Transaction, who: str, kind: str) -> list[dict[str, object]]:
    """Take up a part of a transaction; gives, with its last one, what it took of relations that had more.

    `kind` is the principal's. This runs for every transaction: what only inserts costs a look-up.
    """
    found: list[dict[str, object]] = []
    if part.part:
        lsn, earlier = shares.parts.pop(part.database, (0, found))
        found = earlier if lsn == part.lsn else found
    for name, did in _did(part):
        key = relation_key(part.database, name)
        known = shares.relations.get(key) or known_of(shares, key)
        known.streamed = True
        if (known.sizes or did.truncated) and (
            did.deleted or did.truncated or did.updated >= ROWS_LEAST or (did.updated and kind in _BY_KEY)
        ):  # of how many nobody has counted, no share is known
            found += _judged(shares, known, part, key, name, did, who, kind)
        if did.inserted or did.deleted or did.truncated:
            _count(known, did, part.committed_at_us)
    if part.last:
        return found[:SHARES_MAX]
    evict_oldest(shares.parts, DATABASES_MAX)
    shares.parts[part.database] = (part.lsn, found[-SHARES_MAX:])
    return []


def take_unpublished(
    shares: Shares, part: Transaction, item: Unpublished, who: str, kind: str
) -> list[dict[str, object]]:
    """Take up what a beacon proves of a relation whose rows are not in the stream; give what it took, likewise.

    Only of relations that are known not to be published whole: what was kept out of the stream on purpose is a finding.
    Of updates nobody knows which rows they were, so they say nothing.
    """
    if not item.expected or not (item.deleted or item.truncated):
        return []
    key = relation_key(part.database, item.relation)
    known = shares.relations.get(key)
    if known is None or not known.sizes:
        return []
    did = _Did(item.inserted, 0, item.deleted, item.truncated and item.partition is None)
    found = list(_judged(shares, known, part, key, item.relation, did, who, kind))
    _count(known, _Did(0, 0, item.deleted, did.truncated), part.committed_at_us)
    return found[:SHARES_MAX]


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
    shares: Shares, known: KnownRelation, part: Transaction, key: str, name: str, did: _Did, who: str, kind: str
) -> Iterator[_Share]:
    at_us = part.committed_at_us
    before = size_before(known, at_us)
    live = 0 if before is None else max(0, before.rows + before.net)

    def share_of(operation: str, rows: int, of: int, window: str) -> Iterator[_Share]:
        share = min(1.0, rows / of) if of else 0.0
        if before is None or (operation != "truncate" and (rows < ROWS_LEAST or share < SHARE_LEAST)):
            return
        usual = share >= 0.5 and is_usual(window_of(shares.windows, key, who), at_us)
        found: _Share = {"relation": name, "operation": operation, "rows": min(rows, of), "of": of}
        found |= {"part": round(share, 3), "counted_at_us": before.at_us, "window": window, "usual": usual}
        yield found

    if did.truncated:
        after = max(0, did.inserted - did.deleted)
        yield from share_of("truncate", 0 if after >= 0.9 * live else live - after, live, "transaction")
        return
    if before is None:
        return
    if did.deleted:
        yield from _deleted(shares, known, key, did, who, live, at_us, share_of)
    if did.updated:
        updated = did.updated
        if kind in _BY_KEY:
            window = window_of(shares.windows, key, who)
            if not 0 <= at_us - window.keys_since_us < DAY_US:
                window.keys, window.keys_since_us = [], at_us
            window.keys = smallest(window.keys, _keys(part, name))
            updated = max(distinct(window.keys), min(did.updated, live) if did.updated >= live > 0 else 0)
        elif did.updated > live * DOUBT + ROWS_LEAST:
            updated = live  # rows were updated twice
        yield from share_of("update", min(updated, live), live, "24h" if kind in _BY_KEY else "transaction")


def _deleted(
    shares: Shares, known: KnownRelation, key: str, did: _Did, who: str, live: int, at_us: int, share_of: _ShareOf
) -> Iterator[_Share]:
    windows = (window_of(shares.windows, key, who), window_of(shares.windows, key, EVERYBODY))
    for window in windows:
        add_rows(window, at_us, did.deleted)
    if max(windows[0].total, windows[1].total) < max(ROWS_LEAST, SHARE_LEAST * live):
        return  # whatever is added up, it is too little
    if did.deleted > live * DOUBT + ROWS_LEAST + did.inserted:
        return  # there were more rows than is known
    turnover = known.turnover
    inserted, deleted = turnover.inserted + turnover.inserted_before, turnover.deleted + turnover.deleted_before
    best: list[_Share] = []
    for window, spans in zip(windows, _SPANS, strict=True):
        for span, length_us in spans:
            gone = sum(rows for since_us, rows in window.gone if since_us > at_us - length_us)
            of = live + gone - did.deleted
            if _comes_to_go(turnover):
                gone = min(gone, max(0, deleted + did.deleted - inserted))
            best += share_of("delete", gone, of, "transaction" if gone == did.deleted else span)
    if best:  # one's own first, where they are equal
        found = max(best, key=lambda item: float(str(item["part"])))
        yield found | ({"replaced": True} if 2 * did.inserted >= did.deleted else {})


def _comes_to_go(turnover: Turnover) -> bool:
    """Return whether rows of a relation ordinarily go again; by the day before, if known, which nobody can change."""
    if turnover.inserted_before:
        return turnover.deleted_before >= QUEUE * turnover.inserted_before
    return 0 < QUEUE * turnover.inserted <= turnover.deleted


def _count(known: KnownRelation, did: _Did, at_us: int) -> None:
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


def _keys(part: Transaction, name: str) -> Iterator[int]:
    """Return hashes of the keys of the rows of a relation that were updated."""
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
