"""Tables as Parquet files: one way to write them, so that equal tables give equal bytes."""

from __future__ import annotations

from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sinks.lake.rows.schema import BLOOMS, UNIQUES

ROW_GROUP_ROWS = 128 * 1024
SORTED_ROW_GROUP_ROWS = 20_000
"""Row groups of sorted files: small, so that a question about one principal or record reads few rows."""

FALSE_POSITIVES = 0.05
"""How many of the row groups that a Bloom filter is asked about are read for nothing; each costs a millisecond."""


def encode(table: pa.Table) -> bytes:
    """Write a table as one Parquet file, compressed with zstd; dictionaries where values repeat."""
    sink = pa.BufferOutputStream()
    rows = min(max(table.num_rows, 1), ROW_GROUP_ROWS)
    pq.write_table(table, sink, row_group_size=ROW_GROUP_ROWS, **_options(table.schema, 1, rows))
    return bytes(sink.getvalue())


def writer(sink: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    """Begin a file that is written table by table, for long: it is compressed harder than what lands."""
    return pq.ParquetWriter(sink, schema, **_options(schema, 3, SORTED_ROW_GROUP_ROWS))


def _options(schema: pa.Schema, level: int, rows: int) -> dict[str, Any]:
    repeating = [
        field.name if not pa.types.is_list(field.type) else f"{field.name}.list.element"
        for field in schema
        if field.name not in UNIQUES and not pa.types.is_boolean(field.type)
    ]
    blooms = {
        name: {"ndv": values or rows, "fpp": FALSE_POSITIVES} for name, values in BLOOMS.items() if name in schema.names
    }
    return {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": repeating,
        "store_schema": False,
        "bloom_filter_options": blooms or None,
    }
