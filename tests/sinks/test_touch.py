"""The number of a record: the same from the writer and from SQL, and by it `touched` finds all that it found before."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.lake.compaction.compactor import Compactor
from sinks.lake.log.chain import Replace
from sinks.lake.rows import parquet, touch
from sinks.lake.rows.columns import Columns
from sinks.lake.rows.schema import EVENTS
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.views import questions
from sinks.lake.writer import Lake
from sinks.sql import query
from sinks.sql.catalogue import connect
from tests.sinks.material import DAY_US, NOON_US, ORDINARY, change, enter, entries, other

ORDERS = "public.orders"


def numbers(*rows: touch.Row) -> list[tuple[int | None, int | None]]:
    """Give the numbers of rows, now and before."""
    now, before = touch.of_rows(rows)
    return list(zip(now.to_pylist(), before.to_pylist(), strict=True))


def row(key: object, operation: str = "u", relation: str = ORDERS, before: object = None) -> touch.Row:
    """Make a row."""
    return operation, relation, msgspec.json.encode(key), msgspec.json.encode(before)


def written(lake: Path, *rows: list[Any]) -> Path:
    """Land one transaction."""
    writer = Lake(lake).writer("events", 0)
    start, _ = writer.resume()
    writer.append(start, [change(start + 1, *rows)], [ORDINARY])
    writer.commit()
    return lake


def ordinals(lake: Path, key: str, relation: str = ORDERS) -> list[tuple[int, int]]:
    """Ask which rows touched a record."""
    text = f"SELECT xid, ordinal FROM touched({relation!r}, {key}) WHERE kind = 'change'"
    return [(xid - 1_000, ordinal) for xid, ordinal in query.ask(_opened(lake), text).rows]


@functools.cache
def _opened(lake: Path) -> duckdb.DuckDBPyConnection:
    """Open a lake once: making the views takes ten times as long as a question."""
    return connect(lake)


def test_it_is_what_the_documentation_says() -> None:
    """Relation and values, each with its length; DuckDB gives the same."""
    ((sql,),) = duckdb.sql("SELECT md5_number_lower('13:public.orders,1:7,')").fetchall()
    assert numbers(row({"id": 7})) == [(sql, None)]
    assert touch.of_record(ORDERS, ["7"]) == sql
    ((whole,),) = duckdb.sql("SELECT md5_number_lower('13:public.orders,')").fetchall()
    assert numbers(row(None, "t")) == [(whole, None)]
    assert touch.of_record(ORDERS) == whole


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
scalars = st.integers() | texts | st.sampled_from(['"', "\\", "a,1:b", "{}", "7", "{7"]) | st.booleans()


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(texts, scalars, min_size=1, max_size=3), texts)
def test_sql_asks_for_the_number_that_was_landed(key: dict[str, Any], relation: str) -> None:
    """Whatever stands in a key, and in whatever order its columns come, the macro's expression gives its number."""
    expression = questions.RECORD.replace("relation", "$relation").replace("CAST(key AS", "CAST($key AS")
    backwards = dict(reversed(key.items()))
    asked = [msgspec.json.encode(backwards).decode()]
    (only,) = key.values() if len(key) == 1 else (None,)
    if only is not None and not (isinstance(only, str) and only.startswith("{")):
        asked.append(only if isinstance(only, str) else msgspec.json.encode(only).decode())
    ((landed, before),) = numbers(row(key, relation=relation))
    assert before is None
    for one in asked:
        found = duckdb.execute(f"SELECT {expression}", {"relation": relation, "key": one}).fetchall()
        assert found == [(landed,)]


@pytest.mark.parametrize(
    ("before", "key", "moved"),
    [
        (None, {"id": 7}, None),
        ({"id": 7, "status": "x"}, {"id": 7}, None),
        ({"status": "x", "id": 7}, {"id": 7}, None),
        ({"id": 7}, {"id": 70}, ["7"]),
        ({"id": 70}, {"id": 7}, ["70"]),
        ({"status": "x", "id": 6}, {"id": 7}, ["6"]),
        ({"b": 1, "a": 2}, {"a": 2, "b": 3}, ["2", "1"]),
        ({"a": 2}, {"a": 2, "b": 3}, None),
        ({"status": "id"}, {"id": 7}, None),
        ({"id": None}, {"id": 7}, None),
        ({"id": 7}, None, None),
    ],
)
def test_an_update_of_the_key_touches_two_records(before: object, key: object, moved: list[str] | None) -> None:
    """The old one is known as far as the image before has the key's columns."""
    ((_, found),) = numbers(row(key, before=before))
    assert found == (None if moved is None else touch.of_record(ORDERS, moved))


