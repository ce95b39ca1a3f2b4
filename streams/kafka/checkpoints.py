"""Checkpoints in Kafka: the state of a fold or judge, with the input offset it stands for.

A checkpoint is cut into chunks of at most `CHUNK_BYTES` under the keys `PARTITION/SLOT/CHUNK`, in the partition of the
state topic that has the number of the input partition. Slots alternate, so that compaction keeps the previous
checkpoint until the next one is whole. `Assembly` (pure) finds the newest whole ones in what it is fed: every chunk
carries sequence, writer and the hash of the whole; what does not add up was torn, and is ignored. Beside them stand
what positions are counted in (`PARTITION/origin`) and which records a person told to pass (`PARTITION/skip/OFFSET`).
`Store` is the shell on confluent-kafka, `streams.kafka.reading` reads for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from msgspec import Struct

from pgwitness.core.errors import Retry, Stop
from streams.kafka.origins import Origin
from streams.kafka.reading import read

CHUNK_BYTES = 512 * 1024


class Header(Struct, frozen=True):
    """What every chunk says of its checkpoint. `offset` is the first input record that is not in it."""

    sequence: int
    writer: str
    offset: int
    chunk: int
    chunks: int
    sha256: str


class Checkpoint(Struct, frozen=True):
    """A whole checkpoint."""

    sequence: int
    offset: int
    data: bytes


class Skip(Struct, frozen=True):
    """A person's order to pass one record that its partition waits at: which it is, who said so, when and why."""

    offset: int
    sha256: str
    who: str
    why: str
    at_us: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Header).decode

KEPT = 3
"""Whole checkpoints that are kept, should the newest turn out to be damaged inside."""
SEQUENCE_MAX = 1 << 53
Delivered = Callable[[KafkaError | None, object], None]

_origin = msgspec.json.Decoder(Origin).decode
_skip = msgspec.json.Decoder(Skip).decode


