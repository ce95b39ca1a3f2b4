"""Verifies the entries of a lake: against the signed checkpoint, against the log's files, and as a chain.

There are up to three copies of what was sealed: the lake's entries, the log's bundles, and the hashes in its tiles. The
one that has the signed root is right, and whatever differs from it was altered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pgwitness.core.errors import Stop
from sinks.lake.log import chain
from sinks.seal.history import History
from sinks.seal.tlog import merkle, tiles
from sinks.seal.tlog.checkpoint import Checkpoint
from sinks.seal.tlog.merkle import leaf_hash, perfect
from sinks.seal.tlog.tiles import WIDTH, Edge, Read
from sinks.seal.verification.findings import Report

NAMED_MAX = 50
"""Entries that are named one by one; behind that they are counted."""
_TILE = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass
class Sealed:
    """The leaves of the log as far as they are known to be those that were signed, and where their bytes are."""

    size: int = 0
    leaves: Sequence[bytes] = ()
    proven: bool = False

    levels: list[list[bytes]] = field(default_factory=list)

    def root(self, size: int) -> bytes:
        """Give the root of the first `size` leaves; the first call hashes the whole tree, others little."""
        if not self.levels:
            level = list(self.leaves)
            while level:
                self.levels.append(level)
                level = [merkle.node_hash(one, two) for one, two in zip(level[::2], level[1::2], strict=False)]
        return merkle.root(size, lambda height, index: self.levels[height][index])


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Give the root over these leaves."""
    edge = Edge()
    for leaf in leaves:
        for _ in edge.add(leaf):
            pass
    return edge.root()


def of_log(read: Read, size: int) -> list[bytes | None]:
    """Hash the lake's entries; None for one that is missing."""
    found: list[bytes | None] = []
    for number in range(size):
        content = read(chain.entry_name(number))
        found.append(leaf_hash(content) if content is not None else None)
    return found


def of_tiles(read: Read, size: int) -> list[bytes | None]:
    """Read the leaves out of the lowest tiles; None where one is missing or torn."""
    found: list[bytes | None] = []
    read_tiles = tiles.Tiles(size, read)
    for index in range(_tiles(size)):
        width = min(WIDTH, size - index * WIDTH)
        try:
            found += read_tiles.hashes(0, index)
        except tiles.Torn:
            found += [None] * width
    return found


def of_bundles(read: Read, size: int) -> list[bytes | None]:
    """Hash the entries in the bundles; None where one is missing or torn."""
    found: list[bytes | None] = []
    for index in range(_tiles(size)):
        width = min(WIDTH, size - index * WIDTH)
        entries = bundle(read, index, width)
        found += [leaf_hash(entry) for entry in entries] if entries is not None else [None] * width
    return found


def bundle(read: Read, index: int, width: int) -> list[bytes] | None:
    """Read a bundle's entries; None when it is missing or torn."""
    try:
        content = tiles.fetched(read, tiles.bundle_path(index), tiles.bundle_path(index, width))
    except tiles.Torn:
        return None
    return tiles.decode_bundle(content, width)


def sealed_leaves(lake: Read, seal: Read, found: Checkpoint, report: Report) -> Sealed:
    """Find the leaves that were signed, and name the entries of the lake that are others."""
    of = {
        "_log": of_log(lake, found.size),
        "tiles": of_tiles(seal, found.size),
        "bundles": of_bundles(seal, found.size),
    }
    for leaves in of.values():
        whole = [leaf for leaf in leaves if leaf is not None]
        if len(whole) == found.size and root_of(whole) == found.root:
            _name_entries(of["_log"], whole, report)
            return Sealed(found.size, whole, proven=True)
    report.found(
        "altered",
        "_log",
        f"neither the entries 0 to {found.size - 1} nor the log in the seal have the root that was signed",
    )
    _name_entries(of["_log"], of["tiles"], report)
    return Sealed()


def _name_entries(found: Sequence[bytes | None], right: Sequence[bytes | None], report: Report) -> None:
    places = {leaf: number for number, leaf in enumerate(right) if leaf is not None}
    wrong = [number for number, leaf in enumerate(found) if leaf != right[number]]
    for number in wrong[:NAMED_MAX]:
        leaf, name = found[number], chain.entry_name(number)
        if leaf is None:
            report.found("missing", name, f"entry {number} was sealed and is missing")
        elif leaf in places:
            report.found("moved", name, f"it is entry {places[leaf]}, put in the place of {number}")
        else:
            report.found("altered", name, f"entry {number} is not the one that was sealed")
    if len(wrong) > NAMED_MAX:
        report.found("altered", "_log", f"{len(wrong) - NAMED_MAX} more entries are not those that were sealed")


