"""From bytes as they come to whole records, each with its place in the file; half ones wait.

Pure: a splitter is given what was read and gives what is whole. `length` of a piece is how many bytes of the file it
stands for, so that the sum of all lengths is how far the file has been used. A record without an end within
`RECORD_BYTES_MAX` is given up as unreadable, so that garbage cannot fill the memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from collectors.log.formats.envelopes import unframed
from collectors.log.formats.prefix import Prefix
from collectors.log.formats.record import Unreadable

RECORD_BYTES_MAX = 32 * 1024 * 1024
INTERLEAVED_MAX = 64
"""How many messages back one is looked for that a part belongs to."""


class Piece(Struct, frozen=True, gc=False):
    """A record, or bytes that are none (`readable` is false), and the bytes of the file it stands for."""

    length: int
    data: bytes
    readable: bool = True


class Splitter(Protocol):
    """Cuts one file into records."""

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes of the file and give what is whole by now."""

    def idle(self) -> list[Piece]:
        """Return what is whole because nothing has come for a while."""

    @property
    def waiting(self) -> int:
        """Bytes that were fed and wait for the rest of their record."""


class _Lines:
    """Whole lines, without their end; what every splitter begins with."""

    def __init__(self) -> None:
        self._half = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        cut = data.rfind(b"\n")
        if cut < 0:
            self._half += data
            return []
        if self._half:
            whole = bytes(self._half) + data[:cut]
            self._half = bytearray(data[cut + 1 :])
        else:
            whole = data[:cut]
            self._half += data[cut + 1 :]
        return whole.split(b"\n")

    def begins(self, start: bytes) -> bool:
        return self._half.startswith(start)

    def overflow(self) -> bytes | None:
        if len(self._half) <= RECORD_BYTES_MAX:
            return None
        lost = bytes(self._half)
        self._half.clear()
        return lost

    @property
    def waiting(self) -> int:
        return len(self._half)


class JsonSplitter:
    """One line, one record."""

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, data: bytes) -> list[Piece]:
        """Return each line."""
        pieces = [Piece(len(line) + 1, line, line != b"") for line in self._lines.feed(data)]
        lost = self._lines.overflow()
        return pieces if lost is None else [*pieces, Piece(len(lost), lost, False)]

    def idle(self) -> list[Piece]:
        """A line without its end stays half."""
        return []

    @property
    def waiting(self) -> int:
        """Bytes of the half line."""
        return self._lines.waiting


class EnvelopeSplitter:
    """One line, one JSON object that holds messages; `unwrap` gives them, and raises `Unreadable`."""

    def __init__(self, unwrap: Callable[[bytes], list[bytes]]) -> None:
        self._unwrap = unwrap
        self._inner = JsonSplitter()

    def feed(self, data: bytes) -> list[Piece]:
        """Return each message; of several in one object each has a byte of it, and the last one the rest."""
        pieces: list[Piece] = []
        for piece in self._inner.feed(data):
            try:
                held = self._unwrap(piece.data)[: piece.length] if piece.readable else []
            except Unreadable:
                held = []
            if not held:
                pieces.append(Piece(piece.length, piece.data, False))
                continue
            pieces += [Piece(1, message) for message in held[:-1]]
            pieces.append(Piece(piece.length - len(held) + 1, held[-1]))
        return pieces

    def idle(self) -> list[Piece]:
        """A line without its end stays half."""
        return []

    @property
    def waiting(self) -> int:
        """Bytes of the half line."""
        return self._inner.waiting


