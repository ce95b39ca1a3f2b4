"""The log from a topic that a shipper fills, on both brokers: every statement once, through crashes and mishaps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from msgspec.structs import replace

from collectors.log import collector
from collectors.log.sources import kafka
from pgwitness.core.config import Config, Log
from pgwitness.core.errors import ConfigurationError, Retry
from pgwitness.core.events import Gap, Statement
from tests.collectors.raw_topic import Bench, bench, context_of
from tests.collectors.test_log_collector import await_marks, collecting, expected, marks, marks_raw, running, told
from tests.conftest import AnyBroker

AT = "2026-11-22 21:26:30.123 UTC"
HOSTS = ("db1", "db2")


class Shipper:
    """Puts lines into a topic of its own as a shipper does."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})

    def make(self, partitions: int = 2) -> None:
        """Make the topic."""
        for future in self.admin.create_topics([NewTopic(self.topic, partitions, 1)]).values():
            future.result()

    def ship(self, records: list[bytes | None], key: bytes = b"k", partition: int = 0) -> None:
        """Put records into a partition and wait until they are there."""
        for record in records:
            self._producer.produce(self.topic, record, key, partition)
        assert self._producer.flush(30) == 0


@pytest.fixture
def shipper(topic_prefix: str, broker: AnyBroker) -> Shipper:
    """A shipper with a topic of two partitions."""
    made = Shipper(broker.bootstrap, f"{topic_prefix}pglog")
    made.make()
    return made


@pytest.fixture
def configured(
    tmp_path: Path, broker: AnyBroker, topic_prefix: str, config_factory: Callable[..., Config]
) -> Callable[..., Config]:
    """Write a configuration for the topic; the arguments are settings of the log."""

    def write(**log: object) -> Config:
        values = {"from": "kafka", "topic": f"{topic_prefix}pglog", "start": "beginning", "interval": "50ms", **log}
        extra = "[clusters.shop.log]\n" + "\n".join(f"{key} = {_toml(value)}" for key, value in values.items())
        dsn = "postgresql://pgwitness@db1.example/postgres"
        return config_factory(tmp_path, broker.bootstrap, dsn, cluster_extra=extra)

    return write


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture
def at(configured: Callable[..., Config], shipper: Shipper) -> Iterator[Bench]:
    """Csvlog under `message`, as Vector writes it."""
    with bench(configured(format="csvlog", field="message")) as made:
        yield made


def csv(number: int) -> list[str]:
    """The lines of a message of csvlog, a statement of three lines."""
    return (
        f'{AT},"app","shop",41,"10.0.0.7:5050",6b035d50.29,{number},"SELECT",2026-11-22 20:00:00 UTC,3/9,0,LOG,00000,'
        f'"duration: 0.1 ms  statement: SELECT \'a""b\'\n\n AS m_{number}_",,,,,,,,,"web","client backend",,0'
    ).split("\n")


def stderr(number: int) -> list[str]:
    """The lines of a message as RDS writes it, a statement of three lines."""
    return [
        f"2026-11-22 21:26:30 UTC:10.0.0.7(5050):app@shop:[{41 + number}]:LOG:  duration: 1 ms  statement: SELECT 'a'",
        "\t",
        f"\t AS m_{number}_",
    ]


def jsonlog(number: int) -> dict[str, object]:
    """A message of jsonlog."""
    return {
        "timestamp": AT, "pid": 41, "user": "app", "dbname": "shop", "session_id": "6b035d50.29", "line_num": number,
        "error_severity": "LOG", "message": f"duration: 0.1 ms  statement: SELECT 'ä'\n AS m_{number}_",
    }  # fmt: skip


def vector(line: str, host: str = "db1") -> bytes:
    """A record as Vector's file source makes it."""
    return json.dumps(
        {"file": "/var/log/postgresql/a.csv", "host": host, "message": line, "source_type": "file",
         "timestamp": "2026-11-22T21:26:30.5Z"}
    ).encode()  # fmt: skip


def fluent(line: str) -> bytes:
    """A record as Fluent Bit's Kafka output makes it."""
    return json.dumps({"@timestamp": 1795382790.123, "log": line}).encode()


