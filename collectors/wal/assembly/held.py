"""Where the parts of a transaction wait for its beacon: in bounded memory, then in a bounded file.

The file is a temporary one without a name, so that nothing is left behind whatever happens; what it holds is masked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from struct import Struct as Layout
from typing import IO

import msgspec

from pgwitness.core.runtime.disk import refused

_LENGTH = Layout(">I")


class Body(msgspec.Struct, array_like=True, frozen=True):
    """A finished part without the header that all parts of its transaction share: JSON, ready to be put together."""

    first_ordinal: int
    n_rows: int
    relations: bytes
    counts: bytes
    rows: bytes
    ddl: bytes = b""

    @property
    def size(self) -> int:
        """Bytes it takes, nearly."""
        return len(self.relations) + len(self.counts) + len(self.rows) + len(self.ddl) + 64


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode


class Held:
    """Parts in their order. `memory_limit` and `spool_limit` are bytes; the file is made in `folder` when needed."""

    def __init__(self, folder: Path, memory_limit: int, spool_limit: int) -> None:
        self._folder = folder
        self._memory_limit = memory_limit
        self._spool_limit = spool_limit
        self._parts: list[Body] = []
        self._file: IO[bytes] | None = None
        self.in_memory = 0
        self.on_disk = 0

    def __bool__(self) -> bool:
        return bool(self._parts) or self._file is not None

    def add(self, part: Body) -> bool:
        """Keep a part; false says that no more may be kept, and all should be let go.

        Raise `Retry` when the disk does not take it: without room for them parts would go without their beacon.
        """
        self._parts.append(part)
        self.in_memory += part.size
        if self.in_memory > self._memory_limit:
            self._spill()
        return self.on_disk <= self._spool_limit

    def drain(self) -> Iterator[Body]:
        """Return every part back in order, and be empty afterwards."""
        file, parts = self._file, self._parts
        self._file, self._parts, self.in_memory, self.on_disk = None, [], 0, 0
        if file is not None:
            with file:
                file.seek(0)
                while length := file.read(_LENGTH.size):
                    yield _decode(file.read(_LENGTH.unpack(length)[0]))
        yield from parts

    def clear(self) -> None:
        """Forget everything."""
        if self._file is not None:
            self._file.close()
        self._file, self._parts, self.in_memory, self.on_disk = None, [], 0, 0

    def _spill(self) -> None:
        try:
            self._write()
        except OSError as error:
            raise refused(self._folder, "written", error) from error

    def _write(self) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it lives on
        for part in self._parts:
            data = _encode(part)
            self._file.write(_LENGTH.pack(len(data)) + data)
            self.on_disk += _LENGTH.size + len(data)
        self._file.flush()
        self._parts, self.in_memory = [], 0
