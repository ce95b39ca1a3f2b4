"""`pgwitness alerts deliver`: every target reads the alerts topic for itself, at its own pace.

A target's position is committed only after it took what it was sent, or the dead letters did: at least once, and what
is sent again has the same uid. Alerts beyond a target's rate are held back for a minute and reported in one summary;
the position stays before them until that was taken. What a target does not take is tried again with growing pauses,
then goes to the topic of dead letters with its reason; a target that is slow or gone holds up no other.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pgwitness.core.config import Config, Delivery
from pgwitness.core.contracts.alert_target import AlertTarget, NotTaken, Refused
from pgwitness.core.errors import ConfigurationError, PgwitnessError, Retry
from pgwitness.core.runtime import backoff
from pgwitness.core.runtime.health import Health
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.runtime.refusals import Refusals
from pgwitness.core.topics import READABLE
from sinks.deliveries import metrics, render, requests, routing, targets
from sinks.deliveries.respond import Responder
from sinks.deliveries.routing import Held, Item, Limit

log = structlog.get_logger("deliver")

POLL_S = 0.2
COMMIT_S = 5.0
PAUSE_S_MAX = 60.0
SEND_S = 30.0
DAY_MS = 86_400_000
TURN_S = 5.0
"""How often who waits says that it lives."""


class Stopped(Exception):
    """The daemon was asked to end while something was being tried; it is done again by the next run."""


class Outbox:
    """Where the daemon itself writes: dead letters, evidence and updates of alerts; waits until they are durable."""

    def __init__(self, config: Config) -> None:
        self._bootstrap = config.kafka.bootstrap
        self._refusals = Refusals()
        self._producer = Producer(
            {
                **config.kafka.client(),
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": READABLE,
                "message.max.bytes": 4 * 1024 * 1024,
                "log_level": 0,
                "logger": LIBRDKAFKA,
                "error_cb": self._refusals,
            }
        )

    def write(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int = 0,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> None:
        """Write one record. Raise `Retry` when the broker does not take it."""
        errors: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: object) -> None:
            if error is not None:
                errors.append(error)

        try:
            self._producer.produce(topic, value, key, partition, on_delivery=delivered, headers=headers or [])
        except (BufferError, KafkaException) as error:
            raise Retry(f"{topic}: {error}") from error
        if self._producer.flush(SEND_S) or errors:
            why = errors[0].str() if errors else "no answer"
            if self._refusals.final:
                why = self._refusals.explain(self._bootstrap, why)
            raise Retry(f"{topic} did not take a record: {why}")


class Source(NamedTuple):
    """Where a route reads: the topic, by which group, what an item is made of, and whether all of it are items."""

    topic: str
    group: str
    read: Callable[[bytes | None], Item | None]
    whole: bool = True


class Route:
    """One target and its place on the topic."""

    def __init__(
        self,
        name: str,
        settings: Delivery,
        target: AlertTarget[Item],
        config: Config,
        outbox: Outbox,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        source: Source | None = None,
    ) -> None:
        self.name = name
        source = source or Source("alerts", name, lambda value: routing.read(value))
        self._source = source
        self._settings = settings
        self._target = target
        self._outbox = outbox
        self._stop = stop
        self._clock = clock
        self._topic = config.kafka.topic(source.topic)
        self._dead_letters = config.kafka.topic("dead-letters")
        self._group = f"{config.kafka.prefix}deliver-{source.group}"
        self._kafka = config.kafka
        self._limit = Limit(settings.rate, clock())
        self._held: Held | None = None
        self._done: dict[int, int] = {}
        self._commit_due = clock() + COMMIT_S
        self.trouble: str | None = None
        """Why the target did not take what it was sent last."""

    async def run(self, turned: Callable[[], None], ready: Callable[[], None]) -> None:
        """Deliver until asked to stop; raise `Retry` when the broker is lost, to be run again.

        `turned` is called while it works or waits for the target, `ready` as well once there is something to work on.
        """
        self._ready = ready
        self._held = None
        self._done = {}
        refusals = Refusals()
        consumer = Consumer(
            {
                **self._kafka.client(),
                "group.id": self._group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "max.poll.interval.ms": DAY_MS,
                "session.timeout.ms": 10_000,
                "log_level": 0,
                "logger": LIBRDKAFKA,
                "error_cb": refusals,
            }
        )
        assigned = threading.Event()
        try:
            consumer.subscribe([self._topic], on_assign=self._assign(assigned), on_revoke=self._revoked)
            while not self._stop.is_set():
                message = await asyncio.to_thread(consumer.poll, POLL_S)
                turned()
                if assigned.is_set():
                    ready()
                elif refusals.final:
                    raise Retry(refusals.explain(self._kafka.bootstrap, ""))
                if message is not None and not self._is_error(message):
                    await self._record(message)
                await self._summary()
                await self._commit(consumer)
            await self._commit(consumer, at_once=True)
        except Stopped:
            await self._commit(consumer, at_once=True)
        except KafkaException as error:
            raise Retry(f"{self._topic} cannot be read: {error.args[0].str()}") from error
        finally:
            await asyncio.to_thread(consumer.close)
            await self._target.close()

    def _assign(self, assigned: threading.Event) -> Callable[[Consumer, list[TopicPartition]], None]:
        """Begin where this target ended; a new target where its settings say, which is committed at once."""

        def assign(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            places = consumer.committed(partitions, timeout=SEND_S)
            new = [place for place in places if place.offset < 0]
            for place in new:
                place.offset = OFFSET_BEGINNING
                if self._settings.start == "end":
                    _, place.offset = consumer.get_watermark_offsets(place, timeout=SEND_S)
            if new and self._settings.start == "end":
                consumer.commit(offsets=new, asynchronous=False)
            consumer.assign(places)
            assigned.set()

        return assign

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._held = None
        self._done = {}

    def _is_error(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if not error.retriable() and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        return True

    async def _record(self, message: Message) -> None:
        """Take one record of the topic."""
        value = message.value()
        data = value.encode() if isinstance(value, str) else value
        item = self._source.read(data)
        if item is None and not self._source.whole:
            pass  # of this topic only some records are told of
        elif item is None:
            await self._set_aside(message, "not_an_alert", "the record is no alert of pgwitness")
        elif not routing.wanted(item, self._settings):
            metrics.FILTERED.labels(self.name).inc()
        elif self._held is not None or not self._limit.take(self._clock()):
            self._held = self._held or Held(self._clock())
            self._held.add(item)
        else:
            try:
                await self._deliver(item)
            except (NotTaken, Refused) as error:
                await self._set_aside(message, "undeliverable", str(error))
        if self._held is None:
            self._done[message.partition() or 0] = (message.offset() or 0) + 1
        else:
            self._done_after = (message.partition() or 0, (message.offset() or 0) + 1)

    _ready: Callable[[], None] = staticmethod(lambda: None)
    _done_after: tuple[int, int] = (0, 0)
    """Partition and offset after the last record read, while earlier ones are held back."""

    async def _summary(self) -> None:
        held = self._held
        if held is None or not held.due(self._clock()):
            return
        item = held.summary()
        try:
            await self._deliver(item)
            metrics.HELD_BACK.labels(self.name).inc(held.number)
        except (NotTaken, Refused) as error:
            await asyncio.to_thread(
                self._letter, item.uid.encode(), render.body(item), "undeliverable", str(error), *self._done_after
            )
        self._held = None
        self._done[self._done_after[0]] = self._done_after[1]

    async def _deliver(self, item: Item) -> None:
        """Send one, again and again with growing pauses; raise what the last try raised."""
        for attempt in count(1):
            try:
                await self._target.send(item)
                break
            except NotTaken as error:
                metrics.FAILURES.labels(self.name).inc()
                self.trouble = f"the target does not take alerts: {error}"
                self._ready()
                log.warning("not_delivered", target=self.name, uid=item.uid, attempt=attempt, error=str(error))
                if attempt >= self._settings.tries:
                    raise
                pause_s = max(error.after_s, backoff.pause_s(attempt, PAUSE_S_MAX))
            await self._wait(pause_s)
        self.trouble = None
        metrics.DELIVERED.labels(self.name, item.type).inc()
        metrics.LAST_SECONDS.labels(self.name).set_to_current_time()

    async def _wait(self, seconds: float) -> None:
        """Wait for a target. Raise `Stopped` when the daemon is asked to stop meanwhile."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if await asyncio.to_thread(self._stop.wait, min(left, TURN_S)):
                raise Stopped
            self._ready()  # waiting for the target is no stall

    async def _set_aside(self, message: Message, reason: str, error: str) -> None:
        key, value = message.key(), message.value()
        await asyncio.to_thread(
            self._letter,
            key.encode() if isinstance(key, str) else key,
            value.encode() if isinstance(value, str) else value,
            reason,
            error,
            message.partition() or 0,
            message.offset() or 0,
        )

    def _letter(
        self, key: bytes | None, value: bytes | None, reason: str, error: str, partition: int, offset: int
    ) -> None:
        log.warning("dead_letter", target=self.name, reason=reason, error=error, offset=offset)
        headers: list[tuple[str, str | bytes | None]] = [
            ("reason", reason.encode()),
            ("stage", f"deliver:{self.name}".encode()),
            ("topic", self._topic.encode()),
            ("partition", str(partition).encode()),
            ("offset", str(offset).encode()),
            ("error", error[:500].encode()),
        ]
        self._outbox.write(self._dead_letters, value, key, headers=headers)
        metrics.DEAD_LETTERS.labels(self.name, reason).inc()

    async def _commit(self, consumer: Consumer, *, at_once: bool = False) -> None:
        """Commit what is done: soon enough for few repeats, not for every alert that a filter dropped."""
        if not self._done or not (at_once or self._clock() >= self._commit_due or self._held is not None):
            return
        self._commit_due = self._clock() + COMMIT_S
        places = [TopicPartition(self._topic, partition, offset) for partition, offset in self._done.items()]
        self._done = {}
        await asyncio.to_thread(lambda: consumer.commit(offsets=places, asynchronous=False))


