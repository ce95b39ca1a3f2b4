"""Faust's aiokafka transport, changed in where reading starts, how long a fetch waits and what is committed.

Faust seeks to the group's committed offsets when partitions were assigned, and whenever its flow was interrupted
(`Consumer.perform_seek`). Here it seeks to the positions that the stages give: the fold's checkpoint and the
lake decide, the group's offsets are for lag monitors. Faust's acknowledgements are switched off with the topics
(`acks=False`); offsets are committed by `commit_positions` once they are durable. And what the broker answers is looked
at before its records are handed over: a topic that was made again must not be read on as if it were the old one, and
a batch that would unpack to more than memory holds must not be unpacked (`streams.faust.unpacking`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiokafka.client
from aiokafka.protocol.metadata import MetadataRequest
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.faust.unpacking import bounded

FETCH = 1
"""The number of fetching among Kafka's requests."""
SUSPECT_PAUSE_S = 0.05
FETCH_WAIT_MS_MAX = 100
"""How long the broker may keep a fetch that finds nothing; a partition not in it waits as long for the next one."""

COMMIT_S_MAX = 2.0
"""How long a commit may take; aiokafka tries for as long as a topic is gone, while the worker would see nothing."""
COMMIT_PAUSE_S = 5.0
"""How long after one that did not succeed the next is tried."""


class AskingRequest(MetadataRequest):  # type: ignore[misc]
    """Asks after topics and makes none.

    aiokafka lets the broker make a topic that was deleted, with partitions and retention that nobody chose, while the
    worker reads on; it has no setting against it, and no place but its module where the request is looked up.
    """

    def __init__(self, topics: list[str] | None = None, allow_auto_topic_creation: bool = False) -> None:
        super().__init__(topics, allow_auto_topic_creation)


aiokafka.client.MetadataRequest = AskingRequest


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that owns the aiokafka consumer: heartbeats go on while the main thread works."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS_MAX
        self.suspicious = False
        self._ends: dict[tuple[str, int], int] = {}
        self._kept: Any = {}
        self._watch(consumer._client)
        return consumer

    def _watch(self, client: Any) -> None:
        """Look at what the broker answers before anybody takes records out of it."""
        send = client.send

        async def watched(*arguments: Any, **named: Any) -> Any:
            response = await send(*arguments, **named)
            if getattr(response, "API_KEY", None) == FETCH:
                for topic, partitions in response.topics:
                    for place, (number, error, end, *rest, records) in enumerate(partitions):
                        self._look((topic, number), error, end)
                        if records:
                            partitions[place] = (number, error, end, *rest, bounded(records))
            return response

        client.send = watched

    def _look(self, at: tuple[str, int], error: int, end: int) -> None:
        """Grow suspicious when a partition answers with an error, or ends before where it did.

        A topic that was deleted and made again shows in nothing else: behind the place where reading stands the next
        record may be one of another topic. Nothing is handed over until somebody has looked
        (`streams.kafka.topic_watch`).
        """
        if error or end < self._ends.get(at, 0):
            self.suspicious = True
        if not error:
            self._ends[at] = end

    async def _fetch_records(self, *arguments: Any, **named: Any) -> Any:
        if self.suspicious:
            await asyncio.sleep(SUSPECT_PAUSE_S)
            return {}
        if self._kept:
            kept, self._kept = self._kept, {}
            return kept
        records = await super()._fetch_records(*arguments, **named)
        if not self._hands_over():  # what came meanwhile may be of another topic
            self._kept = records
            return {}
        return records

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        try:
            return bool(await asyncio.wait_for(super()._commit(offsets), COMMIT_S_MAX))
        except TimeoutError:
            return False

    def _hands_over(self) -> bool:
        return not self.suspicious

    async def seek_to(self, positions: Mapping[TP, int]) -> None:
        """Move each assigned partition to its position."""
        await self.call_thread(self._seek_to, positions)

    async def _seek_to(self, positions: Mapping[TP, int]) -> None:
        self._kept = {}
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        for partition, offset in positions.items():
            target = driver.ensure_aiokafka_TP(partition)
            if target in assigned:
                consumer.seek(target, offset)


class Consumer(driver.Consumer):
    """A consumer that reads from the positions of `app.positions`."""

    _thread: ConsumerThread

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._uncommitted: dict[TP, int] = {}
        self._commit_from = 0.0

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the stages' own positions, which is what Faust believes to be committed."""
        positions: dict[TP, int] = self.app.positions()  # type: ignore[attr-defined]
        self._uncommitted = {}
        await self._thread.seek_to(positions)
        return positions

    async def commit_positions(self, positions: Mapping[TP, int]) -> None:
        """Tell the group how far things are durable, now or later; nothing but monitoring reads it."""
        self._uncommitted.update(positions)
        if not self._uncommitted or time.monotonic() < self._commit_from:
            return
        tried, self._uncommitted = self._uncommitted, {}
        if not await self._thread.commit(tried):
            self._uncommitted = tried | self._uncommitted
            self._commit_from = time.monotonic() + COMMIT_PAUSE_S

    @property
    def suspicious(self) -> bool:
        """Whether nothing is handed over until somebody has looked at the topics."""
        return bool(getattr(self._thread, "suspicious", False))

    def trust(self) -> None:
        """Hand over again: the topics are what they were."""
        self._thread.suspicious = False

    def end_of(self, tp: TP) -> int | None:
        """Return where a partition ends as the last fetch reported; None before one has, and while it changes hands."""
        try:
            end: int | None = self.highwater(tp)
        except (ConsumerNotStarted, AssertionError, AttributeError):
            # The consumer's thread takes an assignment away without asking this one.
            return None
        return end

    def on_buffer_drop(self, tp: TP) -> None:
        """Go on fetching when a buffer has room again, but not from a partition that was paused."""
        if tp in self._paused_partitions:
            self._buffered_partitions.discard(tp)
        else:
            super().on_buffer_drop(tp)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Say nothing about missing acknowledgements: there are none; lag is a metric of ours."""


class Transport(driver.Transport):
    """Faust's aiokafka transport with that consumer."""

    Consumer = Consumer