@pytest.mark.parametrize(
    "key", [b"null", b"{}", b"7", b"[1]", b'{"id":null}', b'{"a":1,"b":null}', b'"x"', b"[" * 5_000 + b"]" * 5_000]
)
def test_a_row_whose_key_is_not_known_has_no_number(key: bytes) -> None:
    """Nothing is made up, and nothing fails, also with an image before."""
    assert numbers(("u", ORDERS, key, b'{"x":7}'), ("u", ORDERS, key, key[:-1])) == [(None, None)] * 2


def test_touched_finds_both_keys_of_an_update(tmp_path: Path) -> None:
    """Who asks for the old key and who asks for the new one see the update; a text key is asked for by its token."""
    lake = written(
        tmp_path,
        [0, "i", 0, {"id": 1}, None, None, {"id": 1}],
        [1, "u", 0, {"id": 2}, ["id"], {"id": 1}, {"id": 2}],
        [2, "u", 0, {"id": "tok_'\"ä"}, ["id"], {"id": 2}, {"id": "tok_'\"ä"}],
        [3, "d", 0, {"id": 3, "line": 1}, None, None, None],
        [4, "u", 0, {"line": 2, "id": 3}, ["line"], {"id": 3, "line": 1}, {"id": 3, "line": 2}],
    )
    assert ordinals(lake, "1") == [(1, 0), (1, 1)]
    assert ordinals(lake, "'{\"id\": 1}'") == [(1, 0), (1, 1)]
    assert ordinals(lake, "2") == [(1, 1), (1, 2)]
    assert ordinals(lake, "'tok_''\"ä'") == [(1, 2)]
    assert ordinals(lake, '\'{"id":3, "line": 1}\'') == [(1, 3), (1, 4)]
    assert ordinals(lake, "'{\"id\": 3}'") == [(1, 3), (1, 4)]
    assert ordinals(lake, "3") == []


@pytest.mark.parametrize(
    "value",
    [5, 50, -5, 0, 10**18, 10**25, 1.5, 1e300, True, "5", "tok_a", "x y", "-", 'a"b', "a\nb", "", "ä", "0b9c-11"],
)
def test_part_of_a_key_is_found_whatever_it_is(tmp_path: Path, value: object) -> None:
    """An object may name some of a key's columns; each row once, also where another row has just these as its key."""
    key = {"a": value, "b": 7}
    lake = written(
        tmp_path,
        [0, "i", 0, key, None, None, None],
        [1, "i", 0, {"a": value}, None, None, None],
        [2, "i", 0, {"a": f"{value}0", "b": 70}, None, None, None],
        [3, "i", 0, {"b": 70, "a": [value]}, None, None, None],
    )
    part, whole = ("'" + msgspec.json.encode(one).decode() + "'" for one in ({"a": value}, key))
    assert ordinals(lake, part) == [(1, 0), (1, 1)]
    assert ordinals(lake, whole) == [(1, 0)]
    assert ordinals(lake, "'{\"b\": 7}'") == [(1, 0)]


