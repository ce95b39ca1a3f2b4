"""The digest of rows: it adds up, it sees every value, and anybody can compute it in SQL."""

from __future__ import annotations

import hashlib
import random
import re
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.lake.log.chain import File
from sinks.lake.rows import digest
from sinks.lake.rows.schema import EVENTS, ROWS, TABLES
from sinks.lake.writer import Lake
from tests.sinks.material import Finding, Judgement, change, lands, other

DOCS = Path(__file__).parents[2] / "docs/reference/lake.md"

texts = st.text(max_size=12) | st.sampled_from(["", ";", "s1:a;", "i1;n;", "a\x00b", "ä€𝄞", "NULL", "null"])
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): texts,
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.timestamp("us", tz="UTC"): st.integers(0, 253_402_300_799_999_999),
}


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Give values of a column's type, nulls among them."""
    if pa.types.is_list(kind):
        return st.none() | st.lists(st.none() | values_of(kind.value_type), max_size=3)
    return st.none() | VALUES[kind]


def rows_of(schema: pa.Schema, max_size: int = 6) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Give rows of a table."""
    return st.lists(st.fixed_dictionaries({one.name: values_of(one.type) for one in schema}), max_size=max_size)


def sql_digest(file: Path, table: str) -> tuple[int, str]:
    """Run the query of the documentation."""
    found = re.search(r"## The digest of rows.*?```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    query = re.sub(r'SET VARIABLE ("table"|file) = .*\n', "", found[1])
    connection = duckdb.connect()
    connection.execute('SET VARIABLE "table" = ?', [table])
    connection.execute("SET VARIABLE file = ?", [str(file)])
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def slowly(rows: list[dict[str, Any]], schema: pa.Schema, name: str) -> digest.Digest:
    """Compute it by the words of the documentation, one value after the other."""

    def value(one: Any, kind: pa.DataType) -> bytes:
        if pa.types.is_list(kind):
            items = b"".join((b"n" if item is None else value(item, kind.value_type)) + b";" for item in one)
            return b"l%d:%s" % (len(one), items)
        if pa.types.is_string(kind):
            return b"s%d:%s" % (len(one.encode()), one.encode())
        if pa.types.is_float64(kind):
            return b"f%d" % int(np.float64(one).view(np.int64))
        if pa.types.is_boolean(kind):
            return b"btrue" if one else b"bfalse"
        return (b"t%d" if pa.types.is_timestamp(kind) else b"i%d") % one

    lanes = [0] * 32
    for row in rows:
        text = b"pgwitness-row/1\n%s\n" % name.encode()
        for column in sorted(schema.names):
            if row[column] is not None:
                text += b"%s=%s;" % (column.encode(), value(row[column], schema.field(column).type))
        first = hashlib.sha256(text).digest()
        whole = first + b"".join(hashlib.sha256(first + bytes([number])).digest() for number in range(1, 8))
        for lane in range(32):
            lanes[lane] = (lanes[lane] + int.from_bytes(whole[8 * lane : 8 * lane + 8], "big")) % 2**64
    return digest.Digest(tuple(lanes))


ODD = (
    pa.schema([(f"c{place}_{kind}"[:12].replace("[", ""), kind) for place, kind in enumerate(VALUES)])
    .append(pa.field("touch", pa.list_(pa.uint64())))
    .append(pa.field("texts", pa.list_(pa.string())))
)


@settings(deadline=None)
@given(rows_of(ODD))
def test_it_is_what_the_documentation_says(rows: list[dict[str, Any]]) -> None:
    """Computed value by value, by the words of the documentation, it is the same: for every type there is."""
    assert digest.of(pa.Table.from_pylist(rows, ODD), "odd") == slowly(rows, ODD, "odd")


@settings(deadline=None, max_examples=40)
@given(rows_of(EVENTS, 4), st.sampled_from([1, 2, 4096]), st.randoms(use_true_random=False))
def test_it_knows_no_order_no_files_and_no_dictionaries(
    rows: list[dict[str, Any]], cut: int, chance: random.Random
) -> None:
    """The sum over parts in any order, of columns with or without dictionaries, is the digest of the whole."""
    whole = pa.Table.from_pylist(rows, EVENTS)
    shuffled = chance.sample(rows, len(rows))
    parts = [pa.Table.from_pylist(shuffled[place : place + cut], EVENTS) for place in range(0, len(rows), cut)]
    coded = [
        pa.table({name: one.dictionary_encode() if one.type == pa.string() else one for name, one in columns})
        for columns in (list(zip(part.column_names, part.columns, strict=True)) for part in parts)
    ]
    reordered = [part.select(list(reversed(part.column_names))) for part in coded]
    assert digest.total(digest.of(part, "events") for part in reordered) == digest.of(whole, "events")
    if coded:
        assert digest.of(pa.concat_tables(coded), "events") == digest.of(whole, "events")


@settings(deadline=None, max_examples=30)
@given(rows=rows_of(ODD, 3).filter(bool))
def test_sql_computes_it(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The query of the documentation gives the same for whatever stands in a file."""
    table = pa.Table.from_pylist(rows, ODD)
    file = tmp_path_factory.mktemp("digest") / "f.parquet"
    pq.write_table(table, file)
    assert sql_digest(file, "odd") == (len(rows), str(digest.of(table, "odd")))
    pq.write_table(table.append_column("dt", pa.array([date(2026, 9, 22)] * len(rows))), file)
    assert sql_digest(file, "odd") == (len(rows), str(digest.of(table, "odd")))


