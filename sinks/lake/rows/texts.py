"""A row as a text, which is what its digest hashes: in `encoded` for all rows of a batch. Pure.

The text names each column that is not null, in the order of their names, with type and length: a column that came
later changes nothing of rows that do not have it. docs/reference/lake.md says it all.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DOMAIN = "pgwitness-row/1"
"""What every row's text begins with: the version of this encoding."""
CHUNK_ROWS = 4_096
REPEATING = (pa.int32(), pa.float64())
"""Types of columns whose values come again and again, as a port or a score: each is written once a chunk."""
Written = dict[str, tuple[pa.Array, pa.Array]]
"""What the values of columns' dictionaries were written as, so that it is done once for all batches of a table."""


def batches(table: pa.Table) -> list[pa.RecordBatch]:
    """Cut a table: columns in the order of their names, without `dt`, each with one dictionary at most."""
    names = sorted(one for one in table.column_names if one != "dt")
    cut: list[pa.RecordBatch] = table.select(names).unify_dictionaries().to_batches(max_chunksize=CHUNK_ROWS)
    return cut


def head(name: str) -> str:
    """Give what the texts of a table's rows begin with."""
    return f"{DOMAIN}\n{name}\n"


def encoded(batch: pa.RecordBatch, name: str, written: Written) -> pa.StringArray:
    """Give the text of each row of the lake's table `name`, null for none.

    Raises `TypeError` for a column of a type that no table of the lake has.
    """
    parts: list[pa.Array | pa.Scalar] = [pa.scalar(head(name))]
    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        if values.null_count == len(values):
            continue
        parts.append(
            dictionary(column, values, written).take(values.indices)
            if isinstance(values, pa.DictionaryArray)
            else whole(column, values)
        )
    if len(parts) == 1:
        return pa.array([head(name)] * batch.num_rows, pa.string())
    return pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")


def dictionary(column: str, values: pa.DictionaryArray, written: Written) -> pa.Array:
    """Write the distinct values of a column, each once."""
    known = written.get(column)
    if known is None or not known[0].equals(values.dictionary):
        known = written[column] = (values.dictionary, whole(column, values.dictionary))
    return known[1]


def whole(column: str, values: pa.Array) -> pa.Array:
    """Write a column: of each value its name, type and text, and null for null."""
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _list(f"{column}=", values)
    if values.type in REPEATING:
        coded = values.dictionary_encode()
        if len(coded.dictionary) * 4 < len(values):
            return value(f"{column}=", coded.dictionary).take(coded.indices)
    return value(f"{column}=", values)


def value(before: str, values: pa.Array) -> pa.Array:
    """Write values with their type: texts with their length in bytes, numbers in decimal; null stays null."""
    kind = values.type
    if isinstance(values, pa.DictionaryArray):
        return value(before, values.dictionary).take(values.indices)
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
    items = value("", values.flatten())
    if items.null_count:
        items = pc.fill_null(items, "n;")
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(pc.fill_null(counts, 0).to_numpy(zero_copy_only=False), out=offsets[1:])
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), items), "")
    numbers = pa.array([f"{before}l{count}:" for count in range((pc.max(counts).as_py() or 0) + 1)])
    return _join(numbers.take(counts), joined, ";")


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")
