"""What follows the topic knows what was decided, also after it was written by itself, and says when it cannot know."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from pgwitness.approvals import records
from pgwitness.approvals.following import Following
from pgwitness.approvals.topic import ApprovalsTopic
from pgwitness.core.config import Approvals, Config, Kafka
from pgwitness.core.errors import NotInOrder, Unreachable
from pgwitness.demo.servers import Broker
from tests.approvals import signing


@pytest.fixture
def config(embedded_broker: Broker, topic_prefix: str) -> Config:
    """A configuration with a gateway's key and approvers, and the topic."""
    found = Config(
        kafka=Kafka(bootstrap=embedded_broker.bootstrap, prefix=topic_prefix),
        approvals=Approvals(gateways=[signing.public_text(signing.GATEWAY.public_key())]),
        approvers=signing.APPROVERS,
    )
    topic = NewTopic(found.kafka.topic("approvals"), 1, 1)
    admin = AdminClient({"bootstrap.servers": embedded_broker.bootstrap})
    for future in admin.create_topics([topic]).values():
        future.result(10)
    return found


@pytest.fixture
def following(config: Config) -> Iterator[Following]:
    """What follows it."""
    found = Following(config)
    yield found
    found.close()


def test_it_knows_what_was_there_and_what_came(config: Config, following: Following) -> None:
    """A request before it began, and a decision of its own as soon as it is written."""
    now_us = time.time_ns() // 1000
    request = signing.request("r1", at_us=now_us, expires_us=now_us + 600_000_000)
    topic = ApprovalsTopic(config)
    topic.append("r1", records.sign(request, signing.GATEWAY))
    topic.close()
    assert following.look(lambda ledger: [one.request.request for one in ledger.open(now_us)]) == ["r1"]
    following.append("r1", signing.by("ada", signing.decision("ada", request, at_us=now_us)))
    assert following.look(lambda ledger: ledger.requests["r1"].state(now_us)) == "approved"


def test_it_says_what_keeps_it_from_knowing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gateway that is believed, and no broker."""
    from msgspec.structs import replace

    from pgwitness.approvals import following as module

    with pytest.raises(NotInOrder, match="no gateway's key"):
        Following(replace(config, approvals=Approvals())).look(len)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "WAIT_S", 0.5)
    nowhere = Following(replace(config, kafka=Kafka(bootstrap="127.0.0.1:1", prefix="x.")))
    with pytest.raises(Unreachable):
        nowhere.look(lambda ledger: ledger)
    nowhere.close()
