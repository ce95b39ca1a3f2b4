"""A walker over a stream of bytes: cuts the messages that somebody asked for, and lets the rest pass unparsed.

A message is a byte that names its type, a length of four bytes that counts itself, and a body (manual, 55.2.1). What
is not asked for is never copied into a buffer of ours: it passes in slices of the reads it came in, as large as they
are. What is asked for waits until it is whole, or until its head is there; of neither more than a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from collectors.gateway.wire.violation import ProtocolViolation

HEADER: Final = 5
LENGTH_MIN: Final = 4
LENGTH_MAX: Final = 0x3FFFFFFF
"""PostgreSQL's own limit of one message (`PQ_LARGE_MESSAGE_LIMIT`)."""
_HEADER: Final = Struct("!BI")
_DATA_ROW: Final = ord("D")
_UNKNOWN, _PASSES, _WHOLE, _HEAD = range(4)


@dataclass(slots=True)  # and not frozen, which makes making one three times as dear
class Message:
    """A message that was asked for: `frame` is its bytes as they came, from its type on.

    Of one of which only the head is wanted `frame` ends early; the rest passes behind it. `rows` is how many messages
    of the type `D` passed since the message before.
    """

    type: int
    frame: bytes
    rows: int = 0

    @property
    def body(self) -> bytes:
        """What stands behind the length."""
        return self.frame[HEADER:]


Piece = bytes | Message


@dataclass(frozen=True)
class Wanted:
    """Which messages a walker cuts out: `whole` up to so many bytes, of `heads` the first so many bytes.

    `known` are the types that may come at all. `limits` are the longest frames of types that pass, where they have one.
    """

    known: bytes
    whole: Mapping[int, int]
    heads: Mapping[int, int]


class Frames:
    """One direction of one connection; `feed` takes the reads in order."""

    def __init__(self, wanted: Wanted, peer: str) -> None:
        self._whole = dict(wanted.whole)
        self._heads = dict(wanted.heads)
        self._fates = _fates(wanted)
        self._shares = {**{kind: head - 1 for kind, head in self._heads.items()}, **self._whole}
        """Up to which length a wanted message is asked for with all that it has."""
        self._peer = peer
        self._held = bytearray()
        """A header that is not whole, or a wanted message that is not: its beginning."""
        self._need = HEADER
        self._passing = 0
        """Bytes that are still to come of a message that passes."""
        self._rows = 0

    @property
    def held(self) -> int:
        """How many bytes wait for the rest of their message."""
        return len(self._held)

    @property
    def rows(self) -> int:
        """How many rows have passed since the last message that is wanted."""
        return self._rows

    @property
    def pending(self) -> bytes:
        """The beginning of a message whose rest has not come."""
        return bytes(self._held)

    @property
    def between(self) -> bool:
        """Whether the stream stands between two messages."""
        return not self._held and not self._passing

    def want(self, kind: int, bytes_max: int) -> None:
        """Cut out messages of a type that passed until now, whole."""
        self._whole[kind] = self._shares[kind] = bytes_max
        self._fates = self._fates[:kind] + bytes((_WHOLE,)) + self._fates[kind + 1 :]

    def pass_on(self, kind: int) -> None:
        """Let messages of a type pass again."""
        self._fates = self._fates[:kind] + bytes((_PASSES,)) + self._fates[kind + 1 :]

    def feed(self, data: bytes) -> list[Piece]:
        """Take what was read; return what passes and the messages that are wanted, in the order of the stream.

        Raise `ProtocolViolation` at a length or type that cannot be, or a wanted message that is too long.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return []
            data = bytes(self._held)
            self._held.clear()
        pieces: list[Piece] = []
        fates, shares, header = self._fates, self._shares, _HEADER.unpack_from
        size = len(data)
        last, rows = size - HEADER, self._rows
        start, at = 0, self._passing
        self._passing = 0
        while at <= last:
            kind, length = header(data, at)
            fate = fates[kind]
            if fate == _PASSES and LENGTH_MIN <= length <= LENGTH_MAX:
                if kind == _DATA_ROW:
                    rows += 1
                at += 1 + length
                continue
            if fate == _UNKNOWN or not LENGTH_MIN <= length <= LENGTH_MAX:
                raise self._refused(kind, length)
            wanted = length + 1 if length < shares[kind] else self._share(kind, length)
            if size - at < wanted:
                self._rows = rows
                self._hold(data, start, at, wanted, pieces)
                return pieces
            if at > start:
                pieces.append(data[start:at])
            pieces.append(Message(kind, data[at : at + wanted], rows))
            rows = 0
            start = at + wanted
            at += 1 + length
        self._rows = rows
        if last < at < size:
            self._hold(data, start, at, HEADER, pieces)
            return pieces
        self._passing = at - size
        if size > start:
            pieces.append(data[start:] if start else data)
        return pieces

    def whole_with(self, data: bytes, bytes_min: int) -> list[Message]:
        """List the wanted messages of at least so many bytes that would be whole with a read, without taking it."""
        if self._held:
            if len(self._held) + len(data) < self._need:
                return []
            data = bytes(self._held) + data
        found: list[Message] = []
        at, last = self._passing, len(data) - HEADER
        while at <= last:
            kind, length = _HEADER.unpack_from(data, at)
            end = at + 1 + length
            if length < LENGTH_MIN:
                break
            if self._fates[kind] == _WHOLE and end - at >= bytes_min and end <= len(data):
                found.append(Message(kind, data[at:end]))
            at = end
        return found

    def _share(self, kind: int, length: int) -> int:
        """Return how many bytes of a wanted message are asked for."""
        limit = self._whole.get(kind)
        if limit is None:
            return min(length + 1, self._heads[kind])
        if length >= limit:
            raise ProtocolViolation(
                f"a message of type {_name(kind)} has {length} bytes; the gateway takes {limit} at most", "54000"
            )
        return length + 1

    def _hold(self, data: bytes, start: int, at: int, need: int, pieces: list[Piece]) -> None:
        if at > start:
            pieces.append(data[start:at])
        self._held += data[at:]
        self._need = need

    def _refused(self, kind: int, length: int) -> ProtocolViolation:
        if self._fates[kind] == _UNKNOWN:
            return ProtocolViolation(f"invalid {self._peer} message type {_name(kind)}")
        return ProtocolViolation(f"invalid length {length} of a {self._peer} message of type {_name(kind)}")


def _fates(wanted: Wanted) -> bytes:
    """Return what becomes of a message, by its type."""
    fates = bytearray(256)
    for kind in wanted.known:
        fates[kind] = _WHOLE if kind in wanted.whole else _HEAD if kind in wanted.heads else _PASSES
    return bytes(fates)


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """Write one message."""
    return kind + (len(body) + LENGTH_MIN).to_bytes(4, "big") + body


def joined(pieces: Sequence[Piece]) -> bytes:
    """Put pieces together again, as they came."""
    return b"".join(piece.frame if isinstance(piece, Message) else piece for piece in pieces)


def _name(kind: int) -> str:
    return repr(chr(kind)) if 0x20 < kind < 0x7F else f"0x{kind:02X}"
