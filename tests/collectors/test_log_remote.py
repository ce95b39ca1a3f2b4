"""Files that can only be asked for are followed through rotation, emptying, renaming and restarts: every byte once."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.log.sources.follow import HEAD_BYTES, FileState
from collectors.log.sources.remote import Entry, RemoteFollower
from tests.collectors.test_log_follow import lines, write


class HereFolder:
    """A folder of this host, asked as one over SQL is."""

    trouble: str | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = 0

    def entries(self) -> list[Entry] | None:
        """List it."""
        if not self.path.is_dir():
            return None
        found = [(entry.name, entry.stat()) for entry in self.path.iterdir()]
        return [Entry(name, stat.st_size, float(stat.st_mtime_ns)) for name, stat in found]

    def heads(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read the first bytes of files."""
        self.asked += 1
        return {name: (self.path / name).read_bytes()[:HEAD_BYTES] for name in names if (self.path / name).exists()}

    def read(self, name: str, offset: int, length: int) -> tuple[bytes, bytes] | None:
        """Read a part of a file."""
        self.asked += 1
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        return data[offset : offset + length], data[:HEAD_BYTES]


class Reader:
    """Follows files of a folder and uses whole lines only; `restart` is a crash with what was stored."""

    def __init__(self, folder: Path, pattern: str = "*.log", *, from_end: bool = False) -> None:
        self.folder = HereFolder(folder)
        self.pattern = pattern
        self.lines: list[str] = []
        self.losses: list[str] = []
        self._half: dict[int, bytes] = {}
        self.follower = RemoteFollower(self.folder, self.picks, None, 1, from_end=from_end)

    def picks(self, name: str) -> bool:
        """Say whether a name fits the pattern."""
        return fnmatchcase(name, self.pattern)

    def step(self, times: int = 1) -> None:
        """Look and read."""
        for _ in range(times):
            self.follower.look()
            self.losses += [loss.reason for loss in self.follower.losses]
            self.follower.losses.clear()
            for followed, data in self.follower.read():
                number = followed.state.number
                *whole, self._half[number] = (self._half.get(number, b"") + data).split(b"\n")
                self.lines += [line.decode() for line in whole]
                followed.state.offset = followed.position - len(self._half[number])

    def restart(self) -> None:
        """End, and begin again with what a state file would hold."""
        states = [msgspec.json.decode(msgspec.json.encode(file.state), type=FileState) for file in self.follower.files]
        self._half.clear()
        self.follower = RemoteFollower(self.folder, self.picks, states, self.follower.next_number, from_end=False)


def test_growing_files_half_lines_and_new_names(tmp_path: Path) -> None:
    """What is appended is read, half a line waits, over a restart too; a file of a new name comes after."""
    reader = Reader(tmp_path)
    log = tmp_path / "a.log"
    write(log, lines(0, 3))
    reader.step()
    with log.open("a") as file:
        file.write("half")
    reader.step()
    reader.restart()
    reader.step()
    assert reader.lines == lines(0, 3)
    write(log, [" a line"])
    write(tmp_path / "b.log", lines(4, 6))
    reader.step()
    assert reader.lines == [*lines(0, 3), "half a line", *lines(4, 6)]
    assert reader.losses == []


def test_a_quiet_folder_is_only_listed(tmp_path: Path) -> None:
    """Without growth a look asks for no byte of a file."""
    reader = Reader(tmp_path)
    for number in range(5):
        write(tmp_path / f"{number}.log", lines(number, number + 1))
    reader.step(2)
    asked = reader.folder.asked
    reader.step(10)
    assert reader.folder.asked == asked


@pytest.mark.parametrize("pattern", ["*.log", "*"])
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("how", ["rename", "copy"])
def test_rotation_under_one_name(tmp_path: Path, pattern: str, stopped: bool, longer: bool, how: str) -> None:
    """A file that is renamed, or copied and emptied, is read to its end, and nothing twice."""
    reader = Reader(tmp_path, pattern)
    log, old = tmp_path / "a.log", tmp_path / "a.log.1"
    write(log, lines(0, 3))
    reader.step()
    write(log, lines(3, 5))
    if how == "rename":
        log.rename(old)
    else:
        shutil.copy(log, old)
        log.write_text("")
    write(log, lines(5, 15 if longer else 6))
    if stopped:
        reader.restart()
    reader.step(4)
    assert sorted(reader.lines) == lines(0, 15 if longer else 6)
    assert reader.losses == []


def test_a_copy_seen_before_the_file_is_emptied_is_no_new_file(tmp_path: Path) -> None:
    """Between copying and emptying both have the same lines: they count once, and the copy has the rest."""
    reader = Reader(tmp_path, "*")
    log = tmp_path / "a.log"
    write(log, lines(0, 5))
    reader.step()
    write(log, lines(5, 6))
    shutil.copy(log, tmp_path / "a.log.1")
    log.write_text("")
    write(log, lines(6, 7))
    reader.step(3)
    assert (sorted(reader.lines), reader.losses) == (lines(0, 7), [])


