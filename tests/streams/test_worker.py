"""The worker on real brokers: what comes in lands once, whatever happens on the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import Message
from msgspec.structs import replace
from prometheus_client import REGISTRY

from pgwitness.core.errors import Retry
from pgwitness.core.events import RawBatch
from pgwitness.core.units import Duration
from sinks.lake.writer import Lake, PartitionWriter
from streams import metrics
from streams.identity.identities import Identities
from streams.kafka import dead_letters
from streams.kafka.reading import make_reader, read
from streams.worker import clocks
from streams.worker.stages import Stages
from tests.conftest import AnyBroker
from tests.sinks.material import lands
from tests.streams.conftest import Installation, eventually
from tests.streams.records import batch, beacon, sample, tick, transaction

# A client of aiokafka that is stopped while it opens a connection to a coordinator leaves that one to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def changes(first: int, number: int) -> list[RawBatch]:
    """Records of one transaction each, by alternating principals."""
    users = ("app", "p_ann", "p_bob")
    return [
        batch(transaction(lsn, n_rows=2, beacons=[beacon(user=users[lsn % 3], pid=lsn % 3)]))
        for lsn in range(first, first + number)
    ]


def read_all(installation: Installation, topic: str) -> list[Message]:
    """Everything in partition 0 of a topic."""
    consumer = make_reader(installation.config.kafka)
    try:
        return list(read(consumer, installation.config.kafka.topic(topic), 0))
    finally:
        consumer.close()


def test_raw_becomes_evidence(installation: Installation, broker: AnyBroker) -> None:
    """On both brokers: rows land once, each with its principal, bound by beacon or by sample."""
    with installation.worker():
        installation.send(*changes(10, 6), batch(sample(77)), batch(transaction(90, xid=77)))
        installation.landed(13)
    found = installation.ask("SELECT principal, certainty, count(*) FROM changes GROUP BY ALL ORDER BY ALL")
    assert found == [("app", "exact", 4), ("billing-bot", "strong", 1), ("p_ann", "exact", 4), ("p_bob", "exact", 4)]


def test_alerts_are_plain_json(installation: Installation) -> None:
    """A forged beacon, found in the WAL, reaches the alerts topic as a detection finding before the lake commits."""
    from pgwitness.core.events import Forgery

    with installation.worker():
        installation.send(batch(transaction(10, n_rows=0, relations=[], forged=[Forgery("mac")])))
        (message, *_) = eventually(lambda: read_all(installation, "alerts"), "an alert")
        alert = json.loads(message.value())
    assert alert["class_uid"] == 2004
    assert message.key().decode() == alert["finding_info"]["uid"]


def test_the_worker_knows_where_partitions_end(
    installation: Installation, broker: AnyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both brokers: by what fetches tell, so that it sees when it is behind."""
    ends: dict[tuple[str, int], int | None] = {}
    look = Stages.look

    def looked(stages: Stages, end_of: Callable[[tuple[str, int]], int | None]) -> None:
        ends.update({at: end_of(at) for at in stages.positions()})
        look(stages, end_of)

    monkeypatch.setattr(Stages, "look", looked)
    raw = installation.config.kafka.topic("raw")
    with installation.worker():
        installation.send(*changes(10, 6))
        eventually(lambda: ends.get((raw, 0)) == 6, "the end of raw")
        installation.landed(12)


def test_a_second_worker_goes_on_where_the_first_ended(installation: Installation) -> None:
    """After a clean end nothing is landed twice, not even what a collector sends again."""
    installation.send(*changes(10, 5))
    with installation.worker():
        installation.landed(10)
    installation.send(*changes(12, 6))
    with installation.worker():
        installation.landed(16)


def test_checkpoints_cause_no_commit_and_all_partitions_share_one(installation: Installation) -> None:
    """Between commits the turns of checkpoints come and go; at its end the worker lands all partitions at once."""
    config = installation.config
    rarely = replace(config.lake, flush_interval=Duration(3_600.0))
    often = replace(config.worker, checkpoint_interval=Duration(0.2))
    installation.config = replace(config, lake=rarely, worker=often)

    def count(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"pgwitness_worker_{name}", labels) or 0.0

    read = count("batches_total", topic="events")
    with installation.worker():
        installation.send(*changes(10, 6))
        eventually(lambda: count("batches_total", topic="events") >= read + 3, "the events are read")
        turns = count("checkpoint_seconds_count")
        eventually(lambda: count("checkpoint_seconds_count") >= turns + 10, "checkpoints had their turns")
        assert lands(config.lake.path) == []
    installation.landed(12)
    (entry,) = lands(config.lake.path)
    assert len({one.partition for one in entry.ranges}) == len(entry.ranges) > 1