@pytest.mark.parametrize(
    ("one", "other_one"),
    [
        ({"before": None}, {"before": ""}),
        ({"before": "a", "after": None}, {"before": None, "after": "a"}),
        ({"before": "a;after=s1:b"}, {"before": "a", "after": "b"}),
        ({"before": "null"}, {"before": None}),
    ],
    ids=str,
)
def test_what_looks_alike_is_not(one: dict[str, str | None], other_one: dict[str, str | None]) -> None:
    """Null is not empty, a value stands in its column, and no text can imitate another's end."""
    tables = [pa.Table.from_pylist([{"event_id": "e"} | row], ROWS) for row in (one, other_one)]
    assert digest.of(tables[0], "rows") != digest.of(tables[1], "rows")


def test_rows_count_as_often_as_they_are_there() -> None:
    """A row twice is not the row once, and a pair that XOR would not see shows."""
    row = pa.Table.from_pylist([{"event_id": "e", "after": "{}"}], ROWS)
    once = digest.of(row, "rows")
    assert digest.of(pa.concat_tables([row, row]), "rows") == once + once != once
    assert once + once - once == once
    assert once - once == digest.NOTHING == digest.of(row.slice(0, 0), "rows")


def test_each_table_has_its_own() -> None:
    """The same values in another table are another row."""
    row = pa.Table.from_pylist([{"event_id": "e"}], ROWS)
    assert digest.of(row, "rows") != digest.of(row, "events")


def test_a_column_that_came_later_changes_nothing_of_older_rows() -> None:
    """With a new column of nulls a row adds up to the same: a compactor may write it anew with today's columns."""
    old = pa.Table.from_pylist([{"event_id": "e", "kind": "session"}], EVENTS.remove(5))
    assert digest.of(old.append_column("new", pa.nulls(1, pa.string())), "events") == digest.of(old, "events")
    assert digest.of(old.append_column("dt", pa.array([date(2026, 9, 22)])), "events") == digest.of(old, "events")


def test_a_type_that_no_table_has_is_refused() -> None:
    """Nothing is left out because nobody knows how it is written."""
    with pytest.raises(TypeError, match="decimal"):
        digest.of(pa.table({"d": pa.array([1]).cast(pa.decimal128(20))}), "events")


@given(st.lists(st.integers(0, 2**64 - 1), min_size=32, max_size=32))
def test_its_text_is_read_back(lanes: list[int]) -> None:
    """Writing and reading change nothing."""
    made = digest.Digest(tuple(lanes))
    assert digest.parse(str(made)) == made


@pytest.mark.parametrize("text", ["", "AAAA", "!" * 344, "A" * 343, "ä"])
def test_a_text_that_is_none_is_refused(text: str) -> None:
    """Half a digest is none."""
    with pytest.raises(ValueError, match="not a digest"):
        digest.parse(text)


def test_every_landed_file_carries_its_digest(tmp_path: Path) -> None:
    """What stands in the entry is what the file's rows add up to, in each table, by pgwitness and by plain SQL."""
    writer = Lake(tmp_path).writer("events", 0)
    writer.resume()
    found = Judgement(["p"], 0.5, [{"why": "new"}], [Finding("u", {"time": 1, "is_alert": True})])
    rows = [[0, "u", 0, {"id": 5}, ["status"], {"id": 5}, {"id": 5, "status": "paid ä"}], [1, "t", 0, *[None] * 4]]
    made = [change(1, *rows), other(2, duration_ms=0.1, detail={"a": 1}), change(3)]
    writer.append(0, made, [found] * 3)
    writer.commit()
    files = [file for entry in lands(tmp_path) for file in entry.files]
    assert {file.table for file in files} == {"events", "rows", "alerts"} <= set(TABLES)
    for file in files:
        read = pq.ParquetFile(tmp_path / file.path).read()
        assert file.digest == str(digest.of(read, file.table))
        assert sql_digest(tmp_path / file.path, file.table) == (file.rows, file.digest)


def test_entries_without_digests_are_read_and_written_as_they_were() -> None:
    """A file that was landed before there were digests has none; its entry's bytes stay what they are."""
    old = (
        b'{"table":"events","path":"events/dt=2026-09-22/a.parquet","rows":1,"bytes":2,"sha256":"0","schema_version":3}'
    )
    read = msgspec.json.decode(old, type=File)
    assert read.digest is None
    assert msgspec.json.encode(read) == old
