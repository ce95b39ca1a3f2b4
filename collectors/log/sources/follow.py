"""Following the files of a log through rotation, restarts and mishaps, so that no byte is lost or read twice.

A file is known by device and inode together with a fingerprint of its first bytes: an inode alone comes again, and a
file that was emptied and filled anew (copytruncate) keeps it. What becomes of a file:

- renamed, within or out of the pattern: it is read on to its end through its open descriptor; after a restart it is
  looked for in its folder;
- emptied: what was not read yet is looked for in a copy beside it, which begins with the same bytes; a copy that the
  pattern matches is no new file;
- deleted before it was read to its end: a `Loss`, which the shell reports as a gap.

Each file gets a number when it is first seen; `number` and the offset in it are the place of a line, and only grow.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import Struct

HEAD_BYTES = 512
HEAD_BYTES_MIN = 16
"""From how many equal first bytes on two files can be one and its copy; a line of the log begins with its time."""
READ_BYTES = 1024 * 1024
OPEN_MAX = 8
"""Files kept open at most: those that may be renamed while nobody looks are the ones that grew last."""
FILES_MAX = 10_000
"""Files remembered at most, the oldest forgotten first."""
ABSENT_LOOKS = 50
"""After how many looks without a trace and without growth a file is forgotten."""


class FileState(Struct):
    """What is known of one file. `offset` is how far it has been used, to the end of a record; `head` in hex."""

    number: int
    device: int
    inode: int
    name: str
    offset: int
    head: str = ""


class Loss(NamedTuple):
    """Something that may be missing: the reason of the gap, the file's name, and the offset up to which it was read."""

    reason: str
    name: str
    offset: int


class Chunk(NamedTuple):
    """The next bytes of a file; no bytes at its end."""

    file: Followed
    data: bytes


class Followed:
    """One file as it is followed."""

    def __init__(self, state: FileState) -> None:
        self.state = state
        self.head = bytes.fromhex(state.head)
        self.position = state.offset
        """How far it has been read; what lies between `state.offset` and here waits for the rest of its record."""
        self.descriptor: int | None = None
        self.size = 0
        self.seen = False
        self.absent = 0
        self.grew = 0

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.state.device, self.state.inode


class Following(Protocol):
    """Follows the files of a log, wherever they are."""

    files: list[Followed]
    losses: list[Loss]
    next_number: int

    def look(self) -> None:
        """Compare the folder with what is known."""

    def read(self) -> Iterator[Chunk]:
        """Read every file to its present end, the oldest first."""

    @property
    def trouble(self) -> str | None:
        """Why there is nothing to follow, and what to do; None when there is."""

    def close(self) -> None:
        """End following."""


class _Entry(NamedTuple):
    name: str
    key: tuple[int, int]
    size: int
    modified_ns: int


