"""What could not be read: listed, shown, and tried again.

A dead letter is the record as it came, with headers `reason`, `stage`, `topic`, `partition` and `offset`; one that is
kept by reference (`streams.kafka.letters`) is read where it came from, as long as that still holds the same bytes.
`redrive` writes its bytes to the partition they came from, once: a mark (a record of the same topic with the header
`redriven` that names the letter's offset, and no value) is written after it, and a letter that has one is left alone
unless `again` is set. Should the program die between the two, the letter may be driven twice, which positions forgive.
It lands as a *new* record at the end of its partition: what the fold has seen later stays as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from confluent_kafka import KafkaError, Message
from msgspec import Struct

from pgwitness.core.config import Config
from pgwitness.core.errors import NotInOrder, Unreachable
from pgwitness.core.topics import READABLE
from streams.kafka import admin
from streams.kafka.emitter import make_producer
from streams.kafka.letters import REFERENCE
from streams.kafka.reading import make_reader, read, record_at

LARGE_BYTES_MAX = 64 * 1024 * 1024
"""A record that is redriven may be larger than any of our own, since it came in once."""
TIMEOUT_S = 15.0
REDRIVEN = "redriven"


class Letter(Struct, frozen=True):
    """One dead letter. `offset` is its own, `source_…` where it came from, `size` its bytes; `redriven` says
    whether it was tried again. `sha256` is set when it is kept by reference: `value` is then its beginning."""

    offset: int
    at_ms: int
    reason: str
    stage: str
    source_topic: str
    source_partition: int
    source_offset: int
    size: int
    redriven: bool
    key: bytes | None
    value: bytes | None
    sha256: str | None = None

    @property
    def kept(self) -> str:
        """How it is kept."""
        return "whole" if self.sha256 is None else REFERENCE


def letters(config: Config) -> list[Letter]:
    """List all dead letters, oldest first. Raise `Unreachable`."""
    records: list[tuple[int, int, dict[str, str], bytes | None, bytes | None]] = []
    redriven: set[int] = set()
    for message in _read(config):
        headers = _headers(message)
        if REDRIVEN in headers:
            if headers[REDRIVEN].isdecimal():
                redriven.add(int(headers[REDRIVEN]))
            continue
        records.append((message.offset() or 0, message.timestamp()[1], headers, message.key(), message.value()))
    return [
        Letter(
            offset=offset,
            at_ms=at_ms,
            reason=headers.get("reason", ""),
            stage=headers.get("stage", ""),
            source_topic=headers.get("topic", ""),
            source_partition=_number(headers.get("partition")),
            source_offset=_number(headers.get("offset")),
            size=max(len(value or b""), _number(headers.get("size"))),
            redriven=offset in redriven,
            key=key,
            value=value,
            sha256=headers.get("sha256") if headers.get("kept") == REFERENCE else None,
        )
        for offset, at_ms, headers, key, value in records
    ]


def show(config: Config, offset: int) -> Letter:
    """Return one dead letter with its bytes. Raise `NotInOrder` when there is none at this offset."""
    for letter in letters(config):
        if letter.offset == offset:
            return letter
    raise NotInOrder(f"there is no dead letter {offset}; `pgwitness dead-letters list` shows those there are")


def redrive(config: Config, offsets: list[int] | None = None, *, again: bool = False) -> list[Letter]:
    """Try letters again, all that were not yet when `offsets` is None; return those that were sent.

    Raise `NotInOrder` for an offset that is no letter, or a letter whose headers do not say where it came from.
    """
    found = {letter.offset: letter for letter in letters(config)}
    if unknown := sorted(set(offsets or []) - set(found)):
        raise NotInOrder(f"there is no dead letter {unknown[0]}; `pgwitness dead-letters list` shows those there are")
    ours = {config.kafka.topic(name) for name in ("raw", "events", "alerts")}
    chosen = [found[offset] for offset in (sorted(found) if offsets is None else offsets)]
    chosen = [letter for letter in chosen if again or not letter.redriven]
    producer = make_producer(config, LARGE_BYTES_MAX, compression=READABLE)
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            errors.append(error)

    for letter in chosen:
        if letter.source_topic not in ours or letter.source_partition < 0:
            raise NotInOrder(
                f"dead letter {letter.offset} came from {letter.source_topic!r}, which is no topic to write to"
            )
        value = letter.value if letter.sha256 is None else whole(config, letter)
        producer.produce(letter.source_topic, value, letter.key, letter.source_partition, on_delivery=delivered)
        if producer.flush(TIMEOUT_S) or errors:
            why = errors[0].str() if errors else f"no answer within {TIMEOUT_S:.0f} s"
            raise Unreachable(
                f"dead letter {letter.offset} was not taken: {why}; when the broker runs and lets you write to "
                f"{letter.source_topic}, redrive again"
            )
        mark: list[tuple[str, str | bytes | None]] = [(REDRIVEN, str(letter.offset).encode())]
        producer.produce(config.kafka.topic("dead-letters"), None, letter.key, 0, headers=mark, on_delivery=delivered)
        producer.flush(TIMEOUT_S)
    return chosen


def whole(config: Config, letter: Letter) -> bytes | None:
    """Return a letter's record; one kept by reference is read from its topic. Raise `NotInOrder` when that lost it."""
    if letter.sha256 is None:
        return letter.value
    if letter.source_offset >= 0:
        found, value = record_at(config, letter.source_topic, letter.source_partition, letter.source_offset)
        if found and hashlib.sha256(value or b"").hexdigest() == letter.sha256:
            return value
    raise NotInOrder(
        f"dead letter {letter.offset} is kept by reference, and {letter.source_topic}, partition "
        f"{letter.source_partition} no longer holds its record at {letter.source_offset}: only its beginning is left "
        f"(`pgwitness dead-letters show {letter.offset}`)"
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else -1


def _headers(message: Message) -> dict[str, str]:
    raw = message.headers() or []
    pairs = raw.items() if isinstance(raw, dict) else raw
    return {
        key: value.decode(errors="replace") if isinstance(value, bytes) else str(value or "") for key, value in pairs
    }


def _read(config: Config) -> Iterator[Message]:
    admin.reach(config)
    consumer = make_reader(config.kafka)
    try:
        yield from read(consumer, config.kafka.topic("dead-letters"), 0)
    finally:
        consumer.close()
