"""The messages of PostgreSQL's output plugin pgoutput, protocol version 1, values in text format; pure.

`decode` is total: any bytes give a message or a `ProtocolError`. It is the reference; the rows of a busy stream are
read by `collectors.wal.decoding.plan`, which goes straight from the tuple's bytes to masked JSON and must agree with
it. Format: PostgreSQL documentation, "Logical Replication Message Formats".
"""

from __future__ import annotations

from enum import Enum
from struct import Struct as Layout
from struct import error as LayoutError  # noqa: N812 - it is struct's own error

from msgspec import Struct

from pgwitness.core.errors import PgwitnessError

EPOCH_US = 946_684_800_000_000
"""2000-01-01, where PostgreSQL's time begins, in microseconds since 1970."""

INT2 = Layout(">H")
INT4 = Layout(">I")
_BEGIN = Layout(">QqI")
_COMMIT = Layout(">BQQq")
_ORIGIN = Layout(">Q")
_MESSAGE = Layout(">BQ")
MESSAGE_PREFIX = 1 + _MESSAGE.size
"""Where the prefix of a Message begins."""
_COLUMN = Layout(">Ii")
_TRUNCATE = Layout(">IB")


class ProtocolError(PgwitnessError):
    """Bytes that are no message of protocol version 1."""


class Absent(Enum):
    """What a tuple holds in the place of a value that did not change and was not sent (TOAST)."""

    UNCHANGED = "unchanged"


UNCHANGED = Absent.UNCHANGED
Value = bytes | None | Absent
Tuple = list[Value]


class Begin(Struct, frozen=True):
    """The start of a committed transaction; `lsn` is that of its commit record."""

    lsn: int
    committed_at_us: int
    xid: int


class Commit(Struct, frozen=True):
    """The end of a transaction; `end_lsn` is the place behind the commit record, the one to confirm."""

    lsn: int
    end_lsn: int
    committed_at_us: int


class Origin(Struct, frozen=True):
    """The replication origin from which the transaction came."""

    lsn: int
    name: str


class Column(Struct, frozen=True):
    """A column of a relation; `key` says that it is part of the replica identity."""

    key: bool
    name: str
    type_oid: int
    type_modifier: int


class Relation(Struct, frozen=True):
    """A table as the following rows have it; `identity` is pg_class.relreplident."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: list[Column]


class Type(Struct, frozen=True):
    """A type that does not come with PostgreSQL; of a domain, the name is that of its base type."""

    oid: int
    schema: str
    name: str


class Insert(Struct, frozen=True):
    """A row that came to be."""

    oid: int
    new: Tuple


class Update(Struct, frozen=True):
    """A row that changed; `old_kind` is `K` (only the key), `O` (all columns), or none when there is no `old`."""

    oid: int
    old_kind: str | None
    old: Tuple | None
    new: Tuple


class Delete(Struct, frozen=True):
    """A row that went; `old_kind` as in `Update`."""

    oid: int
    old_kind: str
    old: Tuple


class Truncate(Struct, frozen=True):
    """Tables that were emptied at once."""

    oids: list[int]
    cascade: bool
    restart_identity: bool


class LogicalMessage(Struct, frozen=True):
    """What pg_logical_emit_message wrote."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Message = Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate | LogicalMessage


def decode(data: bytes) -> Message:
    """Decode one message. Raise `ProtocolError` on anything else; nothing else is ever raised."""
    try:
        reader = _READERS.get(data[:1])
        if reader is None:
            raise ProtocolError(f"unknown message {data[:1]!r}; pgwitness reads protocol version 1")
        message, end = reader(data, 1)
    except (LayoutError, IndexError, ValueError) as error:
        raise ProtocolError(f"message {data[:1]!r} of {len(data)} bytes is cut or malformed: {error}") from error
    if end != len(data):
        raise ProtocolError(f"message {data[:1]!r} has {len(data) - end} bytes after its end")
    return message


def begin(data: bytes, at: int) -> Begin:
    """Read a Begin at `at`, without the way through `decode`: a busy stream has one for nearly every row."""
    if len(data) - at != 1 + _BEGIN.size:
        raise ProtocolError(f"a begin of {len(data) - at} bytes")
    lsn, time, xid = _BEGIN.unpack_from(data, at + 1)
    return Begin(lsn, time + EPOCH_US, xid)


def commit(data: bytes, at: int) -> Commit:
    """Read a Commit at `at`."""
    if len(data) - at != 1 + _COMMIT.size:
        raise ProtocolError(f"a commit of {len(data) - at} bytes")
    _flags, lsn, end_lsn, time = _COMMIT.unpack_from(data, at + 1)
    return Commit(lsn, end_lsn, time + EPOCH_US)


def logical_message(data: bytes, at: int) -> LogicalMessage:
    """Read a Message at `at`."""
    try:
        message, end = _message(data, at + 1)
    except (LayoutError, ValueError) as error:
        raise ProtocolError(f"a logical message of {len(data) - at} bytes is cut: {error}") from error
    if end != len(data):
        raise ProtocolError("a logical message has bytes after its end")
    return message


