"""What happens to topics and checkpoints under a worker: it says so, goes on, and lands everything once."""

from __future__ import annotations

import asyncio
import json
import shutil

import aiokafka.client
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from pgwitness.core.events import RawBatch
from streams.fold.fold import Fold
from streams.identity.identities import Identities
from streams.kafka import admin
from streams.kafka.checkpoints import Checkpoint, StoredState, cut, known
from streams.kafka.reading import make_reader
from streams.worker.attribute import _restore
from tests.conftest import AnyBroker
from tests.streams.conftest import Installation, eventually
from tests.streams.records import IDENTITIES, batch, beacon, transaction
from tests.streams.records import read as read_batch


def changes(first: int, number: int) -> list[RawBatch]:
    """Records of one transaction each."""
    return [batch(transaction(lsn, n_rows=2, beacons=[beacon()])) for lsn in range(first, first + number)]


def gaps(installation: Installation) -> set[str]:
    """The reasons of the gaps that have landed."""
    if not installation.config.lake.path.exists():
        return set()
    return {reason for (reason,) in installation.ask("SELECT DISTINCT operation FROM gaps")}


def remake(installation: Installation, *names: str) -> None:
    """Delete topics and make them again, as a person would."""
    client = AdminClient(installation.config.kafka.client() | {"log_level": "0"})
    topics = [installation.config.kafka.topic(name) for name in names]
    for future in client.delete_topics(topics, request_timeout=20).values():
        future.result(20)
    eventually(lambda: not set(topics) & set(client.list_topics(timeout=10).topics), "the topics are gone")
    eventually(lambda: _made(installation), "the topics are there again")


def _made(installation: Installation) -> bool:
    """Whether making them worked: a broker may still be busy with deleting."""
    try:
        return all(finding.in_order for finding in admin.apply(installation.config))
    except Exception:
        return False


def test_topics_made_again_under_a_worker_are_taken_on(installation: Installation, broker: AnyBroker) -> None:
    """On both brokers: topics anew, with other records at the same offsets: told, and all of them land."""
    with installation.worker() as health:
        installation.send(b"no verdict", b"nor this", topic="feedback")
        installation.send(*changes(10, 5))
        installation.landed(10)
        installation.landed(2, "operation = 'verdict'")
        remake(installation, "raw", "events", "feedback")
        installation.send(b"another", topic="feedback")
        installation.send(*changes(50, 7))
        installation.landed(24)
        lost = {"raw_recreated", "events_recreated", "feedback_recreated"}
        eventually(lambda: lost <= gaps(installation), "the gaps")
        eventually(lambda: health.not_ready() == [], "ready again")
        installation.landed(3, "operation = 'verdict'")
    with installation.worker():  # and the next one knows it, too
        installation.send(b"one more", topic="feedback")
        installation.send(*changes(90, 2))
        installation.landed(28)
        installation.landed(4, "operation = 'verdict'")
    assert installation.ask("SELECT count(*), count(DISTINCT lsn) FROM changes") == [(28, 14)]


def test_a_worker_without_its_topics_is_not_ready_and_says_why(installation: Installation) -> None:
    """A topic that is gone ends no worker: it waits, not ready, and goes on when somebody has made it again."""
    client = AdminClient(installation.config.kafka.client() | {"log_level": "0"})
    with installation.worker() as health:
        installation.send(*changes(10, 1))
        installation.landed(2)
        client.delete_topics([installation.config.kafka.topic("raw")])[installation.config.kafka.topic("raw")].result(
            20
        )
        reason = eventually(lambda: health.not_ready(), "not ready")
        assert "topics apply" in reason[0]
        assert installation.config.kafka.topic("raw") not in client.list_topics(timeout=10).topics
        eventually(lambda: _made(installation), "the topic is there again")
        installation.send(*changes(20, 1))
        installation.landed(4)
        eventually(lambda: health.not_ready() == [], "ready again")


def test_asking_for_a_topic_makes_none(installation: Installation) -> None:
    """On a broker that would make it: neither librdkafka's clients do so, nor the one of the worker."""
    kafka = installation.config.kafka
    settings = kafka.client() | {"log_level": "0"}
    for client in (Producer(settings), AdminClient(settings), make_reader(kafka)):
        client.list_topics(kafka.topic("nobody-made"), timeout=10)

    async def ask() -> None:
        worker_client = aiokafka.client.AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
        await worker_client.bootstrap()
        await worker_client.set_topics([kafka.topic("nobody-made")])
        await worker_client.close()

    asyncio.run(ask())
    assert kafka.topic("nobody-made") not in AdminClient(settings).list_topics(timeout=10).topics


def test_a_lake_that_holds_less_than_it_did_is_reported_and_filled_again(installation: Installation) -> None:
    """A disk that is not mounted, a folder of another day: what the topic still has lands there once more, as a gap."""
    with installation.worker():
        installation.send(*changes(10, 5))
        installation.landed(10)
    shutil.rmtree(installation.config.lake.path)
    installation._catalogue = None  # it knows the files of before
    with installation.worker():
        eventually(lambda: (installation.config.lake.path / "views.sql").exists(), "a lake is made")
        installation.landed(10)
        eventually(lambda: "lake_went_back" in gaps(installation), "the gap")
    with installation.worker():
        installation.send(*changes(20, 1))
        installation.landed(12)
    told = "SELECT count(*) FROM gaps WHERE operation = 'lake_went_back'"
    assert installation.ask(told) == [(1,)]


