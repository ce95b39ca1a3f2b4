"""Digests of rows in C: the same as in Python, used only where they are, and left out where nothing compiles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hatch_build import compiled
from pgwitness.cli.doctor.compiled import judge_digests
from sinks.lake.rows import digest, hashing, native, texts
from sinks.lake.rows.native import Way
from sinks.lake.rows.schema import EVENTS
from tests.conftest import leave_out
from tests.sinks.test_digest import ODD, rows_of, slowly

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "sinks/lake/rows/digests.c"


def made(folder: Path, source: bytes) -> Path:
    """Compile a source; gives the library."""
    file = folder / SOURCE.name
    file.write_bytes(source)
    failed = compiled(file)
    if failed is not None:
        leave_out(failed)
    return folder / native.LIBRARY.name


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the library as an installation makes it."""
    return made(tmp_path_factory.mktemp("digests"), SOURCE.read_bytes())


@pytest.fixture(scope="module")
def way(library: Path) -> Way:
    """Give the compiled way; skips where the processor cannot."""
    found = native.load(library)
    if found is None:
        pytest.skip("this processor has no SHA instructions of x86")
    return found


def same(way: Way, table: pa.Table, name: str = "odd") -> None:
    """Hold both ways against each other, batch by batch."""
    for batch in texts.batches(table):
        assert np.array_equal(way(batch, name, {}), hashing.in_python(batch, name, {}))


@settings(deadline=None)
@given(rows_of(ODD, 5), st.integers(0, 5), st.booleans())
def test_c_gives_what_python_gives(way: Way, rows: list[dict[str, Any]], first: int, coded: bool) -> None:
    """For rows of any types and values, also of a part of a table, and with dictionaries, both add up to the same."""
    table = pa.Table.from_pylist(rows, ODD)
    if coded:
        table = pa.table({name: with_dictionary(one) for name, one in zip(ODD.names, table.columns, strict=True)})
    same(way, table.slice(first))
    same(way, pa.concat_tables([table, table.slice(first), table]))


def with_dictionary(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Let the distinct values of a column stand apart, in lists of texts too."""
    if values.type == pa.string():
        return values.dictionary_encode()
    if values.type != pa.list_(pa.string()):
        return values
    whole = values.combine_chunks()
    items = whole.values.dictionary_encode()
    return pa.chunked_array([pa.ListArray.from_arrays(whole.offsets, items, mask=whole.is_null())])


@settings(deadline=None, max_examples=30)
@given(rows_of(EVENTS, 4))
def test_events_are_as_in_python(way: Way, rows: list[dict[str, Any]]) -> None:
    """Nothing of the lake's widest table is left out."""
    same(way, pa.Table.from_pylist(rows, EVENTS), "events")


def test_each_length_up_to_some_blocks_is_right(way: Way) -> None:
    """Wherever a text ends within a block of SHA-256, and however long it is, its hash is as hashlib has it."""
    for length in (*range(200), 4_095, 4_096, 4_097, 10_000):
        same(way, pa.table({"c": ["x" * length]}))


def test_other_types_of_texts_are_as_in_python(way: Way) -> None:
    """Texts as other programs' Arrow has them, and null where a dictionary says so, give the same."""
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["a", None]))
    for values in (coded, pa.array(["a", None], pa.large_string()), pa.array(["a", None], pa.string_view())):
        same(way, pa.table({"c": values}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0x6a09e667", b"0x6a09e668"),
        (b"tag < HASHES", b"tag < HASHES - 1"),
        (b"value < 0);", b"0);"),
        (b"add_rows_2", b"add_rows_1"),
    ],
    ids=["other hash", "other stretching", "other text", "other version"],
)
def test_a_library_that_does_otherwise_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes
) -> None:
    """What does not give what hashlib gives, or is of another version, is as if it were not there."""
    assert old in SOURCE.read_bytes()
    monkeypatch.setattr(native, "LIBRARY", made(tmp_path, SOURCE.read_bytes().replace(old, new)))
    assert native.way.__wrapped__() is None


def test_what_is_no_library_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of something else, and none at all, leave the way in Python; the doctor says so."""
    for library in (tmp_path / "none.so", SOURCE):
        monkeypatch.setattr(native, "LIBRARY", library)
        assert native.way.__wrapped__() is None
    monkeypatch.setattr(native, "way", lambda: None)
    assert "missing" not in str(judge_digests()[0]["found"])
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "none.so")
    table = pa.table({"event_id": ["e"]})
    assert digest.of(table, "rows") == slowly([{"event_id": "e"}], table.schema, "rows")
    (found,) = judge_digests()
    assert (found["state"], "C compiler" in str(found["fix"])) == ("info", True)
    assert f"missing ({tmp_path / 'none.so'})" in str(found["found"])


def test_the_doctor_is_silent_where_it_is_used(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to mend."""
    monkeypatch.setattr(native, "way", lambda: way)
    assert judge_digests() == []


def test_a_failed_compilation_leaves_no_old_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler, or with one that refuses, the reason is said and the library of before is gone."""
    source = tmp_path / SOURCE.name
    library = tmp_path / native.LIBRARY.name
    source.write_text("int broken(")
    for compiler in ("/nowhere/cc", sys.executable):
        library.write_bytes(b"old")
        monkeypatch.setenv("CC", compiler)
        assert compiler in (compiled(source) or "")
        assert list(tmp_path.iterdir()) == [source]
