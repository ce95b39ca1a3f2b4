"""Reading a partition from its beginning to its end, once, without a consumer group.

The end is where the broker says that there is no more (`PARTITION_EOF`), not what it lists as latest offset: the
embedded broker lists the *first* offset of the last batch plus one, which is too low after a batch of several.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from pgwitness.core.config import Config, Kafka
from pgwitness.core.errors import Unreachable
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.topics import READER
from streams.kafka.origins import Extent

TIMEOUT_S = 30.0
"""How long a broker may say nothing."""


def make_reader(kafka: Kafka, wait_ms: int = 50) -> Consumer:
    """Make the consumer for the functions below; close it afterwards. `wait_ms`: how long a fetch waits for records."""
    return Consumer(
        kafka.client()
        | {
            "group.id": kafka.topic(READER),
            "enable.auto.commit": "false",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": "true",
            "fetch.wait.max.ms": str(wait_ms),
            "fetch.message.max.bytes": str(4 * 1024 * 1024),
            "log_level": "0",
            "logger": LIBRDKAFKA,
        }
    )


def read(consumer: Consumer, topic: str, partition: int, start: int = OFFSET_BEGINNING) -> Iterator[Message]:
    """Return every record of a partition up to its end. Raise `Unreachable` when the broker says nothing."""
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
            elif passes(consumer, message):
                deadline = time.monotonic() + TIMEOUT_S
            elif not error.retriable():
                raise Unreachable(
                    f"topic {topic} cannot be read: {error.str()}; is it there? `pgwitness topics apply` makes it"
                )
    except KafkaException as error:
        raise Unreachable(f"topic {topic} cannot be read: {error.args[0].str()}; is the broker up?") from error
    finally:
        consumer.unassign()
    raise Unreachable(f"topic {topic}, partition {partition}: no answer within {TIMEOUT_S:.0f} s; is the broker up?")


def passes(consumer: Consumer, message: Message) -> bool:
    """Read on behind a record that cannot be unpacked, if that is what an error says; return whether it was.

    librdkafka unpacks up to `receive.message.max.bytes` (100 MB) and would try the same batch for ever.
    """
    error = message.error()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if error is None or error.code() != KafkaError._BAD_COMPRESSION or not topic or offset is None or offset < 0:
        return False
    consumer.seek(TopicPartition(topic, partition or 0, offset + 1))
    return True


class BrokerReader:
    """Asks a broker about topics; close it afterwards."""

    def __init__(self, kafka: Kafka) -> None:
        self.reader = make_reader(kafka)
        self._client = AdminClient({**kafka.client(), "log_level": "0", "logger": LIBRDKAFKA})
        self._ids: dict[str, str | None] = {}

    def close(self) -> None:
        """Let go of the connections."""
        self.reader.close()

    def ids(self, topics: list[str]) -> dict[str, str]:
        """Return the ids of topics, asked once."""
        if new := [topic for topic in topics if topic not in self._ids]:
            found = topic_ids(self._client, new)
            self._ids |= {topic: found.get(topic) for topic in new}
        return {topic: known for topic in topics if (known := self._ids[topic]) is not None}

    def extent(self, topic: str, partition: int, at_least: int = 0) -> Extent:
        """Return how far a partition reaches, exactly if not beyond `at_least`. Raise `Unreachable`."""
        if topic not in self._ids:
            self.ids([topic])
        first, end = ends(self.reader, topic, partition, at_least)
        return Extent(self._ids[topic], first, end)

    def newest_us(self, topic: str, partition: int) -> int | None:
        """Say when the last record of a partition was written, None where there is none. Raise `Unreachable`."""
        low, end = ends(self.reader, topic, partition)
        newest = None
        for message in read(self.reader, topic, partition, max(low, end - 1)):
            newest = message.timestamp()[1] * 1000
        return newest

    def written_after(self, topic: str, partition: int, at_us: int) -> int:
        """Return the first offset of a partition that was written after a moment, its end when none was."""
        end, _ = ends(self.reader, topic, partition)
        for message in read(self.reader, topic, partition):
            if message.timestamp()[1] * 1000 > at_us:
                return message.offset() or 0
            end = (message.offset() or 0) + 1
        return end


def ends(reader: Consumer, topic: str, partition: int, at_least: int = 0) -> tuple[int, int]:
    """Return a partition's first and next offset; whether it ends behind `at_least` is looked at exactly."""
    try:
        low, listed = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
    except KafkaException as error:
        raise Unreachable(f"topic {topic} cannot be read: {error.args[0].str()}; is the broker up?") from error
    end = max(low, listed)
    if at_least > end:
        for message in read(reader, topic, partition, max(low, listed - 1)):
            end = max(end, (message.offset() or 0) + 1)
    return low, end


def record_at(config: Config, topic: str, partition: int, offset: int) -> tuple[bool, bytes | None]:
    """Return whether a partition still holds the record at an offset, and give its value. Raise `Unreachable`."""
    reader = make_reader(config.kafka)
    try:
        low, end = ends(reader, topic, partition, offset + 1)
        if low <= offset < end:
            for message in read(reader, topic, partition, offset):
                value = message.value()
                return message.offset() == offset, value.encode() if isinstance(value, str) else value
    finally:
        reader.close()
    return False, None


def topic_ids(client: AdminClient, topics: list[str], timeout_s: float = TIMEOUT_S) -> dict[str, str]:
    """Ask the broker for the ids of topics; those it does not report, or that are not there, are left out."""
    found: dict[str, str] = {}
    try:
        asked = client.describe_topics(TopicCollection(topics), request_timeout=timeout_s)
    except KafkaException:
        return found
    for name, future in asked.items():
        try:
            topic_id = str(future.result(timeout_s + 5).topic_id)
        except (KafkaException, TimeoutError):
            continue
        if topic_id.strip("A") or not topic_id:
            found[name] = topic_id
    return found
