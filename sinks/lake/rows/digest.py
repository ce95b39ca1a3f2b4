"""What a table's rows add up to: a digest that neither their order nor their division into files changes. Pure.

Each row is written as a text of our own (`texts`), hashed, and stretched into 32 numbers of 64 bits (`hashing`), which
`native` does in one go; a digest is the sum of these over all rows. So the digest of two files is the sum of theirs,
and files that take the place of others prove by equal sums that they hold the same rows, after the others are gone. 64
bits alone, or XOR, can be forged; who wants other rows with a given sum of 2,048 bits has to find them among some 2^90.
docs/reference/lake.md says it all, with the query that computes it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sinks.lake.rows import native
from sinks.lake.rows.hashing import LANES, in_python
from sinks.lake.rows.texts import Written, batches

_MASK = 2**64 - 1
_BYTES = LANES * 8


@dataclass(frozen=True)
class Digest:
    """The sum of rows: 32 numbers, each modulo 2^64."""

    lanes: tuple[int, ...] = (0,) * LANES

    def __add__(self, other: Digest) -> Digest:
        """Give the digest of the rows of both."""
        return Digest(tuple((one + two) & _MASK for one, two in zip(self.lanes, other.lanes, strict=True)))

    def __sub__(self, other: Digest) -> Digest:
        """Give the digest of what is left when the rows of `other` go."""
        return Digest(tuple((one - two) & _MASK for one, two in zip(self.lanes, other.lanes, strict=True)))

    def __str__(self) -> str:
        """Write it as an entry does: base64 of the numbers, each big-endian."""
        return base64.b64encode(b"".join(lane.to_bytes(8, "big") for lane in self.lanes)).decode()


NOTHING = Digest()
"""The digest of no rows."""


def parse(text: str) -> Digest:
    """Read a digest that `str` wrote. Raises `ValueError` when it is none."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise ValueError(f"not a digest of rows: {error}") from error
    if len(content) != _BYTES:
        raise ValueError(f"not a digest of rows: {len(content)} bytes instead of {_BYTES}")
    return Digest(tuple(int(lane) for lane in np.frombuffer(content, ">u8")))


def total(digests: Iterable[Digest]) -> Digest:
    """Add digests up."""
    return sum(digests, NOTHING)


def of(table: pa.Table, name: str) -> Digest:
    """Give the digest of rows of the lake's table `name`, as they stand in its files: without `dt`.

    Raises `TypeError` for a column of a type that no table of the lake has.
    """
    found = np.zeros(LANES, np.uint64)
    add = native.way() or in_python
    written: Written = {}
    for batch in batches(table):
        found += add(batch, name, written)
    return Digest(tuple(int(lane) for lane in found))
