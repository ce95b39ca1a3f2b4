"""The log collector: picks the source of a server's log, and turns until it is told to stop.

What it sends, and where it stands, is the matter of `reading`, `files` and `shipped`.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import partial
from typing import Protocol

import structlog
from msgspec.structs import replace

from collectors.connection import instance_name
from collectors.context import Context, now_us
from collectors.log import catalogues
from collectors.log.reading import DELIVERY_S_MAX, IDLE_S, Reading, formats
from collectors.log.sources.files import FileCollector
from collectors.log.sources.follow import READ_BYTES, FileState, Follower
from collectors.log.sources.kafka import KafkaCollector
from collectors.log.sources.remote import RemoteFollower
from collectors.log.sources.server import ServerLog
from collectors.log.surroundings import Watch
from collectors.publisher import Channel
from pgwitness.core.config import Cluster, Config, Log
from pgwitness.core.contracts.collector import Task
from pgwitness.core.errors import ConfigurationError

SQL_PAUSE_S_MAX = 2.0
"""How rarely at most a server is asked whose log grows by nothing but the asking."""
ENDINGS = {"jsonlog": ".json", "csvlog": ".csv"}

log = structlog.get_logger("log")


class LogReader(Protocol):
    """What turns: `step` reads what there is and is false when there was nothing."""

    reading: Reading

    @property
    def readings(self) -> Iterable[Reading]:
        """All that is read, of one instance each."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read at the moment, and what to do."""

    def begin(self) -> None:
        """Decide where reading begins, before anything is waited for."""

    def step(self) -> bool:
        """Read what there is; false when that was nothing."""

    def end(self) -> None:
        """Remember how far it came."""


def check(config: Config) -> None:
    """Raise `ConfigurationError` when no cluster has a log, or one cannot be collected as configured."""
    if all(cluster.log is None for cluster in config.clusters.values()):
        raise ConfigurationError("no cluster has a log; add a table [clusters.NAME.log] that says where it is")
    for name, cluster in sorted(config.clusters.items()):
        _check(name, cluster)


def _check(name: str, cluster: Cluster) -> None:
    settings = cluster.log
    if settings is None:
        return
    where = f"clusters.{name}.log"
    if settings.from_ == "file" and not settings.path:
        raise ConfigurationError(f'{where}.path is empty; name the files, such as "/var/log/postgresql/*.json"')
    if settings.from_ == "sql" and "/" in settings.path:
        raise ConfigurationError(
            f'{where}.path: {settings.path!r} has a folder; from = "sql" reads log_directory of the server, so name '
            'the files in it, such as "*.json", or leave it out'
        )
    if settings.from_ == "kafka" and not settings.topic:
        raise ConfigurationError(f"{where}.topic is empty; name the topic that the shipper fills")
    formats(settings)


def instances(context: Context) -> dict[str, str]:
    """Return the parts that collect a cluster's log, by name, with the DSN of each: over SQL one an instance."""
    settings, cluster = context.cluster.log, context.cluster
    if settings is None or settings.from_ != "sql":
        return {f"log {context.name}": cluster.dsn}
    return {f"log {context.name} {instance_name(dsn)}": dsn for dsn in [cluster.dsn, *cluster.replicas]}


def tasks(context: Context) -> dict[str, Task]:
    """Return the tasks that collect a cluster's log: over SQL one an instance, else one; none where it has none."""
    if context.cluster.log is None:
        return {}
    _check(context.name, context.cluster)
    return {part: partial(run, context, dsn=dsn) for part, dsn in instances(context).items()}


def run(context: Context, stop: threading.Event, dsn: str | None = None) -> None:
    """Collect the log of a cluster until `stop`, over SQL that of the instance behind `dsn`.

    Raise `Retry` when the broker or the server is lost, or a right is missing.
    """
    _check(context.name, context.cluster)
    settings = context.cluster.log
    assert settings is not None
    dsn = dsn or context.cluster.dsn
    instance = instance_name(dsn)
    part = next(name for name, known in instances(context).items() if known == dsn)
    channel = context.publisher.channel(context.name, "log", instance)
    catalogues.follow(context, stop)
    channel.while_blocked = lambda: context.health.ready(part, "the broker does not take records; check that it runs")
    watch = Watch(context.cluster, dsn, context.key)
    watch.start()
    try:
        if settings.from_ == "stdin":
            _standard_input(context, settings, channel, part, stop, watch=watch)
        elif settings.from_ == "sql":
            _sql(context, settings, channel, part, stop, dsn, watch)
        elif settings.from_ == "kafka":
            _kafka(context, settings, channel, part, stop, watch)
        else:
            _files(context, settings, channel, part, stop, watch)
    finally:
        watch.end()
        channel.close()


