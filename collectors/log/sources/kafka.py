"""The log from a Kafka topic that a shipper fills: reads every partition, and keeps where it stands in a state file.

Without a consumer group: positions are the collector's own, written after the broker has confirmed what came before,
so that a restart goes on within the very message; what it sends again has the place it had, and the fold drops it.
Records that the topic has lost before they were read, and a topic that was made anew, are gaps.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from msgspec import Struct
from prometheus_client import Counter, Gauge

from collectors.context import Context
from collectors.log.formats.record import Unreadable
from collectors.log.interpretation.interpret import Memory
from collectors.log.reading import DELIVERY_S_MAX, STORE_S, Reading, Stream
from collectors.log.sources.files import STATE_FAILURES, store
from collectors.log.sources.shipped import PartitionState, Places, Position, Replay, Unwrapper
from collectors.log.sources.topic import Topic, explain
from collectors.publisher import Channel
from collectors.statefile import StateFile
from pgwitness.core.config import Log
from pgwitness.core.errors import Retry
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.topics import LOG_READER

IDLE_S = 10.0
"""After how long at the end of a partition a message is whole: a shipper may flush between its lines."""
SOURCES_MAX = 256
"""Sources of a partition that are followed at the same time; the one that was silent for longest goes first."""
WAITING_BYTES_MAX = 64 * 1024 * 1024
RECORDS_MAX = 1_000
GATHERED_BYTES_MAX = 256 * 1024
"""What of one source is gathered at most before it is used."""
LOOK_S = 30.0
"""How often new partitions are looked for."""

FOREIGN = Counter(
    "pgwitness_log_foreign_records", "Records of the log's topic that are of no instance of the cluster.", ["cluster"]
)
UNREAD = Gauge(
    "pgwitness_log_unread_records", "Records of the log's topic that are not read yet.", ["cluster", "partition"]
)

log = structlog.get_logger("log")


class State(Struct):
    """What is kept over a restart. `generation` counts how often the topic began anew."""

    generation: int = 0
    partitions: list[PartitionState] = []
    memory: dict[str, Memory] = {}


class _Source:
    def __init__(self, partition: _Partition, name: str, stream: Stream, places: Places, reading: Reading) -> None:
        self.partition = partition
        self.name = name
        self.stream = stream
        self.places = places
        self.reading = reading
        self.gathered: list[bytes] = []
        self.gathered_bytes = 0

    def gather(self, offset: int, skip: int, data: bytes) -> None:
        """Take in what of a record comes behind `skip` bytes of it."""
        length = len(data) + 1
        self.places.feed(offset, skip, length)
        self.gathered.append(data)
        self.gathered_bytes += length

    def use(self) -> None:
        """Read what was gathered, as one block of lines."""
        gathered = self.gathered
        self.gathered, self.gathered_bytes = [], 0
        gathered.append(b"")  # each ends its line
        self.stream.take(b"\n".join(gathered))


class _Partition:
    def __init__(self, number: int, state: PartitionState) -> None:
        self.number = number
        self.next = state.resume
        self.replay = Replay(state)
        self.sources: OrderedDict[str, _Source] = OrderedDict()
        self.at_end = False

    @property
    def replaying(self) -> bool:
        return self.next < self.replay.until


class KafkaCollector:
    """Reads the topic of one cluster's log; `channel_of` opens a way into `raw` for a further instance."""

    def begin(self) -> None:
        """Nothing to decide: where a partition begins is asked for when it is taken."""

    @property
    def readings(self) -> Iterable[Reading]:
        """All that is read, of one instance each."""
        return self._readings.values()

    def __init__(self, context: Context, settings: Log, channel: Channel, channel_of: Callable[[str], Channel]) -> None:
        self._context = context
        self._settings = settings
        self._channel_of = channel_of
        self._unwrap = Unwrapper(settings)
        self._instance = str(channel.header.instance)
        self._instances = settings.instances
        self.reading = Reading(context, settings, channel)
        self._readings = {self._instance: self.reading}
        self._channels = {self._instance: channel}
        self._last: dict[str, _Source] = {}
        self._gathering: dict[Reading, _Source] = {}
        """What is read as one block: an instance's records of one source, as long as none of another comes between."""
        self._torn = False
        """Whether records were read that may not have been used: then nothing is remembered of how far it came."""
        self._foreign = FOREIGN.labels(context.name)
        self._failures = STATE_FAILURES.labels(*self.reading.labels)
        self._file = StateFile(
            context.config.collectors.state_path, f"log-{context.name}-kafka-{settings.topic}", State
        )
        stored = self._file.load()
        self._first = stored is None
        self._state = stored or State()
        self._partitions: dict[int, _Partition] = {}
        self._broker: str | None = None
        self._unstored: str | None = None
        for instance, memory in self._state.memory.items():
            self._reading(instance).interpreter.remember(memory)
        if self._file.problem is not None:
            self.reading.gap("collector_state_lost", {"problem": self._file.problem})
        self._consumer = Consumer(
            {
                "group.id": context.config.kafka.topic(LOG_READER),
                "client.id": "pgwitness-collect",
                **context.config.kafka.client(),
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "error_cb": self._on_error,
                "logger": LIBRDKAFKA,
            }
        )
        self._topic = Topic(self._consumer, settings.topic)
        self._stored_at = self._looked_at = time.monotonic()
        self._active_at = time.monotonic()
        self._dirty = self._released = False
        try:
            self._assign()
        except BaseException:
            self._consumer.close()
            raise

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read at the moment, and what to do."""
        return self._broker or self._unstored

    # -- where to begin ----------------------------------------------------------------------------------------

    def _assign(self) -> None:
        topic = self._settings.topic
        numbers = self._topic.numbers()
        known = {state.partition: state for state in self._state.partitions}
        ends = {number: self._topic.ends(number) for number in numbers}
        if any(self._topic.began_anew(known[number], ends[number][1]) for number in numbers if number in known):
            was = {str(number): known[number].next for number in numbers if number in known}
            self.reading.gap("log_truncated", {"topic": topic, "offset": was})
            self._state.generation += 1
            known = {number: PartitionState(number, 0) for number in known}
        for number in numbers:
            low, high = ends[number]
            state = known.get(number)
            if state is None:
                # Repeats after a lost state have the places they had.
                skip = self._first and self._file.problem is None and self._settings.start == "end"
                state = PartitionState(number, high if skip else low)
            elif state.resume < low:
                if self._state.generation == 0 or state.resume > 0:
                    where = {"topic": topic, "partition": number}
                    self.reading.gap("log_rotated_away", {**where, "offset": state.resume, "until": low})
                state = PartitionState(number, max(state.next, low))
            self._partitions[number] = _Partition(number, state)
        self._consumer.assign([TopicPartition(topic, p.number, p.next) for p in self._partitions.values()])
        if self._first:
            self._store()

    def _look(self) -> None:
        """Take up partitions that were added; they are read from their beginning."""
        self._looked_at = time.monotonic()
        for number in self._topic.numbers():
            if number not in self._partitions:
                self._partitions[number] = _Partition(number, PartitionState(number, 0))
                self._consumer.incremental_assign([TopicPartition(self._settings.topic, number, OFFSET_BEGINNING)])

    # -- reading -----------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Read what there is, for at most the configured interval; false when that was nothing."""
        messages = self._consumer.consume(RECORDS_MAX, self._settings.interval)
        busy = False
        self._torn = True
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_error(error, message)
            else:
                busy = True
                self._take(message)
        for source in list(self._gathering.values()):
            self._use(source)
        self._torn = False
        now = time.monotonic()
        if busy:
            self._active_at, self._dirty, self._released, self._broker = now, True, False, None
        self._idle(now)
        for reading in self._readings.values():
            reading.tell()
        if now - self._stored_at >= STORE_S:
            self._unread()
            if self._dirty and not any(partition.replaying for partition in self._partitions.values()):
                self._store()
        if now - self._looked_at >= LOOK_S:
            self._look()
        return busy

    def _take(self, message: Message) -> None:
        number, offset, value, key = message.partition(), message.offset(), message.value(), message.key()
        assert number is not None
        assert offset is not None
        partition = self._partitions[number]
        partition.at_end = False
        if value is not None:
            assert isinstance(value, bytes)  # nothing is set that would make anything else of it
            assert key is None or isinstance(key, bytes)
            self._record(partition, offset, value, key)
        partition.next = offset + 1

    def _use(self, source: _Source) -> None:
        """Read what was gathered of a source, before its instance reads anything else: so their order holds."""
        del self._gathering[source.reading]
        source.use()
        self._last[source.reading.labels[1]] = source
        if source.stream.splitter.waiting > WAITING_BYTES_MAX:
            self._end(source.partition, source.name)

    def _record(self, partition: _Partition, offset: int, value: bytes, key: bytes | None) -> None:
        replay = partition.replay
        try:
            shipped = self._unwrap.read(value, key)
        except Unreadable as error:
            if (before := self._gathering.get(self.reading)) is not None:
                self._use(before)
            if offset >= replay.until:
                self.reading.refuse(self._log(partition, ""), offset, value, str(error))
            return
        skip, data = 0, shipped.data
        if offset < replay.until:
            rest = replay.rest(offset, shipped)
            if rest is None:
                return
            skip, data = rest
        reading = self._whose(shipped.host) if self._instances else self.reading
        if reading is None:
            self._foreign.inc()
            return
        source = self._gathering.get(reading)
        if source is None or source.name != shipped.source or source.partition is not partition:
            if source is not None:
                self._use(source)
            source = self._gathering[reading] = self._source(partition, shipped.source, reading)
        source.gather(offset, skip, data)
        if source.gathered_bytes >= GATHERED_BYTES_MAX:
            self._use(source)

    def _whose(self, host: str | None) -> Reading | None:
        instance = self._instances.get(host) if host is not None else None
        return self._reading(instance) if instance is not None else None

    def _reading(self, instance: str) -> Reading:
        reading = self._readings.get(instance)
        if reading is None:
            channel = self._channels[instance] = self._channel_of(instance)
            reading = self._readings[instance] = Reading(self._context, self._settings, channel)
        return reading

    def _source(self, partition: _Partition, name: str, reading: Reading) -> _Source:
        source = partition.sources.get(name)
        if source is None:
            while len(partition.sources) >= SOURCES_MAX:
                self._end(partition, next(iter(partition.sources)))
            place = self._log(partition, name)
            places = Places(partition.replay.start(name))
            stream = reading.stream(place, 0, places)
            source = partition.sources[name] = _Source(partition, name, stream, places, reading)
        partition.sources.move_to_end(name)
        return source

    def _log(self, partition: _Partition, source: str) -> str:
        """Name what the shipper's file is in this topic, for ever: a topic made anew counts its records anew."""
        generation = f"~{self._state.generation}" if self._state.generation else ""
        return f"{self._settings.topic}{generation}/{partition.number}/{source}"

    def _end(self, partition: _Partition, name: str) -> None:
        """Return a source up; what is left of a message in it is told of."""
        source = partition.sources.pop(name)
        if self._gathering.get(source.reading) is source:
            del self._gathering[source.reading]
            source.use()
        source.stream.idle()
        if source.stream.splitter.waiting:
            waiting = source.stream.splitter.waiting
            source.reading.gap("log_half_record", {"log": source.stream.name, "bytes": waiting})

    def _idle(self, now: float) -> None:
        """Take as whole what nothing has followed, where the end of the partition has been reached."""
        for partition in self._partitions.values():
            if not partition.at_end or partition.replaying:
                continue
            for source in partition.sources.values():
                if source.stream.splitter.waiting and now - source.stream.touched >= IDLE_S:
                    source.stream.idle()
                    self._dirty = True
        if self._released or now - self._active_at < IDLE_S:
            return
        self._released = self._dirty = True
        for instance, source in self._last.items():
            self._readings[instance].idle(source.stream)

    # -- remembering -------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Remember how far it came, if the broker still takes what led to it."""
        try:
            if not self._torn and not any(partition.replaying for partition in self._partitions.values()):
                self._store()
        except Retry as error:
            log.warning("the last lines are read again after the restart", reason=str(error))
        finally:
            self._consumer.close()
            for instance, channel in self._channels.items():
                if instance != self._instance:
                    channel.close()

    def _store(self) -> None:
        for channel in self._channels.values():
            channel.flush(DELIVERY_S_MAX)
        state = self._state
        state.partitions = [
            PartitionState(partition.number, partition.next, _open(partition))
            for partition in self._partitions.values()
        ]
        state.memory = {name: reading.interpreter.memory for name, reading in self._readings.items()}
        self._stored_at = time.monotonic()
        if self._first:
            # As for files: nothing has been seen yet that could be lost by ending here.
            self._file.store(state)
            self._first = False
        else:
            self._unstored = store(self._file, state, self._failures, self._unstored)
        self._dirty = self._unstored is not None

    def _unread(self) -> None:
        for partition in self._partitions.values():
            where = TopicPartition(self._settings.topic, partition.number)
            found = self._consumer.get_watermark_offsets(where, cached=True)
            if found is not None and found[1] >= 0:
                unread = max(0, found[1] - partition.next)
                UNREAD.labels(self._context.name, str(partition.number)).set(unread)

    def _on_error(self, error: KafkaError | None, message: Message | None = None) -> None:
        if error is None:
            return
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if message is not None and (number := message.partition()) is not None:
                self._partitions[number].at_end = True
                self._broker = None
        elif code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE):
            self._broker = f"the broker of the log's topic cannot be reached ({error.str()}); check that it runs"
        elif message is not None:
            raise explain(self._settings.topic, error)
        else:
            log.warning("kafka", error=error.str())


def _open(partition: _Partition) -> list[Position]:
    """Return the positions of the sources that stand within a message, in an order of their own."""
    found = [
        source.places.position(name, source.stream.offset)
        for name, source in partition.sources.items()
        if source.stream.splitter.waiting
    ]
    return sorted(found, key=lambda position: (position.offset, position.source))