class CsvSplitter:
    """Lines until every quote is closed; `is_record` says whether what then stands there is one.

    Quotes inside of fields are doubled, so an even number of them closes. After a line that was cut off in a quoted
    field everything would be taken inside out: what closes and is no record loses its first line and is cut anew.
    """

    def __init__(self, is_record: Callable[[bytes], bool]) -> None:
        self._is_record = is_record
        self._lines = _Lines()
        self._open: list[bytes] = []
        self._open_bytes = 0

    def feed(self, data: bytes) -> list[Piece]:
        """Return each record."""
        pieces: list[Piece] = []
        lines = deque(self._lines.feed(data))
        while lines:
            line = lines.popleft()
            odd = line.count(b'"') & 1
            if not self._open and not odd:
                pieces.append(Piece(len(line) + 1, line, bool(line)))
                continue
            self._open.append(line)
            self._open_bytes += len(line) + 1
            closed = odd and len(self._open) > 1
            if not closed and self._open_bytes <= RECORD_BYTES_MAX:
                continue
            opened, length = self._open, self._open_bytes
            self._open, self._open_bytes = [], 0
            record = b"\n".join(opened)
            if closed and self._is_record(record):
                pieces.append(Piece(length, record))
            else:
                pieces.append(Piece(len(opened[0]) + 1, opened[0], False))
                lines.extendleft(reversed(opened[1:]))
        lost = self._lines.overflow()
        if lost is not None:
            pieces += [Piece(len(line) + 1, line, False) for line in self._open]
            self._open, self._open_bytes = [], 0
            pieces.append(Piece(len(lost), lost, False))
        return pieces

    def idle(self) -> list[Piece]:
        """A record without its closing quote stays half."""
        return []

    @property
    def waiting(self) -> int:
        """Bytes of the record that is still open."""
        return self._lines.waiting + self._open_bytes


class StderrSplitter:
    """Lines until the next message begins; a part of an earlier one goes to it by its process id.

    What comes through a pipe may be interleaved: the STATEMENT of one process behind the ERROR of another. It is looked
    for among the messages of the same block, since what was given away already cannot get longer.
    """

    def __init__(self, prefix: Prefix) -> None:
        self._prefix = prefix
        self._lines = _Lines()
        self._open: list[bytes] = []
        self._open_bytes = 0

    def feed(self, data: bytes) -> list[Piece]:
        """Return each message but the last one, which may go on."""
        pieces: list[Piece] = []
        elsewhere: int | None = None
        for framed in self._lines.feed(data):
            # A literal of line feeds is thousands of lines; nothing stands before a tab that has to be taken off.
            if framed[:1] == b"\t" and self._open and elsewhere is None and self._open_bytes <= RECORD_BYTES_MAX // 2:
                self._open.append(framed)
                self._open_bytes += len(framed) + 1
                continue
            line, further = unframed(framed)
            if further and not line.startswith(b"\t") and not self._prefix.continues(line):
                line = b"\t" + line
            extra = len(framed) - len(line)
            if self._open and line.startswith(b"\t") and elsewhere is not None:
                _append(pieces, elsewhere, line, extra)
                continue
            if self._open and not line.startswith(b"\t"):
                elsewhere = None
                if not self._prefix.continues(line):
                    pieces.append(self._close())
                elif self._prefix.process(line) != self._prefix.process(self._open[0]):
                    elsewhere = self._earlier(pieces, line)
                    _append(pieces, elsewhere, line, extra)
                    continue
            self._open.append(line)
            self._open_bytes += len(framed) + 1
            if self._open_bytes > RECORD_BYTES_MAX:
                pieces.append(self._close(False))
        lost = self._lines.overflow()
        if lost is not None:
            pieces += [*self.idle(), Piece(len(lost), lost, False)]
        return pieces

    def _earlier(self, pieces: list[Piece], line: bytes) -> int:
        """Find the last message of a line's process, or make an unreadable one of the line."""
        process = self._prefix.process(line)
        for place in range(len(pieces) - 1, max(-1, len(pieces) - 1 - INTERLEAVED_MAX), -1):
            piece = pieces[place]
            if piece.readable and self._prefix.process(piece.data.split(b"\n", 1)[0]) == process:
                return place
        pieces.append(Piece(0, b"", False))
        return len(pieces) - 1

    def _close(self, readable: bool = True) -> Piece:
        piece = Piece(self._open_bytes, b"\n".join(self._open), readable and self._open not in ([b""], [b"\r"]))
        self._open = []
        self._open_bytes = 0
        return piece

    def idle(self) -> list[Piece]:
        """The server writes a message at once: what nothing followed is whole.

        Half a line behind it that begins with a tab is its own.
        """
        return [self._close()] if self._open and not self._lines.begins(b"\t") else []

    @property
    def waiting(self) -> int:
        """Bytes of the last message."""
        return self._lines.waiting + self._open_bytes


def _append(pieces: list[Piece], place: int, line: bytes, extra: int) -> None:
    piece = pieces[place]
    data = piece.data + b"\n" + line if piece.data else line
    pieces[place] = Piece(piece.length + extra + len(line) + 1, data, piece.readable)
