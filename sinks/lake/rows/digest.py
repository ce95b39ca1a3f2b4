"""What a table's rows add up to: a digest that neither their order nor their division into files changes. Pure.

Each row is written as a text of our own (`encoded`), hashed, and stretched into 32 numbers of 64 bits (`lanes`); a
digest is the sum of these over all rows. So the digest of two files is the sum of theirs, and files that take the place
of others prove by equal sums that they hold the same rows, after the others are gone. 64 bits alone, or XOR, can be
forged; who wants other rows with a given sum of 2,048 bits has to find them among some 2^90.

The row's text names each column that is not null, in the order of their names, with type and length: a column that came
later changes nothing of rows that do not have it. docs/reference/lake.md says it all, with the query that computes it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks.lake.rows.lanes import LANES, added_up

DOMAIN = "pgwitness-row/1"
"""What every row's text begins with: the version of this encoding."""
CHUNK_ROWS = 4_096
REPEATING = (pa.int32(), pa.float64())
"""Types of columns whose values come again and again, as a port or a score: each is written once a chunk."""
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
    for texts in encoded(table, name):
        found += added_up(texts)
    return Digest(tuple(int(lane) for lane in found))


def encoded(table: pa.Table, name: str) -> Iterable[pa.Array]:
    """Give the text of each row, in chunks."""
    names = sorted(one for one in table.column_names if one != "dt")
    # One dictionary a column, so that what its values are written as is made once.
    batches = table.select(names).unify_dictionaries().to_batches(max_chunksize=CHUNK_ROWS)
    written: dict[str, tuple[pa.Array, pa.Array]] = {}
    for batch in batches:
        parts: list[pa.Array | pa.Scalar] = [pa.scalar(f"{DOMAIN}\n{name}\n")]
        for column, values in zip(names, batch.columns, strict=True):
            if values.null_count == len(values):
                continue
            parts.append(
                _dictionary(column, values, written)
                if isinstance(values, pa.DictionaryArray)
                else _column(column, values)
            )
        if len(parts) == 1:
            yield pa.array([parts[0].as_py()] * batch.num_rows, pa.string())
        elif batch.num_rows:
            yield pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")


def _dictionary(column: str, values: pa.DictionaryArray, written: dict[str, tuple[pa.Array, pa.Array]]) -> pa.Array:
    """Write a column whose distinct values stand apart: each of these once."""
    known = written.get(column)
    if known is None or not known[0].equals(values.dictionary):
        known = written[column] = (values.dictionary, _column(column, values.dictionary))
    return known[1].take(values.indices)


def _column(column: str, values: pa.Array) -> pa.Array:
    """Write a column: of each value its name, type and text, and null for null."""
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _list(f"{column}=", values)
    if values.type in REPEATING:
        coded = values.dictionary_encode()
        if len(coded.dictionary) * 4 < len(values):
            return _value(f"{column}=", coded.dictionary).take(coded.indices)
    return _value(f"{column}=", values)


def _value(before: str, values: pa.Array) -> pa.Array:
    """Write values with their type: texts with their length in bytes, numbers in decimal; null stays null."""
    kind = values.type
    if isinstance(values, pa.DictionaryArray):
        return _value(before, values.dictionary).take(values.indices)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        texts = values.cast(pa.string())
        return _join(f"{before}s", pc.binary_length(texts).cast(pa.string()), ":", texts, ";")
    if pa.types.is_integer(kind):
        return _join(f"{before}i", values.cast(pa.string()), ";")
    if pa.types.is_boolean(kind):
        return _join(f"{before}b", values.cast(pa.string()), ";")
    if pa.types.is_timestamp(kind):
        return _join(f"{before}t", values.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()).cast(pa.string()), ";")
    if pa.types.is_float64(kind):
        # Its 64 bits as a number: how a program prints a fraction is no contract.
        return _join(f"{before}f", values.view(pa.int64()).cast(pa.string()), ";")
    raise TypeError(f"a column of type {kind} has no digest")


def _list(before: str, values: pa.ListArray) -> pa.Array:
    """Write lists: how many values, then each; `n;` is a null among them."""
    counts = pc.list_value_length(values)
    items = _value("", values.flatten())
    if items.null_count:
        items = pc.fill_null(items, "n;")
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(pc.fill_null(counts, 0).to_numpy(zero_copy_only=False), out=offsets[1:])
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), items), "")
    numbers = pa.array([f"{before}l{count}:" for count in range((pc.max(counts).as_py() or 0) + 1)])
    return _join(numbers.take(counts), joined, ";")


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")
