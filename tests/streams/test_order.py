"""The order that makes a crash harmless, looked at in the topics themselves at the moment of each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from detectors.judge import Judge
from pgwitness.core.errors import Retry
from pgwitness.core.events import Forgery
from sinks.lake.writer import Lake
from streams.identity.file import IdentityFile
from streams.kafka.checkpoints import Store
from streams.kafka.notes import SuppressionFile
from streams.kafka.reading import make_reader, read
from streams.worker.landing import EventPartition
from streams.worker.stages import Stages
from tests.streams.conftest import Installation
from tests.streams.records import batch, transaction, value

FORGED = value(batch(transaction(10, n_rows=0, relations=[], forged=[Forgery("mac")])))
"""A record whose event raises an alert."""


@contextmanager
def stages_of(installation: Installation, lake: Path | None = None) -> Iterator[Stages]:
    """Give the stages of a worker that owns every partition, without Faust: the test hands the records over."""
    config = installation.config
    identities, suppressions = IdentityFile(config.identities.file), SuppressionFile(config.triage.suppressions)
    identities.load()
    suppressions.load()
    stages = Stages(
        config,
        Lake(lake or installation.config.lake.path),
        lambda: Judge(installation.bundle, labels={}, behaviour=None),
        identities,
        suppressions,
    )
    stages.assign((topic, number) for topic in stages.topics for number in range(2))
    try:
        yield stages
    finally:
        stages.abandon()


def records(installation: Installation, topic: str) -> list[tuple[int, int, bytes, bytes]]:
    """Read what a topic holds: partition, offset, key and value."""
    reader = make_reader(installation.config.kafka)
    try:
        return [
            (number, message.offset() or 0, bytes(message.key() or b""), bytes(message.value() or b""))
            for number in range(1 if topic == "alerts" else 2)
            for message in read(reader, installation.config.kafka.topic(topic), number)
        ]
    finally:
        reader.close()


def noting(note: Callable[[], None], original: Callable[..., object]) -> Callable[..., object]:
    """Look at something before each call of a function."""

    def noted(*arguments: object, **named: object) -> object:
        note()
        return original(*arguments, **named)

    return noted


def test_a_folds_checkpoint_stands_for_what_events_hold(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in a lane is in the topic before the checkpoint says that its record is done."""
    held: list[int] = []
    with stages_of(installation) as stages:
        stages.record((stages.topics[0], 0), 0, b"shop", FORGED)
        assert records(installation, "events") == []
        note = noting(lambda: held.append(len(records(installation, "events"))), Store.save)
        monkeypatch.setattr(Store, "save", note)
        stages.revoke()
    assert held == [1]


def test_a_checkpoint_is_not_written_when_events_were_not_taken(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a delivery that failed nothing is done: no checkpoint, no acknowledgement, and the next run reads it again."""
    saved: list[int] = []
    with stages_of(installation) as stages:
        stages.record((stages.topics[0], 0), 0, b"shop", FORGED)
        monkeypatch.setattr(Store, "save", noting(lambda: saved.append(1), Store.save))

        def flush() -> int:
            stages.emitter._delivered(KafkaError(KafkaError._MSG_TIMED_OUT, "it was refused"), None)
            return 0

        monkeypatch.setattr(stages.emitter, "_flush", flush)  # the report comes while it is waited for
        with pytest.raises(Retry, match="refused"):
            stages.revoke()
        assert stages.take_acknowledged() == {}
    assert saved == []
    with stages_of(installation) as stages:
        assert stages.positions()[stages.topics[0], 0] == 0


def test_alerts_lake_and_checkpoint_come_in_this_order(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An alert is durable before the lake commits what raised it, and a judge's checkpoint is never ahead of the lake.

    So a lake that holds less than it did, another folder, begins where it ends, whatever checkpoints say.
    """
    told: list[tuple[str, int]] = []
    with stages_of(installation) as stages:
        stages.record((stages.topics[0], 0), 0, b"shop", FORGED)
        stages.emitter.flush()
        ((number, offset, key, payload),) = records(installation, "events")
        events = (stages.topics[1], number)
        stages.record(events, offset, key, payload)
        for owner, name, note in (
            (Lake, "commit", lambda: told.append(("on their way", len(stages.emitter._readable)))),
            (Lake, "commit", lambda: told.append(("alerts", len(records(installation, "alerts"))))),
            (EventPartition, "_save", lambda: told.append(("landed", stages._events[number].landed_to))),
        ):
            monkeypatch.setattr(owner, name, noting(note, getattr(owner, name)))
        stages._events[number].checkpoint()  # ahead of the lake: none is written
        assert told == []
        stages._land()
        stages._checkpoint(events)
        assert stages.take_acknowledged() == {events: 1}
    assert told == [("alerts", 1), ("on their way", 0), ("landed", 1)]
    with stages_of(installation) as again:
        assert again.positions()[events] == 1
    with stages_of(installation, tmp_path / "another") as elsewhere:
        assert elsewhere.positions()[events] == 0
        assert elsewhere._events[number]._marks == {}
