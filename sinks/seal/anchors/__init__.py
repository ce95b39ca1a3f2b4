"""Places outside of the reach of whoever writes the lake, where signed checkpoints are kept; by the name of their kind.

An anchor takes a checkpoint, and may give an answer that is worth keeping. One that can be read says which it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from pgwitness.core.config import Anchor, Config
from sinks.seal.anchors.bucket import make_bucket
from sinks.seal.anchors.file import make_file
from sinks.seal.anchors.given import Given
from sinks.seal.anchors.timestamp import make_timestamp
from sinks.seal.anchors.topic import make_topic
from sinks.seal.anchors.webhook import make_webhook


class Target(Protocol):
    """One anchor. Each call may wait for whoever answers."""

    suffix: str
    """What the answer's file is named with, empty when there is none worth keeping."""

    def put(self, given: Given) -> bytes:
        """Hand over a checkpoint; gives the answer. Raise `Retry` when it was not taken."""

    def newest(self) -> bytes | None:
        """Give the newest checkpoint that the anchor has, None when nothing or when it cannot be read from here.

        Raise `Retry` when it does not answer.
        """


class Named(Struct, frozen=True):
    """An anchor and its name in the configuration."""

    name: str
    target: Target


KINDS: dict[str, Callable[[str, Anchor, Config], Target]] = {
    "file": make_file,
    "webhook": make_webhook,
    "timestamp": make_timestamp,
    "s3": make_bucket,
    "topic": make_topic,
}


def make(config: Config) -> list[Named]:
    """Make every anchor of the configuration. Raise `ConfigurationError` for one that cannot be."""
    return [
        Named(name, KINDS[settings.kind](f"seal.anchors.{name}", settings, config))
        for name, settings in config.seal.anchors.items()
    ]