def test_a_name_that_comes_again_is_no_loss(tmp_path: Path) -> None:
    """Names of days of the week, emptied when their day comes: each is read whole, again and again."""
    reader = Reader(tmp_path)
    for turn in range(21):
        log = tmp_path / f"{turn % 7}.log"
        log.write_text("")
        for part in range(2):
            write(log, lines(turn * 4 + part * 2, turn * 4 + part * 2 + 2))
            reader.step()
        if turn == 10:
            reader.restart()
    assert (reader.lines, reader.losses) == (lines(0, 84), [])


def test_emptied_or_deleted_too_early_is_a_loss(tmp_path: Path) -> None:
    """What came between the last reading of the file in use and its emptying, or going, nobody knows: that is said."""
    reader = Reader(tmp_path)
    log = tmp_path / "a.log"
    write(log, lines(0, 5))
    reader.step()
    log.write_text("")
    write(log, lines(5, 6))
    reader.step()
    assert (reader.lines, reader.losses) == (lines(0, 6), ["log_truncated"])
    log.unlink()
    reader.step()
    reader.restart()
    write(tmp_path / "b.log", lines(6, 7))
    reader.step()
    reader.restart()
    (tmp_path / "b.log").unlink()
    reader.step()
    assert (reader.lines, reader.losses) == (lines(0, 7), ["log_truncated", "log_rotated_away", "log_rotated_away"])


def test_old_files_that_are_cleaned_up_are_no_loss(tmp_path: Path) -> None:
    """Files that were read to their end, and left by the server, may go."""
    reader = Reader(tmp_path)
    for number in range(20):
        write(tmp_path / f"{number:02d}.log", lines(number, number + 1))
        reader.step()
    reader.step(2)
    for number in range(19):
        (tmp_path / f"{number:02d}.log").unlink()
    reader.step(2)
    assert (reader.lines, reader.losses) == (lines(0, 20), [])
    assert len(reader.follower.files) == 1


def test_a_file_replaced_between_listing_and_reading_is_not_mistaken(tmp_path: Path) -> None:
    """Bytes of the file that has taken a name over are never read as the old one's."""
    reader = Reader(tmp_path)
    log = tmp_path / "a.log"
    write(log, lines(0, 3))
    reader.step()
    write(log, lines(3, 4))
    reader.follower.look()
    log.write_text("")
    write(log, lines(10, 20))
    assert [chunk.data for chunk in reader.follower.read()] == [b""]
    reader.step(2)
    assert (reader.lines, reader.losses) == ([*lines(0, 3), *lines(10, 20)], ["log_truncated"])


def test_a_folder_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    """While it is away there is trouble; nothing is lost or read again."""
    folder, away = tmp_path / "log", tmp_path / "away"
    folder.mkdir()
    reader = Reader(folder)
    write(folder / "a.log", lines(0, 3))
    reader.step()
    folder.rename(away)
    write(away / "a.log", lines(3, 5))
    reader.step(100)
    assert reader.follower.trouble is not None
    away.rename(folder)
    reader.step()
    assert reader.follower.trouble is None
    assert (reader.lines, reader.losses) == (lines(0, 5), [])


def test_the_first_start_may_begin_at_the_end(tmp_path: Path) -> None:
    """By default the past is left alone, up to the end of its last line; files that come later are read whole."""
    write(tmp_path / "a.log", lines(0, 3_000))
    with (tmp_path / "a.log").open("a") as file:
        file.write("half")
    reader = Reader(tmp_path, from_end=True)
    reader.step()
    write(tmp_path / "a.log", [" a line"])
    write(tmp_path / "b.log", lines(4, 5))
    reader.step()
    assert reader.lines == ["half a line", *lines(4, 5)]


def _has_bytes(path: Path) -> bool:
    """An empty file has no first bytes to be known by under another name."""
    return path.exists() and path.stat().st_size > 0


actions = st.lists(st.sampled_from(["write", "half", "rename", "copy", "new", "restart", "step"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(plan=actions, pattern=st.sampled_from(["*.log", "*"]))
def test_whatever_happens_every_line_comes_once(
    plan: list[str], pattern: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any order of writing, rotating, copying, emptying and restarting: each line once, as long as a copy is left."""
    folder = tmp_path_factory.mktemp("log")
    reader = Reader(folder, pattern)
    current, written, half, number = folder / "0.log", 0, False, 0

    def put(text: str) -> None:
        with current.open("a") as file:
            file.write(text)

    for action in plan:
        if action == "write":
            rest = lines(written, written + 1)[0]
            put(rest[4:] + "\n" if half else rest + "\n")
            written, half = written + 1, False
        elif action == "half" and not half:
            put(lines(written, written + 1)[0][:4])
            half = True
        elif action in ("rename", "copy", "new") and _has_bytes(current) and not half:
            reader.step(2)
            number += 1
            if action == "rename":
                current.rename(folder / f"{number}.old")
            elif action == "copy":
                shutil.copy(current, folder / f"{number}.old")
                current.write_text("")
                reader.step(2)
            else:
                current = folder / f"{number}.log"
        elif action == "restart":
            reader.restart()
        elif action == "step":
            reader.step(2)
    if half:
        put(lines(written, written + 1)[0][4:] + "\n")
        written += 1
    reader.step(3)
    assert sorted(reader.lines) == lines(0, written)
    assert reader.losses == []
