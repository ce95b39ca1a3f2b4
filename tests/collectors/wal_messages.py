"""Writes pgoutput's messages, so that tests of the pure parts can say what the server would."""

from __future__ import annotations

from struct import pack

from collectors.wal.decoding.pgoutput import EPOCH_US, UNCHANGED, Tuple

TEXT, INT, NUMERIC, BOOL, JSONB, FLOAT, STAMP = 25, 23, 1700, 16, 3802, 701, 1184


def string(text: str) -> bytes:
    """Write a string with its end."""
    return text.encode() + b"\0"


def values(row: Tuple) -> bytes:
    """Write a tuple."""
    made = pack(">H", len(row))
    for value in row:
        if value is None:
            made += b"n"
        elif value is UNCHANGED:
            made += b"u"
        else:
            assert isinstance(value, bytes)
            made += b"t" + pack(">I", len(value)) + value
    return made


def begin(lsn: int, xid: int, at_us: int = EPOCH_US) -> bytes:
    """Write a Begin."""
    return b"B" + pack(">QqI", lsn, at_us - EPOCH_US, xid)


def commit(lsn: int, at_us: int = EPOCH_US) -> bytes:
    """Write a Commit whose record is eight bytes long."""
    return b"C" + pack(">BQQq", 0, lsn, lsn + 8, at_us - EPOCH_US)


def relation(oid: int, name: str, columns: list[tuple[str, int, bool]], identity: str = "d") -> bytes:
    """Write a Relation of the schema public; columns are (name, type, part of the identity)."""
    made = b"R" + pack(">I", oid) + string("public") + string(name) + identity.encode() + pack(">H", len(columns))
    for column, type_oid, key in columns:
        made += bytes([key]) + string(column) + pack(">Ii", type_oid, -1)
    return made


def insert(oid: int, row: Tuple) -> bytes:
    """Write an Insert."""
    return b"I" + pack(">I", oid) + b"N" + values(row)


def update(oid: int, row: Tuple, old: Tuple | None = None, kind: bytes = b"O") -> bytes:
    """Write an Update."""
    return b"U" + pack(">I", oid) + (kind + values(old) if old is not None else b"") + b"N" + values(row)


def delete(oid: int, old: Tuple, kind: bytes = b"K") -> bytes:
    """Write a Delete."""
    return b"D" + pack(">I", oid) + kind + values(old)


def truncate(*oids: int) -> bytes:
    """Write a Truncate with CASCADE."""
    return b"T" + pack(">IB", len(oids), 1) + b"".join(pack(">I", oid) for oid in oids)


def message(prefix: str, content: bytes, lsn: int = 1, *, transactional: bool = True) -> bytes:
    """Write a logical message."""
    return b"M" + pack(">BQ", transactional, lsn) + string(prefix) + pack(">I", len(content)) + content
