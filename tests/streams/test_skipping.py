"""A record that a partition waits at can be passed, by a person, as evidence, beside a running worker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgwitness.core.errors import NotInOrder
from pgwitness.core.events import RawBatch
from streams.kafka import dead_letters, skipping
from tests.streams.conftest import Installation, eventually
from tests.streams.records import batch, beacon, transaction

NEWER = b'{"schema":2}'


def change(lsn: int) -> RawBatch:
    """A record of one transaction."""
    return batch(transaction(lsn, n_rows=1, beacons=[beacon()]))


def details(installation: Installation, view: str, operation: str) -> list[dict[str, Any]]:
    """The details of what has landed under an operation."""
    found = installation.ask(f"SELECT detail FROM {view} WHERE operation = '{operation}'")
    return [json.loads(detail) for (detail,) in found]


def test_a_paused_record_is_passed_as_evidence(installation: Installation) -> None:
    """In `raw` and in `events`: who, when and why are told, the record is a dead letter, what lies behind it lands."""
    installation.send(change(10), NEWER, change(11))
    with installation.worker() as health:
        installation.landed(1)
        assert "waits at 1" in eventually(health.not_ready, "not ready")[0]
        with pytest.raises(NotInOrder, match="can be read"):
            skipping.order(installation.config, "raw", 0, 0, "ann@here", "x")
        with pytest.raises(NotInOrder, match="no record at 99"):
            skipping.order(installation.config, "raw", 0, 99, "ann@here", "x")
        with pytest.raises(NotInOrder, match="no partition 7"):
            skipping.order(installation.config, "raw", 7, 0, "ann@here", "x")
        skipping.order(installation.config, "raw", 0, 1, "ann@here", "nobody will read it")
        installation.landed(2)
        eventually(lambda: details(installation, "control", "record_skipped"), "the evidence")
        eventually(lambda: health.not_ready() == [], "ready again")
    (told,) = details(installation, "control", "record_skipped")
    assert (told["who"], told["why"], told["partition"], told["offset"]) == ("ann@here", "nobody will read it", 0, 1)
    (gap,) = details(installation, "gaps", "record_set_aside")
    assert (gap["cause"], gap["offset"]) == ("skipped", 1)
    (letter,) = dead_letters.letters(installation.config)
    assert (letter.reason, letter.value, letter.source_offset) == ("skipped", NEWER, 1)


def test_an_order_counts_for_the_record_it_names_alone(installation: Installation) -> None:
    """A worker that starts later finds the order; another record at the same place, or the next one, still pauses."""
    installation.send(NEWER, topic="events", partition=1)
    skipping.order(installation.config, "events", 1, 0, "ann@here", "a test")
    installation.send(b'{"schema":3}', topic="events", partition=1)
    with installation.worker() as health:
        (letter,) = eventually(lambda: dead_letters.letters(installation.config), "a dead letter")
        assert (letter.reason, letter.source_offset) == ("skipped", 0)
        assert "waits at 1" in eventually(health.not_ready, "not ready")[0]
    order = skipping.Skip(5, "another hash", "ann", "x", 0)
    assert not skipping.fits(order, NEWER)
    assert not skipping.fits(None, NEWER)
