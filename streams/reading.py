"""Reading a partition from its beginning to its end, once, without a consumer group.

The end is where the broker says that there is no more (`PARTITION_EOF`), not what it lists as latest offset: the
embedded broker lists the *first* offset of the last batch plus one, which is too low after a batch of several.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from pgwitness.config import Kafka
from pgwitness.errors import Unreachable
from pgwitness.topics import READER

TIMEOUT_S = 30.0
"""How long a broker may say nothing."""


def make_reader(kafka: Kafka) -> Consumer:
    """Make the consumer for the functions below; close it afterwards."""
    return Consumer(
        kafka.client()
        | {
            "group.id": kafka.topic(READER),
            "enable.auto.commit": "false",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": "true",
            "fetch.wait.max.ms": "50",
            "fetch.message.max.bytes": str(4 * 1024 * 1024),
            "log_level": "0",
        }
    )


def read(consumer: Consumer, topic: str, partition: int, start: int = OFFSET_BEGINNING) -> Iterator[Message]:
    """Give every record of a partition up to its end. Raises `Unreachable` when the broker says nothing."""
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                deadline = time.monotonic() + TIMEOUT_S
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                return
            elif not error.retriable():
                raise Unreachable(
                    f"topic {topic} cannot be read: {error.str()}; is it there? `pgwitness topics apply` makes it"
                )
    except KafkaException as error:
        raise Unreachable(f"topic {topic} cannot be read: {error.args[0].str()}; is the broker up?") from error
    finally:
        consumer.unassign()
    raise Unreachable(f"topic {topic}, partition {partition}: no answer within {TIMEOUT_S:.0f} s; is the broker up?")


def holds(consumer: Consumer, topic: str, partition: int, offset: int) -> bool:
    """Say whether a partition has reached an offset: it holds the record, or had it and deleted it by retention.

    A topic that was made anew, and is shorter, has not.
    """
    try:
        low, listed = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
    except KafkaException as error:
        raise Unreachable(f"topic {topic} cannot be read: {error.args[0].str()}; is the broker up?") from error
    if offset < max(low, listed):
        return True
    return any((message.offset() or 0) >= offset for message in read(consumer, topic, partition, max(low, listed - 1)))
