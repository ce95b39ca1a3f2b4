"""Checkpoints in Kafka: the state of a fold or judge, with the input offset it stands for.

A checkpoint is cut into chunks of at most `CHUNK_BYTES` under the keys `PARTITION/SLOT/CHUNK`, in the partition of the
state topic that has the number of the input partition. Slots alternate, so that compaction keeps the previous
checkpoint until the next one is whole. `Assembly` (pure) finds the newest whole one in what it is fed: every chunk
carries sequence, writer and the hash of the whole; what does not add up was torn, and is ignored. `Store` is the
shell on confluent-kafka, `streams.reading` reads for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from msgspec import Struct

from pgwitness.errors import Retry, Stop
from streams.reading import read

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


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Header).decode


def cut(partition: int, checkpoint: Checkpoint, writer: str) -> Iterator[tuple[bytes, bytes]]:
    """Cut a checkpoint into records, key and value."""
    data = checkpoint.data
    chunks = max(1, -(-len(data) // CHUNK_BYTES))
    sha256 = hashlib.sha256(data).hexdigest()
    for chunk in range(chunks):
        header = Header(checkpoint.sequence, writer, checkpoint.offset, chunk, chunks, sha256)
        key = f"{partition}/{checkpoint.sequence % 2}/{chunk}".encode()
        yield key, _encode(header) + b"\n" + data[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]


class Assembly:
    """Puts checkpoints together from records in any number; keeps the newest whole one."""

    def __init__(self) -> None:
        self.newest: Checkpoint | None = None
        self._open: dict[tuple[int, str], dict[int, tuple[Header, bytes]]] = {}

    def add(self, value: bytes | None) -> None:
        """Take one record's value; what is no chunk is ignored."""
        head, separator, data = (value or b"").partition(b"\n")
        try:
            header = _decode(head)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if not separator or (self.newest is not None and header.sequence < self.newest.sequence):
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
            self.newest = Checkpoint(header.sequence, header.offset, data)
            self._open = {other: kept for other, kept in self._open.items() if other[0] >= header.sequence}


def newest(reader: Consumer, topic: str, partition: int) -> Checkpoint | None:
    """Read the newest whole checkpoint of a partition, or None. Raises `Unreachable` without a broker."""
    assembly = Assembly()
    for message in read(reader, topic, partition):
        assembly.add(message.value())
    return assembly.newest


class Store:
    """Writes the checkpoints of one kind (`state-fold`, `state-judge`), and knows each partition's sequence."""

    def __init__(self, topic: str, producer: Producer, writer: str) -> None:
        self._topic = topic
        self._producer = producer
        self._writer = writer
        self._sequences: dict[int, int] = {}

    def load(self, reader: Consumer, partition: int) -> Checkpoint | None:
        """Read a partition's newest checkpoint and go on from its sequence."""
        checkpoint = newest(reader, self._topic, partition)
        self._sequences[partition] = checkpoint.sequence if checkpoint is not None else 0
        return checkpoint

    def save(self, partition: int, offset: int, data: bytes, timeout_s: float = 30.0) -> None:
        """Write a checkpoint and wait until the broker has it. Raises `Retry` when it does not take it.

        Whatever the state stands for must be durable before this is called.
        """
        sequence = self._sequences.get(partition, 0) + 1
        errors: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: object) -> None:
            if error is not None:
                errors.append(error)

        for key, value in cut(partition, Checkpoint(sequence, offset, data), self._writer):
            try:
                self._producer.produce(self._topic, value, key, partition, on_delivery=delivered)
            except BufferError:
                self._producer.flush(timeout_s)
                self._producer.produce(self._topic, value, key, partition, on_delivery=delivered)
            except KafkaException as error:
                raise Stop(f"a checkpoint cannot be written to {self._topic}: {error}") from error
        if self._producer.flush(timeout_s) or errors:
            reason = errors[0].str() if errors else f"no answer within {timeout_s:.0f} s"
            raise Retry(f"a checkpoint was not written to {self._topic}: {reason}; the worker starts again")
        self._sequences[partition] = sequence
