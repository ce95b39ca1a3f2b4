"""What many clients send in one turn of the loop is one write, and nothing of it goes on before that is done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from collectors.gateway.connection import House
from collectors.gateway.spool.records import Begun, Ended, Record, Said
from pgwitness.core.errors import Retry

Happened = list[tuple[str, object]]


class Spool:
    """A spool that says what is written; `full`, it takes no statement any more."""

    def __init__(self, happened: Happened) -> None:
        self.happened = happened
        self.full = False

    def encoded(self, records: Sequence[Record]) -> bytes:
        return msgspec.json.Encoder().encode_lines(records)

    def append(self, lines: bytes, *, bounded: bool) -> None:
        if self.full and bounded:
            raise Retry("full")
        records = [msgspec.json.decode(line) for line in lines.splitlines()]
        self.happened.append(("write", [(record["record"], record["session"]) for record in records]))


class Connection:
    """A connection that says what it is told."""

    def __init__(self, number: int, happened: Happened) -> None:
        self.number, self.happened = number, happened

    def forward(self) -> None:
        self.happened.append(("forward", self.number))

    def refuse(self) -> None:
        self.happened.append(("refuse", self.number))


@pytest.mark.parametrize("full", [False, True])
def test_one_write_before_all(full: bool) -> None:
    """In one turn: one write, then every client's bytes. Where it fails nobody's; what has ended is written alone."""
    happened: Happened = []
    spool = Spool(happened)
    spool.full = full

    async def one_turn() -> None:
        house = House({}, spool, None, None, None, 1.0, 2)  # type: ignore[arg-type]
        house.take([Ended(session=3, at_us=1, number=1, outcome="success")])
        for number in (1, 2):
            house.take([Begun(session=number, at_us=1, number=1, way="query", said=Said("SELECT"))])
            house.hold(Connection(number, happened))  # type: ignore[arg-type]
        assert happened == []
        await asyncio.sleep(0)

    asyncio.run(one_turn())
    if full:
        assert happened == [("write", [("ended", 3)]), ("refuse", 1), ("refuse", 2)]
    else:
        written = [("ended", 3), ("begun", 1), ("begun", 2)]
        assert happened == [("write", written), ("forward", 1), ("forward", 2)]