def check_tiles(read: Read, names: Iterable[str], sealed: Sealed, behind: Sequence[bytes], report: Report) -> None:
    """Compare each file of the log with the leaves that were signed. `names` are those that are there, in the seal.

    `behind` are the leaves of entries that are not sealed yet: a sealer that is at work, or was killed, has written
    files of these before it signed.
    """
    levels = [[*sealed.leaves, *behind]]
    while len(levels[-1]) >= WIDTH:
        below = levels[-1]
        levels.append([perfect(below[at : at + WIDTH]) for at in range(0, len(below) - WIDTH + 1, WIDTH)])
    for name in sorted(names):
        why = _wrong_tile(read, name, levels)
        if why is not None:
            report.found("added" if why == "is no file of the log" else "altered", f"seal/{name}", why)
    for full, needed in _needed(sealed.size):
        if read(needed) is None and read(full) is None:
            report.found("missing", f"seal/{needed}", "a file of the log is missing")


def _needed(size: int) -> Iterable[tuple[str, str]]:
    """Name the files of a log of this size, each behind the one that takes its place when it is full."""
    level = 0
    while count := size >> (tiles.HEIGHT * level):
        for index in range(_tiles(count)):
            width = min(WIDTH, count - index * WIDTH)
            yield tiles.tile_path(level, index), tiles.tile_path(level, index, width)
            if level == 0:
                yield tiles.bundle_path(index), tiles.bundle_path(index, width)
        level += 1


def _wrong_tile(read: Read, name: str, levels: list[list[bytes]]) -> str | None:
    matched = _TILE.fullmatch(name)
    if matched is None:
        return "is no file of the log"
    kind, digits, width = matched[1], matched[2].replace("x", "").replace("/", ""), int(matched[3] or WIDTH)
    level, index = (0 if kind == "entries" else int(kind)), int(digits)
    known = levels[level] if level < len(levels) else []
    expected = known[index * WIDTH : index * WIDTH + width]
    own = tiles.bundle_path(index, width) if kind == "entries" else tiles.tile_path(level, index, width)
    if len(expected) < width or own != name:
        return "is no file of the log"
    content = read(name)
    if content is None:
        return None  # removed meanwhile, for a full one is there
    if kind != "entries":
        return None if content == b"".join(expected) else "its hashes are not those that were sealed"
    entries = tiles.decode_bundle(content, width)
    if entries is None or tiles.encode_bundle(entries) != content or [leaf_hash(one) for one in entries] != expected:
        return "its entries are not those that were sealed"
    return None


class Fold:
    """Folds the lake's entries, those that were sealed and what has come behind them."""

    def __init__(self, lake: Read, seal: Read, sealed: Sealed, report: Report) -> None:
        self._lake = lake
        self._seal = seal
        self._sealed = sealed
        self._report = report
        self._bundle: tuple[int, list[bytes]] = (-1, [])
        self.history = History()
        self.broken = False
        self.sealed_at_us = 0
        self.chained: list[chain.Entry] = []
        self.behind: list[bytes] = []
        """The leaves of these."""
        self.mores: set[str] = set()

    def run(self, after: Callable[[History], None] = lambda history: None) -> None:
        """Go on to the end; `after` is called behind each entry. An entry that cannot follow ends it, as a finding."""
        while not self.broken:
            number = self.history.state.number + 1
            content = self._content(number)
            if content is None:
                return
            try:
                entry = self.history.take(content, self._lake)
            except Stop as error:
                self._report.found("altered", chain.entry_name(number), f"{error}; nothing behind it was looked at")
                self.broken = True
                return
            if wanted := getattr(entry, "more", None):
                self.mores.add(chain.more_name(wanted))
            if number >= self._sealed.size:
                self.chained.append(entry)
                self.behind.append(leaf_hash(content))
            else:
                self.sealed_at_us = entry.at_us
            after(self.history)

    def _content(self, number: int) -> bytes | None:
        """Give an entry as it was sealed, wherever that stands."""
        content = self._lake(chain.entry_name(number))
        if number >= self._sealed.size:
            return content
        if content is not None and leaf_hash(content) == self._sealed.leaves[number]:
            return content
        index = number // WIDTH
        if self._bundle[0] != index:
            self._bundle = index, bundle(self._seal, index, min(WIDTH, self._sealed.size - index * WIDTH)) or []
        entries = self._bundle[1]
        if len(entries) > number % WIDTH and leaf_hash(entries[number % WIDTH]) == self._sealed.leaves[number]:
            return entries[number % WIDTH]
        self._report.found(
            "altered", chain.entry_name(number), "what was sealed is nowhere; nothing behind it was read"
        )
        self.broken = True
        return None


def _tiles(count: int) -> int:
    return (count + WIDTH - 1) // WIDTH
