"""A watched file: what holds, what is reported, and what counts as a change."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pgwitness.core.errors import ConfigurationError
from pgwitness.core.runtime.watchedfile import RACY_S, Refusal, WatchedFile

LATER_S = 10 * RACY_S


class Watch:
    """A watched file whose content is a number, and what was reported of it; `now_s` is set by the test."""

    def __init__(self, path: Path, files: Callable[[], Sequence[Path]] | None = None, *, settle: bool = False) -> None:
        self.path = path
        self.reads = 0
        self.changes: list[int] = []
        self.refusals: list[Refusal] = []
        self.later_s = LATER_S
        self.file = WatchedFile(
            path,
            self.read,
            initial=0,
            files=files,
            settle=settle,
            changed=self.changes.append,
            refused=self.refusals.append,
            clock=lambda: self._newest_s() + self.later_s,
        )

    def _newest_s(self) -> float:
        return self.path.stat().st_ctime if self.path.exists() else 0.0

    def read(self) -> int:
        self.reads += 1
        try:
            return sum(int(file.read_text()) for file in self.files())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self.path}: {error}") from error

    def files(self) -> list[Path]:
        return sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """A file with 1 in it, read at the start."""
    path = tmp_path / "number"
    path.write_text("1")
    made = Watch(path)
    assert made.file.load() == 1
    return made


def test_a_file_that_does_not_change_is_not_read_again(watch: Watch) -> None:
    """Looking is a `stat`."""
    for _ in range(3):
        assert watch.file.poll() == 1
    assert watch.reads == 1
    assert watch.changes == []


def test_a_change_is_taken_on_once(watch: Watch) -> None:
    """The new content holds from the next look on, and is reported once."""
    watch.path.write_text("2")
    assert [watch.file.poll(), watch.file.poll()] == [2, 2]
    assert watch.changes == [2]


@pytest.mark.parametrize("content", [b"x", b"\xff\xfe", b""])
def test_what_cannot_be_used_is_reported_once_and_the_last_good_one_holds(watch: Watch, content: bytes) -> None:
    """Until it is mended or wrong in another way."""
    watch.path.write_bytes(content)
    assert [watch.file.poll() for _ in range(3)] == [1, 1, 1]
    assert len(watch.refusals) == 1
    assert watch.file.refusal == watch.refusals[0]
    assert watch.refusals[0].sha256 is not None
    watch.path.write_bytes(b"y")
    watch.file.poll()
    assert len(watch.refusals) == 2
    watch.path.write_text("1")
    assert watch.file.poll() == 1
    assert watch.file.refusal is None
    assert watch.changes == [1]


def test_a_file_that_is_gone_is_reported_once_and_taken_on_when_it_is_back(watch: Watch) -> None:
    """Also with the same content as before."""
    watch.path.unlink()
    assert [watch.file.poll() for _ in range(3)] == [1, 1, 1]
    assert [refusal.sha256 for refusal in watch.refusals] == [None]
    watch.path.write_text("1")
    assert watch.file.poll() == 1
    assert watch.file.refusal is None


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_a_change(watch: Watch) -> None:
    """As `mv` after `cp --preserve` does it."""
    times = watch.path.stat()
    other = watch.path.with_name("other")
    other.write_text("2")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(watch.path)
    assert watch.file.poll() == 2


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was changed just now is compared by its hash, for its times may stay what they are."""
    watch.later_s = RACY_S / 2
    watch.path.write_text("2")
    assert watch.file.poll() == 2
    stamp = watch.file._look()
    monkeypatch.setattr(watch.file, "_look", lambda: stamp)
    watch.path.write_text("3")
    assert watch.file.poll() == 3
    assert watch.changes == [2, 3]
    watch.later_s = LATER_S
    watch.file.poll()
    read = watch.reads
    watch.path.write_text("4")
    assert watch.file.poll() == 3
    assert watch.reads == read


def test_a_touched_file_is_no_change(watch: Watch) -> None:
    """The same content at another time is the same."""
    watch.path.touch()
    assert watch.file.poll() == 1
    assert (watch.changes, watch.reads) == ([], 1)


def test_nothing_usable_at_the_start_is_an_error(tmp_path: Path) -> None:
    """`load` raises, and so does `current` until something usable was there; from then on neither does."""
    made = Watch(tmp_path / "number")
    for ask in (made.file.load, made.file.current, made.file.current):
        with pytest.raises(ConfigurationError):
            ask()
    made.path.write_text("5")
    assert made.file.current() == 5
    made.path.write_text("x")
    assert made.file.current() == 5


def test_a_folder_is_taken_on_when_it_stands_still(tmp_path: Path) -> None:
    """A change is read at the second look that finds it as it is; a removed file is a change."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("1")
    made = Watch(path, lambda: sorted(path.iterdir()), settle=True)
    made.file.load()
    (path / "b").write_text("2")
    assert made.file.poll() == 1
    (path / "c").write_text("3")
    assert made.file.poll() == 1
    assert made.file.poll() == 6
    (path / "a").unlink()
    assert [made.file.poll(), made.file.poll()] == [6, 5]
    (path / "b").rename(path / "d")
    assert [made.file.poll(), made.file.poll()] == [5, 5]
    assert made.changes == [6, 5, 5]
