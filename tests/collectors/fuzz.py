"""Mutated inputs through every decoder of what others may write: only the errors that are promised, and only JSON.

`python -m tests.collectors.fuzz INPUTS [SEED]` (`make fuzz`) gives so many to each; a test gives a few thousand.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from collectors.beacon import mac
from collectors.beacon.keyring import Key, Keyring
from collectors.wal.assembly.held import Held
from collectors.wal.assembly.transaction import Assembler
from collectors.wal.beacons.keyreads import KeyReads
from collectors.wal.beacons.messages import HEARTBEAT_PREFIX, Messages, Unread
from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.pgoutput import EPOCH_US, UNCHANGED, LogicalMessage, ProtocolError
from collectors.wal.decoding.place import Place, Xids
from collectors.wal.decoding.plan import Masking, TableFacts
from collectors.wal.decoding.values import BUILT_IN
from pgwitness.core.codec import decode_events, decode_raw
from pgwitness.core.config import Privacy
from pgwitness.core.errors import DeadLetter, NewerSchema
from pgwitness.core.events import Beacon, Ddl, Forgery, Silenced
from pgwitness.core.privacy import tokenizer
from tests.collectors import wal_messages as write
from tests.collectors.test_beacon_mac import spoken
from tests.collectors.test_wal_messages import GRANT, signed

KEY = b"k" * 32
"""The key under which the corpus is signed."""
Fuzzed = Callable[[bytes], None]
INTERESTING = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 4, b"\x80", b'"', b"\\", b"NaN", b"\xed\xa0\x80", b"\x1f")


def mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    """Make one input of a corpus: bytes changed, taken out, doubled, or another input spliced in."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(0, 4)):
        at = chance.randint(0, len(data))
        what = chance.randint(0, 5)
        if what == 0 and data:
            data[at % len(data)] = chance.randint(0, 255)
        elif what == 1:
            del data[at : at + chance.randint(1, 8)]
        elif what == 2:
            data[at:at] = chance.choice(INTERESTING)
        elif what == 3:
            data[at:at] = data[at : at + chance.randint(1, 40)]
        elif what == 4:
            other = chance.choice(corpus)
            data[at:] = other[chance.randint(0, len(other)) :]
        else:
            del data[at:]
    return bytes(data)


COLUMNS = [(f"c{oid}", oid, n == 0) for n, oid in enumerate(sorted(BUILT_IN)[:12])] + [("c70000", 70_000, False)]
VALUE: list[bytes | None] = [b"t", b"\\x00", b"x", b"n", b"1", b"2", b"3", b"t", b"7", b"9", b"{}", b"<a/>", b"high"]
ROW: pgoutput.Tuple = [*VALUE]
STREAM = [
    write.relation(1, "t", COLUMNS),
    write.relation(2, "full", COLUMNS, "f"),
    b"Y\0\1\x11\x70pg_catalog\0int4\0",
    write.begin(300, 12),
    write.insert(1, ROW),
    write.insert(2, [None] * 13),
    write.update(1, [UNCHANGED, *VALUE[1:]]),
    write.update(2, ROW, [b"f", *VALUE[1:]]),
    write.delete(1, [b"t", *[None] * 12]),
    write.truncate(1, 2),
    write.message(mac.PREFIX, spoken()),
    write.message(mac.DDL_PREFIX, signed(GRANT)),
    write.message(HEARTBEAT_PREFIX, b"x", transactional=False),
    b"O" + bytes(8) + b"origin\0",
    write.commit(300),
]


class Output:
    """Takes what an assembler gives, if it is JSON."""

    def part(self, event: bytes, rows: int, done_lsn: int | None) -> None:
        event.decode()
        json.loads(event, object_pairs_hook=_once, parse_constant=_no_constant)

    def nothing(self, done_lsn: int) -> None:
        pass

    def aside(self, reason: str, detail: dict[str, object]) -> None:
        msgspec.json.encode(detail)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a member stands twice"
    return dict(pairs)


