"""Records that are no batches of ours: kept apart with their reason, tried again on request, and never in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from pgwitness.core.codec import BatchBuilder
from pgwitness.core.config import Config
from pgwitness.core.events import Gap, RawHeader, encode_event
from pgwitness.core.topics import partition_of
from pgwitness.demo.servers import wait_for
from tests.conftest import AnyBroker
from tests.contract.system import Daemon, System

RAW_PARTITIONS = 2
NOW_US = 1_790_000_000_000_000


def batch(cluster: str, reason: str) -> bytes:
    """Make a batch that a worker can read: one gap with this reason."""
    builder = BatchBuilder("test/1", msgspec.json.encode(RawHeader(cluster=cluster, source="wal")))
    builder.add(encode_event(Gap(captured_at_us=NOW_US, occurred_at_us=NOW_US, reason=reason)))
    payload = builder.cut()
    assert payload is not None
    return payload


HOSTILE: dict[str, bytes | None] = {
    "no JSON": b"\xff\xfe\x00 these are no words",
    "truncated": batch("shop", "cut")[:-25],
    "wrong types": b'{"schema":1,"producer":7,"header":[],"events":"none"}',
    "another JSON": b'{"hello":"world"}',
    "unknown event": b'{"schema":1,"producer":"x","header":{"cluster":"shop","source":"wal"},"events":[{"kind":"?"}]}',
    "deeply nested": b'{"schema":1,"producer":"x","header":' + b"[" * 100_000,
    "no value": None,
    "at the broker's limit": b"x" * 1_048_000,
}


@pytest.fixture
def system(broker: AnyBroker, tmp_path: Path, config_factory: Callable[..., Config]) -> Iterator[System]:
    """A worker's configuration with its topics; no collector runs."""
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    config = config_factory(tmp_path / "system", broker.bootstrap, nowhere, ["none"], raw_partitions=RAW_PARTITIONS)
    with System(tmp_path / "system", config, nowhere) as system:
        system.command("topics", "apply")
        yield system


def produce(
    system: System, topic: str, partition: int, *values: bytes | None, headers: dict[str, str] | None = None
) -> None:
    """Deliver records to one partition, or fail."""
    kafka = system.config.kafka
    producer = Producer(
        {**kafka.client(), "acks": "all", "message.max.bytes": 8_000_000, "compression.type": "lz4", "log_level": 0}
    )
    errors: list[object] = []
    for value in values:
        producer.produce(
            kafka.topic(topic),
            value,
            b"shop",
            partition,
            on_delivery=lambda error, _: errors.append(error),
            headers=[(name, word.encode()) for name, word in (headers or {}).items()],
        )
        producer.flush(30)
    assert errors == [None] * len(values)


def gaps(system: System, *reasons: str) -> None:
    """Wait until gaps with these reasons have landed, each once, besides those of what was set aside."""
    wanted = sorted((reason,) for reason in reasons)
    system.landed(
        "SELECT json_extract_string(detail, '$.reason') AS reason FROM gaps"
        " WHERE reason IS DISTINCT FROM 'record_set_aside' ORDER BY 1",
        wanted.__eq__,
    )


def letters(system: System, worker: Daemon, count: int) -> list[dict[str, object]]:
    """Wait until there are so many dead letters, and list them."""
    rows: list[dict[str, object]] = []

    def there() -> bool:
        rows[:] = system.table("dead-letters", "list")
        return len(rows) >= count

    try:
        wait_for(there, 60, f"{count} dead letters", every_s=0.5)
    except Exception as error:
        raise AssertionError(f"{rows}\n{worker.complaint()}") from error
    return rows


