"""What the console needs of whoever runs it: that what is looked at and done is written down as evidence.

The command line passes what `pgwitness sql` writes its questions with; the console knows no Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pgwitness.core.config import Reviewer


@dataclass(frozen=True)
class Visitor:
    """Who did something, as far as the console knows: the name after logging in, claimed before; and from where."""

    name: str
    address: str


class Witness(Protocol):
    """Writes down as `control` evidence. Several threads may ask."""

    def record(self, operation: str, visitor: Visitor, what: Mapping[str, object]) -> None:
        """Write down that somebody did something. Raise `PgwitnessError` when it was not written down."""

    def asked(self, query: str, visitor: Visitor, outcome: str) -> None:
        """Write down a query, without its literals. Raise as `record` does."""


@dataclass(frozen=True)
class Feedback:
    """Whose verdicts are believed, and where they go: `send` is given an alert's uid and the record.

    It raises `Unreachable` when the broker does not take it.
    """

    reviewers: Mapping[str, Reviewer]
    send: Callable[[str, bytes], None]
