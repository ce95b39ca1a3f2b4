"""The topic that holds the log, as it is asked about: its partitions, where they begin and end, and what is wrong."""

from __future__ import annotations

import time

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from collectors.log.sources.shipped import PartitionState
from pgwitness.core.errors import Retry

ASK_S = 10.0
PROBE_S = 5.0

log = structlog.get_logger("log")


class Topic:
    """One topic, asked through the consumer that reads it."""

    def __init__(self, consumer: Consumer, name: str) -> None:
        self.name = name
        self._consumer = consumer

    def numbers(self) -> list[int]:
        """List the partitions. Raise `Retry`."""
        try:
            found = self._consumer.list_topics(self.name, timeout=ASK_S).topics[self.name]
        except KafkaException as error:
            raise explain(self.name, error.args[0]) from error
        if found.error is not None:
            raise explain(self.name, found.error)
        return sorted(found.partitions)

    def ends(self, number: int) -> tuple[int, int]:
        """Return the first record of a partition and the one behind the last. Raise `Retry`."""
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(self.name, number), timeout=ASK_S)
        except KafkaException as error:
            raise explain(self.name, error.args[0]) from error
        if found is None:
            raise Retry(f"the broker does not say where topic {self.name}, partition {number} ends; check that it runs")
        low, high = found
        return low, high

    def began_anew(self, state: PartitionState, end: int) -> bool:
        """Return whether a partition ends before what was read of it. Raise `Retry`.

        The embedded broker calls the beginning of the last batch the end: so the last record read is looked for.
        """
        if state.next <= end:
            return False
        self._consumer.assign([TopicPartition(self.name, state.partition, state.next - 1)])
        deadline = time.monotonic() + PROBE_S
        try:
            while time.monotonic() < deadline:
                for message in self._consumer.consume(1, PROBE_S / 10):
                    error = message.error()
                    if error is None:
                        return False
                    if error.code() in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
                        return True
        finally:
            self._consumer.unassign()
        raise Retry(f"the broker does not answer for topic {self.name} of the log; check that it runs and its log")


def explain(topic: str, error: KafkaError) -> Retry:
    """Say what is wrong with the topic, and what to do."""
    code, text = error.code(), error.str()
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return Retry(f"topic {topic} of the log is not there ({text}): create it, or correct log.topic")
    if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        return Retry(f"topic {topic} of the log may not be read ({text}): allow READ and DESCRIBE on it")
    if code == KafkaError._AUTO_OFFSET_RESET:
        return Retry(f"topic {topic} of the log has deleted records that were not read yet ({text}); give it more time")
    return Retry(f"topic {topic} of the log cannot be read: {text}; check that the broker runs and its log")