def test_everything_the_broker_had_is_lost(installation: Installation) -> None:
    """Topics and state all made anew while no worker ran: what comes then lands behind what the lake has."""
    with installation.worker():
        installation.send(*changes(10, 5))
        installation.landed(10)
    remake(installation, "raw", "events", "state-fold", "state-judge")
    installation.send(*changes(50, 2))
    with installation.worker():
        installation.landed(14)
        eventually(lambda: "events_truncated" in gaps(installation) or "events_recreated" in gaps(installation), "gap")


DAMAGES: dict[str, dict[str, object]] = {
    "of another partition": {"partition": 4},
    "of a newer version": {"version": 2},
    "an offset to come": {"next_offset": 2**62},
    "an offset before all": {"next_offset": -1},
    "rules that are none": {"identities": "rules: 3"},
    "clusters that are none": {"clusters": []},
}
DAMAGES_OF_A_CLUSTER: dict[str, dict[str, object]] = {
    "a place that is not there": {"log_xids": [[1, 99]]},
    "a position to come": {"watermarks": [[["sys", 1, "shop"], [2**62, 0, True]]]},
    "a line to come": {"logs": [[["db", "x.json"], [2**60, 0]]]},
    "a time to come": {"clock_us": 2**62},
    "numbers of 400 digits": {"clock_us": 10**400},
}


def _damage(how: str, data: bytes) -> bytes:
    if how == "nonsense":
        return b"nonsense"
    if how == "cut off":
        return data[:-20]
    state = json.loads(data)
    (cluster,) = state["clusters"].values()
    cluster |= DAMAGES_OF_A_CLUSTER.get(how, {})
    return json.dumps(state | DAMAGES.get(how, {})).encode()


@pytest.mark.parametrize("how", ["nonsense", "cut off", *DAMAGES, *DAMAGES_OF_A_CLUSTER])
def test_an_older_checkpoint_stands_in_for_a_damaged_one(how: str) -> None:
    """Whole, with nonsense inside: it is said, and the one before is used; when none is good, there is none."""
    fold = Fold(3, Identities.parse(IDENTITIES), 0)
    fold.apply(0, read_batch(batch(transaction(10, beacons=[beacon()]))))
    good = Checkpoint(1, 1, fold.snapshot())
    bad = Checkpoint(2, 1, _damage(how, good.data))
    restored = _restore(StoredState([bad, good]), 3, 0)
    assert restored is not None
    assert restored.snapshot() == good.data
    assert _restore(StoredState([bad, bad]), 3, 0) is None


@pytest.mark.parametrize("slots", [1, 3])
def test_a_damaged_checkpoint_stops_nobody(installation: Installation, slots: int) -> None:
    """With an older one the state is as it was; without any it is made anew from the topic; all land once."""
    with installation.worker():
        installation.send(*changes(10, 5))
        installation.landed(10)
    topic = installation.config.kafka.topic("state-fold")
    reader = make_reader(installation.config.kafka)
    try:
        found = known(reader, topic, 0, installation.config.topics.raw_partitions).checkpoints[0]
    finally:
        reader.close()
    for number in range(1, slots + 1):
        forged = Checkpoint(found.sequence + number, found.offset, b"nonsense")
        for key, value in cut(0, forged, "enemy"):
            installation.producer.produce(topic, value, key, 0)
    installation.send(*changes(50, 2))
    with installation.worker():
        installation.landed(14)
        if slots == 3:
            eventually(lambda: "state_rebuilt" in gaps(installation), "the gap")
    assert installation.ask("SELECT count(*), count(DISTINCT lsn) FROM changes") == [(14, 7)]


APACHE = pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)


@APACHE
def test_partitions_that_were_added_are_read(installation: Installation, broker: AnyBroker) -> None:
    """More partitions than the configuration says, under a running worker: it reads them, state and all."""
    client = AdminClient(installation.config.kafka.client() | {"log_level": "0"})
    raw = installation.config.kafka.topic("raw")
    with installation.worker():
        installation.send(*changes(10, 1))
        installation.landed(2)
        wanted = installation.config.topics.raw_partitions + 1
        client.create_partitions([NewPartitions(raw, wanted)])[raw].result(20)
        eventually(lambda: len(client.list_topics(raw, timeout=10).topics[raw].partitions) == wanted, "one more")
        installation.producer = Producer(installation.config.kafka.client())  # which knows of it
        installation.send(batch(transaction(50, system_id="other", beacons=[beacon()])), partition=wanted - 1)
        installation.landed(3)


@APACHE
def test_retention_that_overtakes_the_lander_is_reported(installation: Installation, broker: AnyBroker) -> None:
    """Records of `events` that were deleted before they landed are a gap."""
    with installation.worker():
        installation.send(*changes(10, 1))
        installation.landed(2)
    events = installation.config.kafka.topic("events")
    installation.send(b"not events", b"nor this", b"nor that", topic="events", partition=0)
    client = AdminClient(installation.config.kafka.client() | {"log_level": "0"})
    reader = make_reader(installation.config.kafka)
    try:
        _, end = reader.get_watermark_offsets(TopicPartition(events, 0), timeout=10)
    finally:
        reader.close()
    for future in client.delete_records([TopicPartition(events, 0, end - 1)]).values():
        future.result(20)
    with installation.worker():
        eventually(lambda: "events_lost" in gaps(installation), "the gap")
