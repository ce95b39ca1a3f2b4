"""Following files that can only be asked for: no inode, no descriptor, no notice of a renaming.

What `follow` promises, with less to go by. A file is known by its name together with its first bytes, which begin with
a time; every reading asks for both in one go, the bytes wanted first, so bytes of a file that has taken the place of
another under its name are never taken for the old one's. What becomes of a file:

- renamed, or copied and emptied: found again in the folder, under whatever name, by its first bytes;
- emptied or begun anew under its name (`log_truncate_on_rotation`): nothing is missing when it had been read to its
  end and the server had long left it for a later file; else it is a `Loss`;
- gone: likewise. The last one written to may have grown after the last look, so its going is always a `Loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from collectors.log.sources.follow import HEAD_BYTES, HEAD_BYTES_MIN, READ_BYTES, Chunk, FileState, Followed, Loss

BACK_BYTES = 64 * 1024
LOOKS_MIN = 2
"""How often a file must have been found without growth, while a later one grew, to be over."""


class Entry(NamedTuple):
    """A file as the folder lists it; `modified` in seconds since the epoch."""

    name: str
    size: int
    modified: float


class Folder(Protocol):
    """What can be asked of the folder."""

    @property
    def trouble(self) -> str | None:
        """What is in the way of following, as of the last `entries`, and what to do."""

    def entries(self) -> list[Entry] | None:
        """List the files; None when there is no folder."""

    def heads(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the first `HEAD_BYTES` of files; those that are gone are left out."""

    def read(self, name: str, offset: int, length: int) -> tuple[bytes, bytes] | None:
        """Return bytes of a file, and after that its first `HEAD_BYTES`; None when it is gone."""


