"""Files are followed through rotation, emptying, vanishing and restarts: every byte once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.log.sources import follow
from collectors.log.sources.follow import ABSENT_LOOKS, FileState, Follower


class Reader:
    """Follows `*.log` in a folder and uses whole lines only; `restart` is a crash with what was stored."""

    def __init__(self, folder: Path, pattern: str = "*.log", *, from_end: bool = False) -> None:
        self.folder = folder
        self.pattern = str(folder / pattern)
        self.lines: list[str] = []
        self.losses: list[str] = []
        self._half: dict[int, bytes] = {}
        self.follower = Follower(self.pattern, None, 1, from_end=from_end)

    def step(self, times: int = 1) -> None:
        """Look and read."""
        for _ in range(times):
            self.follower.look()
            self.losses += [loss.reason for loss in self.follower.losses]
            self.follower.losses.clear()
            for followed, data in self.follower.read():
                number = followed.state.number
                *lines, self._half[number] = (self._half.get(number, b"") + data).split(b"\n")
                self.lines += [line.decode() for line in lines]
                followed.state.offset = followed.position - len(self._half[number])

    def restart(self) -> None:
        """End, and begin again with what a state file would hold."""
        states = [msgspec.json.decode(msgspec.json.encode(file.state), type=FileState) for file in self.follower.files]
        number = self.follower.next_number
        self.follower.close()
        self._half.clear()
        self.follower = Follower(self.pattern, states, number, from_end=False)


def lines(first: int, end: int) -> list[str]:
    """Lines that differ from their first bytes on."""
    return [f"{number:08d} line of a log, long enough to be told apart" for number in range(first, end)]


def write(path: Path, wanted: list[str]) -> None:
    """Append lines."""
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in wanted))


def test_growing_files_and_half_lines(tmp_path: Path) -> None:
    """What is appended is read; half a line waits, over a restart too."""
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
    reader.step()
    assert reader.lines == [*lines(0, 3), "half a line"]


@pytest.mark.parametrize("how", ["deleted", "renamed", "renamed within the pattern", "replaced"])
def test_a_file_goes_between_two_looks_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """It was listed, and has another name, or none, before its first bytes are compared: it was not emptied."""
    reader = Reader(tmp_path)
    path = tmp_path / "a.log"
    write(path, lines(0, 3))
    with path.open("a") as file:
        file.write("half")
    reader.step()
    write(tmp_path / "b.log", lines(3, 4))
    reader.step()

    def go() -> None:
        if how == "deleted":
            path.unlink()
        else:
            path.rename(tmp_path / ("c.log" if how == "renamed within the pattern" else "a.log.1"))
        if how == "replaced":
            write(path, lines(4, 5))

    first_bytes = follow._head

    def late(name: str, *rest: Any) -> bytes | None:
        if name == str(path) and not gone:
            gone.append(name)
            go()
        return first_bytes(name, *rest)

    gone: list[str] = []
    monkeypatch.setattr(follow, "_head", late)
    reader.step(2)
    write(tmp_path / "b.log", lines(5, 6))
    reader.step(ABSENT_LOOKS + 2)
    assert gone
    assert sorted(reader.lines) == [*lines(0, 4), *(lines(4, 5) if how == "replaced" else []), *lines(5, 6)]
    assert reader.losses == ([] if how == "renamed within the pattern" else ["log_half_record"])


def test_new_names(tmp_path: Path) -> None:
    """The server's own rotation begins a file of another name; the old one is read to its end first."""
    reader = Reader(tmp_path)
    write(tmp_path / "a.log", lines(0, 3))
    reader.step()
    write(tmp_path / "a.log", lines(3, 5))
    write(tmp_path / "b.log", lines(5, 7))
    reader.step()
    assert reader.lines == lines(0, 7)


