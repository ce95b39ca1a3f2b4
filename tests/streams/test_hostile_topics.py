"""Hostile records in every topic that the worker reads: nothing is lost, twice, stopped or silent."""

from __future__ import annotations

import os
import time

import pytest
from confluent_kafka import Producer

from detectors.judge import Judge
from detectors.judgement import Judgement
from pgwitness.core.codec import REPLACED
from pgwitness.core.events import Event, RawBatch
from streams.kafka import dead_letters
from streams.kafka.checkpoints import Checkpoint, cut
from tests.streams import hostile
from tests.streams.conftest import Installation
from tests.streams.records import batch, beacon, transaction

NOTHING = b"\0" * 6 * 1024 * 1024
"""Six mebibytes that compress to nothing: larger than any topic takes, and taken all the same."""


BOMB = b"\0" * 24 * 1024 * 1024
"""More than a batch may be unpacked to."""
HOSTILE_RAW, HOSTILE_EVENTS = hostile.raw_records(), hostile.event_records()


def changes(first: int, number: int) -> list[RawBatch]:
    """Records of one transaction each, by three principals."""
    users = ("app", "p_ann", "p_bob")
    return [
        batch(transaction(lsn, n_rows=2, beacons=[beacon(user=users[lsn % 3], pid=lsn % 3)]))
        for lsn in range(first, first + number)
    ]


@pytest.fixture
def large(installation: Installation) -> Installation:
    """An installation whose test may write records larger than any of ours."""
    settings = {"message.max.bytes": "32000000", "compression.type": "lz4", "log_level": "0"}
    installation.producer = Producer(installation.config.kafka.client() | settings)
    return installation


def missing(installation: Installation) -> list[str]:
    """Name the hostile records that are no dead letters yet."""
    there = {
        (letter.source_topic.rpartition(".")[2], letter.source_partition, letter.value or None)
        for letter in dead_letters.letters(installation.config)
    }
    wanted = [("raw", 0, name, value) for name, value in HOSTILE_RAW]
    wanted += [("events", number, name, value) for number in (0, 1) for name, value in HOSTILE_EVENTS]
    return [f"{topic}: {name}" for topic, number, name, value in wanted if (topic, number, value or None) not in there]


def test_a_hundred_hostile_records_in_every_topic(large: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a dead letter with its place, good events beside and behind them land once, also for the next worker.

    Records that would not fit into memory are not unpacked, and an event on which the judge fails lands, unjudged.
    """
    judge = Judge._judge

    def failing(self: Judge, event: Event) -> Judgement:
        if event.lsn == 53 and event.kind == "change":
            raise ZeroDivisionError("a mistake of ours")
        return judge(self, event)

    monkeypatch.setattr(Judge, "_judge", failing)
    raw, events = HOSTILE_RAW, HOSTILE_EVENTS
    with large.worker() as health:
        large.send(*changes(10, 2))
        large.landed(4)
        state = large.config.kafka.topic("state-fold")
        for key, value in cut(0, Checkpoint(2**62, 2**62, b"nonsense"), "enemy"):
            large.producer.produce(state, value, key, 0)
        for number in range(20):
            large.send(os.urandom(100), b'{"id":1}', b"[" * 9_999, topic="feedback")
            large.producer.produce(state, os.urandom(100), f"0/{number}/x".encode(), 0)
        large.send(BOMB, *(value for _, value in events), topic="events", partition=1)
        large.send(*(value for _, value in events), topic="events", partition=0)
        large.send(*(value for _, value in raw[:50]), NOTHING, BOMB, *(value for _, value in raw[50:]))
        large.send(*changes(50, 6))
        large.landed(16)
        large.landed(16)
        deadline = time.monotonic() + 30
        while missing(large) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert missing(large) == []
        assert health.not_ready() == []
    letters = dead_letters.letters(large.config)
    assert len(letters) == len(raw) + 1 + 2 * len(events) + 2
    replaced = [letter for letter in letters if (letter.value or b"").startswith(REPLACED)]
    assert {(one.source_topic.rpartition(".")[2], one.reason) for one in replaced} == {
        ("raw", "too_large"),
        ("events", "too_large"),
    }
    assert large.ask(
        "SELECT detail ->> 'cause', detail ->> 'error' LIKE '%ZeroDivisionError%mistake%' FROM gaps"
        " WHERE detail ->> 'stage' = 'judge'"
    ) == [("unjudged", False)]
    (kept,) = (letter for letter in letters if letter.sha256 is not None)
    assert (kept.size, len(kept.value or b"")) == (len(NOTHING), 4096)
    assert dead_letters.whole(large.config, kept) == NOTHING
    assert len({(letter.source_topic, letter.source_partition, letter.source_offset) for letter in letters}) == len(
        letters
    )
    large.send(*changes(90, 3))
    with large.worker():
        large.landed(22)
    assert large.ask("SELECT count(*), count(DISTINCT lsn) FROM changes") == [(22, 11)]
    good = sum(name.startswith("+") for name, _ in raw)
    assert large.ask("SELECT count(DISTINCT operation) FROM gaps WHERE operation LIKE 'be%-%'") == [(2 * good,)]
    (told,) = large.ask(
        "SELECT sum((detail ->> 'records')::int) FROM gaps WHERE operation = 'record_set_aside'"
        " AND detail ->> 'stage' = 'attribute'"
    )
    assert told[0] >= len(raw) // 2