def routes(config: Config, stop: threading.Event) -> list[Route]:
    """Make a route for every target, and for the responder. Raise `ConfigurationError` when there is nothing to do."""
    outbox = Outbox(config)
    made = [
        Route(name, settings, targets.make(name, settings), config, outbox, stop)
        for name, settings in sorted(config.deliveries.items())
    ]
    made += [_of_requests(name, one, config, outbox, stop) for name, one in sorted(config.deliveries.items())
             if one.approvals]  # fmt: skip
    if config.respond.enabled:
        settings = Delivery(kind="file", severity="info", tries=3, rate=1_000_000, closed=False)
        made.append(Route("responder", settings, Responder(config, outbox.write), config, outbox, stop))
    if not made:
        raise ConfigurationError(
            "nothing to deliver to: add [deliveries.NAME] to the configuration, docs/how-to/consume-alerts.md shows how"
        )
    return made


def _of_requests(name: str, settings: Delivery, config: Config, outbox: Outbox, stop: threading.Event) -> Route:
    """Make the route by which a target gets requests for approval, at its own pace beside that of its alerts."""
    read = requests.reader(config, name)
    source = Source("approvals", f"{name}-approvals", lambda value: read(value, time.time_ns() // 1000), whole=False)
    return Route(f"{name}-approvals", settings, targets.make(name, settings), config, outbox, stop, source=source)


async def run(config: Config, health: Health, stop: threading.Event) -> None:
    """Deliver to every target until `stop`. Raise `ConfigurationError` at the start only."""
    made = routes(config, stop)  # outside of the group, which would wrap what is raised
    async with asyncio.TaskGroup() as group:
        for route in made:
            health.expect(route.name)
            group.create_task(_keep(route, health, stop))


async def _keep(route: Route, health: Health, stop: threading.Event) -> None:
    """Run one route again and again; only `stop` ends it."""
    failures = 0
    while not stop.is_set():
        try:
            await route.run(lambda: health.beat(route.name), lambda: health.ready(route.name, route.trouble))
            failures = 0
        except Exception as error:
            failures += 1
            why = str(error)
            if isinstance(error, PgwitnessError):
                log.warning("route_restarts", target=route.name, error=why)
            else:  # a defect in one must not end the others
                why = f"unexpected {type(error).__name__}; the log has its trace, please report it"
                log.exception("route_restarts", target=route.name)
            health.ready(route.name, why)
            await _pause(route.name, backoff.pause_s(failures, PAUSE_S_MAX), health, stop)


async def _pause(name: str, seconds: float, health: Health, stop: threading.Event) -> None:
    """Wait for the next try; waiting is no stall."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not await asyncio.to_thread(stop.wait, min(left, TURN_S)):
        health.beat(name)