@pytest.mark.parametrize("pattern", ["*.log", "*"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_renamed_file(tmp_path: Path, pattern: str, stopped: bool) -> None:
    """A renamed file is read to its end, whether the new name fits the pattern or not, and nothing twice."""
    reader = Reader(tmp_path, pattern)
    write(tmp_path / "a.log", lines(0, 3))
    reader.step()
    write(tmp_path / "a.log", lines(3, 5))
    (tmp_path / "a.log").rename(tmp_path / "a.log.1")
    write(tmp_path / "a.log", lines(5, 7))
    if stopped:
        reader.restart()
    reader.step()
    write(tmp_path / "a.log.1", lines(7, 8))
    reader.step(2 * ABSENT_LOOKS)
    write(tmp_path / "a.log", lines(8, 9))
    reader.step(2 * ABSENT_LOOKS)
    assert sorted(reader.lines) == lines(0, 9)
    assert reader.losses == []


@pytest.mark.parametrize("pattern", ["*.log", "*"])
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("longer", [False, True])
def test_copytruncate(tmp_path: Path, pattern: str, stopped: bool, longer: bool) -> None:
    """A file that is copied and emptied: the rest is read from the copy, even when the file is longer again by then."""
    reader = Reader(tmp_path, pattern)
    log = tmp_path / "a.log"
    write(log, lines(0, 3))
    reader.step()
    write(log, lines(3, 5))
    shutil.copy(log, tmp_path / "a.log.1")
    log.write_text("")
    write(log, lines(5, 15 if longer else 6))
    if stopped:
        reader.restart()
    reader.step()
    reader.step(2 * ABSENT_LOOKS)
    assert sorted(reader.lines) == lines(0, 15 if longer else 6)
    assert reader.losses == []


def test_a_copy_seen_before_the_file_is_emptied_is_no_new_file(tmp_path: Path) -> None:
    """Between copying and emptying both have the same lines: they count once."""
    reader = Reader(tmp_path, "*")
    log = tmp_path / "a.log"
    write(log, lines(0, 5))
    reader.step()
    shutil.copy(log, tmp_path / "a.log.1")
    reader.step()
    log.write_text("")
    reader.step()
    write(log, lines(5, 6))
    reader.step()
    assert reader.lines == lines(0, 6)
    assert reader.losses == []


def test_emptied_without_a_copy_is_a_loss(tmp_path: Path) -> None:
    """What was between the last reading and the emptying nobody knows: that is said."""
    reader = Reader(tmp_path)
    log = tmp_path / "a.log"
    write(log, lines(0, 5))
    reader.step()
    log.write_text("")
    write(log, lines(5, 6))
    reader.step()
    assert (reader.lines, reader.losses) == (lines(0, 6), ["log_truncated"])


def test_deleted_while_nobody_looked_is_a_loss(tmp_path: Path) -> None:
    """The file that was written to last is gone after a restart: what came after is missing, and that is said."""
    reader = Reader(tmp_path)
    write(tmp_path / "a.log", lines(0, 3))
    reader.step()
    write(tmp_path / "b.log", lines(3, 5))
    reader.step()
    reader.restart()
    (tmp_path / "a.log").unlink()
    (tmp_path / "b.log").unlink()
    write(tmp_path / "c.log", lines(7, 8))
    reader.step()
    assert (reader.lines, reader.losses) == ([*lines(0, 5), *lines(7, 8)], ["log_rotated_away"])


def test_deleted_while_it_is_followed_is_read_to_its_end(tmp_path: Path) -> None:
    """An open file outlives its name."""
    reader = Reader(tmp_path)
    write(tmp_path / "a.log", lines(0, 3))
    reader.step()
    write(tmp_path / "a.log", lines(3, 5))
    (tmp_path / "a.log").unlink()
    reader.step()
    assert (reader.lines, reader.losses) == (lines(0, 5), [])


def test_an_old_file_that_is_cleaned_up_is_no_loss(tmp_path: Path) -> None:
    """Files that were read to their end may go."""
    for number in range(20):
        write(tmp_path / f"{number:02d}.log", lines(number, number + 1))
    reader = Reader(tmp_path)
    reader.step(2)
    for number in range(19):
        (tmp_path / f"{number:02d}.log").unlink()
    reader.step(2)
    assert (sorted(reader.lines), reader.losses) == (lines(0, 20), [])
    assert len([file for file in reader.follower.files if file.descriptor is not None]) <= 8


def test_a_folder_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    """A mount that goes and returns: nothing raises, nothing is lost or read again."""
    folder, away = tmp_path / "log", tmp_path / "away"
    folder.mkdir()
    reader = Reader(folder)
    write(folder / "a.log", lines(0, 3))
    reader.step()
    folder.rename(away)
    write(away / "a.log", lines(3, 4))
    reader.step(2 * ABSENT_LOOKS)
    assert not reader.follower.there
    write(away / "a.log", lines(4, 5))
    away.rename(folder)
    reader.step(2)
    assert reader.follower.there
    assert (reader.lines, reader.losses) == (lines(0, 5), [])


def test_the_first_start_may_begin_at_the_end(tmp_path: Path) -> None:
    """By default the past is left alone, up to the end of its last line; files that come later are read whole."""
    write(tmp_path / "a.log", lines(0, 3))
    with (tmp_path / "a.log").open("a") as file:
        file.write("half")
    reader = Reader(tmp_path, from_end=True)
    reader.step()
    write(tmp_path / "a.log", [" a line"])
    write(tmp_path / "b.log", lines(4, 5))
    reader.step()
    assert reader.lines == ["half a line", *lines(4, 5)]


actions = st.lists(st.sampled_from(["write", "half", "rename", "copy", "new", "restart", "step"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(plan=actions, pattern=st.sampled_from(["*.log", "*"]))
def test_whatever_happens_every_line_comes_once(
    plan: list[str], pattern: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any order of writing, rotating, copying, emptying and restarting: each line once, as long as a copy is left."""
    folder = tmp_path_factory.mktemp("log")
    reader = Reader(folder, pattern)
    current, written, half = folder / "0.log", 0, False
    number = 0

    def step() -> None:
        reader.step(2)

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
        elif action in ("rename", "copy", "new") and current.exists() and not half:
            step()
            number += 1
            if action == "rename":
                current.rename(folder / f"{number}.old")
            elif action == "copy":
                shutil.copy(current, folder / f"{number}.old")
                current.write_text("")
                step()
            else:
                current = folder / f"{number}.log"
        elif action == "restart":
            reader.restart()
        elif action == "step":
            step()
    if half:
        put(lines(written, written + 1)[0][4:] + "\n")
        written += 1
    step()
    assert sorted(reader.lines) == lines(0, written)
    assert reader.losses == []
