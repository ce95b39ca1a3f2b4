"""Tables as Parquet files: one way to write them, so that equal tables give equal bytes."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from sinks.lake.schema import UNIQUE_TEXTS

ROW_GROUP_ROWS = 128 * 1024


def encode(table: pa.Table) -> bytes:
    """Write a table as one Parquet file, compressed with zstd; dictionaries where values repeat."""
    sink = pa.BufferOutputStream()
    repeating = [
        field.name if not pa.types.is_list(field.type) else f"{field.name}.list.element"
        for field in table.schema
        if field.name not in UNIQUE_TEXTS and not pa.types.is_boolean(field.type)
    ]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=repeating,
        row_group_size=ROW_GROUP_ROWS,
        store_schema=False,
    )
    return bytes(sink.getvalue())
