"""What the whole collector of the server's log needs a line: from a file, and from a topic that a shipper fills.

From the bytes where they lie to batches that the embedded broker has confirmed: following, unwrapping, splitting,
reading, interpreting, encoding, producing and remembering. What counts is the processor time of this process with all
its threads (also librdkafka's); the broker is a process of its own.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from collectors.context import Context
from collectors.daemon import GC_THRESHOLDS
from collectors.log.sources.files import FileCollector
from collectors.log.sources.follow import Follower
from collectors.log.sources.kafka import KafkaCollector
from collectors.publisher import Channel, Publisher
from pgwitness.core.runtime.health import Health
from pgwitness.demo.servers import Broker
from tests.conftest import write_config

TOPIC = "pglog"
DELIVERY_S_MAX = 60.0
WAYS = ("file", "kafka, the line", "kafka, as Vector ships it", "kafka, two hosts in turns")


def collected(data: bytes, passes: int = 3) -> dict[str, dict[str, float]]:
    """Collect the lines of a jsonlog in each way, in turns; gives microseconds of processor time a line, the best."""
    lines = data.splitlines()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)  # as `pgwitness collect` does
    with tempfile.TemporaryDirectory(prefix="pgwitness-log-") as folder, Broker(Path(folder) / "broker") as broker:
        for number in range(passes):
            for place, way in enumerate(WAYS):
                root = Path(folder) / f"pass{number}-{place}"
                found[way].append(_collect(way, lines, broker, root, f"p{number}{place}."))
    gc.set_threshold(*thresholds)
    return {
        way: {"us_per_line": round(min(values), 2), "lines_per_cpu_s": round(1e6 / min(values))}
        for way, values in found.items()
    }


def _collect(way: str, lines: list[bytes], broker: Broker, root: Path, prefix: str) -> float:
    log: dict[str, Any] = {"start": "beginning", "format": "jsonlog"}
    if way == "file":
        log |= {"from": "file", "path": str(root / "log" / "*.json")}
        (root / "log").mkdir(parents=True)
        (root / "log" / "a.json").write_bytes(b"\n".join(lines) + b"\n")
    else:
        log |= {"from": "kafka", "topic": prefix + TOPIC, "interval": "50ms"}
        if way != WAYS[1]:
            log["field"] = "message"
        _ship(broker.bootstrap, prefix, _wrapped(way, lines))
    extra = "[clusters.shop.log]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in log.items())
    dsn = "postgresql://pgwitness@db1.example/postgres"
    config = write_config(root, broker.bootstrap, dsn, prefix=prefix, raw_partitions=1, cluster_extra=extra)
    _topic(broker.bootstrap, f"{prefix}raw")
    publisher = Publisher(config)
    context = Context(config, "shop", config.cluster("shop"), publisher, Health(), b"k" * 32)
    channel = publisher.channel("shop", "log", "db1.example:5432")
    try:
        with _collector(context, channel) as collector:
            begin = time.process_time()
            while collector.reading.sent < len(lines):
                collector.step()
            channel.flush(DELIVERY_S_MAX)
            return (time.process_time() - begin) / len(lines) * 1e6
    finally:
        channel.close()
        publisher.close()


@contextmanager
def _collector(context: Context, channel: Channel) -> Iterator[FileCollector | KafkaCollector]:
    settings = context.cluster.log
    assert settings is not None
    collector: FileCollector | KafkaCollector
    if settings.from_ == "file":
        collector = FileCollector(
            context,
            settings,
            channel,
            "log",
            lambda states, number: Follower(settings.path, states, number, from_end=False),
        )
    else:
        none: Callable[[str], Channel] = lambda _: channel  # noqa: E731 - there is one instance
        collector = KafkaCollector(context, settings, channel, none)
    try:
        yield collector
    finally:
        collector.end()


def _wrapped(way: str, lines: list[bytes]) -> list[bytes]:
    if way == WAYS[1]:
        return lines
    hosts = ("db1", "db2") if way == WAYS[3] else ("db1",)
    return [
        json.dumps(
            {"file": "/var/log/postgresql/a.json", "host": hosts[number % len(hosts)], "message": line.decode(),
             "source_type": "file", "timestamp": "2026-11-22T21:26:30.5Z"}
        ).encode()
        for number, line in enumerate(lines)
    ]  # fmt: skip


def _topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        future.result()


def _ship(bootstrap: str, prefix: str, records: list[bytes]) -> None:
    _topic(bootstrap, prefix + TOPIC)
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, "compression.type": "lz4", "linger.ms": 20})
    for record in records:
        while True:
            try:
                producer.produce(prefix + TOPIC, record, b"k", 0)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(DELIVERY_S_MAX) == 0


if __name__ == "__main__":
    from tests.bench.log_lines import LINES, messages

    print(json.dumps(collected(messages(LINES)["jsonlog"]), indent=2))
