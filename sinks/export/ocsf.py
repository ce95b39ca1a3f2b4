"""Evidence as events of OCSF 1.8.0, for programs that collect these: JSON lines, or Parquet with the same columns.

What an event says is `sinks.lake.views.ocsf`; here it is asked for a period and a principal, and written. A finding is
exported once, as it stood when it was last told. Works on a connection of `sinks.sql.catalogue`; the same lake and
period give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any

import msgspec

from pgwitness.core.errors import NotInOrder
from sinks.lake.views import ocsf
from sinks.sql import query

if TYPE_CHECKING:
    import duckdb

TIME_US_MAX = 253_402_300_799_999_999
"""The end of the year 9999."""


@dataclass(frozen=True)
class Wanted:
    """A period by the database's clock (µs, `until_us` exclusive), and whose evidence: by or for this principal."""

    since_us: int = 0
    until_us: int = TIME_US_MAX
    principal: str | None = None

    def where(self, first: str, last: str) -> str:
        """Write the condition on rows that lie between two columns."""
        told = f"{last} >= make_timestamptz({self.since_us}) AND {first} < make_timestamptz({self.until_us})"
        if self.principal is None:
            return told
        name = "'" + self.principal.replace("'", "''") + "'"
        return f"{told} AND (principal = {name} OR on_behalf_of = {name})"


def queries(wanted: Wanted) -> dict[str, str]:
    """Give the query of each class, by the name of its file; one row an event."""
    # What was captured before the period, by another clock a day apart at most, did not happen in it.
    earliest = datetime.fromtimestamp(wanted.since_us // 1_000_000, UTC).date()
    first_day = max(earliest, datetime(1970, 1, 2, tzinfo=UTC).date()) - timedelta(days=1)
    events = f"(SELECT * FROM events WHERE dt >= DATE '{first_day}' AND {wanted.where('occurred_at', 'occurred_at')})"
    ordered = "ORDER BY time, metadata.uid"
    seen = wanted.where('coalesce(first_seen, "time")', 'coalesce(last_seen, "time")')
    return {
        "datastore_activity": f"SELECT * FROM ({ocsf.activity(events)}) {ordered}",
        "authentication": f"SELECT * FROM ({ocsf.authentication(events)}) {ordered}",
        "detection_finding": (
            f'SELECT uid, "time", principal, on_behalf_of, severity_id, status_id, title, ocsf FROM alerts '
            f"WHERE {seen} "
            'QUALIFY row_number() OVER (PARTITION BY uid ORDER BY "count" DESC, "time" DESC, captured_at DESC) = 1 '
            'ORDER BY "time", uid'
        ),
    }


def write_lines(connection: duckdb.DuckDBPyConnection, asked: str, file: IO[bytes]) -> int:
    """Write the events of a query as JSON, one a line, without what is null; return how many. Raise `NotInOrder`."""
    written = 0
    for line in _lines(connection, asked):
        file.write(line)
        written += 1
    return written


def _lines(connection: duckdb.DuckDBPyConnection, asked: str) -> Iterator[bytes]:
    columns = connection.sql(asked)
    if "ocsf" in columns.columns:
        yield from _findings(connection, asked)
        return
    # Decoded into objects that know their fields, what is null falls away eight times faster than field by field.
    decode = msgspec.json.Decoder(_shape(list(zip(columns.columns, columns.types, strict=True)))).decode
    for (text,) in query.ask(connection, f"SELECT to_json(a)::VARCHAR FROM ({asked}) AS a").rows:
        yield msgspec.json.encode(decode(text)) + b"\n"


def _shape(fields: list[tuple[str, Any]]) -> type[msgspec.Struct]:
    """Make the class of a row with these columns, or of a column with these fields."""
    described: list[tuple[str, Any, Any]] = [
        (name, _shape(kind.children) | None if kind.id == "struct" else Any, None) for name, kind in fields
    ]
    return msgspec.defstruct("Event", described, omit_defaults=True)


def _findings(connection: duckdb.DuckDBPyConnection, asked: str) -> Iterator[bytes]:
    for (text,) in query.ask(connection, f"SELECT ocsf FROM ({asked})").rows:
        try:
            event = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise NotInOrder(f"a finding of the lake is no JSON ({error}); see `pgwitness verify`") from error
        yield msgspec.json.encode(without_nulls(event)) + b"\n"


def without_nulls(value: Any) -> Any:
    """Give a value without what is null in it, nor objects of nothing else."""
    if isinstance(value, dict):
        kept = {key: without_nulls(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item != {}}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def write_parquet(connection: duckdb.DuckDBPyConnection, asked: str, file: IO[bytes]) -> int:
    """Write the events of a query as Parquet, columns as the standard nests them; return how many."""
    import pyarrow.parquet as pq

    reader = query.batches(connection, asked)
    written = 0
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            written += batch.num_rows
    return written


WRITERS: dict[str, Callable[[duckdb.DuckDBPyConnection, str, IO[bytes]], int]] = {
    "jsonl": write_lines,
    "parquet": write_parquet,
}
"""How an export is written, by the ending of its files."""
