"""What a collector is given to work with; the daemon makes it, the collectors take it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from collectors.names import Names
from collectors.publisher import Publisher
from pgwitness.core.config import Cluster, Config
from pgwitness.core.runtime.health import Health


@dataclass(frozen=True)
class Context:
    """The surroundings of one cluster's collectors; `name` is the cluster's, `key` the masking key.

    `names` are those of what exists there, as far as a collector has looked.
    """

    config: Config
    name: str
    cluster: Cluster
    publisher: Publisher
    health: Health
    key: bytes
    names: Names = field(default_factory=Names)


def now_us() -> int:
    """Return the time, in microseconds since the Unix epoch."""
    return time.time_ns() // 1000
