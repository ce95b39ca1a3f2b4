"""How long events wait for company: the least an event may, and longer only where all of a lane are late already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pgwitness.core.config import load
from pgwitness.core.events import Event, Position
from streams.kafka.emitter import LATE_LINGER_S, LINGER_S, Emitter, make_producer
from tests.streams.records import START_US


class Lanes:
    """An emitter with a clock of its own; what it has sent waits in a producer that has no broker."""

    def __init__(self, folder: Path) -> None:
        (folder / "pgwitness.toml").write_text('[kafka]\nbootstrap = "127.0.0.1:1"\n')
        config = load(folder / "pgwitness.toml")
        self.producer: Producer = make_producer(config)
        self.now = 1_000.0
        self.emitter = Emitter(config, self.producer, "worker@test", lambda: self.now)
        self._number = 0

    def put(self, principal: str, *, late: bool = False) -> None:
        """Let the emitter have one event of a principal."""
        self._number += 1
        event = Event(
            kind="control",
            event_id=f"{self._number:032x}",
            at=Position(0, self._number, 0),
            occurred_at_us=START_US,
            captured_at_us=START_US,
            cluster="shop",
            principal=principal,
        )
        assert self.emitter.events([event], late=late) == []

    def sent(self, after_s: float) -> int:
        """Return the number of records that have left when so much more time has passed."""
        self.now += after_s
        self.emitter.linger()
        return len(self.producer)


@pytest.fixture
def lanes(tmp_path: Path) -> Iterator[Lanes]:
    """Return an emitter without a broker."""
    lanes = Lanes(tmp_path)
    yield lanes
    lanes.producer.purge()


def test_what_is_fresh_leaves_at_once(lanes: Lanes) -> None:
    """At the tip an event waits for `LINGER_S`."""
    lanes.put("ada")
    assert lanes.sent(LINGER_S * 0.9) == 0
    assert lanes.sent(LINGER_S * 0.2) == 1


def test_what_is_late_lingers(lanes: Lanes) -> None:
    """Of a backlog a lane is one record each `LATE_LINGER_S`, counted from its first event."""
    lanes.put("ada", late=True)
    for _ in range(4):
        assert lanes.sent(LATE_LINGER_S / 5) == 0
        lanes.put("ada", late=True)
    assert lanes.sent(LATE_LINGER_S / 5 + 0.001) == 1
    assert lanes.sent(LATE_LINGER_S) == 1


def test_what_is_fresh_does_not_wait_for_what_is_late(lanes: Lanes) -> None:
    """One partition is behind and another is not: who shares a lane leaves in time, whoever came first."""
    lanes.put("ada", late=True)
    assert lanes.sent(LINGER_S) == 0
    lanes.put("ada")
    assert lanes.sent(LINGER_S * 0.9) == 0
    assert lanes.sent(LINGER_S * 0.2) == 1
    lanes.put("ada")
    lanes.put("ada", late=True)
    assert lanes.sent(LINGER_S * 1.1) == 2


def test_a_full_batch_waits_for_nothing(lanes: Lanes) -> None:
    """A lane holds what fits into one record, however late its events are."""
    for _ in range(2_500):
        lanes.put("ada", late=True)
    assert lanes.sent(0) == 2