class RemoteFollower:
    """Follows the files of a folder whose names `wanted` picks; the other arguments are those of `Follower`."""

    def __init__(
        self,
        folder: Folder,
        wanted: Callable[[str], bool],
        states: list[FileState] | None,
        first_number: int,
        *,
        from_end: bool,
    ) -> None:
        self.next_number = first_number
        self.files: list[Followed] = [Followed(state) for state in states or ()]
        self.losses: list[Loss] = []
        self._folder = folder
        self._wanted = wanted
        self._from_end = from_end and states is None
        self._there = True
        self._turn = 0
        self._newest = max((followed.state.number for followed in self.files), default=0)
        self._entries: dict[str, Entry] = {}
        self._copies: set[str] = set()
        self._replaced: set[int] = set()

    @property
    def trouble(self) -> str | None:
        """Why there is nothing to follow, and what to do; None when there is."""
        if self._folder.trouble is not None:
            return self._folder.trouble
        if self.files and self._there:
            return None
        return "no file of the server's log_directory has a name that path picks; check log_filename and path"

    def look(self) -> None:
        """Compare the folder with what is known: new files, renamed ones, emptied ones."""
        self._turn += 1
        listed = self._folder.entries()
        self._there = listed is not None
        if listed is None:
            return
        before, self._entries = self._entries, {entry.name: entry for entry in listed}
        self._copies &= self._entries.keys()
        gone = self._compare(before)
        known = {followed.state.name for followed in self.files} | self._copies
        strangers = [
            entry
            for entry in sorted(listed, key=lambda entry: (entry.modified, entry.name))
            if entry.name not in known and (gone or self._wanted(entry.name))
        ]
        heads = self._folder.heads(entry.name for entry in strangers) if strangers else {}
        for followed, reason in gone:
            self._find(followed, reason, heads)
        for entry in strangers:
            if entry.name in heads and self._wanted(entry.name):
                self._unknown(entry, heads[entry.name])
        self._from_end = False

    def read(self) -> Iterator[Chunk]:
        """Read every file to its present end, the oldest first; ends each file with a chunk without bytes."""
        for followed in list(self.files):
            while followed.size > followed.position:
                answer = self._folder.read(followed.state.name, followed.position, READ_BYTES)
                if answer is None:
                    break  # the next look sees to it
                data, head = answer
                if not head.startswith(followed.head):
                    self._replaced.add(followed.state.number)
                    break
                if not data:
                    break
                followed.position += len(data)
                followed.grew = self._turn
                followed.size = max(followed.size, followed.position)
                if len(followed.head) < HEAD_BYTES:
                    followed.head = head[: followed.position]
                    followed.state.head = followed.head.hex()
                yield Chunk(followed, data)
                if len(data) < READ_BYTES:
                    break  # what was written meanwhile can wait: some of it is about this very reading
            yield Chunk(followed, b"")

    def close(self) -> None:
        """Nothing is held open."""

    # -- looking -----------------------------------------------------------------------------------------------

    def _compare(self, before: dict[str, Entry]) -> list[tuple[Followed, str]]:
        """Compare known files with what is listed; return those that are no longer what they were."""
        doubtful: list[Followed] = []
        gone: list[tuple[Followed, str]] = []
        for followed in self.files:
            entry = self._entries.get(followed.state.name)
            if entry is None:
                gone.append((followed, "log_rotated_away"))
            elif entry.size < followed.position or followed.state.number in self._replaced:
                gone.append((followed, "log_truncated"))
            else:
                followed.size = entry.size
                # One that has grown is compared as it is read.
                if before.get(entry.name) != entry and (entry.size == followed.position or not followed.seen):
                    doubtful.append(followed)
        heads = self._folder.heads(followed.state.name for followed in doubtful) if doubtful else {}
        for followed in doubtful:
            head = heads.get(followed.state.name)
            if head is None or not head.startswith(followed.head):
                gone.append((followed, "log_truncated" if followed.seen else "log_rotated_away"))
            else:
                followed.seen = True
        self._replaced.clear()
        for followed, _ in gone:
            self.files.remove(followed)
        return gone

    def _find(self, followed: Followed, reason: str, heads: dict[str, bytes]) -> None:
        """Go on with a file under another name, or say that the rest of it is lost."""
        if len(followed.head) >= HEAD_BYTES_MIN:
            copies = self._folder.heads(sorted(self._copies)) if self._copies else {}
            for name, head in {**heads, **copies}.items():
                entry = self._entries[name]
                if head.startswith(followed.head) and entry.size >= followed.position and not self._has(name):
                    followed.state.name, followed.size, followed.seen = name, entry.size, True
                    self._copies.discard(name)
                    self.files.append(followed)
                    self.files.sort(key=lambda file: file.state.number)
                    return
        if self._unread(followed):
            self.losses.append(Loss(reason, followed.state.name, followed.position))
        elif followed.position > followed.state.offset:
            self.losses.append(Loss("log_half_record", followed.state.name, followed.state.offset))

    def _unknown(self, entry: Entry, head: bytes) -> None:
        """A name nobody knows: a copy of a known file, or a new one."""
        if self._has(entry.name):
            return
        for followed in self.files:
            if len(followed.head) >= HEAD_BYTES_MIN and head.startswith(followed.head):
                self._copies.add(entry.name)
                return
        followed = Followed(FileState(self.next_number, 0, 0, entry.name, 0))
        self.next_number += 1
        followed.size, followed.seen, followed.grew = entry.size, True, self._turn
        if self._from_end:
            followed.position = followed.state.offset = self._last_line_end(entry)
            followed.head = head[: followed.position]
            followed.state.head = followed.head.hex()
        self.files.append(followed)

    def _has(self, name: str) -> bool:
        return any(followed.state.name == name for followed in self.files)

    def _unread(self, followed: Followed) -> bool:
        """Return whether a file that is gone may have held more than was read.

        The server writes to one file at a time: of those read to their end only the last may have grown since.
        """
        if not followed.seen:
            return followed.state.number == self._newest
        if followed.size > followed.position:
            return True
        left = any(other.grew > followed.grew and other.position > 0 for other in self.files)
        return not (left and self._turn - followed.grew > LOOKS_MIN)

    def _last_line_end(self, entry: Entry) -> int:
        at = entry.size
        while at > 0:
            begin = max(0, at - BACK_BYTES)
            answer = self._folder.read(entry.name, begin, at - begin)
            if answer is None:
                return 0
            cut = answer[0].rfind(b"\n")
            if cut >= 0:
                return begin + cut + 1
            at = begin
        return 0