def _no_constant(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def judge() -> Messages:
    """Make what judges messages in the streams here."""
    return Messages(
        "77",
        "shop",
        KeyReads(lambda: [Key(key=KEY, number=1)], Keyring(), lambda: 0.0),
        lambda *_: None,
        lambda: None,
        lambda: 0.0,
    )


def assembler() -> Assembler:
    """Make an assembler that masks nothing, so that every value is written as its type says."""
    masking = Masking(Privacy(clear=["*"]), tokenizer(b"k" * 32))
    held = Held(Path("/nonexistent"), 1 << 26, 0)
    return Assembler(
        Place("77", 1, "shop"), masking, judge(), lambda *_: TableFacts(("c16",)), Output(), held, Xids(10), lambda: 42
    )


class StreamDecoder:
    """Feeds one stream with mutated messages between genuine ones; after an error it begins anew."""

    def __init__(self) -> None:
        self._place = 0
        self._assembler = assembler()

    def __call__(self, data: bytes) -> None:
        try:
            for genuine in STREAM[self._place % len(STREAM) :][:2]:
                self._assembler.feed(bytes(25) + genuine, 25)
            self._assembler.feed(bytes(25) + data, 25)
        except ProtocolError:
            self._assembler = assembler()
            self._place = -2
            for description in STREAM[:3]:
                self._assembler.feed(bytes(25) + description, 25)
        self._place += 2


def decoded(data: bytes) -> None:
    """Decode a message of pgoutput."""
    with contextlib.suppress(ProtocolError):
        pgoutput.decode(data)


class MessageDecoder:
    """Judges mutated messages under each of our prefixes, half of them with a genuine code."""

    def __init__(self) -> None:
        self._judge = judge()
        self._count = 0

    def __call__(self, data: bytes) -> None:
        self._count += 1
        prefix = (mac.PREFIX, mac.DDL_PREFIX, mac.CONTROL_PREFIX, "pgwitness.silenced", HEARTBEAT_PREFIX)[
            self._count % 5
        ]
        content = signed(data[32:]) if self._count % 2 else data
        said = self._judge.message(LogicalMessage(True, 1, prefix, content), 7, EPOCH_US)
        assert said is None or isinstance(said, Beacon | Ddl | Forgery | Unread | Silenced)
        msgspec.json.encode(said)


def codec(decode: Callable[[bytes], object]) -> Fuzzed:
    """Read a record of a topic."""

    def run(data: bytes) -> None:
        with contextlib.suppress(DeadLetter, NewerSchema):
            decode(data)

    return run


def _messages() -> list[bytes]:
    control = signed(["control/1", "77", "shop", 7, "pause", "ann"])
    return [spoken(), signed(GRANT), control, b"00000\x1fann\x1fann\x1f1\x1fDELETE", b""]


def _batches(kind: str) -> list[bytes]:
    part: dict[str, Any] = {
        "kind": "transaction",
        "captured_at_us": 1,
        "system_id": "7",
        "timeline": 1,
        "database": "d",
        "lsn": 5,
        "xid": 7,
        "committed_at_us": 1,
        "n_rows": 1,
        "rows": [[0, "i", 0, {"id": 1}, None, None, {"id": 1}]],
        "counts": [[0, "i", 1]],
        "relations": [{"name": "public.t", "columns": ["id"]}],
    }
    event = {
        "kind": "change",
        "event_id": "x",
        "at": [0, 1, 2],
        "occurred_at_us": 1,
        "captured_at_us": 1,
        "cluster": "c",
    }
    raw = {"schema": 1, "producer": "p", "header": {"cluster": "c", "source": "wal"}, "events": [part]}
    attributed = {"schema": 1, "producer": "p", "header": {"lane": 3}, "events": [event]}
    return [msgspec.json.encode(raw if kind == "raw" else attributed), b'{"schema":2}', b"[]"]


def decoders() -> dict[str, tuple[Fuzzed, list[bytes]]]:
    """List every decoder with what its inputs are made of."""
    return {
        "pgoutput": (decoded, STREAM),
        "stream": (StreamDecoder(), STREAM),
        "messages": (MessageDecoder(), _messages()),
        "raw": (codec(decode_raw), _batches("raw")),
        "events": (codec(decode_events), _batches("events")),
    }


def fuzz(name: str, inputs: int, seed: int) -> None:
    """Give a decoder so many inputs; raises with the input that brought anything else than is promised."""
    decode, corpus = decoders()[name]
    chance = random.Random(f"{seed} {name}")
    for number in range(inputs):
        data = mutated(chance, corpus)
        try:
            decode(data)
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}, input {number}: {data!r}") from error


if __name__ == "__main__":
    for each in decoders():
        fuzz(each, int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
        print(f"{each}: {sys.argv[1]} inputs")
