"""What is made of the recordings, piece by piece, as lines that begin with the piece's name.

`python -m tests.golden.replay` writes the lines, `--accept` takes what they are now as right: for a change that is
meant. To see what was there before, run it in an older working copy, and compare.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from collectors.beacon.keyring import Key, Keyring
from collectors.log.interpretation.interpret import Interpreter
from collectors.log.reading import formats
from collectors.wal.assembly.held import Held
from collectors.wal.assembly.transaction import Assembler
from collectors.wal.beacons.keyreads import KeyReads, Stand
from collectors.wal.beacons.messages import Messages
from collectors.wal.decoding.place import Place, Xids
from collectors.wal.decoding.plan import Masking, TableFacts
from detectors.judge import Judge
from detectors.policy.policies import Bundle
from pgwitness.core.codec import decode_raw
from pgwitness.core.config import Behaviour, Cluster, Config, Log, Privacy
from pgwitness.core.events import encode_event
from pgwitness.core.privacy import tokenizer
from pgwitness.core.units import Duration
from sinks.lake.rows.columns import Columns
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from tests.bench.log_lines import PREFIX

HERE = Path(__file__).parent
KEY = b"k" * 32
GRACE_US = 1_000_000
CHUNK = 60_000
FORMATS: tuple[Literal["jsonlog", "csvlog", "stderr"], ...] = ("jsonlog", "csvlog", "stderr")
Line = tuple[str, bytes]
"""A piece's name, and what was made of it."""


class Record(msgspec.Struct, array_like=True):
    """A record of the topic `raw`, and its time."""

    offset: int
    written_us: int
    value: bytes


class Stream(msgspec.Struct, array_like=True):
    """What a server sent of its WAL, by position, and the key of its beacon."""

    system_id: str
    database: str
    key: bytes
    messages: list[tuple[int, bytes]]


class _Sent:
    """Keeps what an assembler gives."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def part(self, event: bytes, rows: int, done_lsn: int | None) -> None:
        self.parts.append(b"%b %d %d" % (event, rows, done_lsn or 0))

    def nothing(self, done_lsn: int) -> None:
        self.parts.append(b"nothing until %d" % done_lsn)

    def aside(self, reason: str, detail: dict[str, object]) -> None:
        self.parts.append(msgspec.json.encode([reason, detail]))


def recorded(name: str) -> bytes:
    """Read a recording."""
    return lzma.decompress((HERE / "recorded" / name).read_bytes())


def stream() -> Iterator[Line]:
    """Give what the assembler makes of each message of the replication stream."""
    told = msgspec.msgpack.decode(recorded("stream.xz"), type=Stream)
    sent = _Sent()
    keys = KeyReads(lambda: [Key(key=told.key, number=1)], Keyring(), stand=lambda: Stand(1 << 40))
    assembler = Assembler(
        Place(told.system_id, 1, told.database),
        Masking(Privacy(), tokenizer(KEY)),
        Messages(told.system_id, told.database, keys, lambda *_: None, lambda: None),
        lambda relation, _: TableFacts(tuple(column.name for column in relation.columns if column.key), beacon=True),
        sent, Held(Path("/nonexistent"), 1 << 24, 0), Xids(10), lambda: 1,
    )  # fmt: skip
    for number, (_, message) in enumerate(told.messages):
        assembler.feed(message)
        yield f"message {number}", b"\n".join(sent.parts)
        sent.parts.clear()


def log(written: Literal["jsonlog", "csvlog", "stderr"]) -> Iterator[Line]:
    """Give what is read from the log of a format, by record."""
    make, parser = formats(Log(format=written, line_prefix=PREFIX))
    splitter, interpreter = make(), Interpreter(tokenizer(KEY), written)
    data, offset = recorded(f"{written}.xz"), 0
    pieces = [piece for start in range(0, len(data), CHUNK) for piece in splitter.feed(data[start : start + CHUNK])]
    for piece in [*pieces, *splitter.idle()]:
        events = list(interpreter.read(parser.parse(piece.data), "log", offset, 1))
        yield f"byte {offset}", b"\n".join(encode_event(event) for event in events)
        offset += piece.length


def whole() -> Iterator[Line]:
    """Give what fold, judge and lake make of the recorded topic, and their checkpoints."""
    config = Config(clusters={"shop": Cluster(dsn="", labels={"env": "demo", "scope": "pci"})})
    config = msgspec.structs.replace(config, behaviour=Behaviour(warmup=Duration(7.5), warmup_observations=20))
    fold = Fold(0, Identities.parse(recorded("identities.xz").decode()), GRACE_US)
    policies = Bundle.from_canonical(recorded("policies.xz").decode())
    judge = Judge.from_config(policies, config)
    columns = Columns()
    for record in msgspec.msgpack.decode(recorded("shop.xz"), type=list[Record]):
        events = fold.apply(record.offset, decode_raw(record.value), record.written_us)
        verdicts = [judge.judge(event) for event in events]
        columns.add(events, verdicts)
        yield f"events {record.offset}", b"\n".join(map(encode_event, events))
        said: list[Any] = [
            [verdict.policies, verdict.anomaly, verdict.reasons, [alert.ocsf() for alert in verdict.alerts]]
            for verdict in verdicts
        ]
        # The name of a set of policies changes with what else a policy can say.
        yield f"verdicts {record.offset}", msgspec.json.encode(said).replace(policies.sha256.encode(), b"their version")
    yield "checkpoint of the fold", fold.snapshot()
    again = Fold.restore(fold.snapshot(), GRACE_US)
    yield "restored", again.snapshot()
    yield "checkpoint of the judge", judge.snapshot()
    for (table, day), rows in sorted(columns.tables().items()):
        yield f"schema of {table}", str(rows.schema).encode()
        for column in rows.column_names:
            yield f"{table} {day} {column}", json.dumps(rows[column].to_pylist(), default=str).encode()


def replay(name: str) -> Iterator[Line]:
    """Give what is made of one recording."""
    if name == "stream":
        return stream()
    if name == "shop":
        return whole()
    return log(name)  # type: ignore[arg-type]


NAMES = ("stream", *FORMATS, "shop")


def digest(content: bytes) -> str:
    """Give what is kept of a piece."""
    return hashlib.sha256(content).hexdigest()[:16]


def main() -> None:
    """Write every piece, or accept them."""
    for name in NAMES:
        lines = list(replay(name))
        if "--accept" in sys.argv:
            kept = "".join(f"{digest(content)} {piece}\n" for piece, content in lines if content)
            (HERE / "recorded" / f"{name}.digests").write_text(kept)
            continue
        for piece, content in lines:
            for one in content.decode(errors="replace").split("\n"):
                sys.stdout.write(f"{name} {piece}: {one}\n")


if __name__ == "__main__":
    main()
