"""The topics in Kafka: planned, created, checked. `pgwitness topics apply` is this.

`plan` is pure; `check` and `apply` ask the broker and raise `Unreachable` when it does not answer within
`TIMEOUT_S`. Nothing is ever deleted or shrunk: what differs from the plan and cannot be corrected is reported.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
)
from msgspec import Struct

from pgwitness.core.config import Config
from pgwitness.core.errors import NotInOrder, Stop, Unreachable
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.runtime.refusals import Refusals
from pgwitness.core.topics import Topic, topics

TIMEOUT_S = 15.0
ASK_S = 1.0
"""How long one question may take, so that a refusal is noticed soon."""


class Planned(Struct, frozen=True):
    """A topic as it should be."""

    name: str
    partitions: int
    replication_factor: int
    settings: dict[str, str]


class Finding(Struct, frozen=True):
    """What `check` or `apply` says of one topic.

    `state`: `ok`, `created`, `changed`, `missing` or `differs`; the last two are not in order. `detail` says what.
    """

    topic: str
    state: str
    detail: str = ""

    @property
    def in_order(self) -> bool:
        """Whether nothing is left to do."""
        return self.state not in ("missing", "differs")


def plan(config: Config) -> list[Planned]:
    """List the topics of this installation with their settings."""
    return [
        Planned(
            config.kafka.topic(topic.name),
            topic.partitions,
            config.topics.replication_factor,
            topic.settings(),
        )
        for topic in _topics(config)
    ]


def _topics(config: Config) -> tuple[Topic, ...]:
    return topics(config.topics.raw_partitions, config.topics.event_partitions)


class _Client(AdminClient):
    """A client that knows what the broker said when it refused."""

    def __init__(self, config: Config) -> None:
        self.refusals = Refusals()
        settings: dict[str, Any] = {**config.kafka.client(), "socket.connection.setup.timeout.ms": "5000"}
        super().__init__(settings | {"log_level": "0", "logger": LIBRDKAFKA, "error_cb": self.refusals})


def _partitions(
    config: Config, client: _Client, timeout_s: float | None = None, stop: threading.Event | None = None
) -> dict[str, int]:
    """Ask which topics there are; raises `Unreachable`, at once where the broker refuses or `stop` is set."""
    deadline = time.monotonic() + (TIMEOUT_S if timeout_s is None else timeout_s)
    while True:
        left_s = deadline - time.monotonic()
        try:
            metadata = client.list_topics(timeout=max(0.1, min(ASK_S, left_s)))
            break
        except KafkaException as error:
            client.poll(0)  # which is when complaints arrive
            if client.refusals.final or left_s <= ASK_S or (stop is not None and stop.is_set()):
                raise Unreachable(client.refusals.explain(config.kafka.bootstrap, error.args[0].str())) from error
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


def of_worker(config: Config) -> list[str]:
    """List the topics that a worker reads or writes, which are those it may see."""
    ours = (topic for topic in _topics(config) if "worker" in (*topic.writers, *topic.readers))
    return [config.kafka.topic(topic.name) for topic in ours]


def counts(config: Config) -> dict[str, int]:
    """Return the number of partitions of each topic that may be seen. Raise `Unreachable`."""
    return _partitions(config, _Client(config))


def reach(config: Config) -> None:
    """Raise `Unreachable` when the broker is not there, or refuses, saying what to do."""
    _partitions(config, _Client(config))


def require(config: Config, timeout_s: float | None = None, stop: threading.Event | None = None) -> dict[str, int]:
    """Raise `Unreachable` without a broker, and `Stop` when topics of a worker are missing or have too few partitions.

    Topics of others may be hidden from it, or come with a later version: they are nothing to it. Returns how many
    partitions each topic has: some may have been added, which are read too.
    """
    there = _partitions(config, _Client(config), timeout_s, stop)
    needed = set(of_worker(config))
    for planned in plan(config):
        if planned.name not in needed:
            continue
        number = there.get(planned.name)
        if number is None:
            raise Stop(
                f"topic {planned.name} is missing, or this account may not see it: run `pgwitness topics apply`; "
                "with --print it lists the ACLs"
            )
        if number < planned.partitions:
            raise Stop(
                f"topic {planned.name} has {number} partitions, the configuration says {planned.partitions}: set "
                "topics.raw_partitions and topics.event_partitions to what is there; they cannot change afterwards"
            )
    return there


def check(config: Config) -> list[Finding]:
    """Compare the topics with the plan, changing nothing."""
    client = _Client(config)
    there = _partitions(config, client)
    return [_compare(client, planned, there.get(planned.name)) for planned in plan(config)]


def apply(config: Config) -> list[Finding]:
    """Create what is missing and correct retention, cleanup and sizes; running it again changes nothing."""
    client = _Client(config)
    there = _partitions(config, client)
    findings = [
        _create(client, planned) if planned.name not in there else _correct(client, planned, there[planned.name])
        for planned in plan(config)
    ]
    _settle(config, client, {finding.topic for finding in findings if finding.state == "created"})
    return findings


def _settle(config: Config, client: _Client, created: set[str]) -> None:
    """Wait until brokers know of what was created: who comes next must find it."""
    deadline = time.monotonic() + TIMEOUT_S
    while not created <= set(_partitions(config, client)):
        if time.monotonic() > deadline:
            raise Unreachable("the topics were created but do not show; run `pgwitness topics apply` again")
        time.sleep(0.1)


def _create(client: _Client, planned: Planned) -> Finding:
    new = NewTopic(
        planned.name,
        num_partitions=planned.partitions,
        replication_factor=planned.replication_factor,
        config=planned.settings,
    )
    try:
        _result(client.create_topics([new], request_timeout=TIMEOUT_S)[planned.name])
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return Finding(planned.name, "ok")
        raise NotInOrder(f"topic {planned.name} cannot be created: {error.args[0].str()}") from error
    return Finding(planned.name, "created", f"{planned.partitions} partitions")


def _correct(client: _Client, planned: Planned, partitions: int) -> Finding:
    found = _compare(client, planned, partitions)
    if found.in_order or partitions != planned.partitions:
        return found
    entries = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in planned.settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, planned.name, incremental_configs=entries)
    try:
        _result(client.incremental_alter_configs([resource], request_timeout=TIMEOUT_S)[resource])
    except KafkaException as error:
        return Finding(planned.name, "differs", f"{found.detail}; cannot be changed: {error.args[0].str()}")
    return Finding(planned.name, "changed", found.detail)


def _compare(client: _Client, planned: Planned, partitions: int | None) -> Finding:
    if partitions is None:
        return Finding(
            planned.name, "missing", "or this account is not allowed to see it; run `pgwitness topics apply`"
        )
    if partitions != planned.partitions:
        return Finding(planned.name, "differs", f"{partitions} partitions instead of {planned.partitions}")
    resource = ConfigResource(ResourceType.TOPIC, planned.name)
    try:
        entries = _result(client.describe_configs([resource], request_timeout=TIMEOUT_S)[resource])
    except KafkaException as error:
        return Finding(planned.name, "ok", f"settings cannot be read: {error.args[0].str()}")
    differing = [
        f"{key} is {entries[key].value} instead of {wanted}"
        for key, wanted in planned.settings.items()
        if key in entries and not _same(entries[key], wanted)
    ]
    return Finding(planned.name, "differs", ", ".join(differing)) if differing else Finding(planned.name, "ok")


def _same(entry: Any, wanted: str) -> bool:
    """Whether a setting is as wanted; one the broker does not keep (no source, no value) cannot differ."""
    if entry.value is None:
        return True
    if entry.source == ConfigSource.UNKNOWN_CONFIG.value and entry.value == "":
        return True
    return bool(entry.value == wanted)


def _result(future: Future[Any]) -> Any:
    return future.result(TIMEOUT_S + 5)
