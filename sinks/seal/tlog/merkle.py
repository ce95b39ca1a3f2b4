"""The Merkle tree of RFC 6962, section 2.1, over SHA-256: roots and proofs. Pure.

A tree is asked for its *perfect subtrees*: `subtree(height, index)` is the hash over the leaves from
`index * 2**height` on, `2**height` of them. Whoever has the tiles of a log (`sinks.seal.tlog.tiles`) has those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Subtree = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """Hash one entry of the log."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def perfect(hashes: Sequence[bytes]) -> bytes:
    """Hash a perfect tree over these nodes, whose number is a power of two."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def of_range(start: int, end: int, subtree: Subtree) -> bytes:
    """Hash the leaves from `start` to `end` (exclusive), where `start` begins a subtree of a tree of that size."""
    if start == end:
        return EMPTY_ROOT
    size = end - start
    if size & (size - 1) == 0:
        return subtree(size.bit_length() - 1, start // size)
    middle = start + _split(size)
    return node_hash(of_range(start, middle, subtree), of_range(middle, end, subtree))


def root(size: int, subtree: Subtree) -> bytes:
    """Give the root of the first `size` leaves."""
    return of_range(0, size, subtree)


def inclusion(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Prove that a leaf stands in a tree of this size: the audit path, from the leaf's sibling up."""
    return _path(index, 0, size, subtree)


def consistency(older: int, newer: int, subtree: Subtree) -> list[bytes]:
    """Prove that a tree of size `newer` begins with the one of size `older` (at least 1)."""
    return _consistent(older, 0, newer, True, subtree)


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> bool:
    """Say whether a proof shows that the leaf with this hash stands at `index` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and found == expected


def continues(older: int, before: bytes, newer: int, after: bytes, proof: Sequence[bytes]) -> bool:
    """Say whether a proof shows that one tree begins with the other (RFC 9162, section 2.1.4.2)."""
    if older == newer:
        return not proof and before == after
    if not 0 < older < newer or not proof:
        return False
    path = [before, *proof] if older & (older - 1) == 0 else list(proof)
    at, last = older - 1, newer - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node_hash(node, first), node_hash(node, second)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, node)
        at, last = at >> 1, last >> 1
    return last == 0 and first == before and second == after


def _split(size: int) -> int:
    """Give the largest power of two below a size."""
    return 1 << ((size - 1).bit_length() - 1)


def _path(index: int, start: int, end: int, subtree: Subtree) -> list[bytes]:
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(index, start, middle, subtree), of_range(middle, end, subtree)]
    return [*_path(index, middle, end, subtree), of_range(start, middle, subtree)]


def _consistent(older: int, start: int, end: int, known: bool, subtree: Subtree) -> list[bytes]:
    """Prove for a part of the tree; `known` while its beginning is the older tree as a whole."""
    if older == end:
        return [] if known else [of_range(start, end, subtree)]
    middle = start + _split(end - start)
    if older <= middle:
        return [*_consistent(older, start, middle, known, subtree), of_range(middle, end, subtree)]
    return [*_consistent(older, middle, end, False, subtree), of_range(start, middle, subtree)]
