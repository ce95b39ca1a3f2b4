"""Which changes a transaction made by its own beacon that the stream does not have; pure, and bounded.

A beacon says which table its statement changed (`events.Wrote`): the table by its OID, so that no name deceives, and
the rows by the session's statistics. PostgreSQL hands those on at most once a second, between transactions, so the
numbers hold rows of the session's transactions just before, too. What those changed, as far as they were committed, is
in the stream, and is taken off here. What is left is more than the stream has of that table: rows that are not
published. A TRUNCATE needs no number. Of a table below the one that a statement named (`beacon.below`) the database has
itself seen that nobody publishes what it counts: there, other tables' rows under the same root explain nothing. Two
things are not told apart: rows of a transaction, or of a savepoint, that was rolled back in the seconds before, and
rows that this transaction changed; so nothing is said where rows of the table are in the stream, unless the catalogue
lists the table without that operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from collectors.installation.sql.below import BELOW
from collectors.wal.assembly.coming import Coming
from pgwitness.core.events import Beacon, Unpublished, Wrote

KEPT_US = 15_000_000
"""How long a session may keep statistics to itself: idle, PostgreSQL hands them on after ten seconds."""
ACCOUNTS_MAX = 16_384
"""Pairs of session and relation that are remembered, the oldest forgotten first."""
PARTITIONS_MAX = 100_000
ROOTS_MAX = 4
"""Partitions that are remembered, and roots of each."""
RELATIONS_MAX = 64
"""Relations of one transaction whose beacons are compared."""

Rows = tuple[int, int, int]
"""Inserted, updated, deleted."""
NONE: Rows = (0, 0, 0)


class Listed(Struct, frozen=True):
    """What the catalogue says of a relation: its root (or itself), that one's name, and the operations published.

    `name` is None when the relation is gone, `root` its own OID then. `operations` are letters of `events.OPERATIONS`.
    `partition` is its own name, if it is one. `partly`: it is known that not everything of it is published.
    """

    root: int
    name: str | None = None
    operations: str = ""
    partition: str | None = None
    temporary: bool = False
    partly: bool = False


class _Account:
    """Rows of one session and relation in the last seconds, in two periods."""

    __slots__ = ("before", "now", "since_us")

    def __init__(self, at_us: int) -> None:
        self.since_us = at_us
        self.before = self.now = NONE

    def turn(self, at_us: int) -> None:
        """Begin a new period when this one is over."""
        if at_us - self.since_us > KEPT_US:
            self.before = self.now if at_us - self.since_us <= 2 * KEPT_US else NONE
            self.now, self.since_us = NONE, at_us


class _Said:
    """What the beacons of the present transaction said of one relation."""

    __slots__ = ("first", "last", "truncated")

    def __init__(self, wrote: Wrote) -> None:
        self.first = self.last = _rows(wrote)
        self.truncated = False


class Accounts:
    """Keeps the accounts of one stream. `listed` asks the catalogue about a relation's OID."""

    def __init__(self, listed: Callable[[int], Listed]) -> None:
        self.coming = Coming()
        self._listed = listed
        self._known: dict[int, Listed] = {}
        self._roots: dict[int, set[int]] = {}
        self._accounts: dict[tuple[int, int, int], _Account] = {}
        self.begin()

    def begin(self) -> None:
        """Begin a transaction."""
        self._session: tuple[int, int] | None = None
        self._xid = 0
        self._said: dict[int, _Said] = {}
        self._below: dict[int, _Said] = {}
        self._seen: dict[int, list[int]] = {}

    def forget_catalogue(self) -> None:
        """Ask the catalogue again from here on."""
        self._known.clear()

    def partitions(self, roots: Mapping[int, int]) -> None:
        """Learn of partitions and their roots; one that leaves its root later had been read under it before."""
        for oid, root in roots.items():
            known = self._roots.setdefault(oid, set())
            if root not in known and len(known) < ROOTS_MAX:
                known.add(root)
        while len(self._roots) > PARTITIONS_MAX:
            del self._roots[next(iter(self._roots))]

    def spoke(self, beacon: Beacon) -> None:
        """Take a verified beacon of the present transaction."""
        wrote = beacon.wrote
        if wrote is None:
            return
        if self._session is None:
            self._session = (beacon.pid, beacon.backend_start_us)
            self._xid = beacon.xid
        of = self._below if wrote.statement.endswith(BELOW) else self._said
        said = of.get(wrote.relation)
        if said is None:
            if len(of) >= RELATIONS_MAX:
                return
            said = of[wrote.relation] = _Said(wrote)
        said.last = _rows(wrote)
        said.truncated = said.truncated or wrote.statement == "TRUNCATE"

    def saw(self, relation: int, inserts: int, updates: int, deletes: int, truncates: int) -> None:
        """Take how many rows of a relation a part has."""
        seen = self._seen.get(relation)
        if seen is None:
            self._seen[relation] = [inserts, updates, deletes, truncates]
        else:
            seen[0] += inserts
            seen[1] += updates
            seen[2] += deletes
            seen[3] += truncates

    def ends(self, at_us: int) -> list[Unpublished]:
        """Return what the transaction changed and the stream does not have; `at_us` is its commit."""
        session = self._session
        if session is None:
            return []
        missing = {oid: self._missing(session, oid, said, at_us) for oid, said in self._said.items()}
        for oid, said in self._below.items():
            missing[oid] = _joined(missing.get(oid), self._missing_below(session, oid, said, at_us))
        found = [item for item in missing.values() if item is not None]
        for oid, seen in self._seen.items():
            self._note(session, oid, (seen[0], seen[1], seen[2]), at_us)
        found = [self._as_of(item, at_us) for item in found]
        for item in found:
            self._note(session, item.oid, (item.inserted, item.updated, item.deleted), at_us)
        return found

    def _as_of(self, item: Unpublished, at_us: int) -> Unpublished:
        """Say what held when the rows were written: a table's name if it is gone, and whether it was still to come."""
        name = self.coming.name(item.oid) if item.published is None else item.relation
        later = not (item.inserted or item.truncated) and self.coming.waits(name, at_us, self._xid)
        return replace(item, relation=name or item.relation, expected=item.expected or later)

    def _missing(self, session: tuple[int, int], oid: int, said: _Said, at_us: int) -> Unpublished | None:
        seen = self._seen.get(oid)
        if seen is not None and not said.truncated and said.first == said.last and sum(seen[:3]) >= sum(said.first):
            # The common case, and nothing to ask the catalogue for: the stream has rows of what the beacon names.
            return None
        listed = self._catalogue(oid)
        if listed.temporary:
            return None
        root = self._seen.get(listed.root, [0, 0, 0, 0]) if listed.root != oid else [0, 0, 0, 0]
        seen = [a + b for a, b in zip(seen or [0, 0, 0, 0], root, strict=True)]
        explained = self._explained(session, oid, at_us)
        if listed.root != oid:
            explained = _sum(explained, self._explained(session, listed.root, at_us))
        rows = _above(said.first, explained, said.last)
        if self._was_read_by_root(oid, listed.root, rows) and not said.truncated:
            return None
        moved = bool(seen[0] and seen[2])
        missing = [
            n if not had and not (letter == "u" and moved) and self._counts(seen, listed, letter) else 0
            for n, had, letter in zip(rows, seen, "iud", strict=False)
        ]
        return _item(oid, listed, (missing[0], missing[1], missing[2]), truncated=said.truncated and not seen[3])

    def _missing_below(self, session: tuple[int, int], oid: int, said: _Said, at_us: int) -> Unpublished | None:
        """Return what a table below the one written was written of, less what the stream had of itself before."""
        rows = _above(said.first, self._explained(session, oid, at_us), said.last)
        return _item(oid, self._catalogue(oid), rows) if any(rows) else None

    def _was_read_by_root(self, oid: int, now: int, rows: Rows) -> bool:
        """Return whether a root of before, which the catalogue does not name any more, has these rows in the stream."""
        for root in self._roots.get(oid, set()) - {oid, now}:
            seen = self._seen.get(root)
            if seen is not None and all(had >= n for had, n in zip(seen, rows, strict=False)):
                return True
        return False

    def _counts(self, seen: list[int], listed: Listed, letter: str) -> bool:
        """Return whether a number counts although it may be of before: where the stream has nothing, or never would."""
        return not any(seen[:3]) or (listed.name is not None and letter not in listed.operations)

    def _catalogue(self, oid: int) -> Listed:
        listed = self._known.get(oid)
        if listed is None:
            listed = self._known[oid] = self._listed(oid)
        return listed

    def _explained(self, session: tuple[int, int], oid: int, at_us: int) -> Rows:
        account = self._accounts.get((*session, oid))
        if account is None:
            return NONE
        account.turn(at_us)
        return _sum(account.before, account.now)

    def _note(self, session: tuple[int, int], oid: int, rows: Rows, at_us: int) -> None:
        key = (*session, oid)
        account = self._accounts.get(key)
        if account is None:
            while len(self._accounts) >= ACCOUNTS_MAX:
                del self._accounts[next(iter(self._accounts))]
            account = self._accounts[key] = _Account(at_us)
        account.turn(at_us)
        account.now = _sum(account.now, rows)


