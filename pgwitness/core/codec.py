"""Batches: how events are put into Kafka records, and how hostile bytes are read.

Encoding joins events that are already bytes, so that a row is encoded once in its life. Decoding is total: any
bytes give a batch, a `DeadLetter` with its reason, or `NewerSchema`.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from pgwitness.core.errors import DeadLetter, NewerSchema
from pgwitness.core.events import SCHEMA_VERSION, EventBatch, RawBatch

EVENTS_MAX = 1_000
"""Events (for changes: rows) in a batch at most."""
BYTES_MAX = 256 * 1024
"""Bytes of a batch at most, before compression; one longer event stands alone."""
LINGER_MS_MAX = 50
"""How long a batch may wait for company."""
REPLACED = b"pgwitness.unpacking: "
"""What stands for a batch that must not be unpacked (`streams.faust.unpacking`) begins with this, and is no JSON."""


class _Envelope(msgspec.Struct):
    schema: int


_envelope = msgspec.json.Decoder(_Envelope)
_raw = msgspec.json.Decoder(RawBatch)
_events = msgspec.json.Decoder(EventBatch)

B = TypeVar("B", RawBatch, EventBatch)


class BatchBuilder:
    """Collects encoded events and cuts them into payloads of at most `EVENTS_MAX` events and `BYTES_MAX` bytes.

    `header` is the JSON of the batch's header. Time is not known here: who calls `cut` decides when a batch has
    waited long enough.
    """

    def __init__(self, producer: str, header: bytes) -> None:
        self._head = (
            b'{"schema":%d,"producer":' % SCHEMA_VERSION
            + msgspec.json.encode(producer)
            + b',"header":'
            + header
            + b',"events":['
        )
        self._parts: list[bytes] = []
        self.count = 0
        self.bytes = 0

    def add(self, event: bytes, count: int = 1) -> bytes | None:
        """Add one encoded event that stands for `count` events; returns a payload when the previous batch is full.

        An event is never split: a transaction stays together, and a longer one was cut by who made it.
        """
        full = None
        if self._parts and (self.count + count > EVENTS_MAX or self.bytes + len(event) > BYTES_MAX):
            full = self.cut()
        self._parts.append(event)
        self.count += count
        self.bytes += len(event) + 1
        return full

    def cut(self) -> bytes | None:
        """End the batch and return its payload, or None when it is empty."""
        if not self._parts:
            return None
        payload = self._head + b",".join(self._parts) + b"]}"
        self._parts = []
        self.count = 0
        self.bytes = 0
        return payload


def decode_raw(value: bytes | None) -> RawBatch:
    """Read a record of `raw`. Raises `DeadLetter` on what is no batch and `NewerSchema` on a batch from the future."""
    return _decode(value, _raw)


def decode_events(value: bytes | None) -> EventBatch:
    """Read a record of `events`; errors as in `decode_raw`."""
    return _decode(value, _events)


def _decode(value: bytes | None, decoder: msgspec.json.Decoder[B]) -> B:
    if value is None:
        raise DeadLetter("empty", "the record has no value; a producer wrote a tombstone to a topic that has none")
    try:
        batch = decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, MemoryError) as error:
        _refuse(value, error)
    if batch.schema > SCHEMA_VERSION:
        raise NewerSchema(batch.schema, SCHEMA_VERSION)
    if batch.schema < SCHEMA_VERSION - 1 or batch.schema < 1:
        raise DeadLetter(
            "old_schema", f"schema version {batch.schema} is no longer read: redrive it with an older release"
        )
    return batch


def _refuse(value: bytes, error: Exception) -> None:
    """Say why bytes are no batch; a newer version may have any shape, so its number is asked first."""
    if value.startswith(REPLACED):
        raise DeadLetter("too_large", "a batch of records that cannot be unpacked, or would be too large then")
    try:
        version = _envelope.decode(value).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, MemoryError):
        raise DeadLetter("not_a_batch", f"not a batch of pgwitness: {error}") from error
    if version > SCHEMA_VERSION:
        raise NewerSchema(version, SCHEMA_VERSION) from error
    raise DeadLetter("wrong_shape", f"a batch of schema {version} that does not fit it: {error}") from error