def message_head(data: bytes, at: int) -> tuple[bytes, int, int] | None:
    """Return the prefix of a Message at `at`, and where its content begins and ends; None for another form."""
    end = data.find(b"\0", at + MESSAGE_PREFIX)
    start = end + 1 + INT4.size
    if end < 0 or len(data) < start or len(data) != start + INT4.unpack_from(data, end + 1)[0]:
        return None
    return data[at + MESSAGE_PREFIX : end], start, len(data)


def message_place(data: bytes, at: int) -> tuple[int, int]:
    """Return the flags of a Message at `at`, 1 for a transactional one, and its LSN."""
    flags, lsn = _MESSAGE.unpack_from(data, at + 1)
    return flags, lsn


def read_tuple(data: bytes, at: int) -> tuple[Tuple, int]:
    """Read a tuple's values and where it ends. Raise `ProtocolError`, `IndexError` or `struct.error`."""
    (count,) = INT2.unpack_from(data, at)
    at += 2
    values: Tuple = []
    for _ in range(count):
        kind = data[at]
        at += 1
        if kind == 116:  # t: text
            start = at + 4
            at = start + INT4.unpack_from(data, at)[0]
            if at > len(data):
                raise ProtocolError("a value reaches beyond its message")
            values.append(data[start:at])
        elif kind == 110:  # n: null
            values.append(None)
        elif kind == 117:  # u: unchanged
            values.append(UNCHANGED)
        else:
            raise ProtocolError(f"a value of kind {chr(kind)!r}; only text was asked for")
    return values, at


def _begin(data: bytes, at: int) -> tuple[Message, int]:
    return begin(data, at - 1), len(data)


def _commit(data: bytes, at: int) -> tuple[Message, int]:
    return commit(data, at - 1), len(data)


def _origin(data: bytes, at: int) -> tuple[Message, int]:
    (lsn,) = _ORIGIN.unpack_from(data, at)
    name, at = _string(data, at + _ORIGIN.size)
    return Origin(lsn, name), at


def _relation(data: bytes, at: int) -> tuple[Message, int]:
    (oid,) = INT4.unpack_from(data, at)
    schema, at = _string(data, at + 4)
    name, at = _string(data, at)
    identity = chr(data[at])
    (count,) = INT2.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        key = bool(data[at] & 1)
        column, at = _string(data, at + 1)
        type_oid, modifier = _COLUMN.unpack_from(data, at)
        at += _COLUMN.size
        columns.append(Column(key, column, type_oid, modifier))
    return Relation(oid, schema or "pg_catalog", name, identity, columns), at


def _type(data: bytes, at: int) -> tuple[Message, int]:
    (oid,) = INT4.unpack_from(data, at)
    schema, at = _string(data, at + 4)
    name, at = _string(data, at)
    return Type(oid, schema or "pg_catalog", name), at


def _insert(data: bytes, at: int) -> tuple[Message, int]:
    (oid,) = INT4.unpack_from(data, at)
    new, at = read_tuple(data, _expect(data, at + 4, b"N"))
    return Insert(oid, new), at


def _update(data: bytes, at: int) -> tuple[Message, int]:
    (oid,) = INT4.unpack_from(data, at)
    at += 4
    kind = old = None
    if data[at : at + 1] in (b"K", b"O"):
        kind = chr(data[at])
        old, at = read_tuple(data, at + 1)
    new, at = read_tuple(data, _expect(data, at, b"N"))
    return Update(oid, kind, old, new), at


def _delete(data: bytes, at: int) -> tuple[Message, int]:
    (oid,) = INT4.unpack_from(data, at)
    kind = chr(data[at + 4])
    old, at = read_tuple(data, _expect(data, at + 4, b"K", b"O"))
    return Delete(oid, kind, old), at


def _truncate(data: bytes, at: int) -> tuple[Message, int]:
    count, options = _TRUNCATE.unpack_from(data, at)
    at += _TRUNCATE.size
    if count > (len(data) - at) // 4:
        raise ProtocolError(f"a truncate of {count} tables in {len(data)} bytes")
    oids = [INT4.unpack_from(data, at + 4 * n)[0] for n in range(count)]
    return Truncate(oids, bool(options & 1), bool(options & 2)), at + 4 * count


def _message(data: bytes, at: int) -> tuple[LogicalMessage, int]:
    flags, lsn = _MESSAGE.unpack_from(data, at)
    prefix, at = _string(data, at + _MESSAGE.size)
    (length,) = INT4.unpack_from(data, at)
    at += 4
    if at + length > len(data):
        raise ProtocolError("a logical message reaches beyond its end")
    return LogicalMessage(bool(flags & 1), lsn, prefix, data[at : at + length]), at + length


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at)
    return data[at:end].decode("utf-8", "backslashreplace"), end + 1


def _expect(data: bytes, at: int, *kinds: bytes) -> int:
    if data[at : at + 1] not in kinds:
        raise ProtocolError(f"a tuple of kind {data[at : at + 1]!r} where {kinds} was due")
    return at + 1


_READERS = {
    b"B": _begin,
    b"C": _commit,
    b"O": _origin,
    b"R": _relation,
    b"Y": _type,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
    b"M": _message,
}
