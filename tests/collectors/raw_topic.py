"""The topic `raw` as a test reads it: every event that arrived, in order, waited for with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from collectors.context import Context
from collectors.publisher import Publisher
from pgwitness.core.codec import decode_raw
from pgwitness.core.config import Config
from pgwitness.core.events import RawEvent
from pgwitness.core.runtime.health import Health

SECONDS_MAX = 30.0

E = TypeVar("E", bound=RawEvent)
Task = Callable[[Context, str, threading.Event], None]


class RawTopic:
    """Makes the topic and reads it from its beginning; `seen` keeps all that was read, `instances` whose it is."""

    def __init__(self, config: Config) -> None:
        name, partitions = config.kafka.topic("raw"), config.topics.raw_partitions
        admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap, "log_level": 0})
        for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
            future.result()
        self._consumer = Consumer(
            {"bootstrap.servers": config.kafka.bootstrap, "group.id": f"{name}-test", "log_level": 0}
        )
        self._consumer.assign([TopicPartition(name, number, 0) for number in range(partitions)])
        self.seen: list[RawEvent] = []
        self.instances: list[str | None] = []

    def read(self, seconds: float = 0.2) -> None:
        """Read what there is."""
        for message in self._consumer.consume(1_000, seconds):
            assert message.error() is None, message.error()
            batch = decode_raw(message.value())
            self.seen += batch.events
            self.instances += [batch.header.instance] * len(batch.events)

    def of(self, kind: type[E]) -> list[E]:
        """Give the events of one kind that were read so far."""
        return [event for event in self.seen if isinstance(event, kind)]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Read until a condition holds."""
        deadline = time.monotonic() + SECONDS_MAX
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}; read {self.seen[-5:]}"
            self.read()

    def close(self) -> None:
        """End reading."""
        self._consumer.close()


def context_of(config: Config, publisher: Publisher, cluster: str = "shop", health: Health | None = None) -> Context:
    """Make what a collector works with."""
    return Context(config, cluster, config.cluster(cluster), publisher, health or Health(), b"k" * 32)


@contextmanager
def running(task: Task, context: Context, dsn: str) -> Iterator[list[BaseException]]:
    """Run a collector in a thread for the length of a block; gives the list of what it raised."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            task(context, dsn, stop)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=work, name="collector under test", daemon=True)
    thread.start()
    try:
        yield raised
    finally:
        stop.set()
        thread.join(SECONDS_MAX)
        assert not thread.is_alive(), "the collector does not end"


@dataclass(frozen=True)
class Bench:
    """A configuration for one server, the topic `raw`, a publisher into it, and how the collectors say they are."""

    config: Config
    dsn: str
    raw: RawTopic
    publisher: Publisher
    health: Health = field(default_factory=Health)

    def running(self, task: Task, dsn: str | None = None) -> AbstractContextManager[list[BaseException]]:
        """Run a collector on the primary, or on the instance that `dsn` names."""
        return running(task, context_of(self.config, self.publisher, health=self.health), dsn or self.dsn)


@contextmanager
def bench(config: Config) -> Iterator[Bench]:
    """Set up a bench and take it down."""
    raw, publisher = RawTopic(config), Publisher(config)
    try:
        yield Bench(config, config.cluster("shop").dsn, raw, publisher)
    finally:
        publisher.close()
        raw.close()
