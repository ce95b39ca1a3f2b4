"""The topic `approvals` as a shell: read from its beginning on, and written to durably. No consumer group."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from pgwitness.core.config import Config
from pgwitness.core.errors import Unreachable
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.topics import READABLE, READER

SEND_S: Final = 10.0
QUIET_S_MAX: Final = 15.0
POLL_S: Final = 0.2


class Read(NamedTuple):
    """A record of the topic: `at_us` is when it was written, by whoever wrote it."""

    offset: int
    at_us: int
    value: bytes | None


class ApprovalsTopic:
    """One reader and writer of the topic; close it afterwards. Not for several threads at once, but for `append`."""

    def __init__(self, config: Config) -> None:
        self.name = config.kafka.topic("approvals")
        client = config.kafka.client()
        self._consumer = Consumer(
            client
            | {
                "group.id": config.kafka.topic(READER),
                "enable.auto.commit": "false",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": "true",
                "fetch.wait.max.ms": "50",
                "log_level": "0",
                "logger": LIBRDKAFKA,
            }
        )
        self._settings = client | {
            "acks": "all",
            "enable.idempotence": "true",
            "linger.ms": "0",
            "compression.type": READABLE,
            "message.timeout.ms": str(int(SEND_S * 1000)),
            "log_level": "0",
            "logger": LIBRDKAFKA,
        }
        self._producer: Producer | None = None
        self.at_end = False
        """Whether all that there was has been read at least once."""
        self._consumer.assign([TopicPartition(self.name, 0, OFFSET_BEGINNING)])

    def poll(self, timeout_s: float = POLL_S) -> Read | None:
        """Return the next record, or None where there is none for so long. Raise `Unreachable`."""
        try:
            message = self._consumer.poll(timeout_s)
        except KafkaException as error:
            raise Unreachable(f"topic {self.name} cannot be read: {error.args[0].str()}; is the broker up?") from error
        if message is None:
            return None
        failed = message.error()
        if failed is not None:
            if failed.code() == KafkaError._PARTITION_EOF:
                self.at_end = True
            elif failed.fatal() or failed.code() in _STOPS:
                raise Unreachable(
                    f"topic {self.name} cannot be read: {failed.str()}; `pgwitness topics apply` makes it, and with "
                    "--print lists who needs to read it"
                )
            return None
        value = message.value()
        written_us = message.timestamp()[1] * 1000
        now_us = time.time_ns() // 1000
        at_us = min(written_us, now_us) if written_us > 0 else now_us
        return Read(message.offset() or 0, at_us, value.encode() if isinstance(value, str) else value)

    def to_end(self, quiet_s_max: float = QUIET_S_MAX) -> Iterator[Read]:
        """Return what there is. Raise `Unreachable` when the broker says nothing for so long."""
        self.at_end = False
        deadline = time.monotonic() + quiet_s_max
        while not self.at_end:
            found = self.poll()
            if found is not None:
                deadline = time.monotonic() + quiet_s_max
                yield found
            elif time.monotonic() > deadline:
                raise Unreachable(f"{self.name} was not read to its end in {quiet_s_max:.0f} s; is the broker up?")

    def append(self, request: str, value: bytes) -> None:
        """Write a record; the broker has it when this returns. Raise `Unreachable` when it may not have it."""
        if self._producer is None:
            self._producer = Producer(self._settings)
        errors: list[KafkaError] = []
        done: list[bool] = []

        def reported(error: KafkaError | None, _: object) -> None:
            done.append(error is None)
            if error is not None:
                errors.append(error)

        self._producer.produce(self.name, value, request.encode(), 0, on_delivery=reported)
        deadline = time.monotonic() + SEND_S + 1
        while not done and time.monotonic() < deadline:
            self._producer.poll(0.05)
        if errors or not done:
            why = errors[0].str() if errors else f"no answer within {SEND_S:.0f} s"
            raise Unreachable(f"{self.name} does not take a record: {why}; is the broker up, may you write there?")

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()


_STOPS: Final = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)
