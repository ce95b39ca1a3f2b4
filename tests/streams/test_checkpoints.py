"""Checkpoints: complete or ignored, and the newest complete one wins."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pgwitness.core.config import Config, Kafka
from pgwitness.core.config import Topics as TopicsSection
from pgwitness.core.errors import Retry
from pgwitness.demo.servers import free_port
from streams.kafka import admin
from streams.kafka.checkpoints import CHUNK_BYTES, Assembly, Checkpoint, Origin, Skip, Store, StoredState, cut
from streams.kafka.emitter import make_producer
from streams.kafka.reading import ends, make_reader
from tests.conftest import AnyBroker

BIG = bytes(range(256)) * (CHUNK_BYTES // 256) + b"tail"


def values(sequence: int, data: bytes, writer: str = "w", offset: int = 7) -> list[bytes]:
    """The records' values of one checkpoint."""
    return [value for _, value in cut(0, Checkpoint(sequence, offset, data), writer)]


def newest(*records: bytes | None) -> Checkpoint | None:
    """What is found in these records."""
    assembly = Assembly()
    for record in records:
        assembly.add(record)
    return assembly.newest


def test_a_whole_checkpoint_comes_back() -> None:
    """A checkpoint of several chunks comes back with its offset, also an empty one."""
    assert len(values(1, BIG)) == 2
    assert newest(*values(1, BIG)) == Checkpoint(1, 7, BIG)
    assert newest(*values(1, b"")) == Checkpoint(1, 7, b"")


@pytest.mark.parametrize("missing", [0, 1])
def test_a_torn_checkpoint_leaves_the_one_before(missing: int) -> None:
    """When a chunk is missing, the checkpoint before counts."""
    torn = values(2, BIG)
    del torn[missing]
    assert newest(*values(1, BIG), *torn) == Checkpoint(1, 7, BIG)


def test_the_newest_wins_in_whatever_order_they_are_read() -> None:
    """Slots are compacted apart, and a worker that was thought dead may write late: the sequence decides."""
    assembly = Assembly()
    for sequence in (3, 1, 5, 2, 4):
        for record in values(sequence, b"%d" % sequence, offset=sequence):
            assembly.add(record)
    assert [found.offset for found in assembly.whole] == [5, 4, 3]


def test_a_checkpoint_that_was_not_taken_is_said() -> None:
    """What the broker reports as undelivered did not happen: whoever saves must not go on as if it had."""
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{free_port()}", "message.timeout.ms": 100, "log_level": 0})
    store = Store("state", producer, "w", 1)
    with pytest.raises(Retry, match="not written"):
        store.save(0, 7, b"state")


def test_a_damaged_checkpoint_is_ignored() -> None:
    """When bytes do not fit their hash, the checkpoint before counts."""
    damaged = values(2, b"state")[0].replace(b"state", b"stats")
    assert newest(*values(1, b"old"), damaged) == Checkpoint(1, 7, b"old")


def test_chunks_of_two_writers_do_not_mix() -> None:
    """Two workers that believe in the same sequence do not make one checkpoint together."""
    one, other = values(2, BIG, "a"), values(2, b"x" + BIG, "b")
    assert newest(*values(1, b"old"), one[0], other[1]) == Checkpoint(1, 7, b"old")


def test_foreign_records_are_ignored() -> None:
    """Whatever else stands in the topic is no checkpoint and no error."""
    assert newest(None, b"", b"\xff\n", b"{}\n", b'{"sequence":9}', *values(1, b"s"), b"[1]\nx") == Checkpoint(
        1, 7, b"s"
    )


def test_slots_alternate() -> None:
    """Neighbouring checkpoints have other keys, so that compaction keeps the one before until the next is whole."""
    keys = [{key for key, _ in cut(3, Checkpoint(sequence, 0, b"x"), "w")} for sequence in (1, 2, 3)]
    assert keys[0] == keys[2]
    assert keys[0].isdisjoint(keys[1])


def test_a_store_writes_and_reads_on_the_broker(broker: AnyBroker, topic_prefix: str, tmp_path: Path) -> None:
    """What was saved is loaded by the next worker, per partition; a partition without any has none."""
    config = Config(
        kafka=Kafka(bootstrap=broker.bootstrap, prefix=topic_prefix),
        topics=TopicsSection(raw_partitions=2, event_partitions=2),
    )
    admin.apply(config)
    topic = config.kafka.topic("state-fold")
    random = os.urandom(CHUNK_BYTES + 10)
    store = Store(topic, make_producer(config), "first", 2)
    reader = make_reader(config.kafka)
    try:
        assert store.load(reader, 1).checkpoints == []
        for offset, data in ((10, b"one"), (20, random), (30, b"three"), (40, random)):
            store.save(1, offset, data)
        began = time.monotonic()
        successor = Store(topic, make_producer(config), "second", 2)
        assert successor.load(reader, 1).checkpoints[0] == Checkpoint(4, 40, random)
        assert Checkpoint(3, 30, b"three") in successor.load(reader, 1).checkpoints
        assert successor.load(reader, 0).checkpoints == []
        successor.save_origin(1, Origin("abc", 7))
        successor.save_skip(3, Skip(9, "hash", "ann", "broken", 5))
        shared = Store(topic, make_producer(config), "third", 2)
        assert shared.load(reader, 1).origin == Origin("abc", 7)
        assert shared.load(reader, 1).skips == {}
        assert shared.load(reader, 3) == StoredState([], None, {9: Skip(9, "hash", "ann", "broken", 5)})
        assert time.monotonic() - began < 5
        successor.save(1, 50, b"five")
        assert successor.load(reader, 1).checkpoints[0] == Checkpoint(5, 50, b"five")
        assert [ends(reader, topic, 1, at_least)[1] for at_least in (9, 99)] == [9, 9]
    finally:
        reader.close()
