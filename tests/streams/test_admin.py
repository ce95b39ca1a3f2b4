"""Topics: planned, created, checked; a broker that is not there is said in a sentence."""

from __future__ import annotations

import time

import pytest
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from pgwitness.core.config import Config, Kafka
from pgwitness.core.config import Topics as TopicsSection
from pgwitness.core.errors import Stop, Unreachable
from pgwitness.demo.servers import Broker, free_port
from streams.kafka import admin
from streams.kafka.acls import Acl, acls
from tests.conftest import AnyBroker
from tests.streams.conftest import eventually


def configured(bootstrap: str, prefix: str, **topics: int) -> Config:
    """A configuration of these topics."""
    return Config(
        kafka=Kafka(bootstrap=bootstrap, prefix=prefix),
        topics=TopicsSection(**{"raw_partitions": 3, "event_partitions": 2} | topics),
    )


def test_applying_twice_changes_nothing(broker: AnyBroker, topic_prefix: str) -> None:
    """The first call creates every topic, the second finds all of them in order."""
    config = configured(broker.bootstrap, topic_prefix)
    assert {finding.state for finding in admin.check(config)} == {"missing"}
    with pytest.raises(Stop, match="topics apply"):
        admin.require(config)
    assert {finding.state for finding in admin.apply(config)} == {"created"}
    assert {finding.state for finding in admin.apply(config)} == {"ok"}
    assert all(finding.in_order for finding in admin.check(config))
    admin.require(config)
    topics = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0}).list_topics(timeout=10).topics
    assert len(topics[f"{topic_prefix}raw"].partitions) == 3
    assert len(topics[f"{topic_prefix}state-judge"].partitions) == 2


@pytest.mark.kafka
def test_settings_that_differ_are_corrected(apache_kafka: AnyBroker, topic_prefix: str) -> None:
    """Retention or sizes that somebody changed are found, and set again."""
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    config = configured(apache_kafka.bootstrap, topic_prefix)
    admin.apply(config)
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, f"{topic_prefix}raw", incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": apache_kafka.bootstrap, "log_level": 0})
    client.incremental_alter_configs([resource])[resource].result(10)
    wrong = eventually(lambda: [found for found in admin.check(config) if not found.in_order], "the change shows")
    assert [found.detail for found in wrong] == ["retention.ms is 1000 instead of 604800000"]
    assert [finding.state for finding in admin.apply(config) if finding.state != "ok"] == ["changed"]
    eventually(lambda: all(finding.in_order for finding in admin.check(config)), "the correction shows")


def test_another_number_of_partitions_is_reported(embedded_broker: Broker, topic_prefix: str) -> None:
    """Partitions are never changed: positions rest on them."""
    admin.apply(configured(embedded_broker.bootstrap, topic_prefix))
    other = configured(embedded_broker.bootstrap, topic_prefix, raw_partitions=4)
    differing = {finding.topic: finding.detail for finding in admin.apply(other) if not finding.in_order}
    assert differing == {
        f"{topic_prefix}raw": "3 partitions instead of 4",
        f"{topic_prefix}state-fold": "3 partitions instead of 4",
    }
    with pytest.raises(Stop, match="3 partitions, the configuration says 4"):
        admin.require(other)


@pytest.mark.kafka
@pytest.mark.parametrize(("missing", "matters"), [("checkpoints", False), ("feedback", True)])
def test_a_worker_needs_its_own_topics(apache_kafka: AnyBroker, topic_prefix: str, missing: str, matters: bool) -> None:
    """A topic that only others use is not asked for: it may be hidden, or younger than the installation."""
    config = configured(apache_kafka.bootstrap, topic_prefix)
    admin.apply(config)
    client = AdminClient({"bootstrap.servers": apache_kafka.bootstrap, "log_level": 0})
    gone = f"{topic_prefix}{missing}"
    client.delete_topics([gone])[gone].result(10)
    eventually(lambda: gone not in client.list_topics(timeout=10).topics, "the topic is gone")
    if matters:
        with pytest.raises(Stop, match=f"topic {gone} is missing"):
            admin.require(config)
    else:
        admin.require(config)


def test_the_plan_names_rights_and_sizes() -> None:
    """Without a broker the plan says what there must be; dead letters may be larger than what they hold."""
    planned = {topic.name: topic for topic in admin.plan(configured("nowhere:1", "p."))}
    allowed = acls(configured("nowhere:1", "p."))
    assert Acl("collect", ("Write", "Describe"), "topic", "p.raw") in allowed
    assert Acl("worker", ("Read",), "group", "pgwitness-worker") in allowed
    assert Acl("deliver", ("Read",), "group", "p.deliver-", prefixed=True) in allowed
    largest = {name: int(topic.settings["max.message.bytes"]) for name, topic in planned.items()}
    assert largest["p.dead-letters"] > max(largest["p.raw"], largest["p.events"])
    assert planned["p.state-fold"].settings["cleanup.policy"] == "compact"


def test_a_broker_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a bounded time an unreachable broker is reported with what to do."""
    monkeypatch.setattr(admin, "TIMEOUT_S", 2.0)
    config = configured(f"127.0.0.1:{free_port()}", "p.")
    began = time.monotonic()
    for ask in (admin.check, admin.apply):
        with pytest.raises(Unreachable, match=r"start it, or correct kafka\.bootstrap"):
            ask(config)
    with pytest.raises(Unreachable):
        admin.require(replace(config, kafka=replace(config.kafka, prefix="q.")), timeout_s=1.0)
    assert time.monotonic() - began < 30
