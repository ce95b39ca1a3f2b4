"""Reading a topic from the command line: from its start to its present end, or on and on. Nothing is committed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgwitness.errors import NotInOrder, Unreachable

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from pgwitness.config import Config

REACH_S = 5.0


@dataclass(frozen=True)
class Record:
    """One record as Kafka keeps it; `time_ms` is the broker's or the producer's, since the Unix epoch."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes


def reach(config: Config) -> None:
    """Ask each bootstrap server for a connection; a client of Kafka would wait long where nobody listens.

    Raises `Unreachable` when none takes it.
    """
    refused: list[str] = []
    for server in config.kafka.bootstrap.split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), REACH_S):
                return
        except (OSError, ValueError) as error:
            refused.append(f"{server.strip()}: {error}")
    raise Unreachable(
        f"the broker cannot be reached ({'; '.join(refused)}); is it running, and is kafka.bootstrap right?"
    )


def read(config: Config, topic: str) -> list[Record]:
    """Read a topic up to where it ended when this began, in the order of the records' times.

    Raises `Unreachable` when the broker is, and `NotInOrder` when the topic is not there.
    """
    consumer, partitions = _open(config, topic)
    records: list[Record] = []
    try:
        wanted = {p: consumer.get_watermark_offsets(p, timeout=REACH_S) for p in partitions}
        missing = {p.partition: high for p, (low, high) in wanted.items() if high > low}
        while missing:
            record = _poll(consumer, REACH_S)
            if record is None:
                raise Unreachable(f"topic {topic} did not answer for {REACH_S:.0f} s; is the broker overloaded?")
            records.append(record)
            if record.offset + 1 >= missing.get(record.partition, 0):
                missing.pop(record.partition, None)
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.time_ms, record.partition, record.offset))


def follow(config: Config, topic: str) -> Iterator[Record]:
    """Read a topic from its start and then every record as it comes, until the caller stops."""
    consumer, _ = _open(config, topic)
    try:
        while True:
            record = _poll(consumer, 0.5)
            if record is not None:
                yield record
    finally:
        consumer.close()


def parse(value: bytes) -> dict[str, Any]:
    """Read a JSON object from a record; one that is none is shown as text, so that a bad record hides no other."""
    import msgspec

    try:
        return msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {"unreadable": value.decode(errors="replace"), "reason": str(error)}


def _open(config: Config, topic: str) -> tuple[Consumer, list[Any]]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

    reach(config)
    settings = {"group.id": "pgwitness-reader", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer(
        {**settings, "allow.auto.create.topics": False, "log_level": 0, "error_cb": _quiet, **config.kafka.client()}
    )
    try:
        found = consumer.list_topics(timeout=REACH_S).topics
    except KafkaException as error:
        consumer.close()
        raise Unreachable(
            f"the broker at {config.kafka.bootstrap} cannot be reached ({error.args[0].str()}); "
            "is it running, and is kafka.bootstrap right?"
        ) from error
    if topic not in found:
        consumer.close()
        raise NotInOrder(f"topic {topic} does not exist; run `pgwitness topics apply`")
    partitions = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in found[topic].partitions]
    consumer.assign(partitions)
    return consumer, partitions


def _quiet(error: object) -> None:
    """Keep librdkafka's retries to itself: what matters becomes an exception of the call that failed."""


def _poll(consumer: Consumer, timeout_s: float) -> Record | None:
    message = consumer.poll(timeout_s)
    if message is None or message.error() is not None:
        return None
    return Record(
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        _bytes(message.key()),
        _bytes(message.value()) or b"",
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
