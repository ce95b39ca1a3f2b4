"""The Faust application: two agents, both no more than a hand-over of records to the stages.

Topics are raw bytes and named, nothing is declared, no leader topic, one stream per agent: see facts about Faust in
`docs/decisions/`. The consumer runs in a thread of its own, so that a long commit does not cost the partitions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
from faust.tables import TableManager
from faust.types import TP
from yarl import URL

from pgwitness.core.config import Config
from streams.faust.credentials import credentials
from streams.faust.transport import Transport
from streams.worker.stages import Partition, Stages

METADATA_AGE_MS_MAX = 5_000
"""How old what is known of the topics may become.

A broker that has just started may not know them yet: a group that was formed by its word has no partitions to read,
until somebody asks again.
"""
BUFFER_RECORDS = 32
"""Records that wait in an agent's queue; at 256 KiB each this bounds the memory of a backlog."""
POLL_RECORDS = 16

Failed = Callable[[BaseException], None]


class Tables(TableManager):
    """Faust's manager of tables where there are none: it does not wait a second for some to be declared."""

    async def on_start(self) -> None:
        """Go on at once; what follows in Faust takes up the partitions."""
        await self._update_channels()
        await self.recovery.start()


class App(faust.App):
    """Faust's application, which can say where its partitions are read from (`streams.faust.transport` asks), and
    end."""

    positions: Callable[[], dict[TP, int]]

    @property
    def suspicious(self) -> bool:
        """Whether reading has stopped until somebody has looked whether the topics are still the same."""
        consumer: Any = self.consumer
        return bool(consumer.suspicious)

    def trust(self) -> None:
        """Read on: they are."""
        consumer: Any = self.consumer
        consumer.trust()

    def end_of(self, at: Partition) -> int | None:
        """Return where a partition ends, as far as that is known."""
        consumer: Any = self.consumer
        end: int | None = consumer.end_of(TP(*at))
        return end


def make_app(config: Config, stages: Stages, failed: Failed) -> App:
    """Make the application; `failed` is called with the first error of any stage, after which nothing is processed."""
    logging.getLogger("faust").setLevel(logging.ERROR)
    logging.getLogger("mode").setLevel(logging.ERROR)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    session_s = float(config.worker.session_timeout)
    Path(config.worker.data_path).mkdir(parents=True, exist_ok=True)
    app = App(
        config.worker.group,
        autodiscover=False,
        broker=[URL(f"kafka://{server.strip()}") for server in config.kafka.bootstrap.split(",")],
        broker_credentials=credentials(config.kafka.settings),
        broker_session_timeout=session_s,
        broker_heartbeat_interval=max(0.5, min(3.0, session_s / 5)),
        broker_request_timeout=max(40.0, session_s * 2),
        broker_max_poll_records=POLL_RECORDS,
        broker_commit_interval=60.0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=2 * 1024 * 1024,
        consumer_metadata_max_age_ms=METADATA_AGE_MS_MAX,
        datadir=str(config.worker.data_path),
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        TableManager=Tables,
        stream_buffer_maxsize=BUFFER_RECORDS,
        stream_recovery_delay=0.0,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    app.transport = Transport(app.conf.broker_consumer, app)
    app.positions = lambda: {TP(*at): offset for at, offset in stages.positions().items()}
    raw_topic, events_topic = stages.topics
    _agent(app, "attribute", raw_topic, stages, failed)
    _agent(app, "land", events_topic, stages, failed)

    async def assigned(_: Any, partitions: set[TP], **__: Any) -> None:
        try:
            stages.assign((tp.topic, tp.partition) for tp in partitions)
        except Exception as error:
            failed(error)

    async def revoked(_: Any, partitions: set[TP], **__: Any) -> None:
        try:
            stages.revoke()
        except Exception as error:
            failed(error)

    signals: Any = app  # their annotations allow no coroutine that returns nothing
    signals.on_partitions_assigned.connect(assigned, weak=False)
    signals.on_partitions_revoked.connect(revoked, weak=False)
    return app


def _agent(app: faust.App, name: str, topic: str, stages: Stages, failed: Failed) -> None:
    """Add the agent that hands the records of one topic to the stages."""

    async def hand_over(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            try:
                written_us = int(message.timestamp * 1_000_000) if (message.timestamp or 0) > 0 else None
                at = (message.topic, message.partition)
                if not stages.record(at, message.offset, message.key, message.value, written_us):
                    app.consumer.pause_partitions({message.tp})
            except Exception as error:
                failed(error)

    channel = app.topic(topic, key_type=bytes, value_type=bytes, acks=False, internal=False)
    app.agent(channel, name=name, concurrency=1)(hand_over)
