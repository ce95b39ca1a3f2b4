"""What one worker does with the partitions it owns: records in, commits when they are due; knows nothing of Faust.

`assign` loads state and says where each partition is read from, `record` takes what was read, `tick` does what is
due by the clock, `revoke` finishes what is whole and forgets. The order that makes a crash harmless stands here: wait
until what was sent is durable, then commit the lake, then write checkpoints, then acknowledge. Only the fold's
checkpoint says that what was read of `raw` is done, so only it sends what still waits in lanes. One thread at a time.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog
from msgspec.structs import replace

from pgwitness.core.config import Config
from pgwitness.core.contracts.evidence_writer import EvidenceStore
from pgwitness.core.errors import NewerSchema, PgwitnessError, Retry
from pgwitness.core.topics import OURSELVES, READABLE, partition_of
from streams import metrics
from streams.aside import unexpected
from streams.identity.file import IdentityFile, Trouble, mended, record, refused
from streams.kafka.approvals import Approvals
from streams.kafka.checkpoints import Store
from streams.kafka.emitter import Emitter, make_producer
from streams.kafka.ends import Ends
from streams.kafka.notes import APPROVALS, FEEDBACK, Feedback, SuppressionFile, suppressions
from streams.kafka.origins import Found, find
from streams.kafka.reading import BrokerReader
from streams.worker import clocks
from streams.worker.attribute import RawPartition, Start
from streams.worker.landing import EventPartition
from streams.worker.pacing import Pace
from streams.worker.policy_file import PolicyFile, difference
from streams.worker.policy_file import record as policy_record
from streams.worker.protocols import JudgeMaker
from streams.worker.sanity import AHEAD_US_MAX, Sanity

log = structlog.get_logger("worker")

Partition = tuple[str, int]
"""A topic's full name and the number of one of its partitions."""

IDENTITIES_POLL_S = 1.0
MEASURE_S = 1.0
SKIPS_POLL_S = 2.0
NEVER_US = 1 << 62
FEEDBACK_LEAP = 1_000_000
"""Positions left free where `feedback` was made anew: more verdicts than one partition is ahead of another."""
BUFFERED_BYTES_MAX = 48 * 1024 * 1024
"""Bytes that wait to be landed, of all partitions together."""


@dataclass
class _Due:
    """When the next periodic work is to be done, by the monotonic clock."""

    identities: float
    measure: float
    skips: float


