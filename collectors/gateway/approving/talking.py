"""A few questions to a server over a connection of the gateway's own: the extended protocol, one answer at a time.

Every answer is bounded: in rows by what is asked, in bytes here. What the server refuses is known by its code alone,
for its words may quote values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from collectors.gateway.link import Link
from collectors.gateway.wire import backend, frontend
from collectors.gateway.wire.frames import HEADER, frame
from collectors.gateway.wire.violation import ProtocolViolation

MESSAGE_BYTES_MAX: Final = 1024 * 1024
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024


_SYNC: Final = frame(b"S")


class Failed(Exception):
    """The server refuses; `sqlstate` says why."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class Field(NamedTuple):
    """A column of an answer: its name, and its type's OID."""

    name: bytes
    type_oid: int


class Answer(NamedTuple):
    """What came: parameters' types where they were asked for, columns and rows, all values as text."""

    parameters: list[int]
    fields: list[Field]
    rows: list[list[bytes | None]]
    tags: list[bytes]
    """What the server says of each statement that is done (`MOVE 3`)."""


class Talk:
    """A connection whose login is done."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(self, text: bytes, *values: bytes) -> Answer:
        """Ask with values as texts. Raise `Failed`, `Ended` and `ProtocolViolation`."""
        bound = b"".join(len(value).to_bytes(4, "big") + value for value in values)
        return await self.run(text, (), b"\0\0" + len(values).to_bytes(2, "big") + bound)

    async def do(self, text: str) -> None:
        """Run several statements of ours. Raise as `ask`."""
        await self._send(frontend.query(text))

    async def types(self, text: bytes, types: Sequence[int]) -> list[int]:
        """Return of which types the parameters of a statement are, by the server's own reading; nothing is run."""
        answer = await self._send(_parse(text, types) + frame(b"D", b"S\0") + _SYNC)
        return answer.parameters

    async def run(self, text: bytes, types: Sequence[int] = (), values: bytes = b"\0\0\0\0") -> Answer:
        """Run a statement; `values` is what stands in Bind between the names and the formats of the answer."""
        bind = frame(b"B", b"\0\0" + values + b"\0\0")
        describe, execute = frame(b"D", b"P\0"), frontend.execute_of(b"")
        return await self._send(_parse(text, types) + bind + describe + execute + _SYNC)

    async def _send(self, messages: bytes) -> Answer:
        self._link.send(messages)
        answer, failed, size = Answer([], [], [], []), "", 0
        while True:
            kind, body = await self._message()
            size += len(body)
            if size > ANSWER_BYTES_MAX:
                raise ProtocolViolation("an answer that is too long")
            if kind == backend.ERROR:
                failed = failed or backend.fields(body).get("C", "XX000")
            elif kind == backend.PARAMETERS:
                answer.parameters.extend(int.from_bytes(body[at : at + 4], "big") for at in range(2, len(body) - 3, 4))
            elif kind == backend.ROW_DESCRIPTION:
                answer.fields.extend(_fields(body))
            elif kind == backend.DATA_ROW:
                answer.rows.append(backend.first_row(body))
            elif kind == backend.COMMAND_COMPLETE:
                answer.tags.append(body.rstrip(b"\0"))
            elif kind == backend.READY:
                break
        if failed:
            raise Failed(failed)
        return answer

    async def _message(self) -> tuple[int, bytes]:
        head = await self._link.exactly(HEADER)
        length = int.from_bytes(head[1:], "big")
        if not 4 <= length <= MESSAGE_BYTES_MAX:
            raise ProtocolViolation("a message that is too long")
        return head[0], await self._link.exactly(length - 4)


def _parse(text: bytes, types: Sequence[int]) -> bytes:
    given = b"".join(oid.to_bytes(4, "big") for oid in types)
    return frame(b"P", b"\0" + text + b"\0" + len(types).to_bytes(2, "big") + given)


def _fields(body: bytes) -> list[Field]:
    """Read RowDescription (manual, 55.7)."""
    found, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        found.append(Field(body[at:end], int.from_bytes(body[end + 7 : end + 11], "big")))
        at = end + 19
    return found
