"""The spool: every record of the gateway, on this disk before the statement it is about goes to the server.

A folder of segments, each named by the place of its first byte; a place counts the bytes of all segments and never
comes again, so it is a record's position. A record is a line of JSON. `Spool.write` appends for the gateway;
`Reader` gives whole lines to whoever ships them, who says by `release` what it needs no longer. A process that ends in
the middle of a line leaves a torn one, which the next begins by ending: it is passed over. No statement was forwarded
whose line is torn, for the line is written first: one write for what all clients have sent in a turn of the loop
(`collectors.gateway.connection.House`), and with `sync` one wait for the disk.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace
from prometheus_client import Gauge

from collectors.gateway.spool.records import Begun, Opened, Record, Said
from pgwitness.core.errors import Retry, Stop
from pgwitness.core.runtime.disk import read_whole, refused, write_whole

SEGMENT_BYTES = 16 * 1024 * 1024
READ_BYTES = 256 * 1024
HOLES_MAX = 100
"""Holes that are told one by one, between two confirmations."""
SUFFIX = ".jsonl"

SPOOLED = Gauge("pgwitness_gateway_spool_bytes", "Bytes on the gateway's spool that are not in the topic raw yet.")

BEGINS = b'{"record":"begun"'
"""How a line begins of a statement that is about to be forwarded."""
WRITTEN_MAX = 4_096
"""Statements whose bytes on the spool are remembered."""

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class Full(Retry):
    """The spool holds as much as it may: the broker has not taken what is there."""


class Spool:
    """The writing end; one process owns it. `sync` says whether each write waits for the disk itself."""

    def __init__(self, folder: Path, bytes_max: int, sync: Literal["always", "never"] = "never") -> None:
        self.folder = folder
        self._bytes_max = bytes_max
        self._sync = sync == "always"
        self._written: dict[int, tuple[Said, msgspec.Raw]] = {}
        """By the identity of what is held here, so that it is nothing else's meanwhile."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _alone(folder)
            self.id = _identity(folder)
            found = segments(folder)
            self.end = found[-1] + _ended(_path(folder, found[-1])) if found else 0
            self.released = found[0] if found else 0
            self._file = self._open()
        except OSError as error:
            raise refused(folder, "written", error) from error
        SPOOLED.set_function(lambda: self.end - self.released)

    def _open(self) -> int:
        """Open a new segment at the end; what an earlier process wrote is not written to again."""
        self._began = self.end
        return os.open(_path(self.folder, self.end), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, records: Sequence[Record]) -> None:
        """Append records; they are there when this returns. Raise `Full`, or `Retry` when the disk refuses.

        What came of a statement that is on the spool is taken beyond its limit: there is no more of it than of those.
        """
        self.append(self.encoded(records), bounded=any(isinstance(record, Begun | Opened) for record in records))

    def encoded(self, records: Sequence[Record]) -> bytes:
        """Return the lines of records as they stand here."""
        lines = list(records)
        for at, record in enumerate(records):
            if isinstance(record, Begun):
                lines[at] = replace(record, said=self.said(record.said))
        return _encode_lines(lines)

    def said(self, said: Said) -> msgspec.Raw:
        """Return what stands of a statement on the spool: sessions that run the same have the very same of it."""
        known = self._written.get(id(said))
        if known is None:
            if len(self._written) >= WRITTEN_MAX:
                self._written.clear()
            known = self._written[id(said)] = (said, msgspec.Raw(_encode(said)))
        return known[1]

    def append(self, lines: bytes, *, bounded: bool) -> None:
        """Append whole lines, or nothing; `bounded` are those that begin something. As `write` otherwise."""
        if bounded and self.end - self.released + len(lines) > self._bytes_max:
            raise Full(
                f"the gateway's spool {self.folder} holds {self._bytes_max} bytes that the broker has not taken: "
                "see that the broker runs, or raise gateway.spool.max"
            )
        try:
            written = os.write(self._file, lines)
            if written != len(lines):
                os.ftruncate(self._file, self.end - self._began)
                raise OSError(28, "no space left on the device")
            if self._sync:
                os.fdatasync(self._file)
        except OSError as error:
            raise refused(self.folder, "written", error) from error
        self.end += written
        if self.end - self._began >= SEGMENT_BYTES:
            os.close(self._file)
            self._file = self._open()

    def renew(self) -> None:
        """Take another name, under which places count anew, and leave behind the segments before the present one.

        For a spool whose end was taken away: places come again, and would be taken for repeats.
        """
        for first in segments(self.folder):
            if first < self._began:
                _path(self.folder, first).unlink(missing_ok=True)
        self.released = self._began
        write_whole(self.folder / "id", secrets.token_hex(8).encode())
        self.id = _identity(self.folder)

    def release(self, place: int) -> None:
        """Take up that nothing before a place is needed: segments that lie before it whole are removed."""
        found = segments(self.folder)
        for first, following in itertools.pairwise(found):
            if following <= place:
                _path(self.folder, first).unlink(missing_ok=True)
        self.released = max(self.released, place)

    def close(self) -> None:
        """End writing."""
        os.close(self._file)
        os.close(self._lock)


