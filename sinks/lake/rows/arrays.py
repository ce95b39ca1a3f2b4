"""Arrow arrays from what the buffer keeps: encoded texts, codes of values seen before, lists of such.

Most columns repeat: the facts of a session stand in thousands of rows. They are kept as codes into a list of
distinct values and become dictionary arrays, which Parquet takes over as they are. Used by `sinks.lake.rows.columns`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

ABSENT = -1
"""Stands for null in arrays of numbers that are never negative."""


def json_texts(parts: Sequence[msgspec.Raw]) -> pa.StringArray:
    """Put encoded JSON values behind one another as a column of texts; a JSON `null` becomes a null.

    The bytes must be UTF-8 and every part one whole JSON value: the caller has decoded them.
    """
    data = b"".join(parts)
    count = len(parts)
    offsets = np.zeros(count + 1, dtype=np.int32)
    np.cumsum(np.fromiter(map(len, parts), np.int32, count), out=offsets[1:])
    present = np.frombuffer(data, np.uint8)[offsets[:-1]] != ord("n") if count else np.zeros(0, np.bool_)
    validity = np.packbits(present, bitorder="little")
    return pa.StringArray.from_buffers(
        count, pa.py_buffer(offsets), pa.py_buffer(data), pa.py_buffer(validity), count - int(present.sum())
    )


def numbers(values: Ints, kind: pa.DataType) -> pa.Array:
    """Make a column of numbers in which `ABSENT` is null."""
    absent = values == ABSENT
    return pa.array(values, type=kind, mask=absent if absent.any() else None)


def coded(values: Sequence[Hashable], codes: Codes, kind: pa.DataType) -> pa.DictionaryArray:
    """Make the column whose row `i` is `values[codes[i]]`; None is null, equal values share their place."""
    encoded = pa.array(values, kind).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(pa.array(codes)), encoded.dictionary)


def coded_lists(values: Sequence[Sequence[str] | None], codes: Codes) -> pa.ListArray:
    """Make the column of lists whose row `i` is `values[codes[i]]`; None is null."""
    places: dict[str, int] = {}
    distinct: list[Any] = [
        None if value is None else [places.setdefault(item, len(places)) for item in value] for value in values
    ]
    taken = pa.array(distinct, pa.list_(pa.int32())).take(pa.array(codes))
    items = pa.DictionaryArray.from_arrays(taken.values, pa.array(list(places), pa.string()))
    return pa.ListArray.from_arrays(taken.offsets, items, mask=taken.is_null() if taken.null_count else None)


class Distinct:
    """Gives every distinct value a code: its place in `values`."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._codes: dict[Hashable, int] = {}

    def code(self, value: Hashable) -> int:
        """Give the code of a value, a new one at its first sight."""
        codes = self._codes
        found = codes.get(value)
        if found is None:
            found = codes[value] = len(self.values)
            self.values.append(value)
        return found
