"""What a collector is given to work with; the daemon makes it, the shells take it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from collectors.publisher import Publisher
from pgwitness.config import Cluster, Config
from pgwitness.health import Health


@dataclass(frozen=True)
class Context:
    """The surroundings of one cluster's collectors; `name` is the cluster's, `key` the masking key."""

    config: Config
    name: str
    cluster: Cluster
    publisher: Publisher
    health: Health
    key: bytes


def now_us() -> int:
    """Give the time, in microseconds since the Unix epoch."""
    return time.time_ns() // 1000
