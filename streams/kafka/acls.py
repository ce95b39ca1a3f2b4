"""What each account of an installation may do in Kafka, and no more: for an authorizer that allows nothing else.

An account is a daemon or a command (`collect`, `worker`, `deliver`, `sql`…); one account may stand for several.
`topics apply --print` shows these; a test runs every daemon and command with exactly them.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from pgwitness.core.config import Config
from pgwitness.core.errors import Unreachable
from pgwitness.core.runtime.logs import LIBRDKAFKA
from pgwitness.core.topics import LOG_READER, READER, topics

ASK_S = 10.0
ADMINISTRATOR = "topics"
DOCTOR = "doctor"
LOOK = ("Describe", "DescribeConfigs")
MAKE = ("Create", *LOOK, "AlterConfigs")


class Acl(Struct, frozen=True):
    """Operations that an account is allowed on one resource; `prefixed`: on all whose names begin with `name`."""

    account: str
    operations: tuple[str, ...]
    resource: Literal["topic", "group"]
    name: str
    prefixed: bool = False


def acls(config: Config) -> list[Acl]:
    """List what every account needs, ordered by account."""
    everything = config.kafka.prefix
    found = [
        Acl(ADMINISTRATOR, MAKE, "topic", everything, prefixed=True),
        Acl(DOCTOR, LOOK, "topic", everything, prefixed=True),
    ]
    for topic in topics():
        name = config.kafka.topic(topic.name)
        for account in dict.fromkeys((*topic.writers, *topic.readers)):
            wanted = [word for word, who in (("Read", topic.readers), ("Write", topic.writers)) if account in who]
            found.append(Acl(account, (*wanted, "Describe"), "topic", name))
    found.append(Acl("worker", ("Read",), "group", config.worker.group))
    found.append(Acl("deliver", ("Read",), "group", f"{config.kafka.prefix}deliver-", prefixed=True))
    reader = config.kafka.topic(READER)
    found += [Acl(account, ("Describe",), "group", reader) for account in ("worker", "alerts", "dead-letters")]
    logs = [cluster.log.topic for cluster in config.clusters.values() if cluster.log and cluster.log.from_ == "kafka"]
    found += [Acl("collect", ("Read", "Describe"), "topic", name) for name in dict.fromkeys(logs)]
    if logs:
        found.append(Acl("collect", ("Describe",), "group", config.kafka.topic(LOG_READER)))
    return sorted(found, key=lambda acl: (acl.account, acl.resource != "topic"))


def lacking(config: Config) -> dict[str, list[str]]:
    """Return what the account of this configuration may not do, by the daemon or command that needs it.

    The broker itself says what is allowed, of topics and groups that are there or could be. Raise `Unreachable`.
    """
    client = AdminClient({**config.kafka.client(), "log_level": "0", "logger": LIBRDKAFKA})
    wanted = [acl for acl in acls(config) if not acl.prefixed or acl.resource == "group"]
    topics_named = sorted({acl.name for acl in wanted if acl.resource == "topic"})
    groups_named = sorted({_group(acl) for acl in wanted if acl.resource == "group"})
    try:
        described = client.describe_topics(
            TopicCollection(topics_named), include_authorized_operations=True, request_timeout=ASK_S
        )
        allowed = {("topic", name): _operations(future) for name, future in described.items()}
        grouped = client.describe_consumer_groups(
            groups_named, include_authorized_operations=True, request_timeout=ASK_S
        )
        allowed |= {("group", name): _operations(future) for name, future in grouped.items()}
    except KafkaException as error:
        raise Unreachable(f"the broker does not say what is allowed: {error.args[0].str()}") from error
    found: dict[str, list[str]] = {}
    for acl in wanted:
        name = _group(acl) if acl.resource == "group" else acl.name
        there = allowed[acl.resource, name]
        if there is not None and (refused := [word for word in acl.operations if word.upper() not in there]):
            found.setdefault(acl.account, []).append(f"{', '.join(refused)} on {acl.resource} {acl.name}")
    return found


def _group(acl: Acl) -> str:
    """Name a group that stands for those that begin like it."""
    return f"{acl.name}any" if acl.prefixed else acl.name


def _operations(future: Future[Any]) -> frozenset[str] | None:
    """Return what is allowed on a resource; nothing where the broker refuses to say, None where it does not know."""
    try:
        answer = future.result(ASK_S)
    except KafkaException as error:
        refused = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
        return frozenset() if error.args[0].code() in refused else None
    said = answer.authorized_operations
    return frozenset(operation.name for operation in said) if said is not None else None
