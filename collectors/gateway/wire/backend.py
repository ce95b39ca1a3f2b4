"""Messages of the server that the gateway reads, and those that it sends itself (manual, 55.7, 55.8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from collectors.gateway.wire.frames import HEADER, Wanted, frame
from collectors.gateway.wire.violation import ProtocolViolation

AUTHENTICATION, KEY_DATA, PARAMETER_STATUS, NEGOTIATE = b"RKSv"
COMMAND_COMPLETE, EMPTY_QUERY, SUSPENDED, ERROR, READY = b"CIsEZ"
PARSE_COMPLETE, BIND_COMPLETE, CLOSE_COMPLETE = b"123"
PARAMETERS, ROW_DESCRIPTION, NO_DATA, DATA_ROW = b"tTnD"
COPY_IN, COPY_OUT, COPY_BOTH, COPY_DATA, COPY_DONE = b"GHWdc"
NOTICE, NOTIFICATION, FUNCTION_RESULT = b"NAV"
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024

_WHOLE = (
    COMMAND_COMPLETE, EMPTY_QUERY, SUSPENDED, ERROR, READY, PARSE_COMPLETE, BIND_COMPLETE, CLOSE_COMPLETE, NO_DATA,
    COPY_IN, COPY_BOTH, FUNCTION_RESULT, PARAMETER_STATUS,
)  # fmt: skip
WANTED: Final = Wanted(
    known=bytes(
        (*_WHOLE, AUTHENTICATION, KEY_DATA, NEGOTIATE, PARAMETERS, ROW_DESCRIPTION, DATA_ROW, COPY_OUT, COPY_DATA)
    )
    + bytes((COPY_DONE, NOTICE, NOTIFICATION)),
    whole=dict.fromkeys((kind for kind in _WHOLE if kind != FUNCTION_RESULT), MESSAGE_BYTES_MAX),
    heads={FUNCTION_RESULT: 5, ROW_DESCRIPTION: 5},
)
"""What a session cuts out of what the server answers: what completes something, and how the session stands."""
LOGIN: Final = Wanted(known=WANTED.known, whole=dict.fromkeys(WANTED.known, 64 * 1024), heads={})
"""Before the first ReadyForQuery every message is read."""


@lru_cache(1024)
def command_rows(body: bytes) -> int | None:
    """Return how many rows a command tag tells of (`INSERT 0 5`, `SELECT 7`); None where it tells of none."""
    word = body.rstrip(b"\0").rpartition(b" ")[2]
    return int(word) if word.isdigit() and len(word) < 20 else None


def fields(body: bytes) -> dict[str, str]:
    """Read the fields of an error or a notice, by their letters; bytes that are no UTF-8 are escaped."""
    found: dict[str, str] = {}
    for field in body.rstrip(b"\0").split(b"\0"):
        if field:
            found[chr(field[0])] = field[1:].decode(errors="backslashreplace")
    return found


def status(body: bytes) -> str:
    """Return how a session stands by ReadyForQuery: `I`dle, in a `T`ransaction, in a failed one (`E`)."""
    if body not in (b"I", b"T", b"E"):
        raise ProtocolViolation("a ReadyForQuery of the server without a status")
    return body.decode()


def parameter(body: bytes) -> tuple[str, str]:
    """Return the name and value of a setting that the server reports."""
    name, _, value = body.removesuffix(b"\0").partition(b"\0")
    return name.decode(errors="backslashreplace"), value.decode(errors="backslashreplace")


def first_row(body: bytes) -> list[bytes | None]:
    """Read the values of a DataRow; raise `ProtocolViolation` where it is none."""
    values: list[bytes | None] = []
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        length = int.from_bytes(body[at : at + 4], "big", signed=True)
        at += 4
        if length >= 0:
            values.append(body[at : at + length])
            at += length
        else:
            values.append(None)
        if at > len(body):
            raise ProtocolViolation("a row of the server that ends early")
    return values


def error(
    severity: str,
    sqlstate: str,
    message: str,
    hint: str | None = None,
    *,
    why: str | None = None,
    codec: str = "utf-8",
    kind: bytes = b"E",
) -> bytes:
    """Write an error, or with `kind` `N` a notice; `severity` is ERROR, FATAL or WARNING, `why` its detail.

    What the client's encoding has no letter for is a question mark.
    """
    said = {"S": severity, "V": severity, "C": sqlstate, "M": message, "D": why, "H": hint}
    fields = (f"{letter}{_plain(text)}\0".encode(codec, "replace") for letter, text in said.items() if text)
    return frame(kind, b"".join(fields) + b"\0")


def moved(message: bytes, characters: int) -> bytes:
    """Return an error whose position in its statement is so many characters less."""
    return placed(message, lambda place: place - characters)


def with_fields(message: bytes, said: Mapping[str, str], codec: str) -> bytes:
    """Return an error or notice with fields, by their letters, in place of those that it has."""
    kept = [field for field in message[HEADER:].rstrip(b"\0").split(b"\0") if field and chr(field[0]) not in said]
    added = [f"{letter}{_plain(text)}".encode(codec, "replace") for letter, text in said.items()]
    return frame(message[:1], b"\0".join([*kept, *added, b"\0"]))


def placed(message: bytes, place_of: Callable[[int], int]) -> bytes:
    """Return an error whose position in its statement, from 1, is another one."""
    fields = message[HEADER:].split(b"\0")
    for place, field in enumerate(fields):
        if field[:1] == b"P" and field[1:].isdigit():
            fields[place] = b"P%d" % max(1, place_of(int(field[1:])))
    return frame(message[:1], b"\0".join(fields))


def parameter_status(settings: Mapping[str, str]) -> bytes:
    """Write the settings that a server reports at the beginning."""
    return b"".join(frame(b"S", f"{name}\0{value}\0".encode()) for name, value in settings.items())


def key_data(pid: int, secret: bytes) -> bytes:
    """Write by which key the session can be cancelled."""
    return frame(b"K", pid.to_bytes(4, "big") + secret)


def negotiate(minor: int, options: Sequence[str]) -> bytes:
    """Write which version is spoken, and which options of the client are not known."""
    names = b"".join(name.encode() + b"\0" for name in options)
    return frame(b"v", (3 << 16 | minor).to_bytes(4, "big") + len(options).to_bytes(4, "big") + names)


def authentication(code: int, data: bytes = b"") -> bytes:
    """Write a request for authentication: 0 done, 10 SASL mechanisms, 11 goes on, 12 ends."""
    return frame(b"R", code.to_bytes(4, "big") + data)


def ready(status: str) -> bytes:
    """Write that the session waits for the next statement."""
    return frame(b"Z", status.encode())


def _plain(text: str) -> str:
    return text.replace("\0", "")
