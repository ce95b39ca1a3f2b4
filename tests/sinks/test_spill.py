"""Folders that queries spill into: private, one each, and none is left for long."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sinks.sql import spill

HOLD = "from sinks.sql import spill; folder, remove = spill.make(); print(folder, flush=True); input()"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, here and in processes that the test starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_private_and_goes_when_it_is_removed(temporary: Path) -> None:
    """Only this user may enter it; it goes with what is in it, and others stay."""
    (one, remove), (other, remove_other) = spill.make(), spill.make()
    assert one.stat().st_mode & 0o777 == 0o700
    (one / "spilled").write_text("rows")
    remove()
    assert list(temporary.iterdir()) == [other]
    remove_other()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(temporary: Path) -> None:
    """A folder stays while its process lives, however long; when that was killed, the next query removes it."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().decode().strip())
        (left / "spilled").write_text("rows")
        _, remove = spill.make()
        remove()
        assert list(temporary.iterdir()) == [left]
        process.kill()
    folder, remove = spill.make()
    assert list(temporary.iterdir()) == [folder]
    remove()


def test_what_is_not_ours_stays(temporary: Path) -> None:
    """Neither a file of that name nor a link goes, and a link is not followed."""
    precious = temporary / "precious"
    precious.mkdir()
    (temporary / f"{spill.PREFIX}link").symlink_to(precious)
    (temporary / f"{spill.PREFIX}file").write_text("")
    _, remove = spill.make()
    remove()
    assert len(list(temporary.iterdir())) == 3
