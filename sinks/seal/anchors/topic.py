"""Puts checkpoints into the topic `checkpoints`, under the lake's id. A shell."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pgwitness.core.config import Anchor, Config
from pgwitness.core.errors import Retry
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.topics import READABLE
from sinks.seal.anchors.given import Given

TOPIC = "checkpoints"


def make_topic(where: str, settings: Anchor, config: Config) -> Topic:
    """Make the anchor."""
    return Topic(config.kafka.client(), config.kafka.topic(TOPIC), float(settings.timeout))


class Topic:
    """The topic as an anchor; the value of a record is the signed note."""

    suffix = ""

    def __init__(self, client: dict[str, str], topic: str, timeout_s: float) -> None:
        self._client = client
        self._topic = topic
        self._timeout_s = timeout_s

    def put(self, given: Given) -> bytes:
        """Put it there, and wait until the brokers have it."""
        refused: list[str] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            refused.extend([error.str()] if error is not None else [""])

        try:
            producer = Producer(
                {**self._client, "acks": "all", "compression.type": READABLE,
                 "message.timeout.ms": str(int(self._timeout_s * 1000)), "error_cb": lambda error: None,
                 "logger": LIBRDKAFKA}
            )  # fmt: skip
            producer.produce(self._topic, given.note, given.lake, on_delivery=delivered)
            producer.flush(self._timeout_s + 1)
        except (KafkaException, BufferError) as error:
            raise Retry(f"topic {self._topic}: {error}") from error
        if refused != [""]:
            raise Retry(
                f"topic {self._topic}: {refused[0] if refused else 'no answer'}; is it there, and may be written?"
            )
        return b""

    def newest(self) -> bytes | None:
        """Nobody reads it from here: a reader needs a right that the sealer does not."""
        return None
