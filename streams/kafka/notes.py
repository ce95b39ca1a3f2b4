"""What the worker itself puts among the events of each partition, so that judging is a function of the records.

Three kinds of note, each a record of lane `NOTES`: a verdict of the topic `feedback` with what came of checking it, the
content of a changed `suppressions.yaml`, and the time, when a finding is due and no event comes that carries it
(docs/decisions/0008). Every partition gets a copy; the first one lands it as evidence. A note that is written twice is
known by its place in `feedback`, or changes nothing. The functions are pure; `SuppressionFile` and `Feedback` are the
shells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from msgspec.structs import replace

from detectors.alerts.suppressions import Suppressions
from detectors.alerts.verdicts import Checked, check
from pgwitness.core.config import Config, Reviewer
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Event, Position, encode_event
from pgwitness.core.runtime.watchedfile import Refusal, WatchedFile
from streams import metrics
from streams.kafka.reading import make_reader, read

log = structlog.get_logger("worker")

NOTES = -1
"""The lane of notes; principals have lanes from 0."""
FEEDBACK, WORKER, APPROVALS = -1, -2, -3
"""What stands for the raw partition in a note's position: the topic `feedback`, the worker, the topic `approvals`."""
FILE_BYTES_MAX = 256 * 1024
POLLED_MAX = 100
"""Verdicts that are taken at a time."""
ASK_S = 1.0
"""How long a broker may take to say how far the topic reaches."""


class CheckedFeedback(NamedTuple):
    """A record of the topic `feedback`, and what came of it."""

    offset: int
    checked: Checked
    note: Event


def verdict(value: bytes | None, offset: int, at_us: int, reviewers: Mapping[str, Reviewer]) -> CheckedFeedback:
    """Make the note of a record of `feedback` that was written at `at_us`."""
    checked = check(value, reviewers, at_us)
    checked_feedback = CheckedFeedback(offset, checked, _verdict(checked, offset, at_us))
    try:
        encode_event(checked_feedback.note)
    except (ValueError, OverflowError):  # numbers or letters that no JSON carries
        checked = Checked(id=checked.id, refused="not_a_verdict")
        checked_feedback = CheckedFeedback(offset, checked, _verdict(checked, offset, at_us))
    return checked_feedback


def _verdict(checked: Checked, offset: int, at_us: int) -> Event:
    said = checked.verdict or checked.claims
    detail: dict[str, object] = {"offset": offset, "checked": msgspec.to_builtins(checked)}
    if said is not None:
        detail |= {"uid": said.uid, "verdict": said.verdict, "scope": said.scope, "why": said.why}
    believed = checked.verdict is not None
    if not believed:
        detail |= {"finding": "verdict_refused", "reason": checked.refused}
    return Event(
        kind="decision",
        event_id=blake2b(f"verdict/{offset}/{checked.id}".encode(), digest_size=16).hexdigest(),
        at=Position(FEEDBACK, offset, 0),
        occurred_at_us=at_us,
        captured_at_us=at_us,
        cluster=said.cluster if said is not None else "",
        principal=said.who if believed and said is not None else None,
        principal_kind="human" if believed else "unknown",
        certainty="exact" if believed else "none",
        assurance="verified" if believed else "none",
        operation="verdict",
        outcome="success" if believed else "denied",
        detail=detail,
    )


def suppressions(content: str, sha256: str, file: str, now_us: int) -> Event:
    """Make the note of a changed file."""
    detail: dict[str, object] = {"file": file, "sha256": sha256, "content": content}
    return _own("suppressions_changed", now_us, detail)


def clock(now_us: int) -> Event:
    """Make the note of the time."""
    return _own("clock", now_us, {})


def _own(operation: str, now_us: int, detail: dict[str, object]) -> Event:
    return Event(
        kind="control",
        event_id="",
        at=Position(WORKER, 0, 0),
        occurred_at_us=now_us,
        captured_at_us=now_us,
        cluster="",
        operation=operation,
        outcome="success",
        detail=detail,
    )


def placed(note: Event, topic: str, partition: int, offset: int) -> Event:
    """Return one of the worker's own notes its name and position, which are where it stands in `events`."""
    name = f"{topic}/{partition}/{offset}".encode()
    return replace(note, event_id=blake2b(name, digest_size=16).hexdigest(), at=Position(WORKER, offset, 0))


def unseen(note: Event) -> Event:
    """Return what the lake makes no row of, for the alerts that came of a note: a change without rows."""
    return replace(note, kind="change", operation=None, detail={})


class SuppressionFile:
    """`suppressions.yaml`, and the last usable content of it; no file is one without entries."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = WatchedFile(
            path, self._read, initial=Suppressions("", []), changed=self._changed, refused=self._refused
        )
        self.load = self._file.load
        """Read the file at the start. Raise `ConfigurationError` when it cannot be used."""
        self.poll = self._file.poll
        """Return the content as it is now, or the last good one."""

    @property
    def last(self) -> Suppressions:
        """The last good content."""
        return self._file.last

    def _changed(self, suppressions: Suppressions) -> None:
        log.info("suppressions_changed", file=str(self.path), sha256=suppressions.sha256)

    def _refused(self, refusal: Refusal) -> None:
        metrics.SUPPRESSION_ERRORS.inc()
        log.error("suppressions_refused", error=refusal.error, instead="the last good file holds")

    def _read(self) -> Suppressions:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Suppressions.parse("")
        except OSError as error:
            raise ConfigurationError(f"{self.path}: cannot be read: {error}") from error
        if len(data) > FILE_BYTES_MAX:
            raise ConfigurationError(f"{self.path}: {len(data)} bytes; {FILE_BYTES_MAX} at most, remove old entries")
        try:
            return Suppressions.parse(data.decode("utf-8"), str(self.path))
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{self.path}: not UTF-8: {error}") from error


class Feedback:
    """Reads the topic `feedback` from an offset on, as its records come.

    It is fetched only when it has grown, and then hardly waited for: a fetch that waits while its topic is deleted and
    made again can end the process (librdkafka 2.x looks up the name of a topic id that is not known any more). What is
    left of that moment is the fetch itself, once a verdict; the process that is started again goes on from there.
    """

    def __init__(self, config: Config, wall_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._topic = config.kafka.topic("feedback")
        self._reviewers = config.reviewers
        self._wall_us = wall_us
        self._consumer: Consumer = make_reader(config.kafka, wait_ms=1)
        self._base = self._next = 0

    def start(self, offset: int, base: int = 0) -> None:
        """Read from an offset on; positions are `base` ahead of offsets (`streams.kafka.origins`)."""
        self._next, self._base = offset, base

    def poll(self) -> list[CheckedFeedback]:
        """Return the records that have come, a hundred or so at a time. Raise `Unreachable` when it cannot be read."""
        checked_feedback: list[CheckedFeedback] = []
        try:
            _, listed = self._consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=ASK_S)
        except KafkaException:
            return checked_feedback  # a broker that does not answer is reported elsewhere
        if listed <= self._next:
            return checked_feedback
        for message in read(self._consumer, self._topic, 0, self._next):
            self._next = (message.offset() or 0) + 1
            at_us = message.timestamp()[1] * 1000
            written_us = min(at_us, self._wall_us()) if at_us > 0 else self._wall_us()
            value = message.value()
            data = value.encode() if isinstance(value, str) else value
            checked_feedback.append(verdict(data, self._base + self._next - 1, written_us, self._reviewers))
            if len(checked_feedback) >= POLLED_MAX:
                break
        self._next = max(self._next, listed if len(checked_feedback) < POLLED_MAX else 0)
        return checked_feedback

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()