class Follower:
    """Follows the files that `pattern` matches. `states` are those of a predecessor, none at the first start ever.

    `from_end`: what the files hold at the first start is not read.
    """

    def __init__(self, pattern: str, states: list[FileState] | None, first_number: int, *, from_end: bool) -> None:
        self.pattern = pattern
        self.next_number = first_number
        self.files: list[Followed] = [Followed(state) for state in states or ()]
        self.losses: list[Loss] = []
        self.there = True
        """Whether the folder could be looked at the last time."""
        self._copies: set[tuple[int, int]] = set()
        self._resuming = states is not None
        self._from_end = from_end and states is None
        self._turn = 0
        self._newest = max((followed.state.number for followed in self.files), default=0)

    def look(self) -> None:
        """Compare the folder with what is known: new files, rotated ones, emptied ones."""
        entries = self._entries()
        by_key = {followed.key: followed for followed in self.files}
        present = {entry.key for entry in entries}
        self._copies &= present
        if self._resuming:
            self._find_renamed(present)
            self._resuming = False
        for entry in entries:
            followed = by_key.get(entry.key)
            if followed is not None:
                if not self._same(followed, entry.name, entry.size):
                    self._emptied(followed)
                    self._new(entry)
                    continue
                followed.state.name = entry.name
                followed.size = entry.size
                followed.seen = True
            elif entry.key not in self._copies:
                self._unknown(entry, present)
        self._from_end = False
        self._forget(present)
        for followed in self.files[-OPEN_MAX // 2 :]:
            self._open(followed)  # so that whoever renames it does not hide it

    def read(self) -> Iterator[Chunk]:
        """Read every file to its present end, the oldest first; ends each file with a chunk without bytes."""
        self._turn += 1
        for followed in list(self.files):
            if followed.descriptor is None and followed.size <= followed.position:
                yield Chunk(followed, b"")
                continue
            while data := self._read(followed):
                followed.position += len(data)
                followed.grew = self._turn
                followed.absent = 0
                self._learn(followed)
                yield Chunk(followed, data)
            yield Chunk(followed, b"")
        self._close_some()

    @property
    def trouble(self) -> str | None:
        """Why there is nothing to follow, and what to do; None when there is."""
        if self.files and self.there:
            return None
        return f"no file matches {self.pattern}; check log_directory, log_filename and who may read there"

    def close(self) -> None:
        """Close every file."""
        for followed in self.files:
            _close(followed)

    # -- looking -----------------------------------------------------------------------------------------------

    def _entries(self) -> list[_Entry]:
        folder = Path(self.pattern).parent
        self.there = bool(glob.has_magic(str(folder))) or folder.is_dir()
        entries: list[_Entry] = []
        for name in glob.glob(self.pattern):  # noqa: PTH207 - an absolute pattern, which Path.glob refuses
            try:
                found = os.stat(name)  # noqa: PTH116 - one call, not three
            except OSError:
                continue
            if os.path.isfile(name):  # noqa: PTH113
                entries.append(_Entry(name, (found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns))
        return sorted(entries, key=lambda entry: (entry.modified_ns, entry.name))

    def _same(self, followed: Followed, name: str, size: int) -> bool:
        """Return whether a file still begins as it did, and is not shorter than what was read of it.

        One that has gone from under its name since it was listed is the same: the next look tells what became of it.
        """
        if size < followed.position:
            return False
        if not followed.head:
            return True
        return _head(name, len(followed.head), followed.key) in (None, followed.head)

    def _unknown(self, entry: _Entry, present: set[tuple[int, int]]) -> None:
        """A file with an inode nobody knows: a copy of a known one, a known one moved, or a new one."""
        head = _head(entry.name, HEAD_BYTES, entry.key) or b""
        for followed in self.files:
            if len(followed.head) < HEAD_BYTES_MIN or not head.startswith(followed.head):
                continue
            if followed.key in present or followed.descriptor is not None:
                self._copies.add(entry.key)
            else:
                followed.state.device, followed.state.inode = entry.key
                followed.state.name, followed.size, followed.seen = entry.name, entry.size, True
            return
        self._new(entry)

    def _new(self, entry: _Entry) -> None:
        number = self.next_number
        self.next_number += 1
        device, inode = entry.key
        followed = Followed(FileState(number, device, inode, entry.name, entry.size if self._from_end else 0))
        followed.size, followed.seen, followed.grew = entry.size, True, self._turn
        if self._from_end:
            followed.position = followed.state.offset = _last_line_end(entry.name, entry.size)
        head = _head(entry.name, HEAD_BYTES, entry.key) or b""
        followed.head = head[: max(followed.position, 0)] if self._from_end else b""
        followed.state.head = followed.head.hex()
        self.files.append(followed)

    def _find_renamed(self, present: set[tuple[int, int]]) -> None:
        """After a restart, look in the folder for known files that no longer have a name of the pattern."""
        missing = {followed.key: followed for followed in self.files if followed.key not in present}
        if not missing:
            return
        for name in _beside(self.pattern):
            try:
                found = os.stat(name)  # noqa: PTH116
            except OSError:
                continue
            followed = missing.get((found.st_dev, found.st_ino))
            if followed is not None and self._same(followed, name, found.st_size):
                followed.state.name, followed.size, followed.seen = name, found.st_size, True
                self._open(followed)

    def _emptied(self, followed: Followed) -> None:
        """A file begins anew under its inode: read what is left of the old one from a copy, or say that it is lost.

        The inode of a file that was not open may only have been given away again, after its end.
        """
        reason = "log_truncated" if followed.descriptor is not None else "log_rotated_away"
        unread = self._unread(followed) or (followed.descriptor is not None and not self._over(followed))
        _close(followed)
        self.files.remove(followed)
        if len(followed.head) >= HEAD_BYTES_MIN:
            for name in _beside(self.pattern):
                if _head(name, len(followed.head)) != followed.head:
                    continue
                try:
                    found = os.stat(name)  # noqa: PTH116
                except OSError:
                    continue
                if found.st_size >= followed.position:
                    followed.state.device, followed.state.inode = found.st_dev, found.st_ino
                    followed.state.name, followed.size = name, found.st_size
                    self._copies.discard(followed.key)
                    self._open(followed)
                    self.files.append(followed)
                    return
        if unread:
            self.losses.append(Loss(reason, followed.state.name, followed.position))

    def _forget(self, present: set[tuple[int, int]]) -> None:
        if not self.there:
            return
        for followed in list(self.files):
            if followed.key in present:
                followed.absent = 0
                continue
            followed.absent += 1
            if followed.descriptor is None:
                if self._unread(followed):
                    self.losses.append(Loss("log_rotated_away", followed.state.name, followed.position))
                self.files.remove(followed)
            elif followed.absent > ABSENT_LOOKS and self._succeeded(followed):
                if followed.position > followed.state.offset:
                    self.losses.append(Loss("log_half_record", followed.state.name, followed.state.offset))
                _close(followed)
                self.files.remove(followed)
        while len(self.files) > FILES_MAX:
            _close(self.files.pop(0))

    def _unread(self, followed: Followed) -> bool:
        """Return whether a file that is gone may have held more than was read.

        The server writes to one file at a time, so of those that vanished during a stop only the last one may.
        """
        if followed.seen:
            return followed.size > followed.position
        return followed.state.number == self._newest

    def _succeeded(self, followed: Followed) -> bool:
        """Return whether a later file is written to; until then a file out of sight may still grow."""
        return any(other.grew > followed.grew and other.position > 0 for other in self.files)

    def _over(self, followed: Followed) -> bool:
        """Return whether a file was left long ago for a later one; the server may recreate it under its old name."""
        return self._turn - followed.grew > ABSENT_LOOKS and self._succeeded(followed)

    # -- reading -----------------------------------------------------------------------------------------------

    def _open(self, followed: Followed) -> bool:
        if followed.descriptor is not None:
            return True
        try:
            descriptor = os.open(followed.state.name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        found = os.fstat(descriptor)
        if (found.st_dev, found.st_ino) != followed.key:
            os.close(descriptor)  # renamed since it was looked at; the next look finds it
            return False
        followed.descriptor = descriptor
        return True

    def _read(self, followed: Followed) -> bytes:
        if not self._open(followed) or followed.descriptor is None:
            return b""
        try:
            if os.fstat(followed.descriptor).st_size < followed.position:
                return b""  # emptied; the next look sees to it
            return os.pread(followed.descriptor, READ_BYTES, followed.position)
        except OSError:
            return b""

    def _learn(self, followed: Followed) -> None:
        """Remember the file's first bytes, as far as they were read."""
        if len(followed.head) >= HEAD_BYTES or followed.descriptor is None:
            return
        try:
            followed.head = os.pread(followed.descriptor, min(HEAD_BYTES, followed.position), 0)
        except OSError:
            return
        followed.state.head = followed.head.hex()

    def _close_some(self) -> None:
        opened = sorted((f for f in self.files if f.descriptor is not None), key=lambda f: (f.grew, f.state.number))
        for followed in opened[:-OPEN_MAX]:
            if followed.absent == 0:
                _close(followed)


def _close(followed: Followed) -> None:
    if followed.descriptor is not None:
        os.close(followed.descriptor)
        followed.descriptor = None


def _head(name: str, length: int, key: tuple[int, int] | None = None) -> bytes | None:
    """Return a file's first bytes; None when it cannot be read, or another than `key` has its name by now."""
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            found = os.fstat(file.fileno())
            return file.read(length) if key in (None, (found.st_dev, found.st_ino)) else None
    except OSError:
        return None


def _last_line_end(name: str, size: int) -> int:
    """Find where the last whole line ends, so that a start in the middle of one begins with the next."""
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            at = size
            while at > 0:
                begin = max(0, at - 65_536)
                file.seek(begin)
                cut = file.read(at - begin).rfind(b"\n")
                if cut >= 0:
                    return begin + cut + 1
                at = begin
    except OSError:
        pass
    return 0


def _beside(pattern: str) -> list[str]:
    """List the files of the pattern's folder, whatever their names, the newest first."""
    found: list[tuple[int, str]] = []
    for folder in glob.glob(str(Path(pattern).parent)):  # noqa: PTH207
        try:
            with os.scandir(folder) as entries:
                found += [(entry.stat().st_mtime_ns, entry.path) for entry in entries if entry.is_file()]
        except OSError:
            continue
    return [name for _, name in sorted(found, reverse=True)]