def state_of(at: Bench) -> Path:
    """The state file."""
    (found,) = at.config.collectors.state_path.glob("log-*.json")
    return found


WRAPPINGS: dict[str, tuple[dict[str, object], Callable[[int], list[bytes]]]] = {
    "csvlog by Vector": (
        {"format": "csvlog", "field": "message"}, lambda number: [vector(line) for line in csv(number)],
    ),
    "stderr by Fluent Bit": (
        {"format": "stderr", "field": "log", "line_prefix": "%t:%r:%u@%d:[%p]:"},
        lambda number: [fluent(line) for line in stderr(number)],
    ),
    "stderr as it is": (
        {"format": "stderr", "line_prefix": "%t:%r:%u@%d:[%p]:"},
        lambda number: [line.encode() for line in stderr(number)],
    ),
    "jsonlog by Fluent Bit": (
        {"format": "jsonlog", "field": "log"}, lambda number: [fluent(json.dumps(jsonlog(number)))],
    ),
    "jsonlog taken apart": (
        {"format": "jsonlog", "field": "log"},
        lambda number: [json.dumps({"@timestamp": 1.5, "host": "db1", **jsonlog(number)}).encode()],
    ),
    "csvlog, several lines a record": (
        {"format": "csvlog"}, lambda number: ["\n".join(csv(number)).encode()],
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_each_wrapping_over_restarts_and_a_crash(
    wrapping: str, configured: Callable[..., Config], shipper: Shipper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that end in the middle of a reading, a restart there, a crash: every statement is evidence once."""
    settings, make = WRAPPINGS[wrapping]
    with bench(configured(**settings)) as at:
        first = [record for number in range(6) for record in make(number)]
        middle = len(make(0)) // 2
        shipper.ship(first[: len(first) - middle] if middle else first)
        with collecting(at) as raised:
            await_marks(at, 5 if middle else 6)
        stored = state_of(at).read_bytes()
        if middle:
            shipper.ship(first[len(first) - middle :])
        shipper.ship([record for number in range(6, 12) for record in make(number)])
        monkeypatch.setattr(kafka, "IDLE_S", 0.5)  # nothing follows the last message of a text log
        with collecting(at) as again:
            await_marks(at, 12)
        state_of(at).write_bytes(stored)
        repeats = len(marks_raw(at)) + 6
        with collecting(at) as crashed:
            at.raw.wait(lambda: len(marks_raw(at)) >= repeats, "the repeats")
        assert (raised, again, crashed) == ([], [], [])
        assert marks(told(at)) == expected(12)
        assert at.raw.of(Gap) == []


def test_sources_and_partitions_are_put_together_apart(at: Bench, shipper: Shipper) -> None:
    """Lines of two hosts between each other in one partition, and a third in another: every message whole."""
    lines = [(host, line) for pair in zip(csv(0), csv(1), strict=True) for host, line in zip(HOSTS, pair, strict=True)]
    shipper.ship([vector(line, host) for host, line in lines])
    shipper.ship([vector(line, "db3") for line in csv(2)], partition=1)
    with collecting(at) as raised:
        await_marks(at, 3)
    assert raised == []
    assert marks(told(at)) == expected(3)
    logs = {event.place.log for event in at.raw.of(Statement)}
    assert {log.rpartition("/")[0] for log in logs} == {f"{shipper.topic}/0", f"{shipper.topic}/1"}
    assert len(logs) == 3


def test_instances_are_told_by_their_host(configured: Callable[..., Config], shipper: Shipper) -> None:
    """Lines of a replica are published as the replica's; those of a host nobody named are counted and left."""
    config = configured(
        format="csvlog", field="message", instances={"db1": "db1.example:5432", "db2": "db2.example:5432"}
    )
    foreign = kafka.FOREIGN.labels("shop")
    before = foreign._value.get()
    with bench(config) as at:
        for number, host in enumerate(["db1", "db2", "elsewhere"]):
            shipper.ship([vector(line, host) for line in csv(number)])
        with collecting(at) as raised:
            await_marks(at, 2)
            at.raw.wait(lambda: foreign._value.get() == before + 3, "the others' records")
        assert raised == []
        assert marks(told(at)) == expected(2)
        seen = zip(at.raw.seen, at.raw.instances, strict=True)
        whose = sorted(str(instance) for event, instance in seen if isinstance(event, Statement))
        assert whose == ["db1.example:5432", "db2.example:5432"]


def test_a_batch_of_several_hosts_is_resumed_within_messages(
    configured: Callable[..., Config], shipper: Shipper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts in turns, read by the batch: a stop where each is within a message, and a crash after it, lose nothing."""
    monkeypatch.setattr(kafka, "GATHERED_BYTES_MAX", 400)  # a batch ends within messages, also without a stop
    config = configured(
        format="csvlog", field="message", instances={"db1": "db1.example:5432", "db2": "db2.example:5432"}
    )
    foreign = kafka.FOREIGN.labels("shop")
    lines = [[line for number in range(first, 20, 2) for line in csv(number)] for first in range(2)]
    records: list[bytes | None] = [
        vector(line, host) for pair in zip(*lines, strict=True) for host, line in zip(HOSTS, pair, strict=True)
    ]
    with bench(config) as at:
        # 17 lines of each: five messages and two lines. When the record behind them was counted, all were read.
        shipper.ship([*records[:34], vector("", "elsewhere")])
        before = foreign._value.get()
        with collecting(at) as raised:
            await_marks(at, 10)
            at.raw.wait(lambda: foreign._value.get() == before + 1, "the record behind")
        stored = state_of(at).read_bytes()
        positions = json.loads(stored)["state"]["partitions"][0]["open"]
        assert [(position["offset"], position["skip"]) for position in positions] == [(30, 0), (31, 0)]
        shipper.ship(records[34:])
        with collecting(at) as again:
            await_marks(at, 20)
        state_of(at).write_bytes(stored)
        with collecting(at) as crashed:
            at.raw.wait(lambda: len(marks_raw(at)) == 30, "the repeats")
        assert (raised, again, crashed) == ([], [], [])
        assert sorted(marks(told(at))) == sorted(expected(20))
        assert at.raw.of(Gap) == []
        places: dict[str, set[tuple[int, int]]] = {}
        for event in at.raw.of(Statement):
            places.setdefault(event.place.log, set()).add((event.place.offset, event.place.index))
        assert sorted(map(sorted, places.values())) == [
            [(6 * number + host + (number > 5), 0) for number in range(10)] for host in range(2)
        ]


def test_records_that_hold_no_line_are_counted_and_told(at: Bench, shipper: Shipper) -> None:
    """Garbage, a tombstone, and an object without the field: a gap with a keyed hash, and what follows is read."""
    shipper.ship([b"geheim \xff\0", None, b'{"other": "geheim"}', vector("geheim")])
    shipper.ship([vector(line) for line in csv(0)])
    with collecting(at) as raised:
        await_marks(at, 1)
        at.raw.wait(lambda: sum(_lines(gap) for gap in at.raw.of(Gap)) == 3, "the gaps")
    assert raised == []
    assert {gap.reason for gap in at.raw.of(Gap)} == {"log_unreadable"}
    assert "geheim" not in str([gap.detail for gap in at.raw.of(Gap)])


def _lines(gap: Gap) -> int:
    lines = gap.detail["lines"]
    assert isinstance(lines, int)
    return lines


@pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
def test_the_first_start_may_begin_at_the_end(configured: Callable[..., Config], shipper: Shipper) -> None:
    """What is in the topic at the very first start is left; after a lost state everything is read again.

    Not on the embedded broker, which calls the beginning of the last batch the topic's end.
    """
    with bench(configured(format="csvlog", field="message", start="end")) as at:
        shipper.ship([vector(line) for line in csv(0)])
        with collecting(at):
            shipper.ship([vector(line) for line in csv(1)])
            await_marks(at, 1)
        assert marks(told(at)) == ["1"]
        state_of(at).write_text("{")
        with collecting(at):
            await_marks(at, 2)
            at.raw.wait(lambda: len(marks_raw(at)) == 3, "the repeat")
        assert [gap.reason for gap in at.raw.of(Gap)] == ["collector_state_lost"]
        assert marks(told(at)) == ["1"]  # record 0 lies before what the fold has seen


def test_a_restart_without_news_is_no_gap(at: Bench, shipper: Shipper) -> None:
    """Nothing has come meanwhile: the position is the topic's end, whatever the broker says of that."""
    shipper.ship([vector(line) for number in range(4) for line in csv(number)])
    for _ in range(2):
        with collecting(at) as raised:
            await_marks(at, 4)
        assert raised == []
    assert at.raw.of(Gap) == []
    assert len(marks_raw(at)) == 4


@pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
def test_a_topic_made_anew_is_a_gap(at: Bench, shipper: Shipper) -> None:
    """Its records are counted from 0 again: they are read, and are no repeats of the old ones.

    The embedded broker does not answer who asks for what lies behind a topic's end.
    """
    shipper.ship([vector(line) for number in range(4) for line in csv(number)])
    with collecting(at):
        await_marks(at, 4)
    for future in shipper.admin.delete_topics([shipper.topic]).values():
        future.result()
    at.raw.wait(lambda: shipper.topic not in shipper.admin.list_topics(timeout=10).topics, "the topic's end")
    shipper.make()
    shipper.ship([vector(line) for line in csv(4)])
    with collecting(at) as raised:
        await_marks(at, 5)
    assert raised == []
    assert [gap.reason for gap in at.raw.of(Gap)] == ["log_truncated"]
    assert marks(told(at)) == expected(5)


@pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
def test_records_deleted_before_they_were_read_are_a_gap(at: Bench, shipper: Shipper) -> None:
    """The topic's retention was shorter than the collector's absence."""
    shipper.ship([vector(line) for line in csv(0)])
    with collecting(at):
        await_marks(at, 1)
    shipper.ship([vector(line) for number in (1, 2) for line in csv(number)])
    for future in shipper.admin.delete_records([TopicPartition(shipper.topic, 0, 6)]).values():
        future.result()
    with collecting(at) as raised:
        await_marks(at, 2)
    assert raised == []
    (gap,) = at.raw.of(Gap)
    assert (gap.reason, gap.detail["offset"], gap.detail["until"]) == ("log_rotated_away", 3, 6)
    assert marks(told(at)) == ["0", "2"]


@pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
def test_partitions_that_are_added_are_read(at: Bench, shipper: Shipper, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic may grow while it is read; the embedded broker's cannot."""
    from confluent_kafka.cimpl import NewPartitions

    monkeypatch.setattr(kafka, "LOOK_S", 0.2)
    with collecting(at) as raised:
        for future in shipper.admin.create_partitions([NewPartitions(shipper.topic, 3)]).values():
            future.result()
        shipper.ship([vector(line) for line in csv(0)], partition=2)
        await_marks(at, 1)
    assert raised == []


def test_what_cannot_be_read_says_what_to_do(configured: Callable[..., Config], tmp_path: Path) -> None:
    """No topic configured, and one that is not there."""
    config = configured()
    with bench(config) as at, running(lambda stop: collector.run(context_of(config, at.publisher), stop)) as raised:
        at.raw.wait(lambda: raised != [], "the error")
    assert isinstance(raised[0], Retry)
    assert "create it, or correct log.topic" in str(raised[0])
    cluster = config.cluster("shop")
    nameless = replace(config, clusters={"shop": replace(cluster, log=Log(from_="kafka"))})
    with pytest.raises(ConfigurationError, match=r"log\.topic is empty"):
        collector.check(nameless)


def test_too_many_sources_push_out_the_oldest(at: Bench, shipper: Shipper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever invents hosts fills no memory; what waited for its end is told of."""
    monkeypatch.setattr(kafka, "SOURCES_MAX", 3)
    shipper.ship([vector(csv(0)[0], "half")])
    shipper.ship([vector(line, f"host{number}") for number in range(5) for line in csv(number)])
    with collecting(at) as raised:
        await_marks(at, 5)
        at.raw.wait(lambda: at.raw.of(Gap) != [], "the gap")
    assert raised == []
    assert [gap.reason for gap in at.raw.of(Gap)] == ["log_half_record"]
