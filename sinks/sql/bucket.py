"""DuckDB's way to a lake in a bucket: a file system of the files that its log names, and of no other.

DuckDB reads by ranges, and so does this: a short file is fetched whole and held against its SHA-256, of a longer one
only blocks that are asked for. What was fetched stays in memory, up to `CACHE_BYTES` a connection; files never change.
Nothing can be written through it. Several of DuckDB's threads use it at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fsspec.spec import AbstractFileSystem

from sinks.lake.log import chain
from sinks.lake.log.chain import File
from sinks.lake.storage.objects import Objects
from sinks.lake.storage.refusals import ALTERED, GONE, Refused

BLOCK_BYTES = 1024**2
WHOLE_BYTES = 4 * BLOCK_BYTES
"""A file up to so long is fetched at once."""
CACHE_BYTES = 256 * 1024**2
_ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Files never change, so that it does not matter when they were written."""


class Bucket(AbstractFileSystem):  # type: ignore[misc]
    """The files that `show` was given last."""

    protocol = "s3"
    cachable = False

    def __init__(self, store: Objects) -> None:
        super().__init__()
        self._store = store
        self._root = f"{store.path}/"
        self._files: dict[str, File] = {}
        self._blocks = _Blocks()

    def show(self, files: Iterable[File]) -> None:
        """Have these files."""
        self._files = {file.path: file for file in files}

    def glob(self, path: str, **_: Any) -> list[str]:
        """Say whether there is such a file; names are no patterns here."""
        return [path] if path.removeprefix(self._root) in self._files else []

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Give a file's length."""
        return {"name": path, "size": self._length(path.removeprefix(self._root)), "type": "file"}

    def modified(self, path: str) -> datetime:
        """Give one time for all files."""
        del path
        return _ANY_TIME

    def open(self, path: str, mode: str = "rb", **_: Any) -> _Reading:
        """Open a file for reading. Raise `PermissionError` for anything else, `FileNotFoundError` for another file."""
        name = path.removeprefix(self._root)
        if mode != "rb":
            raise PermissionError(f"{path}: a lake is only read here")
        return _Reading(self, name, self._length(name))

    def _length(self, name: str) -> int:
        if name not in self._files:
            raise FileNotFoundError(GONE.format(name=name))
        return self._files[name].bytes

    def part(self, name: str, start: int, length: int) -> bytes:
        """Give a part of a file. Raise `FileNotFoundError` when it is gone, `Refused` when it is another one."""
        file = self._files[name]
        if file.bytes <= WHOLE_BYTES:
            return self._blocks.get(file.path, 0, lambda: self._whole(file))[start : start + length]
        first, last = start // BLOCK_BYTES, (start + length - 1) // BLOCK_BYTES
        found = self._blocks.missing(name, first, last)
        if found:
            self._fetch(file, found[0], found[-1])
        joined = b"".join(
            self._blocks.get(name, number, partial(self._block, file, number, number))
            for number in range(first, last + 1)
        )
        begin = start - first * BLOCK_BYTES
        return joined[begin : begin + length]

    def _whole(self, file: File) -> bytes:
        content = self._store.read(file.path)
        if content is None:
            raise FileNotFoundError(GONE.format(name=file.path))
        if chain.digest(content) != file.sha256:
            raise Refused(f"{file.path} is not what its entry says", ALTERED)
        return content

    def _fetch(self, file: File, first: int, last: int) -> None:
        """Fetch neighbouring blocks in one request."""
        content = self._block(file, first, last)
        for number in range(first, last + 1):
            at = (number - first) * BLOCK_BYTES
            self._blocks.put(file.path, number, content[at : at + BLOCK_BYTES])

    def _block(self, file: File, first: int, last: int) -> bytes:
        start = first * BLOCK_BYTES
        length = min((last + 1) * BLOCK_BYTES, file.bytes) - start
        try:
            content = self._store.read_range(file.path, start, length)
        except FileNotFoundError:
            raise FileNotFoundError(GONE.format(name=file.path)) from None
        if len(content) != length:
            raise Refused(f"{file.path} is shorter than its entry says", ALTERED)
        return content


class _Reading:
    """One open file, as DuckDB reads it."""

    def __init__(self, files: Bucket, name: str, length: int) -> None:
        self._files, self._name, self._length, self._at = files, name, length, 0

    def seek(self, to: int, whence: int = 0) -> int:
        self._at = to + (0, self._at, self._length)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._length - self._at)
        wanted = left if size < 0 else min(size, left)
        content = self._files.part(self._name, self._at, wanted) if wanted else b""
        self._at += len(content)
        return content

    def close(self) -> None:
        pass


class _Blocks:
    """What was fetched, the longest unused going first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, name: str, number: int, fetch: Any) -> bytes:
        """Give a block, fetched if need be."""
        with self._lock:
            found = self._kept.get((name, number))
            if found is not None:
                self._kept.move_to_end((name, number))
                return found
        content: bytes = fetch()
        self.put(name, number, content)
        return content

    def missing(self, name: str, first: int, last: int) -> list[int]:
        """List which of these blocks are not there."""
        with self._lock:
            return [number for number in range(first, last + 1) if (name, number) not in self._kept]

    def put(self, name: str, number: int, content: bytes) -> None:
        """Keep a block."""
        with self._lock:
            self._bytes += len(content) - len(self._kept.pop((name, number), b""))
            self._kept[name, number] = content
            while self._bytes > CACHE_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1])
