"""A file that is read again when it changes, while the program runs: identities, policies, suppressions, keys.

Promises: the last content that could be used holds, whatever becomes of the file; what cannot be used is reported
once, and again only when it is wrong in another way; what is mended is taken on at the next look, the same content
too. A look costs a `stat`: a change is another time, size or inode, and a file that was changed within `RACY_S` of the
last look is compared by its hash, because two changes in one tick of the file system's clock look alike.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from msgspec import Struct

from pgwitness.core.errors import ConfigurationError

RACY_S = 2.0
"""How old a change must be before its time says that there was no other: FAT keeps times in steps of two seconds."""

T = TypeVar("T")
_Stamp = tuple[tuple[str, int, int, int, int], ...]


class Refusal(Struct, frozen=True):
    """Why a file cannot be used; `sha256` is of what stands in it, None when it cannot even be read."""

    error: str
    sha256: str | None


class WatchedFile(Generic[T]):
    """A file, or several that are one (`files`), and the last usable content. Several threads may ask.

    `read` makes the content of what stands there, and raises `ConfigurationError` when it cannot be used; `last` begins
    as `initial`. With `settle` a change is read when it has stood still from one look to the next, so that half a
    deployment is not taken for a whole one. `changed` and `refused` are called with what was taken on and what was not.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[], T],
        *,
        initial: T,
        files: Callable[[], Sequence[Path]] | None = None,
        settle: bool = False,
        changed: Callable[[T], None] = lambda _: None,
        refused: Callable[[Refusal], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.last = initial
        self.refusal: Refusal | None = None
        """What was wrong at the last look, None when nothing was."""
        self._read = read
        self._files = files or (lambda: [path])
        self._settle = settle
        self._changed = changed
        self._refused = refused
        self._clock = clock
        self._lock = threading.Lock()
        self._loaded = False
        self._stamp: _Stamp = ()
        self._seen: _Stamp = ()
        self._sha256: str | None = None
        self._doubtful = False

    def load(self) -> T:
        """Read the file at the start. Raise `ConfigurationError` when it cannot be used: there is no last good one."""
        with self._lock:
            stamp = self._look()
            sha256 = self._digest()
            self.last = self._read()
            self._note(stamp, sha256)
            self._seen = stamp
            self._loaded = True
            self.refusal = None
        return self.last

    def poll(self) -> T:
        """Return the content as it is now, or the last one that could be used."""
        with self._lock:
            stamp = self._look()
            settled, self._seen = stamp == self._seen, stamp
            if (stamp != self._stamp or self._doubtful) and (settled or not self._settle):
                self._take(stamp)
        return self.last

    def current(self) -> T:
        """Return what `poll` does; until something usable was read, raise as `load` does."""
        return self.poll() if self._loaded else self.load()

    def _take(self, stamp: _Stamp) -> None:
        sha256, before = self._digest(), self._sha256
        self._note(stamp, sha256)
        if sha256 is not None and sha256 == before:
            return
        try:
            self.last = self._read()
        except ConfigurationError as error:
            refusal = Refusal(str(error), sha256)
            if refusal != self.refusal:
                self.refusal = refusal
                self._refused(refusal)
            return
        self._loaded = True
        self.refusal = None
        self._changed(self.last)

    def _note(self, stamp: _Stamp, sha256: str | None) -> None:
        """Keep what was looked at; in doubt is what may change unseen: a fresh file, and one without leave to read."""
        self._stamp, self._sha256 = stamp, sha256
        newest_s = max((max(modified, status) for _, modified, status, _, _ in stamp), default=0) / 1e9
        self._doubtful = bool(stamp) and (sha256 is None or self._clock() - newest_s < RACY_S)

    def _look(self) -> _Stamp:
        found = []
        try:
            for file in self._files():
                status = file.stat()
                times = (status.st_mtime_ns, status.st_ctime_ns)  # the second one moves with rights, too
                found.append((str(file), *times, status.st_size, status.st_ino))
        except OSError:
            return ()  # reading it says what is wrong
        return tuple(found)

    def _digest(self) -> str | None:
        """Return the SHA-256 of a file, or of the names and hashes of several; None when they cannot be read."""
        try:
            hashes = [(str(file), hashlib.sha256(file.read_bytes()).hexdigest()) for file in self._files()]
        except OSError:
            return None
        return hashes[0][1] if len(hashes) == 1 else hashlib.sha256(repr(hashes).encode()).hexdigest()
