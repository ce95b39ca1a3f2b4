"""Reading a topic from the command line: from its start to its present end, or on and on. Nothing is committed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgwitness.core.errors import NotInOrder, Unreachable

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from pgwitness.core.config import Config

REACH_S = 5.0
QUIET_S_MAX = 15.0


@dataclass(frozen=True)
class Record:
    """One record as Kafka keeps it; `time_ms` is the broker's or the producer's, since the Unix epoch."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes


def reach(config: Config, timeout_s: float = REACH_S) -> None:
    """Ask each bootstrap server for a connection; a client of Kafka would wait long where nobody listens.

    Raises `Unreachable` when none takes it.
    """
    refused: list[str] = []
    for server in config.kafka.bootstrap.split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout_s):
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
    # Told apart by the broker's answer to a read, not by the high watermark that it gives when asked: the embedded
    # broker counts a last batch of several records as one there.
    unread = set(partitions)
    deadline = time.monotonic() + QUIET_S_MAX
    try:
        while unread:
            got = _poll(consumer, 0.5)
            if isinstance(got, Record):
                records.append(got)
            elif isinstance(got, int):
                unread.discard(got)
            elif time.monotonic() > deadline:
                raise Unreachable(
                    f"topic {topic} was not read to its end in {QUIET_S_MAX:.0f} s; is the broker overloaded?"
                )
            if got is not None:
                deadline = time.monotonic() + QUIET_S_MAX
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.time_ms, record.partition, record.offset))


def follow(config: Config, topic: str) -> Iterator[Record]:
    """Read a topic from its start and then every record as it comes, until the caller stops."""
    consumer, _ = _open(config, topic)
    try:
        while True:
            got = _poll(consumer, 0.5)
            if isinstance(got, Record):
                yield got
    finally:
        consumer.close()


def parse(value: bytes) -> dict[str, Any]:
    """Read a JSON object from a record; one that is none is shown as text, so that a bad record hides no other."""
    import msgspec

    try:
        return msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {"unreadable": value.decode(errors="replace"), "reason": str(error)}


def _open(config: Config, topic: str) -> tuple[Consumer, list[int]]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

    from pgwitness.core.runtime.logs import LIBRDKAFKA
    from pgwitness.core.runtime.refusals import Refusals
    from pgwitness.core.topics import READER

    reach(config)
    settings = {"group.id": config.kafka.topic(READER), "enable.auto.commit": False, "enable.partition.eof": True}
    # What matters of the client's complaints becomes an error of the call that failed.
    refusals = Refusals()
    consumer = Consumer(
        {**settings, "log_level": 0, "logger": LIBRDKAFKA, "error_cb": refusals, **config.kafka.client()}
    )
    try:
        found = consumer.list_topics(timeout=REACH_S).topics
    except KafkaException as error:
        consumer.poll(0)
        consumer.close()
        raise Unreachable(refusals.explain(config.kafka.bootstrap, error.args[0].str())) from error
    if topic not in found:
        consumer.close()
        raise NotInOrder(
            f"topic {topic} does not exist; run `pgwitness topics apply`. Where the broker has an authorizer, this "
            "account may not be allowed to see it: `pgwitness topics apply --print` lists the ACLs"
        )
    numbers = list(found[topic].partitions)
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
    return consumer, numbers


def _poll(consumer: Consumer, timeout_s: float) -> Record | int | None:
    """Give the next record, the number of a partition that was read to its end, or nothing."""
    from confluent_kafka import KafkaError

    message = consumer.poll(timeout_s)
    if message is None:
        return None
    error = message.error()
    if error is not None:
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise NotInOrder(
                f"the broker does not allow this account to read ({error.str()}): "
                "`pgwitness topics apply --print` lists the ACLs"
            )
        return message.partition() if error.code() == KafkaError._PARTITION_EOF else None
    return Record(
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        _bytes(message.key()),
        _bytes(message.value()) or b"",
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
