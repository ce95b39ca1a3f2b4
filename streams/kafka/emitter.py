"""The worker's way out: attributed events by lane through one idempotent producer, alerts and dead letters by another.

Only what is for ourselves is compressed by what is fastest: alerts and dead letters as any client of Kafka can read.

Events are batched by lane across raw records and cut when a batch is full, or when its oldest event has waited for
`LINGER_S`; for `LATE_LINGER_S` where everything in it was late already (`streams.worker.lag`). Within a lane order
is kept; between lanes there is none. What is read of `raw` does not count as done before `flush` has returned: it cuts
every lane and waits until the broker has everything. What is landed asks only for what was sent (`settle`): an alert,
that is, goes before the evidence for it. Any failed delivery makes both, and the next send, raise `Retry`; the worker
then starts again from its checkpoint, which is why nothing is lost when buffers are thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from pgwitness.core.codec import LINGER_MS_MAX, BatchBuilder
from pgwitness.core.config import Config
from pgwitness.core.errors import Retry, Stop
from pgwitness.core.events import Event, EventHeader, Gap, RawEvent, RawHeader, encode_event
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.topics import OURSELVES, lane_of, partition_of
from streams.aside import REASON, Aside, Problem, Summary, detail
from streams.kafka import letters
from streams.kafka.notes import NOTES
from streams.kafka.shortening import ALERT_BYTES_MAX, shortened

FLUSH_TIMEOUT_S = 30.0
QUEUE_BYTES = 32 * 1024 * 1024
"""Bytes that may be on their way at a time; more blocks the sender."""
RECORD_BYTES_MAX = 4 * 1024 * 1024
"""What the producer takes at most, before compression; the broker has a limit of its own."""
EVENT_BYTES_MAX = RECORD_BYTES_MAX - 64 * 1024
"""An event at most: it stands alone in its batch then, whose head and record must fit too."""
LANES_REMEMBERED = 20_000
LINGER_S = LINGER_MS_MAX / 2000
"""How long an event lingers: half of what a batch may, for lanes are only looked at now and then."""
LATE_LINGER_S = 0.25
"""How long one waits that was read late: many principals fill every lane, and short waits would shred their batches."""

TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)

_encode = msgspec.json.Encoder().encode
Clock = Callable[[], float]


def make_producer(config: Config, record_bytes_max: int = RECORD_BYTES_MAX, *, compression: str = "lz4") -> Producer:
    """Make an idempotent producer: all replicas acknowledge, order is kept over retries."""
    return Producer(
        config.kafka.client()
        | {
            "enable.idempotence": "true",
            "acks": "all",
            "compression.type": compression,
            "linger.ms": "5",
            "message.max.bytes": str(record_bytes_max),
            "queue.buffering.max.kbytes": str(max(QUEUE_BYTES, record_bytes_max) // 1024),
            "delivery.timeout.ms": "60000",
            "log_level": "2",
            "logger": LIBRDKAFKA,
        }
    )


class Emitter:
    """Sends what the stages make. Not for several threads."""

    def __init__(
        self,
        config: Config,
        producer: Producer,
        name: str,
        clock: Clock = time.monotonic,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        readable: Producer | None = None,
    ) -> None:
        """`readable` takes what others read: alerts and dead letters."""
        self._producer = producer
        self._readable = readable or producer
        self._clock = clock
        self.wall_us = wall_us
        self._raw_partitions = config.topics.raw_partitions
        self._topic = config.kafka.topic("events")
        self._alerts = config.kafka.topic("alerts")
        self._dead_letters = config.kafka.topic("dead-letters")
        self._raw = config.kafka.topic("raw")
        self._lanes = config.topics.lanes
        self._partitions = config.topics.event_partitions
        self._name = name
        self._builders: dict[int, BatchBuilder] = {}
        self._due: dict[int, float] = {}
        self._remembered: dict[tuple[str | None, str, str | None], int] = {}
        self._error: str | None = None
        self._again: list[letters.Letter] = []
        self._unsent: list[tuple[int, Problem]] = []
        self._aside = Aside()

    def events(self, events: list[Event], *, late: bool = False) -> list[Problem]:
        """Put events into their lanes' batches; full batches leave at once. Raise `Retry` after a failed delivery.

        `late`: they come from a partition that is behind, and may wait longer. Others in the same lane do not.
        Returns which events could not be sent, and why: numbers that no JSON reader takes, or more than a record holds.
        """
        self._check()
        refused: list[Problem] = []
        remembered, due, builders = self._remembered, self._due, self._builders
        until = self._clock() + (LATE_LINGER_S if late else LINGER_S)
        for event in events:
            try:
                encoded = encode_event(event)
            except Exception as error:
                refused.append(_refusal(event, "nonsense", f"cannot be encoded: {type(error).__name__}"))
                continue
            if len(encoded) > EVENT_BYTES_MAX:
                refused.append(_refusal(event, "too_large", f"has {len(encoded)} bytes; {EVENT_BYTES_MAX} at most"))
                continue
            who = (event.principal or claimed(event), event.cluster, event.role)
            lane = remembered.get(who)
            if lane is None:
                if len(remembered) >= LANES_REMEMBERED:
                    remembered.clear()
                lane = remembered[who] = lane_of(*who, self._lanes)
            builder = builders.get(lane)
            if builder is None:
                builder = builders[lane] = BatchBuilder(self._name, encode_event(EventHeader(lane)))
            payload = builder.add(encoded, event.n_rows or 1)
            if payload is not None:
                due[lane] = until
                self._send_lane(lane, payload)
            elif lane not in due or until < due[lane]:
                due[lane] = until
        return refused

    def linger(self) -> None:
        """Cut the batches that have waited long enough, and let deliveries be reported."""
        if self._due:
            now = self._clock()
            for lane in [lane for lane, due in self._due.items() if due <= now]:
                self._cut(lane)
        self._producer.poll(0)
        self._readable.poll(0)
        self._send_again()
        self._check()

    def alert(self, uid: str, ocsf: dict[str, Any], delivered: Callable[[], None]) -> None:
        """Send one alert at once; `delivered` is called when the broker has it. One that is too long is cut."""

        def report(error: KafkaError | None, _: object) -> None:
            self._delivered(error, _)
            if error is None:
                delivered()

        value = _encode(ocsf)
        if len(value) > ALERT_BYTES_MAX:
            value = _encode(shortened(ocsf))
        self._send(self._alerts, value, uid.encode(), 0, on_delivery=report)

    def dead_letter(
        self, stage: str, reason: str, source: tuple[str, int, int], key: bytes | None, value: bytes | None
    ) -> None:
        """Put a record that cannot be read, as it came, where a person finds it; `source`: topic, partition, offset.

        What is too large for that topic is kept by reference (`streams.kafka.letters`).
        """
        letter = letters.make(stage, reason, source, key, value)

        def report(error: KafkaError | None, _: object) -> None:
            if error is not None and error.code() in TOO_LARGE:  # the topic takes less than it was made for
                self._again.append(letters.by_reference(letter))
            else:
                self._delivered(error, _)

        if letters.fits(letter):
            self._send_letter(letter, report)
        else:
            self._send_letter(letters.by_reference(letter))

    def _send_letter(
        self, letter: letters.Letter, report: Callable[[KafkaError | None, object], None] | None = None
    ) -> None:
        self._send(self._dead_letters, letter.value, letter.key, 0, headers=letter.headers, on_delivery=report)

    def _send_again(self) -> bool:
        """Send the letters that a delivery report asked for, and emit their gaps; return whether there were any."""
        again, self._again = self._again, []
        unsent, self._unsent = self._unsent, []
        for letter in again:
            self._send_letter(letter)
        for partition, problem in unsent:
            self.gap(self._aside, problem, "attribute", (self._topic, partition, letters.NOWHERE))
        return bool(again)

    def raw(self, partition: int, key: bytes, value: bytes) -> None:
        """Write a record of the worker's own into raw (changed identities)."""
        self._send(self._raw, value, key, partition)

    def gap(self, aside: Aside, problem: Problem, stage: str, source: tuple[str, int, int]) -> None:
        """Write into raw, within the bounds of `aside`, that a record or event was set aside behind attribution."""
        topic, partition, offset = source
        self._gaps(aside.add(problem, offset, self.wall_us()), stage, topic, partition)

    def rest(self, aside: Aside, stage: str, topic: str, partition: int, *, now: bool) -> None:
        """Tell what is left of a flood: once its minute is over, or, if `now`, before it is forgotten."""
        self._gaps(aside.rest() if now else aside.due(self.wall_us()), stage, topic, partition)

    def _gaps(self, reported: list[tuple[Problem, Summary]], stage: str, topic: str, partition: int) -> None:
        now_us = self.wall_us()
        for about, summary in reported:
            gap = Gap(
                captured_at_us=now_us,
                reason=REASON,
                database=about.database,
                detail=detail(about, summary, stage, topic, partition),
            )
            self.own(about.cluster or OURSELVES, gap)

    def lost(self, reason: str, detail: dict[str, object], clusters: Iterable[str] = ()) -> None:
        """Tell of evidence that a topic or the worker's own state has lost, to the clusters it may be of and to all."""
        for cluster in sorted({OURSELVES, *clusters}):
            gap = Gap(captured_at_us=self.wall_us(), reason=reason, detail={"reason": reason} | detail)
            self.own(cluster, gap)

    def own(self, cluster: str, event: RawEvent) -> None:
        """Write an event of the worker's own into raw, where those of a cluster stand."""
        header = RawHeader(cluster=cluster, source="worker")
        builder = BatchBuilder(self._name, encode_event(header))
        builder.add(encode_event(event))
        payload = builder.cut()
        assert payload is not None
        self._send(self._raw, payload, cluster.encode(), partition_of(cluster, self._raw_partitions))

    def note(self, partition: int, event: Event) -> None:
        """Write a note of the worker's own into one partition of events (`streams.kafka.notes`)."""
        builder = BatchBuilder(self._name, encode_event(EventHeader(NOTES)))
        builder.add(encode_event(event))
        payload = builder.cut()
        assert payload is not None
        self._send(self._topic, payload, str(NOTES).encode(), partition)

    def flush(self) -> None:
        """Send everything and wait until it is durable. Raise `Retry` when it is not."""
        for lane in list(self._due):
            self._cut(lane)
        self.settle()

    def settle(self) -> None:
        """Wait until what was sent is durable, alerts above all; lanes go on filling. Raise `Retry` like `flush`."""
        left = self._flush()
        while self._send_again():
            left = self._flush()
        self._check()
        if left:
            raise Retry(f"the broker did not take {left} records within {FLUSH_TIMEOUT_S:.0f} s; starting again")

    def _flush(self) -> int:
        """Return the number of records that were not taken in time."""
        return self._readable.flush(FLUSH_TIMEOUT_S) + self._producer.flush(FLUSH_TIMEOUT_S)

    def _cut(self, lane: int) -> None:
        del self._due[lane]
        payload = self._builders[lane].cut()
        if payload is not None:
            self._send_lane(lane, payload)

    def _send_lane(self, lane: int, payload: bytes) -> None:
        key, partition = str(lane).encode(), partition_of(lane, self._partitions)

        def report(error: KafkaError | None, _: object) -> None:
            if error is None or error.code() not in TOO_LARGE:
                self._delivered(error, _)
                return
            source = (self._topic, partition, letters.NOWHERE)
            letter = letters.make("attribute", "too_large", source, key, payload)
            self._again.append(letter if letters.fits(letter) else letters.by_reference(letter))
            why = f"a batch of {len(payload)} bytes for lane {lane} is more than the broker takes"
            self._unsent.append((partition, Problem("too_large", why)))

        self._send(self._topic, payload, key, partition, on_delivery=report)

    def _send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: list[tuple[str, str | bytes | None]] | None = None,
        on_delivery: Callable[[KafkaError | None, object], None] | None = None,
    ) -> None:
        deadline = self._clock() + FLUSH_TIMEOUT_S
        producer = self._readable if topic in (self._alerts, self._dead_letters) else self._producer
        while True:
            self._check()
            try:
                producer.produce(
                    topic, value, key, partition, on_delivery=on_delivery or self._delivered, headers=headers or []
                )
            except BufferError:
                if self._clock() > deadline:
                    raise Retry("the broker takes nothing any more; starting again") from None
                producer.poll(0.1)
            except KafkaException as error:
                if error.args[0].code() not in TOO_LARGE:  # a topic that is gone may come back
                    raise Retry(f"a record cannot be sent to {topic}: {error}; starting again") from error
                raise Stop(f"a record cannot be sent to {topic}: {error}; check the topic's limits") from error
            else:
                return

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None and self._error is None:
            self._error = error.str()

    def _check(self) -> None:
        if self._error is not None:
            raise Retry(f"a record was not delivered: {self._error}; the worker starts again from its checkpoint")


def _refusal(event: Event, cause: str, why: str) -> Problem:
    return Problem(cause, f"event {event.event_id} {why}", cluster=event.cluster, database=event.database)


def claimed(event: Event) -> str | None:
    """Return whose lane a refused login goes to: that of whom it claimed to be, where one that succeeds goes."""
    said = event.detail.get("claimed") if event.operation == "login_failed" else None
    name = said.get("principal") if isinstance(said, dict) else None
    return name if isinstance(name, str) else None
