"""What every collector sends through: raw events, batched, into the topic `raw`, in order and without holes.

One `Publisher` a process owns one idempotent producer (acks=all, lz4). A `Channel` belongs to one collector of one
cluster; it batches with `codec.BatchBuilder` for at most `LINGER_MS_MAX` and blocks its sender when the bounded queue
is full. A channel's records reach the partition in the order they were sent and, because a producer that failed is
never used again, without a hole: what is in the topic is always a prefix of what was sent. After a failure every
channel of that producer raises and the collector starts again from what was confirmed, with a new channel.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from prometheus_client import Counter, Gauge

from collectors import stalled
from collectors.stalled import Progress
from pgwitness import __version__
from pgwitness.core.codec import LINGER_MS_MAX, BatchBuilder
from pgwitness.core.config import Config
from pgwitness.core.errors import PgwitnessError, Retry, Stop
from pgwitness.core.events import RawEvent, RawHeader, encode_event
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.runtime.refusals import Refusals
from pgwitness.core.topics import partition_of

QUEUE_KIB_MAX = 32 * 1024
"""What may wait for the broker, over all channels; then senders block."""
POLL_S = 0.02
BLOCKED_S = 0.25

EVENTS = Counter("pgwitness_raw_events", "Raw events that the broker confirmed.", ["cluster", "source"])
BYTES = Counter("pgwitness_raw_bytes", "Bytes of raw batches that the broker confirmed.", ["cluster", "source"])
WAITING = Gauge(
    "pgwitness_undelivered_batches", "Batches that the broker has not confirmed yet.", ["cluster", "source"]
)
FAILURES = Counter("pgwitness_delivery_failures", "Producers given up because a batch could not be delivered.")

log = structlog.get_logger("publisher")
Delivered = Callable[[], None]


class Sender(Protocol):
    """What a collector needs of a channel, so that its pure parts can be tested with a list."""

    def send(self, event: RawEvent | bytes, count: int = 1, delivered: Delivered | None = None) -> None:
        """Send one event; `delivered` is called when the broker has it."""


class _Generation:
    """One producer from its making to its failure."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.producer = Producer(settings)
        self.failure: PgwitnessError | None = None
        self.reported = 0
        """Delivery reports so far, by which it is seen to get on."""

    def retire(self) -> None:
        """Take no delivery report for true any more."""
        if self.failure is None:
            self.failure = Retry("the publisher is closed; what was not confirmed is sent again after the restart")

    def fail(self, error: KafkaError | PgwitnessError) -> None:
        if self.failure is None:
            self.failure = explain(error) if isinstance(error, KafkaError) else error
            FAILURES.inc()
            log.error("producer given up", error=str(self.failure))