class FailAfterWrite:
    """The real lake, whose first commits succeed and then claim to have failed: the worst a disk can do."""

    def __init__(self, installation: Installation, failures: int) -> None:
        self.lake = Lake(installation.config.lake.path)
        self.failures = failures

    def writer(self, topic: str, partition: int) -> PartitionWriter:
        """The real writer of a partition."""
        return self.lake.writer(topic, partition)

    def commit(self, writers: Sequence[PartitionWriter]) -> None:
        """Commit, and fail after the work is done."""
        self.lake.commit(writers)
        if self.failures > 0:
            self.failures -= 1
            raise Retry("the disk said no, after it had written")

    def reached(self, topic: str, raw_partition: int) -> tuple[int, int] | None:
        """What the real lake says."""
        return self.lake.reached(topic, raw_partition)


def test_a_commit_that_fails_after_writing_lands_once(installation: Installation) -> None:
    """When a commit succeeds and reports failure, the worker starts again and nothing is lost or doubled."""
    lake = FailAfterWrite(installation, failures=2)
    with installation.worker(lake):
        for number, first in enumerate(range(10, 40, 10), 1):
            installation.send(*changes(first, 10))
            installation.landed(20 * number)
    assert lake.failures == 0


class Ahead(FailAfterWrite):
    """A lake that was last written days from now, as this host's clock has it."""

    ahead_us = 0

    def reached(self, topic: str, raw_partition: int) -> tuple[int, int] | None:
        """What the real lake says, at another time."""
        found = super().reached(topic, raw_partition)
        return None if found is None else (found[0], found[1] + self.ahead_us)


