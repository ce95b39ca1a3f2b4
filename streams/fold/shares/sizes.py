"""What is known of relations: how many rows each holds, how many come and go, and whether the stream has them all.

The number of rows comes from the server's statistics (`SIZES`), with what the WAL has added since and taken. A reading
that contradicts itself is not sent, so an older one goes on to hold. A table that DDL made begins with 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from pgwitness.core.events import Ddl, Event, Posture, Transaction
from streams.fold.bounded import evict_oldest
from streams.fold.memory.shares import KnownRelation, Shares, Size
from streams.fold.schema.moves import attached

SIZES = "sizes"
"""The type of a posture record that reports how many rows relations hold; no event comes of it."""
PUBLICATION = "pgwitness"
"""The one that updates and deletions are read from; insertions and TRUNCATE are of every table of it, too."""
RELATIONS_MAX = 20_000
READINGS_MAX = 3


def take_posture(shares: Shares, event: Posture) -> bool:
    """Take up a reading of sizes, and what is published; return whether it was a reading, of which no event comes."""
    if event.object_type == "publication" and event.name == PUBLICATION:
        _published(shares, event)
    before = (event.after or {}).get("renamed_from")
    if event.object_type == "table" and isinstance(before, str):
        rename(shares, event.database or "", [(before, event.name)])
    if event.object_type != SIZES:
        return False
    after = event.after or {}
    rows, at_us = after.get("rows"), after.get("at_us")
    if isinstance(rows, dict) and isinstance(at_us, int):
        for name, number in rows.items():
            if isinstance(number, int) and number >= 0:
                add_reading(shares, relation_key(event.database or "", str(name)), at_us, number)
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
        key = relation_key(event.database or "", name)
        if name in after or key in shares.relations:
            known_of(shares, key).streamed = name in after


def take_ddl(shares: Shares, part: Transaction, command: Ddl, known: Callable[[str], set[str]]) -> None:
    """Take up tables that a command made, which are empty, and forget those that are gone.

    `known` gives the schemas in which there is a relation of a name.
    """
    for item in command.dropped:
        if item.type == "table" and item.relation is not None:
            shares.relations.pop(relation_key(part.database, item.relation), None)
    if command.tag == "CREATE TABLE":
        for item in command.objects:
            if item.type == "table" and item.relation is not None:
                key = relation_key(part.database, item.relation)
                add_reading(shares, key, part.committed_at_us - 1, 0)
                shares.relations[key].streamed = True
    below = attached(command, known)
    if below is not None:
        parent, child = (shares.relations.get(relation_key(part.database, name)) for name in below)
        if parent is not None and child is not None and parent.sizes and child.sizes:
            rows = sum(max(0, each.sizes[-1].rows + each.sizes[-1].net) for each in (parent, child))
            add_reading(shares, relation_key(part.database, below[0]), part.committed_at_us - 1, rows)


def rename(shares: Shares, database: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Let what is known of relations go on under the names that they have now."""
    for old, new in pairs:
        was, now = relation_key(database, old), relation_key(database, new)
        known, already = shares.relations.get(was), shares.relations.get(now)
        if known is None or (already is not None and already.sizes):
            continue
        del shares.relations[was]
        shares.relations[now] = known
        for name in [name for name in shares.windows if name.startswith(f"{was}\n")]:
            shares.windows[now + name[len(was) :]] = shares.windows.pop(name)


def by_effect(shares: Shares, statement: Event) -> None:
    """Mark a statement if the WAL shows what becomes of all of its relations: then that is judged, not its text."""
    database = statement.database
    if database is None or not statement.relations:
        return
    through = statement.detail.get("through")
    views = {item.get("view") for item in through if isinstance(item, dict)} if isinstance(through, list) else set()
    found = [shares.relations.get(relation_key(database, name)) for name in statement.relations if name not in views]
    if found and all(known is not None and known.streamed for known in found):
        statement.detail["by_effect"] = True


def holds(shares: Shares, database: str, relations: Iterable[str]) -> int | None:
    """Return how many rows the fullest of these relations holds, None where no size is known."""
    found = [shares.relations.get(relation_key(database, name)) for name in relations]
    sizes = [known.sizes[-1] for known in found if known is not None and known.sizes]
    return max((max(0, size.rows + size.net) for size in sizes), default=None)


def known_of(shares: Shares, key: str) -> KnownRelation:
    """Return what is known of a relation by its key, nothing yet where it is new."""
    known = shares.relations.get(key)
    if known is None:
        evict_oldest(shares.relations, RELATIONS_MAX)
        known = shares.relations[key] = KnownRelation()
    return known


def size_before(known: KnownRelation, at_us: int) -> Size | None:
    """Return the latest reading from before a time: one from after the action has its result in it."""
    return next((size for size in reversed(known.sizes) if size.at_us < at_us), None)


def add_reading(shares: Shares, key: str, at_us: int, rows: int) -> None:
    """Take up how many rows a relation had at a time, if that is news."""
    sizes = known_of(shares, key).sizes
    if not sizes or at_us > sizes[-1].at_us:
        sizes.append(Size(at_us, rows))
        del sizes[:-READINGS_MAX]


@lru_cache(2_000)
def relation_key(database: str, relation: str) -> str:
    """Return the key of a relation in a checkpoint."""
    return f"{database}\n{relation}"
