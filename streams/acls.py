"""What each account of an installation may do in Kafka, and no more: for an authorizer that allows nothing else.

An account is a daemon or a command (`collect`, `worker`, `deliver`, `sql`…); one account may stand for several. Pure.
`topics apply --print` shows these; a test runs every daemon and command with exactly them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pgwitness.config import Config
from pgwitness.topics import LOG_READER, READER, topics

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