def test_a_host_whose_clock_is_days_behind_waits(installation: Installation) -> None:
    """Lake and topic agree that it is wrong: all it reads would be set aside. With the clock set all of it lands."""
    lake, days_us = Ahead(installation, failures=0), 3 * 86_400_000_000
    with installation.worker(lake) as health:
        installation.send(*changes(10, 3))
        installation.landed(6)
        topic, then_ms = installation.config.kafka.topic("raw"), (time.time_ns() // 1000 + days_us) // 1000
        installation.producer.produce(topic, b"later", b"k", 1, timestamp=then_ms)
        assert installation.producer.flush(20) == 0
        lake.ahead_us, lake.failures = days_us, 1
        installation.send(*changes(20, 3))
        eventually(lambda: any("set the clock" in why for why in health.not_ready()), "it waits")
        installation.send(*changes(30, 3))
        lake.ahead_us = 0
        installation.landed(18)
        eventually(lambda: health.not_ready() == [], "ready again")


def test_clocks_are_doubted_only_by_two() -> None:
    """Less than a day, a lake or a writer with a clock of its own, or nothing to compare with: no reason to wait."""
    day_us = 86_400_000_000
    assert clocks.behind(0, day_us, day_us) is None
    assert clocks.behind(0, day_us + 1, day_us) is None
    assert clocks.behind(0, None, 9 * day_us) is clocks.behind(0, 9 * day_us, None) is None
    assert "1970-01-01" in str(clocks.behind(0, day_us + 1, 1 << 62))


def test_hostile_records_become_dead_letters(installation: Installation, broker: AnyBroker) -> None:
    """On both brokers: what is no batch goes aside whole and with its reason, and the stream goes on."""
    largest = os.urandom(1_048_400)
    hostile: list[bytes | None] = [
        b"",
        None,
        b"{",
        b'{"schema":1}',
        b'{"schema":"x","events":[]}',
        b"\xff\xfe",
        largest,
    ]
    with installation.worker():
        installation.send(*changes(10, 1), *hostile, *changes(11, 1))
        installation.send(b"not events", topic="events", partition=1)
        installation.landed(4)
        letters = eventually(
            lambda: found if len(found := dead_letters.letters(installation.config)) == 8 else None, "8 dead letters"
        )
    raw = sorted((letter for letter in letters if letter.stage == "attribute"), key=lambda one: one.source_offset)
    assert [letter.value or None for letter in raw] == [given or None for given in hostile]
    assert [letter.source_offset for letter in raw] == list(range(1, 8))
    assert [letter.reason for letter in raw] == [
        "not_a_batch",
        "empty",
        "not_a_batch",
        "wrong_shape",
        "not_a_batch",
        "not_a_batch",
        "not_a_batch",
    ]
    (other,) = (letter for letter in letters if letter.stage == "land")
    assert (other.source_topic, other.source_partition) == (installation.config.kafka.topic("events"), 1)


def test_a_dead_letter_is_redriven_once(installation: Installation) -> None:
    """Redriving writes the same bytes to the partition they came from, and does not do it twice unless asked."""
    with installation.worker():
        installation.send(b"broken")
        eventually(lambda: dead_letters.letters(installation.config), "a dead letter")
        (sent,) = dead_letters.redrive(installation.config)
        assert (sent.value, sent.source_partition) == (b"broken", 0)
        eventually(lambda: len(dead_letters.letters(installation.config)) == 2, "it comes back as dead letter")
    first, second = dead_letters.letters(installation.config)
    assert (first.redriven, second.redriven, second.source_offset) == (True, False, 1)
    assert [one.offset for one in dead_letters.redrive(installation.config, [first.offset])] == []
    assert len(dead_letters.redrive(installation.config, [first.offset], again=True)) == 1
    assert dead_letters.show(installation.config, first.offset).value == b"broken"


def test_a_newer_schema_pauses_its_partition_only(installation: Installation) -> None:
    """A batch from a newer version is no dead letter: its partition waits, the others go on, an update resumes it."""
    newer = json.dumps({"schema": 99, "anything": True}).encode()
    with installation.worker():
        installation.send(*changes(10, 1), newer, *changes(11, 1), partition=0)
        name = installation.config.kafka.topic("raw")
        eventually(lambda: metrics.PAUSED.labels(name, "0")._value.get() == 1, "partition 0 pauses")
        installation.send(batch(transaction(50, system_id="other", beacons=[beacon()])), partition=1)
        installation.landed(3)
        assert dead_letters.letters(installation.config) == []
    with installation.worker():
        eventually(lambda: metrics.PAUSED.labels(name, "0")._value.get() == 1, "partition 0 pauses again")
        installation.landed(3)


def test_changed_identities_name_what_comes_after(installation: Installation) -> None:
    """The file is watched; a broken one changes nothing, a good one names from its record on."""
    path = installation.config.identities.file
    with installation.worker():
        installation.send(*changes(12, 1))
        installation.landed(2)
        before = metrics.IDENTITY_ERRORS._value.get()
        path.write_text("rules: 3")
        eventually(lambda: metrics.IDENTITY_ERRORS._value.get() > before, "the broken file is counted")
        installation.send(*changes(15, 1))
        path.write_text("rules: [{match: {role: app}, principal: renamed}]")
        installation.landed(1, "operation = 'identities_changed'")
        installation.send(*changes(18, 1))
        installation.landed(6)
    found = installation.ask("SELECT DISTINCT lsn, principal FROM events WHERE kind = 'change'")
    assert dict(found) == {"0/C": "app", "0/F": "app", "0/12": "renamed"}


def test_a_broken_identities_file_raises_one_alert(installation: Installation) -> None:
    """Two workers see the same broken file: one alert; other mistakes raise another, and mending it is evidence too."""
    path = installation.config.identities.file
    good = path.read_text()

    def refusals() -> dict[str, Any]:
        alerts = [json.loads(message.value() or b"") for message in read_all(installation, "alerts")]
        found = [alert for alert in alerts if alert["unmapped"]["policy"] == "identities_refused"]
        return {alert["finding_info"]["uid"]: alert for alert in found}

    with installation.worker(), installation.worker():
        path.write_text("rules: 3")
        eventually(lambda: refusals(), "an alert")
        installation.landed(2, "operation = 'identities_refused'")
        path.write_text("rules: 4")
        installation.landed(4, "operation = 'identities_refused'")
        path.write_text(good)
        installation.landed(2, "operation = 'identities_changed'")
    assert len(refusals()) == 2
    told = installation.ask(
        "SELECT DISTINCT detail ->> 'file', detail ->> 'sha256', cluster,"
        " detail ->> 'error' LIKE '%expected a mapping%' FROM control WHERE operation = 'identities_refused'"
    )
    assert told == [(str(path), Identities.parse(good).sha256, "pgwitness", True)]


def test_what_waits_survives_a_restart(installation: Installation) -> None:
    """A transaction that waits for its sample is not in the checkpoint, and still found again by the next worker."""
    installation.send(batch(transaction(10, xid=77)), batch(tick(0.1)))
    with installation.worker():
        eventually(lambda: metrics.HELD.labels("0")._value.get() == 1, "a transaction waits")
    installation.send(batch(sample(77, at_s=0.2)))
    with installation.worker():
        installation.landed(1)
    assert installation.ask("SELECT principal, certainty FROM changes") == [("billing-bot", "strong")]


def test_two_workers_share_and_hand_over(installation: Installation) -> None:
    """While a second worker joins and leaves again, every row lands once."""
    sent = 0

    def more(number: int) -> None:
        nonlocal sent
        for record in changes(10 + sent, number):
            sent += 1
            installation.send(record, partition=sent % 2)
            time.sleep(0.002)

    with installation.worker():
        more(300)
        with installation.worker():
            more(600)
        more(300)
        installation.landed(2 * sent)