def cut(partition: int, checkpoint: Checkpoint, writer: str) -> Iterator[tuple[bytes, bytes]]:
    """Cut a checkpoint into records, key and value."""
    data = checkpoint.data
    chunks = max(1, -(-len(data) // CHUNK_BYTES))
    sha256 = hashlib.sha256(data).hexdigest()
    for chunk in range(chunks):
        header = Header(checkpoint.sequence, writer, checkpoint.offset, chunk, chunks, sha256)
        key = f"{partition}/{checkpoint.sequence % 2}/{chunk}".encode()
        yield key, _encode(header) + b"\n" + data[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]


class StoredState(Struct):
    """What the state topic holds for one partition; of checkpoints the whole ones, newest first."""

    checkpoints: list[Checkpoint]
    origin: Origin | None = None
    skips: dict[int, Skip] = {}


class Assembly:
    """Puts checkpoints together from records in any number; keeps the newest whole ones, `KEPT` at most."""

    def __init__(self) -> None:
        self.whole: list[Checkpoint] = []
        self._open: dict[tuple[int, str], dict[int, tuple[Header, bytes]]] = {}

    @property
    def newest(self) -> Checkpoint | None:
        """The newest whole one."""
        return self.whole[0] if self.whole else None

    def add(self, value: bytes | None) -> None:
        """Take one record's value; what is no chunk is ignored."""
        head, separator, data = (value or b"").partition(b"\n")
        try:
            header = _decode(head)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        oldest = self.whole[-1].sequence if len(self.whole) == KEPT else 0
        if not separator or not oldest <= header.sequence <= SEQUENCE_MAX:
            return
        key = (header.sequence, header.writer)
        parts = self._open.setdefault(key, {})
        parts[header.chunk] = (header, data)
        if len(parts) == header.chunks:
            self._close(key, header)

    def _close(self, key: tuple[int, str], header: Header) -> None:
        parts = self._open.pop(key)
        if any(part.sha256 != header.sha256 for part, _ in parts.values()) or sorted(parts) != list(range(len(parts))):
            return
        data = b"".join(parts[chunk][1] for chunk in range(header.chunks))
        if hashlib.sha256(data).hexdigest() == header.sha256:
            found = Checkpoint(header.sequence, header.offset, data)
            self.whole = sorted([found, *self.whole], key=lambda one: -one.sequence)[:KEPT]
            self._open = {other: kept for other, kept in self._open.items() if other[0] >= self.whole[-1].sequence}


def known(reader: Consumer, topic: str, partition: int, partitions: int) -> StoredState:
    """Read what the state topic, of so many partitions, holds for one. Raise `Unreachable` without a broker.

    Where the input has more partitions than the state, because some were added, several share one of the state's.
    """
    assembly, found = Assembly(), StoredState([])
    mine = f"{partition}/".encode()
    for message in read(reader, topic, partition % partitions):
        key, value = _bytes(message.key()), _bytes(message.value())
        if key is None or not key.startswith(mine):
            continue
        kind = key[len(mine) :].split(b"/")[0]
        try:
            if kind == b"origin":
                found.origin = _origin(value or b"")
            elif kind == b"skip":
                skip = _skip(value or b"")
                found.skips[skip.offset] = skip
            else:
                assembly.add(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    found.checkpoints = assembly.whole
    return found


class Store:
    """Writes the checkpoints of one kind (`state-fold`, `state-judge`), and knows each partition's sequence.

    `partitions` is how many the state topic has.
    """

    def __init__(self, topic: str, producer: Producer, writer: str, partitions: int) -> None:
        self._topic = topic
        self._producer = producer
        self._writer = writer
        self._partitions = partitions
        self._sequences: dict[int, int] = {}

    def load(self, reader: Consumer, partition: int) -> StoredState:
        """Read what is known of a partition and go on from its newest sequence."""
        found = self.look(reader, partition)
        self._sequences[partition] = found.checkpoints[0].sequence if found.checkpoints else 0
        return found

    def look(self, reader: Consumer, partition: int) -> StoredState:
        """Read what is known of a partition, which may be another worker's."""
        return known(reader, self._topic, partition, self._partitions)

    def save_origin(self, partition: int, origin: Origin) -> None:
        """Write down which topic positions are counted in, and wait until the broker has it. Raise `Retry`."""
        self._write(partition, [(f"{partition}/origin".encode(), _encode(origin))], 30.0)

    def save_skip(self, partition: int, skip: Skip) -> None:
        """Write down that a record is to be passed. Raise `Retry`."""
        self._write(partition, [(f"{partition}/skip/{skip.offset}".encode(), _encode(skip))], 30.0)

    def save(self, partition: int, offset: int, data: bytes, timeout_s: float = 30.0) -> None:
        """Write a checkpoint and wait until the broker has it. Raise `Retry` when it does not take it.

        Whatever the state stands for must be durable before this is called.
        """
        sequence = self._sequences.get(partition, 0) + 1
        self._write(partition, cut(partition, Checkpoint(sequence, offset, data), self._writer), timeout_s)
        self._sequences[partition] = sequence

    def _write(self, partition: int, records: Iterable[tuple[bytes, bytes]], timeout_s: float) -> None:
        errors: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: object) -> None:
            if error is not None:
                errors.append(error)

        for key, value in records:
            try:
                self._produce(partition, key, value, delivered, timeout_s)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                    raise Stop(f"a checkpoint cannot be written to {self._topic}: {error}") from error
                raise Retry(f"a checkpoint cannot be written to {self._topic}: {error}") from error
        if self._producer.flush(timeout_s) or errors:
            reason = errors[0].str() if errors else f"no answer within {timeout_s:.0f} s"
            raise Retry(f"a checkpoint was not written to {self._topic}: {reason}; the worker starts again")

    def _produce(self, partition: int, key: bytes, value: bytes, delivered: Delivered, timeout_s: float) -> None:
        into = partition % self._partitions
        try:
            self._producer.produce(self._topic, value, key, into, on_delivery=delivered)
        except BufferError:
            self._producer.flush(timeout_s)
            self._producer.produce(self._topic, value, key, into, on_delivery=delivered)


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
