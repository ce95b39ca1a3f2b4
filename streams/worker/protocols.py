"""What the worker needs of the judge; the command line passes the real one in, and the store of evidence likewise.

Streams does not import sinks: stages do not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from detectors.policy.policies import Bundle
from pgwitness.core.events import Event


class Alert(Protocol):
    """One alert as a judge raises it."""

    @property
    def uid(self) -> str:
        """The alert's key: the same for the same finding, however often it is raised."""

    @property
    def lake_only(self) -> bool:
        """Whether it goes to the lake only."""

    def ocsf(self) -> dict[str, Any]:
        """Return the alert as the alerts topic carries it."""


class Judgement(Protocol):
    """What a judge says of one event."""

    @property
    def policies(self) -> Sequence[str]:
        """The ids of the policies that matched."""

    @property
    def anomaly(self) -> float | None:
        """How unusual, 0 to 1."""

    @property
    def reasons(self) -> Sequence[dict[str, Any]]:
        """What drove it."""

    @property
    def alerts(self) -> Sequence[Alert]:
        """What goes to the alerts topic now."""


class Judge(Protocol):
    """Judges the events of one partition in their order; deterministic, its state goes into checkpoints.

    `bundle` are the policies it judges by; they are part of its state.
    """

    bundle: Bundle

    def adopt(self, bundle: Bundle) -> None:
        """Judge by other policies from here on."""

    def judge(self, event: Event) -> Judgement:
        """Judge one event."""

    def note(self, event: Event) -> Judgement:
        """Take what the worker put among the events (`streams.kafka.notes`)."""

    @property
    def due_us(self) -> int:
        """By which time in the records something is to be reported, though nothing else happens."""

    @property
    def suppressions(self) -> str:
        """The SHA-256 of the suppressions that hold."""

    def snapshot(self) -> bytes:
        """Return the state, as JSON."""

    def restore(self, data: bytes) -> None:
        """Take a snapshot's state."""


JudgeMaker = Callable[[], Judge]


class Unjudged(Struct, frozen=True):
    """Stands for the verdict on an event whose judging failed: the evidence lands, and says so."""

    reasons: list[dict[str, Any]]
    policies: list[str] = []
    anomaly: float | None = None
    alerts: list[Any] = []