def test_hostile_records_go_to_the_dead_letters_and_the_stream_goes_on(system: System) -> None:
    """Each hostile record becomes one dead letter with a reason; what comes after it is read as if nothing was."""
    worker = system.worker()
    partition = partition_of("shop", RAW_PARTITIONS)
    produce(system, "raw", partition, batch("shop", "before"), *HOSTILE.values(), batch("shop", "after"))
    produce(system, "events", 0, b"not for the lake")
    gaps(system, "before", "after")
    rows = letters(system, worker, len(HOSTILE) + 1)
    assert len(rows) == len(HOSTILE) + 1
    assert {row["topic"] for row in rows} == {system.config.kafka.topic("raw"), system.config.kafka.topic("events")}
    by_offset = {row["source_offset"]: row["reason"] for row in rows if str(row["topic"]).endswith("raw")}
    assert len(by_offset) == len(HOSTILE)
    assert {"not_a_batch", "wrong_shape", "empty"} <= set(by_offset.values())
    told = "SELECT count(*) FROM gaps WHERE json_extract_string(detail, '$.reason') = 'record_set_aside'"
    system.landed(told, lambda rows: rows[0][0] >= len(HOSTILE))
    assert worker.stop() == 0


def test_dead_letters_can_be_tried_again(system: System) -> None:
    """What an update can read now lands after a redrive; what nobody can read comes back, and nothing else happens."""
    worker = system.worker()
    partition = partition_of("shop", RAW_PARTITIONS)
    # As a worker leaves them: one that another release could not read, and one that none ever will.
    produce(
        system,
        "dead-letters",
        0,
        batch("shop", "understood at last"),
        b"still no words",
        headers={
            "reason": "wrong_shape",
            "stage": "attribute",
            "topic": system.config.kafka.topic("raw"),
            "partition": str(partition),
            "offset": "0",
        },
    )
    assert len(system.table("dead-letters", "redrive", "--all")) == 2
    gaps(system, "understood at last")
    rows = letters(system, worker, 3)
    assert [(row["reason"], row["redriven"]) for row in rows] == [
        ("wrong_shape", True),
        ("wrong_shape", True),
        ("not_a_batch", False),
    ]
    assert len(system.table("dead-letters", "redrive", "--all")) == 1
    by_reference(system, worker, partition)
    assert worker.stop() == 0


def by_reference(system: System, worker: Daemon, partition: int) -> None:
    """A record too large for the topic of dead letters, since it came in compressed, is tried again all the same."""
    words = b"no words at all " * 300_000
    produce(system, "raw", partition, words)
    found: list[dict[str, object]] = []

    def there(count: int) -> bool:
        found[:] = [row for row in system.table("dead-letters", "list") if row["kept"] == "reference"]
        return len(found) >= count

    wait_for(lambda: there(1), 60, f"the letter\n{worker.complaint()}", every_s=0.5)
    system.command("dead-letters", "redrive", str(found[0]["offset"]))
    wait_for(lambda: there(2), 60, f"the letter that came back\n{worker.complaint()}", every_s=0.5)
    first, second = found
    assert (first["bytes"], second["bytes"]) == (len(words), len(words))
    assert (first["redriven"], second["redriven"]) == (True, False)
    assert int(str(second["source_offset"])) > int(str(first["source_offset"]))


def test_a_newer_schema_pauses_its_partition_and_nothing_else(system: System) -> None:
    """A batch of a version to come waits for an update: its partition stands still, the others go on, none is lost."""
    worker = system.worker().ready()
    here = partition_of("shop", RAW_PARTITIONS)
    newer = batch("shop", "of tomorrow").replace(b'"schema":1', b'"schema":99')
    produce(system, "raw", here, batch("shop", "before"), newer, batch("shop", "behind it"))
    other = next(name for name in ("a", "b", "c", "d") if partition_of(name, RAW_PARTITIONS) != here)
    gaps(system, "before")
    produce(system, "raw", 1 - here, batch(other, "elsewhere"))
    gaps(system, "before", "elsewhere")
    raw = system.config.kafka.topic("raw")
    paused = f'pgwitness_worker_paused{{partition="{here}",topic="{raw}"}} 1.0'
    wait_for(lambda: paused in worker.get("/metrics")[1], 30, paused)
    assert system.table("dead-letters", "list") == []
    assert "99" in worker.log.read_text()
    assert worker.stop() == 0