def _rows(wrote: Wrote) -> Rows:
    return (wrote.inserted, wrote.updated, wrote.deleted)


def _item(oid: int, listed: Listed, rows: Rows, *, truncated: bool = False) -> Unpublished | None:
    letters = [letter for letter, n in zip("iud", rows, strict=True) if n] + ["t"] * truncated
    if not letters:
        return None
    return Unpublished(
        listed.name or str(oid),
        oid,
        *rows,
        truncated=truncated,
        published=None if listed.name is None else all(letter in listed.operations for letter in letters),
        partition=listed.partition,
        expected=listed.partly and not truncated,
    )


def _joined(one: Unpublished | None, other: Unpublished | None) -> Unpublished | None:
    """Join what the beacons of a table and of the one above it say: both numbers grow with all that was written."""
    if one is None or other is None:
        return one or other
    inserted, updated, deleted = (
        max(pair)
        for pair in (
            (one.inserted, other.inserted),
            (one.updated, other.updated),
            (one.deleted, other.deleted),
        )
    )
    return replace(one, inserted=inserted, updated=updated, deleted=deleted)


def _sum(one: Rows, other: Rows) -> Rows:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])


def _above(first: Rows, explained: Rows, last: Rows) -> Rows:
    """Take what is explained off the first number, and add what came after it in the same transaction."""
    left = [max(0, a - b) + max(0, c - a) for a, b, c in zip(first, explained, last, strict=True)]
    return (left[0], left[1], left[2])
