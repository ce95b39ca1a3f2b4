"""What pgwitness makes is closed to others, whatever the umask is, unless a group is named."""

from __future__ import annotations

import grp
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sinks.lake.storage.files import Files, shared_with
from sinks.lake.writer import Lake
from tests.sinks.material import ORDINARY, change


@pytest.fixture(params=[0o000, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each umask in turn that an account may have."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def fill(path: Path, files: Files) -> None:
    """Land a row."""
    writer = Lake(path, files=files).writer("events", 0)
    writer.resume()
    writer.append(0, [change(1)], [ORDINARY])
    writer.commit()


def modes(path: Path) -> dict[str, set[int]]:
    """Give the modes of folders and files by the lake's folder that they are in."""
    found: dict[str, set[int]] = {}
    for one in (path, *path.rglob("*")):
        part = one.relative_to(path).parts[:1]
        found.setdefault("".join(part) + ("/" if one.is_dir() else ""), set()).add(one.stat().st_mode & 0o777)
    return found


@pytest.mark.usefixtures("umask")
def test_a_lake_is_its_workers_alone(tmp_path: Path) -> None:
    """Folders can be entered and files read by their owner, and by nobody else."""
    fill(tmp_path / "lake", Files())
    assert set().union(*(mode for name, mode in modes(tmp_path / "lake").items() if name.endswith("/"))) == {0o700}
    assert set().union(*(mode for name, mode in modes(tmp_path / "lake").items() if not name.endswith("/"))) == {0o600}


@pytest.mark.usefixtures("umask")
def test_a_group_reads_the_lake_and_row_images_only_if_that_is_said(tmp_path: Path) -> None:
    """`lake.group` may read all but rows/ and what is being written; `lake.rows_group` may enter rows/ too."""
    fill(tmp_path / "lake", shared_with(os.getgid(), None))
    found = modes(tmp_path / "lake")
    assert (found["/"], found["events/"], found["alerts/"]) == ({0o750}, {0o750}, {0o750})
    assert (found["rows/"], found["_staging/"]) == ({0o700}, {0o700})
    assert (found["events"], found["views.sql"]) == ({0o640}, {0o640})
    fill(tmp_path / "both", shared_with(os.getgid(), os.getgid()))
    assert modes(tmp_path / "both")["rows/"] == {0o750}
    assert {path.stat().st_gid for path in (tmp_path / "both").rglob("*")} == {os.getgid()}


def test_what_commands_make_is_closed_too(tmp_path: Path) -> None:
    """`init` under a careless umask: configuration, policies and key are the caller's alone."""
    command = [sys.executable, "-m", "pgwitness", "init", str(tmp_path / "new")]
    subprocess.run(["sh", "-c", 'umask 000; exec "$@"', "sh", *command], check=True, capture_output=True, timeout=60)
    assert [str(path) for path in (tmp_path / "new").rglob("*") if path.stat().st_mode & 0o077] == []
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ('group = "no-such-group"', "lake.group: this host has no group 'no-such-group'"),
        (f'rows_group = "{grp.getgrgid(os.getgid()).gr_name}"', "lake.rows_group is set and lake.group is not"),
    ],
)
def test_a_group_that_cannot_be_meant_is_refused(tmp_path: Path, groups: str, says: str) -> None:
    """Before the worker begins, with exit code 2."""
    subprocess.run([sys.executable, "-m", "pgwitness", "init", str(tmp_path)], check=True, capture_output=True)
    config = tmp_path / "pgwitness.toml"
    config.write_text(config.read_text().replace("[lake]\n", f"[lake]\n{groups}\n"))
    command = [sys.executable, "-m", "pgwitness", "worker", "--port", "0", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
