"""How a log lies in files (C2SP tlog-tiles v0.1.0): tiles of 256 hashes a level, and bundles of 256 entries. Pure.

Tile N of level L has the hashes of 256 subtrees of height 8*L, and itself is a subtree of height 8*(L+1). What is at
the right edge is *partial* and has its width in its name; when a full one is there, partial ones may go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sinks.seal.tlog.merkle import EMPTY_ROOT, HASH_BYTES, leaf_hash, node_hash, perfect

WIDTH = 256
HEIGHT = 8
LEAF_BYTES_MAX = 65_535

Read = Callable[[str], bytes | None]
"""Gives what a file of the log holds, None when there is none."""


class Torn(ValueError):
    """A tile or a bundle is missing or not whole; `path` is its name."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} {why}")
        self.path = path


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Name a tile of hashes."""
    return f"tile/{level}/{_numbered(index, width)}"


def bundle_path(index: int, width: int = WIDTH) -> str:
    """Name a bundle of entries."""
    return f"tile/entries/{_numbered(index, width)}"


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Write entries one behind the other, each with its length in two bytes."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(content: bytes, width: int) -> list[bytes] | None:
    """Read the first `width` entries of a bundle; None when it has fewer or does not end with one."""
    entries, at = [], 0
    while at < len(content):
        end = at + 2 + int.from_bytes(content[at : at + 2], "big")
        if at + 2 > len(content) or end > len(content):
            return None
        entries.append(content[at + 2 : end])
        at = end
    return entries[:width] if len(entries) >= width else None


class Edge:
    """The right edge of a log as it grows: at each level, the hashes of the tile that is not full yet."""

    def __init__(self, size: int = 0, levels: list[list[bytes]] | None = None) -> None:
        self.size = size
        self._levels = levels or []

    def add(self, leaf: bytes) -> Iterator[tuple[int, int, list[bytes]]]:
        """Take the next leaf's hash; gives the tiles that it fills: level, index, hashes."""
        self.size += 1
        level, found = 0, leaf
        while True:
            if level == len(self._levels):
                self._levels.append([])
            hashes = self._levels[level]
            hashes.append(found)
            if len(hashes) < WIDTH:
                return
            yield level, (self.size - 1) >> (HEIGHT * (level + 1)), hashes
            self._levels[level] = []
            level, found = level + 1, perfect(hashes)

    def partial(self) -> Iterator[tuple[int, int, list[bytes]]]:
        """Give the tiles at the edge that are not full: level, index, hashes."""
        for level, hashes in enumerate(self._levels):
            if hashes:
                yield level, self.size >> (HEIGHT * (level + 1)), hashes

    def root(self) -> bytes:
        """Give the root of what the log has."""
        found: bytes | None = None
        for hashes in self._levels:
            left = len(hashes)
            while left:
                width = left & -left
                part = perfect(hashes[left - width : left])
                found = part if found is None else node_hash(part, found)
                left -= width
        return EMPTY_ROOT if found is None else found

    def copy(self) -> Edge:
        """Give an edge that grows on its own."""
        return Edge(self.size, [list(hashes) for hashes in self._levels])


class Tiles:
    """The hashes of a log of `size` entries, out of its tiles; each is read once and kept."""

    def __init__(self, size: int, read: Read) -> None:
        self.size = size
        self._read = read
        self._kept: dict[tuple[int, int], list[bytes]] = {}

    def hashes(self, level: int, index: int) -> list[bytes]:
        """Give the hashes of a tile. Raise `Torn` when it is missing or not whole."""
        if (level, index) not in self._kept:
            width = min(WIDTH, (self.size >> (HEIGHT * level)) - index * WIDTH)
            content = fetched(self._read, tile_path(level, index), tile_path(level, index, width))
            if len(content) < width * HASH_BYTES or len(content) % HASH_BYTES:
                raise Torn(tile_path(level, index, width), "is not whole")
            self._kept[level, index] = [
                content[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)
            ]
        return self._kept[level, index]

    def subtree(self, height: int, index: int) -> bytes:
        """Give the hash of a perfect subtree (`sinks.seal.tlog.merkle`)."""
        level, above = divmod(height, HEIGHT)
        start = index << above
        hashes = self.hashes(level, start // WIDTH)
        return perfect(hashes[start % WIDTH : start % WIDTH + (1 << above)])

    def edge(self) -> Edge:
        """Give the right edge, to grow on."""
        levels: list[list[bytes]] = []
        while self.size >> (HEIGHT * len(levels)):
            count = self.size >> (HEIGHT * len(levels))
            levels.append(list(self.hashes(len(levels), count // WIDTH)) if count % WIDTH else [])
        return Edge(self.size, levels)


def entries(size: int, read: Read) -> Iterator[bytes]:
    """Give the entries of a log out of its bundles. Raise `Torn` at one that is missing or not whole."""
    for index in range((size + WIDTH - 1) // WIDTH):
        width = min(WIDTH, size - index * WIDTH)
        content = fetched(read, bundle_path(index), bundle_path(index, width))
        found = decode_bundle(content, width)
        if found is None:
            raise Torn(bundle_path(index, width), "is not whole")
        yield from found


def grown(edge: Edge, kept: list[bytes], new: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Let a log grow by entries: gives the files to write, name and content. The edge moves on.

    `kept` are the entries of the bundle that is not full yet; it moves on too.
    """
    for entry in new:
        if len(entry) > LEAF_BYTES_MAX:
            raise ValueError(f"an entry has at most {LEAF_BYTES_MAX} bytes")
        kept.append(entry)
        if len(kept) == WIDTH:
            yield bundle_path(edge.size // WIDTH), encode_bundle(kept)
            kept.clear()
        for level, index, hashes in edge.add(leaf_hash(entry)):
            yield tile_path(level, index), b"".join(hashes)
    if kept:
        yield bundle_path(edge.size // WIDTH, len(kept)), encode_bundle(kept)
    for level, index, hashes in edge.partial():
        yield tile_path(level, index, len(hashes)), b"".join(hashes)


def filled(older: int, newer: int) -> Iterator[str]:
    """Name the folders with the partial files of what was partial at one size and is full at another."""
    level = 0
    while count := older >> (HEIGHT * level):
        index, width = divmod(count, WIDTH)
        if width and newer >> (HEIGHT * level) >= (index + 1) * WIDTH:
            yield f"{tile_path(level, index)}.p"
            if level == 0:
                yield f"{bundle_path(index)}.p"
        level += 1


def fetched(read: Read, *names: str) -> bytes:
    """Give the first of these files that is there. Raise `Torn` when none is."""
    for name in names:
        if (content := read(name)) is not None:
            return content
    raise Torn(names[-1], "is missing")


def _numbered(index: int, width: int) -> str:
    digits = f"{index % 1000:03d}"
    while index := index // 1000:
        digits = f"x{index % 1000:03d}/{digits}"
    return digits if width == WIDTH else f"{digits}.p/{width}"
