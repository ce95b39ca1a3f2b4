"""Sums of hashed rows in C: the same as by hashlib, used only where they are, and left out where nothing compiles."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hatch_build import compiled
from pgwitness.cli.doctor.storage import judge_digests
from sinks.lake.rows import lanes
from tests.conftest import leave_out

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "sinks/lake/rows/lanes.c"
Way = Callable[[pa.StringArray], lanes.Sums]


def made(folder: Path, source: bytes) -> Path:
    """Compile a source; gives the library."""
    file = folder / SOURCE.name
    file.write_bytes(source)
    failed = compiled(file)
    if failed is not None:
        leave_out(failed)
    return folder / lanes.LIBRARY.name


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the library as an installation makes it."""
    return made(tmp_path_factory.mktemp("lanes"), SOURCE.read_bytes())


@pytest.fixture(scope="module")
def way(library: Path) -> Way:
    """Give the compiled way; skips where the processor cannot."""
    found = lanes.load(library)
    if found is None:
        pytest.skip("this processor has no SHA instructions of x86")
    return found


@settings(deadline=None)
@given(st.lists(st.text(max_size=40) | st.integers(0, 300).map("ä".__mul__), max_size=8), st.integers(0, 8))
def test_c_gives_what_python_gives(way: Way, rows: list[str], first: int) -> None:
    """For any texts, also for a part of an array, both ways add up to the same."""
    texts = pa.array(rows, pa.string())[first:]
    assert np.array_equal(way(texts), lanes.in_python(texts))


def test_each_length_up_to_some_blocks_is_right(way: Way) -> None:
    """Wherever a text ends within a block of SHA-256, padding and length are as hashlib has them."""
    for length in range(260):
        texts = pa.array(["x" * length])
        assert np.array_equal(way(texts), lanes.in_python(texts)), length


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"0x6a09e667", b"0x6a09e668"), (b"tag < HASHES", b"tag < HASHES - 1"), (b"row_lanes_1", b"row_lanes_0")],
    ids=["other hash", "other stretching", "other version"],
)
def test_a_library_that_does_otherwise_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes
) -> None:
    """What does not give what hashlib gives, or is of another version, is as if it were not there."""
    assert old in SOURCE.read_bytes()
    monkeypatch.setattr(lanes, "LIBRARY", made(tmp_path, SOURCE.read_bytes().replace(old, new)))
    assert lanes.native.__wrapped__() is None


def test_what_is_no_library_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of something else, and none at all, leave the way in Python; the doctor says so."""
    for library in (tmp_path / "none.so", SOURCE):
        monkeypatch.setattr(lanes, "LIBRARY", library)
        assert lanes.native.__wrapped__() is None
    monkeypatch.setattr(lanes, "native", lambda: None)
    assert np.array_equal(lanes.added_up(pa.array(["a"])), lanes.in_python(pa.array(["a"])))
    (found,) = judge_digests()
    assert (found["state"], "C compiler" in str(found["fix"])) == ("info", True)


def test_the_doctor_is_silent_where_it_is_used(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to mend."""
    monkeypatch.setattr(lanes, "native", lambda: way)
    assert judge_digests() == []


def test_a_failed_compilation_leaves_no_old_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler, or with one that refuses, the reason is said and the library of before is gone."""
    source = tmp_path / SOURCE.name
    library = tmp_path / lanes.LIBRARY.name
    source.write_text("int broken(")
    for compiler in ("/nowhere/cc", sys.executable):
        library.write_bytes(b"old")
        monkeypatch.setenv("CC", compiler)
        assert compiler in (compiled(source) or "")
        assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("compiler", [None, "/nowhere/cc"])
def test_a_wheel_has_the_library_if_there_is_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str | None
) -> None:
    """With one the wheel is for this platform and every Python; without one it is for all, and building it succeeds."""
    if compiler is not None:
        monkeypatch.setenv("CC", compiler)
    elif shutil.which("cc") is None:
        leave_out("a C compiler")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "pgwitness/__init__.py", SOURCE):
        place = tmp_path / (ROOT / name).relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert (f"sinks/lake/rows/{lanes.LIBRARY.name}" in names) == (compiler is None)
    assert wheel.name.endswith("-py3-none-any.whl") == (compiler is not None)
