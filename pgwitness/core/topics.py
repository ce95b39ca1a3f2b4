"""The topics: their names, keys, partitions and how long they are kept (the contract's table, as data).

`streams.kafka.admin` creates and checks them; who may read and write which stands here too, for `topics apply --print`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

DAY_MS = 86_400_000
READER, LOG_READER = "reader", "log-reader"
"""Names, behind the prefix, of groups that nobody is a member of: a reader looks for a coordinator all the same."""
WRITING_RAW = ("collect", "worker", "deliver", "dead-letters", "sql", "token", "console")
"""Who sees things, tries them again, or asks the lake and writes down that it did."""
LANES = 64
OURSELVES = "pgwitness"
"""The cluster, and so the key in `raw`, of what pgwitness tells of itself: queries, changed policies, refused files."""


@dataclass(frozen=True)
class Topic:
    """One topic: its name without the prefix, its number of partitions and its retention.

    `retention_ms` -1 is for ever. `writers` and `readers` are the daemons and commands that need the ACL.
    """

    name: str
    partitions: int
    cleanup: str
    retention_ms: int
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    value_bytes_max: int = 1_048_588
    compression: str = "producer"

    def settings(self) -> dict[str, str]:
        """Give the topic's settings as Kafka names them."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.value_bytes_max),
            "compression.type": self.compression,
        }


READABLE = "gzip"
"""How a topic is compressed that programs of others read: every client can, with nothing installed beside it."""


def topics(raw_partitions: int = 4, event_partitions: int = 4) -> tuple[Topic, ...]:
    """List every topic of an installation with so many partitions for `raw` and `events`."""
    return (
        Topic("raw", raw_partitions, "delete", 7 * DAY_MS, WRITING_RAW, ("worker", "dead-letters")),
        Topic("events", event_partitions, "delete", 7 * DAY_MS, ("worker", "dead-letters"), ("worker", "dead-letters")),
        _readable(
            "alerts",
            28 * DAY_MS,
            ("worker", "deliver", "dead-letters"),
            ("alerts", "deliver", "consumers", "dead-letters"),
        ),
        Topic("state-fold", raw_partitions, "compact", -1, ("worker", "dead-letters"), ("worker",)),
        Topic("state-judge", event_partitions, "compact", -1, ("worker", "dead-letters"), ("worker",)),
        _readable(
            "approvals",
            -1,
            ("approvals", "gateway", "console"),
            ("worker", "approvals", "gateway", "console", "deliver"),
        ),
        _readable("feedback", -1, ("alerts", "console"), ("worker", "alerts")),
        _readable("checkpoints", -1, ("seal",), ("verify",)),
        # A record at the broker's limit must still fit in here, with its headers.
        _readable("dead-letters", 28 * DAY_MS, ("worker", "deliver", "dead-letters"), ("dead-letters",), 2 * 1_048_588),
    )


def _readable(
    name: str, retention_ms: int, writers: tuple[str, ...], readers: tuple[str, ...], value_bytes_max: int = 1_048_588
) -> Topic:
    return Topic(name, 1, "delete", retention_ms, writers, readers, value_bytes_max, READABLE)


def stable_hash(text: str) -> int:
    """Hash a text to 64 bits, the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def lane_of(principal: str | None, cluster: str, role: str | None, lanes: int = LANES) -> int:
    """Give the lane of a principal; who has no name goes by cluster and role, so that unknowns spread too."""
    return stable_hash(principal if principal is not None else f"?{cluster}?{role or ''}") % lanes


def partition_of(key: int | str, partitions: int) -> int:
    """Give the partition of a lane, or of a cluster's name: our own rule, so that every client agrees on it."""
    return (key if isinstance(key, int) else stable_hash(key)) % partitions