class Reader:
    """The reading end, from a place on; a place before what is there is moved to it."""

    def __init__(self, folder: Path, place: int) -> None:
        self._folder = folder
        self.place = place
        self.holes: list[tuple[int, int]] = []
        """Where something stood that cannot be read any more, from and until; whoever reads takes them."""

    def read(self, end: int) -> Iterator[tuple[int, Record]]:
        """Give the records between here and `end`, each with the place behind it.

        A torn line is passed over: nothing was done after it, and a new segment begins behind it. Any other line that
        is no record, and a segment that is gone or shorter than it was, is one of the `holes`. Raise `Stop` for a line
        that has no end, `Retry` when the disk refuses.
        """
        while self.place < end:
            data = self._some(end)
            if not data:
                if not self._skip():
                    return
                continue
            *lines, rest = data.split(b"\n")
            at = self.place
            for line in lines:
                at += len(line) + 1
                record = _record(line)
                if record is not None:
                    yield at, record
                elif at not in segments(self._folder):
                    self._hole(self.place, at)
                self.place = at
            if not lines:
                if len(rest) < READ_BYTES * 64:
                    return
                raise Stop(f"the spool {self._folder} holds a line without an end at {self.place}; move it away")

    def _skip(self) -> bool:
        """Go on with the next segment, where the one of the place is gone or ends too early; false if there is none."""
        later = [first for first in segments(self._folder) if first > self.place]
        if later:
            self._hole(self.place, later[0])
            self.place = later[0]
        return bool(later)

    def _hole(self, begin: int, end: int) -> None:
        if self.holes and (self.holes[-1][1] == begin or len(self.holes) >= HOLES_MAX):
            begin = self.holes.pop()[0]
        self.holes.append((begin, end))

    def _some(self, end: int) -> bytes:
        """Read on from the place; a whole segment's rest at most."""
        found = [first for first in segments(self._folder) if first <= self.place]
        if not found:
            return b""
        first = found[-1]
        try:
            with _path(self._folder, first).open("rb") as file:
                file.seek(self.place - first)
                data = file.read(min(READ_BYTES, end - self.place))
                while data and b"\n" not in data and len(data) < end - self.place and (more := file.read(READ_BYTES)):
                    data += more
                return data
        except OSError as error:
            raise refused(self._folder, "read", error) from error


def segments(folder: Path) -> list[int]:
    """List where the segments begin, the first one first."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())


def _path(folder: Path, first: int) -> Path:
    return folder / f"{first:020d}{SUFFIX}"


def _ended(path: Path) -> int:
    """End a line that an earlier process left torn; return how long the segment is then."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
            file.write(b"\n")
            size += 1
        return size


def _alone(folder: Path) -> int:
    """Take the folder for this process; raise `Stop` where another one has it."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Stop(f"another gateway writes to the spool {folder}: give each one a folder of its own") from None
    return lock


def _identity(folder: Path) -> str:
    """Give the spool's own name, by which its places are told from another's; made when it is."""
    path = folder / "id"
    known = read_whole(path)
    if known is not None and known.strip():
        return known.decode().strip()
    made = secrets.token_hex(8)
    write_whole(path, made.encode())
    return made


def _record(line: bytes) -> Record | None:
    if not line:
        return None
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError:
        return None