class Publisher:
    """The process's way into `raw`. Threads may share it; `close` delivers what it can and ends it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.topic = config.kafka.topic("raw")
        self._refusals = Refusals()
        self._settings: dict[str, Any] = {
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.max.bytes": 1_048_588,
            "client.id": "pgwitness-collect",
            **config.kafka.client(),
            "message.timeout.ms": 0,  # a record that is given up would be a hole; waiting is bounded by the queue
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            "acks": "all",
            "queue.buffering.max.kbytes": QUEUE_KIB_MAX,
            "logger": LIBRDKAFKA,
            "error_cb": self._refusals,
        }
        self._lock = threading.Lock()
        self._channels: list[Channel] = []
        self._generation: _Generation | None = None
        self._closed = threading.Event()
        self.changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="publisher", daemon=True)
        self._thread.start()

    def channel(self, cluster: str, source: str, instance: str | None) -> Channel:
        """Open a channel for one collector of a cluster; `instance` is `host:port` where one is meant."""
        with self._lock:
            if self._generation is None or self._generation.failure is not None:
                self._generation = _Generation(self._settings)
            channel = Channel(self, self._generation, RawHeader(cluster=cluster, source=source, instance=instance))
            self._channels.append(channel)
            return channel

    def abandon(self) -> None:
        """Wake every sender that waits for the broker with `Retry`; what is queued is sent again after a restart."""
        self._closed.set()
        with self.changed:
            self.changed.notify_all()

    def close(self, timeout_s: float = 5.0) -> None:
        """Deliver what can be delivered in `timeout_s` and end; what was not confirmed will be sent again."""
        deadline = time.monotonic() + timeout_s
        for channel in self._open():
            try:
                channel.flush(max(0.0, deadline - time.monotonic()))
            except PgwitnessError as error:
                log.warning("closing with undelivered batches", source=channel.header.source, error=str(error))
        self.abandon()
        self._thread.join(timeout_s)
        if self._generation is not None and self._generation.failure is None:
            # Channels that their collectors have closed may still have batches under way.
            self._generation.producer.flush(max(0.1, deadline - time.monotonic()))
            self._generation.retire()
            # What is in flight stays: taking it back breaks the gapless guarantee, which librdkafka calls fatal.
            self._generation.producer.purge(in_flight=False)
            self._generation.producer.flush(0.1)

    def complaint(self, otherwise: str) -> str:
        """Say why the broker takes nothing, and what to do: `otherwise` where it is not known to refuse."""
        return self._refusals.explain(self.config.kafka.bootstrap, "") if self._refusals.final else otherwise

    @property
    def closed(self) -> bool:
        """Whether the publisher has been closed or abandoned."""
        return self._closed.is_set()

    def _open(self) -> list[Channel]:
        with self._lock:
            self._channels = [channel for channel in self._channels if not channel.done]
            return list(self._channels)

    def _loop(self) -> None:
        """Serve delivery reports, and cut batches that have waited long enough."""
        watched, progress = None, Progress(time.monotonic(), self._leads)
        while not self._closed.is_set():
            with self._lock:
                generation = self._generation
            if generation is not watched:
                watched, progress = generation, Progress(time.monotonic(), self._leads)
            try:
                served = generation.producer.poll(POLL_S) if generation is not None else self._closed.wait(POLL_S)
            except KafkaException as error:  # a fatal error of the producer, which its poll raises
                assert generation is not None
                generation.fail(error.args[0])
                served = 1
            now = time.monotonic()
            if generation is not None and progress.stalled(now, generation.reported, len(generation.producer) > 0):
                generation.fail(
                    Retry("the broker runs but is not sent to any more; what was not confirmed is sent again")
                )
                served = 1
            for channel in self._open():
                channel.pump(now)
            if served:
                with self.changed:
                    self.changed.notify_all()

    def _leads(self) -> bool:
        return stalled.leads(self.config, self.topic)


class Channel:
    """One collector's way into its cluster's partition of `raw`.

    `while_blocked`, when set, is called a few times a second while a sender waits for the broker, from the sender's
    thread: the WAL collector answers its server's keepalives there.
    """

    def __init__(self, publisher: Publisher, generation: _Generation, header: RawHeader) -> None:
        self.header = header
        self.while_blocked: Callable[[], None] | None = None
        self.done = False
        self._publisher = publisher
        self._generation = generation
        self._builder = BatchBuilder(f"pgwitness/{__version__}", msgspec.json.encode(header))
        self._callbacks: list[Delivered] = []
        self._ready: deque[tuple[bytes, int, list[Delivered]]] = deque()
        self._since: float | None = None
        self._produced = 0  # counted by the sender, under the lock
        self._reported = 0  # counted by the publisher's thread alone, so that neither needs the other's lock
        self._lock = threading.RLock()
        self._key = header.cluster.encode()
        self._partition = partition_of(header.cluster, publisher.config.topics.raw_partitions)
        self._events = EVENTS.labels(header.cluster, header.source)
        self._bytes = BYTES.labels(header.cluster, header.source)
        self._waiting = WAITING.labels(header.cluster, header.source)

    def send(self, event: RawEvent | bytes, count: int = 1, delivered: Delivered | None = None) -> None:
        """Send one event that stands for `count`; blocks while the queue is full.

        `delivered` is called from the publisher's thread when the broker has confirmed it, so it must be quick.
        Raise `Retry` or `Stop` when this channel's producer has failed or the publisher is closed.
        """
        data = event if isinstance(event, bytes) else encode_event(event)
        with self._lock:
            self._check()
            before = self._builder.count
            full = self._builder.add(data, count)
            if full is not None:
                self._ready.append((full, before, self._callbacks))
                self._callbacks = []
                self._since = None
            if self._since is None:
                self._since = time.monotonic()
            if delivered is not None:
                self._callbacks.append(delivered)
            if full is None:
                return
            self._produce()
        self._wait(lambda: not self._ready, None)

    def send_all(self, events: Sequence[RawEvent]) -> None:
        """Send events that stand for one each, as `send` does, with one look at everything else."""
        add = self._builder.add
        with self._lock:
            self._check()
            for event in events:
                before = self._builder.count
                full = add(encode_event(event))
                if full is not None:
                    self._ready.append((full, before, self._callbacks))
                    self._callbacks = []
                    self._since = None
            if events and self._since is None:
                self._since = time.monotonic()
            if not self._ready:
                return
            self._produce()
        self._wait(lambda: not self._ready, None)

    def flush(self, timeout_s: float) -> None:
        """Send what waits and return when the broker has confirmed everything; raises `Retry` after `timeout_s`."""
        with self._lock:
            self._check()
            self._cut()
            self._produce()
        if not self._wait(lambda: not self._ready and self._produced == self._reported, timeout_s):
            raise Retry(
                self._publisher.complaint(
                    f"the broker at {self._publisher.config.kafka.bootstrap} did not confirm everything in "
                    f"{timeout_s:.0f} s; check that it runs and can be reached from this host"
                )
            )

    @property
    def undelivered(self) -> int:
        """Batches that the broker has not confirmed."""
        return self._produced - self._reported + len(self._ready)

    @property
    def blocked(self) -> bool:
        """Whether a batch waits because the queue to the broker is full."""
        return bool(self._ready)

    def close(self) -> None:
        """End the channel; what it has sent is still delivered."""
        with self._lock:
            if self._generation.failure is None:
                self._cut()
                self._produce()
            self.done = not self._ready or self._generation.failure is not None
        self._closing = True

    _closing = False

    def pump(self, now: float) -> None:
        """Cut what has waited long enough and hand over what was held back; never blocks on the broker."""
        if self._since is None and not self._ready:
            return
        if not self._lock.acquire(blocking=False):
            return  # its sender is at work and pumps itself
        try:
            if self._generation.failure is not None:
                return
            if self._since is not None and (now - self._since) * 1000 >= LINGER_MS_MAX:
                self._cut()
            self._produce()
            if self._closing and not self._ready:
                self.done = True
        finally:
            self._lock.release()

    def _cut(self) -> None:
        count = self._builder.count
        payload = self._builder.cut()
        if payload is not None:
            self._ready.append((payload, count, self._callbacks))
            self._callbacks = []
        self._since = None

    def _produce(self) -> None:
        while self._ready:
            payload, count, callbacks = self._ready[0]
            try:
                self._generation.producer.produce(
                    self._publisher.topic,
                    payload,
                    self._key,
                    self._partition,
                    on_delivery=self._report(len(payload), count, callbacks),
                )
            except BufferError:
                return
            except KafkaException as error:
                self._generation.fail(error.args[0])
                return
            self._ready.popleft()
            self._produced += 1
            self._waiting.inc()

    def _report(
        self, size: int, count: int, callbacks: list[Delivered]
    ) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, _message: Message) -> None:
            self._reported += 1
            self._generation.reported += 1
            self._waiting.dec()
            if error is not None:
                self._generation.fail(error)
            if self._generation.failure is not None:
                return  # what a failed producer still delivers is sent again: nobody may build on it
            self._events.inc(count)
            self._bytes.inc(size)
            for callback in callbacks:
                callback()

        return report

    def _wait(self, reached: Callable[[], bool], timeout_s: float | None) -> bool:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not reached():
            self._check()
            if deadline is not None and time.monotonic() >= deadline:
                return False
            with self._publisher.changed:
                if not reached():
                    self._publisher.changed.wait(BLOCKED_S)
            if self.while_blocked is not None:
                self.while_blocked()
        self._check()
        return True

    def _check(self) -> None:
        if self._generation.failure is not None:
            self.done = True
            raise self._generation.failure
        if self._publisher.closed:
            raise Retry("the publisher is closed; what was not confirmed is sent again after the restart")


def explain(error: KafkaError) -> PgwitnessError:
    """Say what a delivery failure means for the operator: `Stop` where trying again cannot help."""
    code, text = error.code(), error.str()
    if code in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD):
        return Stop(
            f"the broker refuses a record for what it is ({text}): raise max.message.bytes of the topic raw to 1048588"
        )
    if code in (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART):
        return Retry(f"the topic raw is not there as configured ({text}): run `pgwitness topics apply`")
    if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        return Retry(
            f"the broker does not allow writing to raw ({text}): `pgwitness topics apply --print` lists the ACLs"
        )
    return Retry(f"the broker did not take a record: {text}; check its log; what was not confirmed is sent again")