def _files(context: Context, settings: Log, channel: Channel, part: str, stop: threading.Event, watch: Watch) -> None:
    def follow(states: list[FileState] | None, number: int) -> Follower:
        return Follower(settings.path, states, number, from_end=settings.start == "end")

    collector = FileCollector(context, settings, channel, f"log-{context.name}", follow)
    _turn(context, collector, part, stop, watch, lambda busy: 0.0 if busy else settings.interval)


def _sql(
    context: Context, settings: Log, channel: Channel, part: str, stop: threading.Event, dsn: str, watch: Watch
) -> None:
    server = ServerLog(context.cluster, dsn, settings, context.key)
    # What the server says of itself is right, whatever stands in the configuration.
    settings = replace(settings, line_prefix=server.line_prefix, timezone=server.timezone)

    def follow(states: list[FileState] | None, number: int) -> RemoteFollower:
        wanted = partial(_wanted, settings)
        return RemoteFollower(server, wanted, states, number, from_end=settings.start == "end")

    try:
        name = f"log-{context.name}-{channel.header.instance}"
        collector = FileCollector(context, settings, channel, name, follow)
        _turn(context, collector, part, stop, watch, Pace(settings.interval, collector.reading).pause)
    finally:
        server.close()


def _kafka(context: Context, settings: Log, channel: Channel, part: str, stop: threading.Event, watch: Watch) -> None:
    def channel_of(instance: str) -> Channel:
        further = context.publisher.channel(context.name, "log", instance)
        further.while_blocked = channel.while_blocked
        return further

    collector = KafkaCollector(context, settings, channel, channel_of)
    _turn(context, collector, part, stop, watch, lambda _: 0.0)  # it waits itself, for records


def _wanted(settings: Log, name: str) -> bool:
    """Return whether a file of log_directory is the log; without a pattern its ending tells, as the server does."""
    if settings.path:
        return fnmatchcase(name, settings.path)
    ending = ENDINGS.get(settings.format)
    return name.endswith(ending) if ending is not None else not name.endswith(tuple(ENDINGS.values()))


class Pace:
    """How long to wait between two looks at a log that the looking may write to itself.

    With every statement logged, each look makes the log grow: so what counts is what others did. While nobody does
    anything the pauses grow.
    """

    def __init__(self, interval_s: float, reading: Reading) -> None:
        self._interval_s = self._pause_s = interval_s
        self._reading = reading
        self._sent = 0

    def pause(self, _busy: bool) -> float:
        """Return the seconds until the next look."""
        if self._reading.sent == self._sent:
            self._pause_s = max(self._interval_s, min(2 * self._pause_s, SQL_PAUSE_S_MAX))
        else:
            self._pause_s = self._interval_s
        self._sent = self._reading.sent
        return self._pause_s


def _judge(reading: Reading, watch: Watch) -> None:
    """Judge lines by what is known now; ask again when the log shows that something was installed."""
    reading.statuses = watch.statuses
    if reading.interpreter.doubts:
        reading.interpreter.doubts = False
        watch.doubt()
    reading.provenance.surroundings = watch.now


def _turn(
    context: Context,
    collector: LogReader,
    part: str,
    stop: threading.Event,
    watch: Watch,
    pause: Callable[[bool], float],
) -> None:
    try:
        collector.begin()
        watch.wait(stop)
        while not stop.is_set():
            for reading in collector.readings:
                _judge(reading, watch)
            busy = collector.step()
            context.health.ready(part, collector.trouble)
            stop.wait(pause(busy))
    finally:
        collector.end()


def _standard_input(
    context: Context,
    settings: Log,
    channel: Channel,
    part: str,
    stop: threading.Event,
    descriptor: int | None = None,
    *,
    watch: Watch,
) -> None:
    """Read standard input to its end. There is no way back in it: what a crash leaves unconfirmed is lost."""
    source = sys.stdin.fileno() if descriptor is None else descriptor
    reading = Reading(context, settings, channel)
    began_us, offset = now_us(), 0
    stream = reading.stream(f"stdin-{began_us:x}", 0)
    watch.wait(stop)
    quiet_since, ended = time.monotonic(), False
    while not stop.is_set():
        context.health.ready(part)
        reading.tell()
        _judge(reading, watch)
        if ended:
            stop.wait(IDLE_S)
            continue
        if select.select([source], [], [], settings.interval)[0]:
            data = os.read(source, READ_BYTES)
            ended = not data
            offset += len(data)
            stream.take(data)
            quiet_since = time.monotonic()
        if ended or time.monotonic() - quiet_since >= IDLE_S:
            stream.idle()
            reading.idle(stream)
        if ended:
            log.info("standard input has ended", cluster=context.name, bytes=offset)
            channel.flush(DELIVERY_S_MAX)
