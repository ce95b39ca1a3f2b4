"""Messages of the client that the gateway reads: queries, the extended protocol, ends of COPY (manual, 55.7)."""

from __future__ import annotations

from typing import Final, NamedTuple

from collectors.gateway.wire.frames import Message, Wanted, frame
from collectors.gateway.wire.violation import ProtocolViolation

QUERY, PARSE, BIND, EXECUTE, DESCRIBE, CLOSE = b"QPBEDC"
SYNC, FLUSH, FUNCTION_CALL, TERMINATE = b"SHFX"
COPY_DATA, COPY_DONE, COPY_FAIL, PASSWORD = b"dcfp"
TEXT_BYTES_MAX: Final = 64 * 1024 * 1024
"""The longest statement that is taken."""
NAMES_BYTES_MAX: Final = 4 * 1024
"""What the names of a statement or a portal may take."""
SHORT_BYTES_MAX: Final = 32 * 1024

WANTED: Final = Wanted(
    known=bytes((QUERY, PARSE, BIND, EXECUTE, DESCRIBE, CLOSE, SYNC, FLUSH, FUNCTION_CALL, TERMINATE))
    + bytes((COPY_DATA, COPY_DONE, COPY_FAIL)),
    whole={
        QUERY: TEXT_BYTES_MAX,
        PARSE: TEXT_BYTES_MAX,
        EXECUTE: NAMES_BYTES_MAX,
        DESCRIBE: NAMES_BYTES_MAX,
        CLOSE: NAMES_BYTES_MAX,
        SYNC: SHORT_BYTES_MAX,
        TERMINATE: SHORT_BYTES_MAX,
        COPY_DONE: SHORT_BYTES_MAX,
        COPY_FAIL: SHORT_BYTES_MAX,
    },
    heads={BIND: NAMES_BYTES_MAX, FUNCTION_CALL: 16},
)
"""What a session cuts out of what its client sends: all that names something, and whatever an answer belongs to."""


class Parse(NamedTuple):
    """A statement is to be prepared under a name, the empty one among them."""

    name: bytes
    text: bytes


class Bind(NamedTuple):
    """A portal is to be made of a prepared statement."""

    portal: bytes
    statement: bytes


def query_text(body: bytes) -> bytes:
    """Return the text of a simple query."""
    text, rest = _text(body, "Query")
    if rest:
        raise ProtocolViolation("invalid message format: something stands behind the text of a Query")
    return text


def parse(body: bytes) -> Parse:
    """Read Parse: a name, a text, the types of parameters."""
    name, rest = _text(body, "Parse")
    text, rest = _text(rest, "Parse")
    if len(rest) < 2 or len(rest) != 2 + 4 * int.from_bytes(rest[:2], "big"):
        raise ProtocolViolation("invalid message format: the parameter types of a Parse")
    return Parse(name, text)


def text_of(message: Message) -> bytes | None:
    """Return the text of a statement in a message, where it has one."""
    try:
        if message.type == QUERY:
            return query_text(message.body)
        return parse(message.body).text if message.type == PARSE else None
    except ProtocolViolation:
        return None


def bind(head: bytes) -> Bind:
    """Read the names in Bind, of which these are the first bytes."""
    portal, rest = _text(head, "Bind")
    return Bind(portal, _text(rest, "Bind")[0])


def execute(body: bytes) -> bytes:
    """Return the portal that Execute runs."""
    portal, rest = _text(body, "Execute")
    if len(rest) != 4:
        raise ProtocolViolation("invalid message format: the row limit of an Execute")
    return portal


def close(body: bytes) -> tuple[bytes, bytes]:
    """Return what Close or Describe is about: `S` or `P`, and a name."""
    name, rest = _text(body[1:], "Close or Describe")
    if rest or body[:1] not in (b"S", b"P"):
        raise ProtocolViolation("invalid message format: the object of a Close or Describe")
    return body[:1], name


def function_oid(body: bytes) -> int:
    """Return the OID of the function that a function call names."""
    if len(body) < 4:
        raise ProtocolViolation("invalid message format: a function call without a function")
    return int.from_bytes(body[:4], "big")


def query(text: str) -> bytes:
    """Write a simple query."""
    return query_of(text.encode())


def query_of(text: bytes) -> bytes:
    """Write a simple query in the client's own encoding."""
    return frame(b"Q", text + b"\0")


def with_text(message: Message, text: bytes) -> bytes:
    """Write a Query or Parse anew, with another text."""
    if message.type == QUERY:
        return query_of(text)
    name, rest = _text(message.body, "Parse")
    return frame(b"P", name + b"\0" + text + b"\0" + _text(rest, "Parse")[1])


def parse_of(name: bytes, text: bytes) -> bytes:
    """Write Parse, of a statement whose parameters have the types that the server gives them."""
    return frame(b"P", name + b"\0" + text + b"\0\0\0")


def execute_of(portal: bytes) -> bytes:
    """Write Execute, of all rows."""
    return frame(b"E", portal + b"\0\0\0\0\0")


def terminate() -> bytes:
    """Write the end of a session."""
    return frame(b"X")


def _text(body: bytes, message: str) -> tuple[bytes, bytes]:
    text, zero, rest = body.partition(b"\0")
    if not zero:
        raise ProtocolViolation(f"invalid message format: a text of a {message} that has no end")
    return text, rest