def test_rows_of_older_files_are_found_by_their_key(tmp_path: Path) -> None:
    """They have no number; files of both kinds are asked in one question, each row once."""
    lake = written(tmp_path, [0, "i", 0, {"id": 1}, None, None, None], [1, "t", 0, None, None, None, None])
    columns = Columns()
    columns.add([change(8, [0, "i", 0, {"id": 1}, None, None, None], [1, "t", 0, *[None] * 4])], [ORDINARY])
    ((_, today),) = [item for item in columns.tables().items() if item[0][0] == "events"]
    old = today.drop_columns(["relation", "touch", "touch_before"])
    old = old.set_column(old.schema.get_field_index("schema_version"), "schema_version", pa.array([3, 3], pa.int32()))
    for version, table in (
        (3, old),
        (4, pa.table([*old.columns, *[pa.nulls(2, one.type) for one in EVENTS][-3:]], names=EVENTS.names)),
    ):  # as a compactor writes it anew
        file = lake / f"events/dt=2026-09-22/old{version}.parquet"
        file.write_bytes(parquet.encode(table))
        enter(lake, file, version)
    assert sorted(ordinals(lake, "1")) == sorted([(1, 0), (1, 1), (8, 0), (8, 1), (8, 0), (8, 1)])
    assert sorted(ordinals(lake, "'{\"id\": 1}'")) == sorted([(1, 0), (1, 1), (8, 0), (8, 1), (8, 0), (8, 1)])
    assert sorted(ordinals(lake, "2")) == [(1, 1), (8, 1), (8, 1)]


def test_a_number_alone_is_not_believed(tmp_path: Path) -> None:
    """A row that has the number of another record, as somebody might make it, is not found as that record."""
    lake = written(tmp_path, [0, "i", 0, {"id": 1}, None, None, None])
    file = next(lake.glob("events/dt=2*/*.parquet"))
    table = pq.ParquetFile(file).read()
    forged = pa.array([touch.of_record(ORDERS, ["2"])], pa.uint64())
    other_one = file.with_name("forged.parquet")
    other_one.write_bytes(parquet.encode(table.set_column(table.schema.get_field_index("touch"), "touch", forged)))
    enter(lake, other_one, 4)
    assert ordinals(lake, "2") == []


def test_files_have_bloom_filters(tmp_path: Path) -> None:
    """DuckDB excludes a row group by the filter of `touch`, and says so for a record that is not there."""
    lake = written(tmp_path, *[[at, "i", 0, {"id": at}, None, None, None] for at in range(200)])
    file = str(next(lake.glob("events/dt=2*/*.parquet")))
    probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe($file, 'touch', $number)"
    there = duckdb.execute(probe, {"file": file, "number": touch.of_record(ORDERS, ["7"])}).fetchall()
    absent = duckdb.execute(probe, {"file": file, "number": touch.of_record(ORDERS, ["x"])}).fetchall()
    assert (there, absent) == ([(False,)], [(True,)])


@pytest.mark.parametrize("later_days", [2, 90])
def test_compaction_changes_no_answer(tmp_path: Path, later_days: int) -> None:
    """Of a record as of a relation, with old keys and parts of keys; its files have Bloom filters too."""
    for number in range(12):
        moved = [1, "u", 0, {"id": number + 1}, ["id"], {"id": number}, {"id": number + 1}]
        line = [2, "d", 0, {"id": 3, "line": number}, None, None, None]
        written(tmp_path, [0, "i", 0, {"id": number % 3}, None, None, None], moved, line, [3, "t", 0, *[None] * 4])
    keys = ["0", "1", "7", "'{\"id\": 3}'", '\'{"id": 3, "line": 5}\'', "99"]
    before = [ordinals(tmp_path, key) for key in keys]
    done = Compactor(tmp_path, Folder(tmp_path, Files()), clock_us=lambda: NOON_US + later_days * DAY_US).run()
    assert done.replaced > 0
    assert [ordinals(tmp_path, key) for key in keys] == before
    assert [len(found) for found in before] == [17, 18, 14, 26, 13, 12]
    probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe($file, 'touch', $number)"
    for file in {file.path for entry in entries(tmp_path) if isinstance(entry, Replace) for file in entry.files}:
        if file.startswith("events/"):
            asked = {"file": str(tmp_path / file), "number": touch.of_record(ORDERS, ["x"])}
            assert duckdb.execute(probe, asked).fetchall() == [(True,)]


def test_events_that_are_no_rows_have_the_first_relation_and_no_number() -> None:
    """A statement that names relations touched records that nobody knows."""
    columns = Columns()
    columns.add([other(1, kind="statement", relations=["public.a", "public.b"]), other(2)], [ORDINARY] * 2)
    ((_, table),) = columns.tables().items()
    found = table.select(["relation", "touch", "touch_before"]).to_pylist()
    nothing = {"touch": None, "touch_before": None}
    assert found == [{"relation": "public.a"} | nothing, {"relation": None} | nothing]