class Stages:
    """The state of one worker. `acknowledge` (from `take_acknowledged`) is for lag monitors only: no resume uses it."""

    def __init__(
        self,
        config: Config,
        lake: EvidenceStore,
        make_judge: JudgeMaker,
        identity_file: IdentityFile,
        suppression_file: SuppressionFile,
        policy_file: PolicyFile | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        partitions: Mapping[str, int] | None = None,
    ) -> None:
        self._config = config
        self._lake = lake
        self._make_judge = make_judge
        self._identity_file = identity_file
        self._policy_file = policy_file
        self._clock = clock
        self._wall_us = wall_us
        self._suppression_file = suppression_file
        self._feedback: Feedback | None = None
        self._approvals: Approvals | None = None
        self._name = f"worker@{socket.gethostname()}:{os.getpid()}"
        self._raw_topic = config.kafka.topic("raw")
        self._events_topic = config.kafka.topic("events")
        self._producer = make_producer(config)
        self.emitter = Emitter(
            config, self._producer, self._name, clock, readable=make_producer(config, compression=READABLE)
        )
        writer = f"{self._name}:{time.time_ns()}"
        self._partitions = partitions or {}
        fold_topic, judge_topic = config.kafka.topic("state-fold"), config.kafka.topic("state-judge")
        raw_partitions, event_partitions = config.topics.raw_partitions, config.topics.event_partitions
        self._fold_store = Store(fold_topic, self._producer, writer, self._count(fold_topic, raw_partitions))
        self._judge_store = Store(judge_topic, self._producer, writer, self._count(judge_topic, event_partitions))
        self._ends = Ends(
            (self._raw_topic, config.kafka.topic("feedback"), config.kafka.topic("approvals")),
            self._fold_store,
            lambda: BrokerReader(config.kafka),
            self._read_to,
            clock,
        )
        self._sanity = Sanity(
            config.topics.lanes, lambda: self._count(self._raw_topic, raw_partitions), self._ends.holds
        )
        self._failed: dict[Partition, str] = {}
        self._raw: dict[int, RawPartition] = {}
        self._events: dict[int, EventPartition] = {}
        self._told: dict[int, str] = {}
        self._trouble: tuple[Trouble | None, Trouble | None] = (None, None)
        self._paused: dict[Partition, int] = {}
        """Partitions that wait for a newer program, with the offset of the record they wait at."""
        self._acknowledged: dict[Partition, int] = {}
        self._abandoned = False
        self._latest_us = 0
        """The latest that this host's clock has said in this run."""
        self.topic_ids: dict[str, str] = {}
        """The ids of the topics that are read, as the broker told them when partitions were assigned."""
        now = clock()
        self._pace = Pace(config.worker.checkpoint_interval)
        self._due = _Due(now, now, now)

    @property
    def topics(self) -> tuple[str, str]:
        """The full names of `raw` and `events`."""
        return self._raw_topic, self._events_topic

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Load the state of the partitions that are owned from now on; all others are forgotten."""
        self._forget()
        if self._abandoned:
            return
        broker = BrokerReader(self._config.kafka)
        try:
            self._doubt_clock(broker)
            for partition in sorted(partitions):
                self._load(partition, broker)
            self.topic_ids = broker.ids([*self.topics])
            if self._events:
                self._begin_feedback(broker)
                self._begin_approvals(broker)
        finally:
            broker.close()
        for number, raw in self._raw.items():
            self._told[number] = raw.fold.identities.sha256
        self._pace.begin(self.positions(), self._clock())
        log.info("partitions_assigned", raw=sorted(self._raw), events=sorted(self._events))

    def _doubt_clock(self, broker: BrokerReader) -> None:
        """Raise `Retry` where this host's clock is days behind; the topic is only asked when the lake says so."""
        raw_partitions = self._count(self._raw_topic, self._config.topics.raw_partitions)
        landed = [found[1] for number in range(raw_partitions) if (found := self._reached(number)) is not None]
        now_us = self._latest_us = self._wall_us()
        if clocks.behind(now_us, max(landed, default=None), NEVER_US) is None:
            return
        written = [broker.newest_us(self._raw_topic, number) for number in range(raw_partitions)]
        why = clocks.behind(now_us, max(landed), max((at for at in written if at is not None), default=None))
        if why is not None:
            raise Retry(why)

    def _watch_clock(self) -> None:
        """Begin this run anew where the clock jumps back by days while it works: it may be wrong now, or was before."""
        now_us = self._wall_us()
        if now_us + AHEAD_US_MAX < self._latest_us:
            raise Retry(
                "the clock of this host was put back by more than a day; the worker looks whether it can be right"
            )
        self._latest_us = max(self._latest_us, now_us)

    def _load(self, partition: Partition, broker: BrokerReader) -> None:
        """Load a partition's state. Where that cannot be, it is set aside with its reason, and the others go on."""
        topic, number = partition
        try:
            if topic == self._raw_topic:
                grace_us = int(self._config.worker.grace * 1_000_000)
                start = Start(self._identity_file.last, grace_us, self._reached)
                self._raw[number] = RawPartition.load(topic, number, broker, self._fold_store, self.emitter, start)
            elif topic == self._events_topic:
                rest = (self._make_judge, self._lake, self._sanity)
                self._events[number] = EventPartition.load(partition, broker, self._judge_store, self.emitter, rest)
        except PgwitnessError:
            raise
        except Exception as error:
            self._failed[partition] = f"its state cannot be loaded: {unexpected(error)}"
            metrics.PAUSED.labels(topic, str(number)).set(1)
            log.exception("partition_set_aside", topic=topic, partition=number)

    def _begin_feedback(self, broker: BrokerReader) -> None:
        """Read verdicts on from where all partitions have them; what `feedback` lost is told before that is noted."""
        told = min(part.feedback_told for part in self._events.values())
        found = self._found(broker, "feedback", FEEDBACK, told)
        self._feedback = Feedback(self._config, self._wall_us)
        self._feedback.start(found.start, found.origin.base)

    def _begin_approvals(self, broker: BrokerReader) -> None:
        """Read requests and what was decided on them: whoever has the first partition writes the notes of it."""
        first = self._events.get(0)
        if first is not None:
            found = self._found(broker, "approvals", APPROVALS, first.approvals_told)
            self._approvals = Approvals(self._config, self._wall_us)
            self._approvals.start(found.start, found.origin.base)

    def _found(self, broker: BrokerReader, name: str, number: int, told: int) -> Found:
        """Return where to read a topic of one partition on; what it lost is told before that is noted."""
        topic = self._config.kafka.topic(name)
        known = self._fold_store.look(broker.reader, number).origin
        expected = told - (known.base if known else 0)
        found = find(known, told, broker.extent(topic, 0, expected))
        if found.lost is not None:
            # Partitions of others may have taken more than ours: what comes must be new to them, too.
            found = replace(found, origin=replace(found.origin, base=found.origin.base + FEEDBACK_LEAP))
            log.error("topic_lost", how=found.lost, topic=topic, told=expected)
            self.emitter.lost(f"{name}_{found.lost}", {"topic": topic, "taken_to": expected, "resumes": found.start})
            self.emitter.settle()
        if found.origin != known:
            self._fold_store.save_origin(number, found.origin)
        return found

    def _reached(self, partition: int) -> tuple[int, int] | None:
        return self._lake.reached(self._events_topic, partition)

    def _read_to(self, partition: int) -> int | None:
        raw = self._raw.get(partition)
        return raw.base + raw.position if raw is not None else None

    def _count(self, topic: str, planned: int) -> int:
        return self._partitions.get(topic, planned)

    @property
    def trouble(self) -> str | None:
        """Why not everything is worked on, None when it is."""
        found = [(self._raw_topic, number, raw.trouble) for number, raw in self._raw.items() if raw.trouble]
        found += [(topic, number, why) for (topic, number), why in self._failed.items()]
        said = [f"{topic}, partition {number}: {why}" for topic, number, why in sorted(found)]
        return "; ".join(said) or None

    def positions(self) -> dict[Partition, int]:
        """Give where each owned partition is to be read from."""
        raw = {(self._raw_topic, number): partition.position for number, partition in self._raw.items()}
        return raw | {(self._events_topic, number): partition.position for number, partition in self._events.items()}

    def record(
        self,
        partition: Partition,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        written_us: int | None = None,
    ) -> bool:
        """Process one record, written at `written_us`. False when its partition waits: read no more of it."""
        if partition in self._paused:
            return False
        try:
            if partition[0] == self._raw_topic:
                raw = self._raw.get(partition[1])
                if raw is not None:
                    raw.record(offset, key, value, written_us)
            else:
                events = self._events.get(partition[1])
                if events is not None:
                    events.record(offset, key, value, self._clock())
                    if self._is_full():
                        self._land()
                        self._follow()
        except NewerSchema as error:
            self._pause(partition, offset, error)
            return False
        return True

    def _pause(self, partition: Partition, offset: int, error: NewerSchema) -> None:
        topic, number = partition
        self._paused[partition] = offset
        self._failed[partition] = f"waits at {offset}: {error}"
        metrics.PAUSED.labels(topic, str(number)).set(1)
        name = "raw" if topic == self._raw_topic else "events"
        command = f"pgwitness dead-letters skip {name} {number} {offset} --why TEXT"
        log.error(
            "partition_paused", topic=topic, partition=number, offset=offset, error=str(error), to_pass_it=command
        )

    def _look_for_skips(self) -> None:
        """See whether somebody has ordered to pass a record that a partition waits at; raises `Retry`, to read on."""
        broker = BrokerReader(self._config.kafka)
        try:
            for (topic, number), offset in self._paused.items():
                store = self._fold_store if topic == self._raw_topic else self._judge_store
                if offset in store.look(broker.reader, number).skips:
                    raise Retry(f"{topic}, partition {number}: the record at {offset} is to be passed; reading on")
        finally:
            broker.close()

    def look(self, end_of: Callable[[Partition], int | None]) -> None:
        """Look how far behind reading is; `end_of` says where a partition ends, None where that is not known."""
        now = self._clock()
        for number, raw in self._raw.items():
            end = end_of((self._raw_topic, number))
            if end is not None:
                raw.lag.look(raw.position, end, now)

    def tick(self) -> None:
        """Do what is due: old batches, the lake, checkpoints, changed identities. Raises `Retry` like `record`."""
        self.emitter.linger()
        now = self._clock()
        interval = float(self._config.lake.flush_interval)
        if any(part.due(now, interval) for part in self._events.values()):
            self._land()
            self._follow()
        elif (partition := self._pace.due(now, self._settled)) is not None:
            self._checkpoint_timed(partition)
        if now >= self._due.identities:
            self._due.identities = now + IDENTITIES_POLL_S
            self._identities()
            self._policies()
            self._notes()
        if self._paused and now >= self._due.skips:
            self._due.skips = now + SKIPS_POLL_S
            self._look_for_skips()
        if now >= self._due.measure:
            self._due.measure = now + MEASURE_S
            self._watch_clock()
            for raw in self._raw.values():
                raw.measure()

    def revoke(self) -> None:
        """Finish what is whole and give up every partition; what cannot be finished will be done again."""
        try:
            for number in self._raw:
                self._checkpoint((self._raw_topic, number))
            for part in self._events.values():
                part.tell_rest(now=True)
            self._land()
            for number in self._events:
                self._checkpoint((self._events_topic, number))
        finally:
            self._forget()

    def close(self) -> None:
        """End: like `revoke`."""
        self.revoke()
        self._producer.flush(5)

    def abandon(self) -> None:
        """Forget everything at once and take nothing more: what was not durable is done again by the next run."""
        self._abandoned = True
        self._forget()

    def take_acknowledged(self) -> dict[Partition, int]:
        """Give the offsets that have become durable since the last call."""
        acknowledged, self._acknowledged = self._acknowledged, {}
        return acknowledged

    def _is_full(self) -> bool:
        """Say whether all partitions together hold as much as one may: memory is the worker's, not theirs."""
        buffered = [part.buffered for part in self._events.values()]
        rows, size = (sum(each) for each in zip(*buffered, strict=True))
        full = any(part.writer.full for part in self._events.values())
        return full or rows >= self._config.lake.flush_rows or size >= BUFFERED_BYTES_MAX

    def _land(self) -> None:
        """Land what all partitions have, in one commit, after what was sent is durable."""
        waiting = [part for part in self._events.values() if part.waits]
        if not waiting:
            return
        self.emitter.settle()
        rows = sum(part.writer.rows for part in waiting)
        with metrics.LAND_SECONDS.time():
            self._lake.commit([part.writer for part in waiting])
        metrics.LANDED.inc(rows)
        for part in waiting:
            part.landed()
            self._acknowledged[self._events_topic, part.partition] = part.done_to

    def _follow(self) -> None:
        """Do what can only be done right after a commit, before more is read, and never causes one itself."""
        while (partition := self._pace.due(self._clock(), self._settled)) is not None:
            self._checkpoint_timed(partition)
        self._policies()

    def _settled(self, partition: Partition) -> bool:
        topic, number = partition
        return topic == self._raw_topic or self._events[number].settled

    def _checkpoint_timed(self, partition: Partition) -> None:
        began = self._clock()
        self._checkpoint(partition)
        ended = self._clock()
        self._pace.took(partition, began, ended)
        metrics.CHECKPOINT_SECONDS.observe(ended - began)

    def _checkpoint(self, partition: Partition) -> None:
        """Make durable what one fold has sent, or what one judge has told; then write its state."""
        topic, number = partition
        if topic == self._raw_topic:
            raw = self._raw[number]
            self.emitter.flush()
            raw.checkpoint()
            self._acknowledged[partition] = max(0, raw.fold.next_offset - raw.base)
        else:
            events = self._events[number]
            events.tell_rest(now=True)
            self.emitter.settle()
            events.checkpoint()

    def _identities(self) -> None:
        identities = self._identity_file.poll()
        if not self._raw:
            return
        self._tell_trouble()
        for number in self._raw:
            if self._told.get(number) != identities.sha256:
                self.emitter.raw(number, b"", record(identities, self._name))
                self._told[number] = identities.sha256

    def _policies(self) -> None:
        """Let judges take on changed policies, where everything read has landed; what happens is evidence.

        While rows wait that is right after the next commit.
        """
        if self._policy_file is None:
            return
        bundle = self._policy_file.poll()
        refusal = self._policy_file.take_refusal()
        if refusal is not None:
            self._tell("policies_refused", {"error": refusal, "sha256": bundle.sha256})
        others = [part for part in self._events.values() if part.bundle.sha256 != bundle.sha256]
        if not others:
            return
        if not any(part.writer.rows for part in self._events.values()):
            self._land()  # nothing but records without rows: no commit comes for them soon
        ready = [part for part in others if part.settled]
        if not ready:
            return
        # Told first: should this worker die in between, a change is told that comes a moment later.
        offsets = {f"{part.topic}-{part.partition}": part.position for part in ready}
        self._tell("policies_changed", difference(ready[0].bundle, bundle) | {"from": offsets})
        for part in ready:
            part.adopt(bundle)
        self.emitter.flush()
        metrics.POLICY_CHANGES.inc()
        log.info("policies_changed", sha256=bundle.sha256, partitions=sorted(offsets))

    def _tell(self, operation: str, detail: dict[str, object]) -> None:
        number = partition_of(OURSELVES, self._config.topics.raw_partitions)
        self.emitter.raw(number, OURSELVES.encode(), policy_record(operation, detail, self._name))

    def _notes(self) -> None:
        """Tell every partition of events what its judge is to know: suppressions, verdicts, the time."""
        if self._feedback is None:
            return
        now_us = self._wall_us()
        kept = self._suppression_file.poll()
        for part in self._events.values():
            if part.suppressions_told != kept.sha256:
                part.tell(suppressions(kept.content, kept.sha256, self._suppression_file.path.name, now_us))
                part.suppressions_told = kept.sha256
            part.tell_time(now_us)
            part.tell_rest()
        for offset, checked, note in self._feedback.poll():
            metrics.VERDICTS.labels(checked.refused or "believed").inc()
            if checked.refused is not None:
                log.warning("verdict_refused", offset=offset, reason=checked.refused)
            for number, part in self._events.items():
                # What is refused changes nothing: one partition tells it.
                if offset >= part.feedback_told and (checked.refused is None or number == 0):
                    part.tell(note)
                part.feedback_told = max(part.feedback_told, offset + 1)
        self._note_approvals()

    def _note_approvals(self) -> None:
        """Write the notes of requests and decisions into the first partition, which lands them."""
        first = self._events.get(0)
        if self._approvals is None or first is None:
            return
        for offset, why_not, note in self._approvals.poll():
            if offset < first.approvals_told:
                continue
            metrics.APPROVALS.labels(note.operation or "", why_not or "believed").inc()
            if why_not is not None:
                log.warning("approval_refused", offset=offset, reason=why_not)
            first.tell(note)
            first.approvals_told = offset + 1

    def _tell_trouble(self) -> None:
        """Say in one partition that the file cannot be used, once it was so twice: it may just have been half written.

        When it can be used again and is as it was before, that is said here, too; a change says it itself.
        """
        seen, told = self._trouble
        found = self._identity_file.trouble
        if found is not None and found == seen and found != told:
            self.emitter.raw(min(self._raw), b"", refused(found, self._name))
            told = found
        elif found is None and told is not None:
            if told.sha256 == self._identity_file.last.sha256:
                self.emitter.raw(min(self._raw), b"", mended(self._identity_file.last, self._name))
            told = None
        self._trouble = (found, told)

    def _forget(self) -> None:
        if self._feedback is not None:
            self._feedback.close()
            self._feedback = None
        if self._approvals is not None:
            self._approvals.close()
            self._approvals = None
        for topic, number in (*self._paused, *self._failed):
            metrics.PAUSED.labels(topic, str(number)).set(0)
        self._paused.clear()
        self._failed.clear()
        self._ends.close()
        self._raw.clear()
        self._events.clear()
        self._pace.begin((), 0.0)
        self._told.clear()
        self._acknowledged.clear()
