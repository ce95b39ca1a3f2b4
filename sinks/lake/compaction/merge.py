"""Rows of several sorted sources in one order, in bounded memory. Pure.

Each source gives tables that are sorted, one after the other. Of each one table is held; what is not beyond the last
row of any of them can go on, sorted, and whoever is used up gives its next. So what is in memory is one table a source.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

KEYS: dict[str, tuple[str, ...]] = {
    "events": ("principal", "occurred_at"),
    "rows": ("event_id",),
    "alerts": ("principal", "time"),
}
"""What a table's files are sorted by; of a month `rows` goes by day first, so that a day's images lie together."""

Key = tuple[tuple[bool, Any], ...]


def keys_of(table: str, *, month: bool) -> tuple[str, ...]:
    """Give the columns by which files of a table are sorted."""
    return ("dt", *KEYS[table]) if month and table == "rows" else KEYS[table]


def in_order(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Sort a table; what has no value comes last."""
    return table.take(pc.sort_indices(table, sort_keys=[(key, "ascending") for key in keys]))


def merge(sources: Sequence[Iterator[pa.Table]], keys: Sequence[str]) -> Iterator[pa.Table]:
    """Give the rows of all sources, sorted by `keys`, table by table."""
    runs = [run for source in sources if not (run := _Run(source, keys)).done]
    while len(runs) > 1:
        last = min(run.last for run in runs)
        pieces = [piece for run in runs if (piece := run.up_to(last)).num_rows]
        yield in_order(pa.concat_tables(pieces).combine_chunks(), keys) if len(pieces) > 1 else pieces[0]
        runs = [run for run in runs if not run.done]
    for run in runs:
        yield from run.rest()


class _Run:
    """One source; `last` is the key of the last row of the table that is held."""

    def __init__(self, source: Iterator[pa.Table], keys: Sequence[str]) -> None:
        self._source = source
        self._keys = keys
        self._next()

    def _next(self) -> None:
        self._table = next((table for table in self._source if table.num_rows), None)
        self._at = 0
        if self._table is not None:
            self._columns = [self._table.column(key) for key in self._keys]
            self.last = self._key(self._table.num_rows - 1)

    @property
    def done(self) -> bool:
        return self._table is None

    def _key(self, row: int) -> Key:
        values = (column[row] for column in self._columns)
        return tuple((not value.is_valid, _comparable(value)) for value in values)

    def up_to(self, last: Key) -> pa.Table:
        """Give the rows that are not beyond a key, and go on behind them."""
        table = self._table
        assert table is not None
        end = bisect_right(range(table.num_rows), last, lo=self._at, key=self._key)
        piece = table.slice(self._at, end - self._at)
        self._at = end
        if end == table.num_rows:
            self._next()
        return piece

    def rest(self) -> Iterator[pa.Table]:
        """Give all that is left."""
        while self._table is not None:
            yield self._table.slice(self._at)
            self._next()


def _comparable(value: pa.Scalar) -> Any:
    if not value.is_valid:
        return 0
    return value.value if pa.types.is_temporal(value.type) else value.as_py()
