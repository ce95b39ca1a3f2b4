"""What rows add up to, in C: the same as `hashing.in_python`, in one call for all rows of a batch.

`digests.c` writes the text of a row column by column out of Arrow's own buffers and hashes it. It is compiled when
pgwitness is installed (hatch_build.py), wants an x86 processor with SHA instructions, and is used when it gives what
Python gives. While it works, other threads go on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sinks.lake.rows import texts
from sinks.lake.rows.hashing import LANES, Sums, in_python
from sinks.lake.rows.texts import Written

LIBRARY = Path(__file__).with_name("digests.native")
Way = Callable[[pa.RecordBatch, str, Written], Sums]
WRITTEN, TEXT, INT32, INT64, UINT64, LIST = range(6)


class _Column(ctypes.Structure):
    """`struct column` of `digests.c`."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_int64),
        ("valid", ctypes.c_void_p),
        ("valid_from", ctypes.c_int64),
        ("offsets", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("lists", ctypes.c_void_p),
        ("first", ctypes.c_int64),
    )


@cache
def way() -> Way | None:
    """Give the compiled way, None where there is none, or it does not do as Python does."""
    found = load(LIBRARY)
    return (
        found
        if found and all(np.array_equal(found(one, "t", {}), in_python(one, "t", {})) for one in _tried())
        else None
    )


def load(library: Path) -> Way | None:
    """Load a library, None where there is none of this version, or the processor lacks what it needs."""
    try:
        function = ctypes.CDLL(str(library)).pgwitness_add_rows_2
    except (OSError, AttributeError):
        return None
    function.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]

    def add(batch: pa.RecordBatch, name: str, written: Written) -> Sums:
        sums, head = np.zeros(LANES, np.uint64), texts.head(name).encode()
        held: list[pa.Array] = []  # what the pointers lead to, until the call has ended
        columns = [
            _column(column, values, written, held)
            for column, values in zip(batch.schema.names, batch.columns, strict=True)
            if values.null_count < len(values)
        ]
        array = (_Column * len(columns))(*columns)
        function(head, len(head), array, len(columns), batch.num_rows, sums.ctypes.data)
        return sums

    return add if function(b"", 0, None, 0, 0, None) else None


def _column(column: str, values: pa.Array, written: Written, held: list[pa.Array]) -> _Column:
    """Describe a column that is not all null."""
    kind = values.type
    if isinstance(values, pa.DictionaryArray):
        return _coded(texts.dictionary(column, values, written), values.indices, "", held)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        values, kind = values.cast(pa.string()), pa.string()
    if pa.types.is_string(kind):
        return _texts(TEXT, values, held, f"{column}=s")
    if pa.types.is_list(kind):
        return _list(column, values, held)
    if pa.types.is_timestamp(kind):
        return _numbers(INT64, values.cast(pa.timestamp("us", kind.tz)), held, f"{column}=t")
    if pa.types.is_float64(kind):
        return _numbers(INT64, values, held, f"{column}=f")
    for number, of in ((INT32, pa.int32()), (INT64, pa.int64()), (UINT64, pa.uint64())):
        if kind.equals(of):
            return _numbers(number, values, held, f"{column}=i")
    return _texts(WRITTEN, texts.whole(column, values), held)


def _numbers(kind: int, values: pa.Array, held: list[pa.Array], name: str) -> _Column:
    found = _named(kind, values, held, name)
    found.values = values.buffers()[1].address + values.offset * (4 if kind == INT32 else 8)
    return found


def _texts(kind: int, values: pa.StringArray, held: list[pa.Array], name: str = "") -> _Column:
    found = _named(kind, values, held, name)
    _, offsets, data = values.buffers()
    found.offsets = offsets.address + values.offset * 4
    found.values = data.address if data else None
    return found


def _coded(written: pa.StringArray, places: pa.Array, null: str, held: list[pa.Array]) -> _Column:
    """Describe texts that stand apart; `null` stands for what has no place, or is null there."""
    if written.null_count:
        written = pc.fill_null(written, null)
    places = places.cast(pa.int32())
    if places.null_count:
        written = pa.concat_arrays([written, pa.array([null], pa.string())])
        places = pc.fill_null(places, len(written) - 1)
    found = _texts(WRITTEN, written, held)
    held.append(places)
    found.places = places.buffers()[1].address + places.offset * 4
    return found


def _list(column: str, values: pa.ListArray, held: list[pa.Array]) -> _Column:
    """Describe a column of lists: of its items those alone that this batch has."""
    first, until = values.offsets[0].as_py(), values.offsets[-1].as_py()
    items = values.values.slice(first, until - first)
    if isinstance(items, pa.DictionaryArray):
        found = _coded(texts.value("", items.dictionary), items.indices, "n;", held)
    else:
        written = texts.value("", items)
        found = _texts(LIST, pc.fill_null(written, "n;") if written.null_count else written, held)
    named = _named(LIST, values, held, f"{column}=l")
    found.kind, found.name, found.name_length = LIST, named.name, named.name_length
    found.valid, found.valid_from = named.valid, named.valid_from
    found.lists, found.first = values.buffers()[1].address + values.offset * 4, first
    return found


def _named(kind: int, values: pa.Array, held: list[pa.Array], name: str) -> _Column:
    """Describe what every column has: its name, and which of its values are null."""
    held.append(values)
    valid = values.buffers()[0] if values.null_count else None
    encoded = name.encode()
    return _Column(kind, encoded, len(encoded), valid.address if valid else None, values.offset)


def _tried() -> list[pa.RecordBatch]:
    """Make rows of every type, with and without nulls, whose texts end around the bounds of a block of SHA-256."""
    count = 140
    columns: dict[str, pa.Array] = {
        "a": pa.array([-(2**31), 2**31 - 1, None, 0] * (count // 4), pa.int32()),
        "b": pa.array([True, None, False, True] * (count // 4)),
        "c": pa.array(["x", "ä€", None, ""] * (count // 4)).dictionary_encode(),
        "d": pa.array([0.5, -0.0, None, 1e300] * (count // 4)),
        "i": pa.array([-(2**63), 2**63 - 1, None, -1] * (count // 4), pa.int64()),
        "l": pa.array([["x", None], [], None, ["y"]] * (count // 4), pa.list_(pa.string())),
        "n": pa.nulls(count, pa.string()),
        "s": pa.array(["s" * length for length in range(count - 1)] + ["ä" * 5_000]),
        "t": pa.array([0, -1, None, 2**52] * (count // 4), pa.timestamp("us", tz="UTC")),
        "u": pa.array([2**64 - 1, 0, None, 1] * (count // 4), pa.uint64()),
        "v": pa.array([[2**64 - 1, None], [], None, [0]] * (count // 4), pa.list_(pa.uint64())),
    }
    table = pa.table(columns)
    return [*texts.batches(table), *texts.batches(table.slice(3, 130)), *texts.batches(table.slice(1, 1))]
