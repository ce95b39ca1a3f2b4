"""What every registered store of evidence promises.

A new store is added to `sinks.registry.STORES` and to `MATERIAL`: a way to read what has landed in it, and to make its
storage refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pgwitness.core.config import S3, Config
from pgwitness.core.contracts.evidence_writer import EvidenceStore, EvidenceWriter
from pgwitness.core.errors import ConfigurationError, Retry, Stop, Superseded
from pgwitness.core.events import Position
from sinks.lake.opening import lake_store
from sinks.lake.storage.files import Files
from sinks.lake.storage.objects import Objects
from sinks.lake.storage.refusals import Refused
from sinks.registry import STORES, open_store
from tests.conftest import write_config
from tests.servers.s3 import S3Server
from tests.sinks.material import ORDINARY, change, landed

TOPIC = "events"
HOSTILE = change(3, [0, "x", 0, None, None, None, None])
"""An operation that no row has."""


@dataclass(frozen=True)
class Material:
    """`numbers` reads which transactions are visible, sorted; within `refusing` the storage refuses one step.

    `refusing` takes the number of the step, and gives a list that is filled once it refused. `place` sets where the
    store `store` keeps its evidence.
    """

    numbers: Callable[[Config], list[int]]
    refusing: Callable[[int], AbstractContextManager[list[int]]]
    store: str = "lake"
    place: Callable[[Config, S3Server], Config] = lambda config, s3: config


@contextmanager
def _refusing(of: type, names: tuple[str, ...], error: OSError, step: int) -> Iterator[list[int]]:
    """Let the step'th of these operations fail."""
    refused: list[int] = []
    number = 0

    def failing(name: str) -> Callable[..., Any]:
        really = getattr(of, name)

        def work(self: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal number
            number += 1
            if number == step:
                refused.append(step)
                raise error
            return really(self, *arguments, **named)

        return work

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(of, name, failing(name))
        yield refused


def _in_a_bucket(config: Config, s3: S3Server) -> Config:
    return replace(config, lake=replace(config.lake, path=s3.bucket(), s3=S3(endpoint=s3.endpoint)))


def _numbers(config: Config) -> list[int]:
    return sorted(row["xid"] - 1_000 for row in landed(lake_store(config)))


MATERIAL = {
    "lake": Material(
        numbers=_numbers,
        refusing=partial(_refusing, Files, ("create", "sync", "link", "rename"), OSError(28, "No space left")),
    ),
    "lake in a bucket": Material(
        numbers=_numbers,
        refusing=partial(_refusing, Objects, ("create", "put", "read"), Refused("SlowDown", "raise its limits")),
        place=_in_a_bucket,
    ),
}


@pytest.fixture(params=sorted({*STORES, *MATERIAL}))
def name(request: pytest.FixtureRequest) -> str:
    """Each registered store in turn, and each way in which it can be kept."""
    return str(request.param)


@pytest.fixture
def material(name: str) -> Material:
    """How the store under test is read and made to fail."""
    return MATERIAL[name]


def configured(folder: Path, material: Material, s3: S3Server) -> Config:
    """Write a configuration that lands in a store of its own."""
    made = write_config(folder, "127.0.0.1:1", "postgresql://127.0.0.1:1/x", prefix="")
    return material.place(replace(made, worker=replace(made.worker, evidence=material.store)), s3)


@pytest.fixture
def config(material: Material, tmp_path: Path, s3: S3Server) -> Config:
    """A configuration that lands in the store under test."""
    return configured(tmp_path, material, s3)


def opened(config: Config, partition: int = 0) -> tuple[EvidenceStore, EvidenceWriter]:
    """Open the store as a worker does, and resume a partition."""
    store = open_store(config)
    store.prepare([(TOPIC, number) for number in range(2)])
    writer = store.writer(TOPIC, partition)
    writer.resume()
    return store, writer


def put(into: EvidenceWriter, offset: int, *numbers: int, lane: int = 0, raw: int = 0) -> None:
    """Append a record with these transactions."""
    events = [change(number, at=Position(raw, number, 0)) for number in numbers]
    assert into.append(offset, events, [ORDINARY] * len(events), lane) == []


def resumed(config: Config, partition: int = 0) -> tuple[int, dict[tuple[int, int], Position]]:
    """Say where another worker would go on."""
    end, marks = open_store(config).writer(TOPIC, partition).resume()
    return end, dict(marks)


def test_an_unknown_store_is_a_configuration_error(config: Config) -> None:
    """It names those that there are."""
    with pytest.raises(ConfigurationError, match=r"worker\.evidence: .*lake"):
        open_store(replace(config, worker=replace(config.worker, evidence="lakes")))


def test_it_has_material(name: str) -> None:
    """Nothing is registered that this suite does not try."""
    assert name in MATERIAL


def test_a_new_store_begins_at_the_beginning(config: Config, material: Material) -> None:
    """Preparing it again changes nothing; nothing has landed."""
    store, writer = opened(config)
    store.prepare()
    assert writer.resume() == (0, {})
    assert (writer.rows, writer.full, store.reached(TOPIC, 0)) == (0, False, None)
    assert material.numbers(config) == []


def test_what_is_appended_is_seen_with_the_commit_and_not_before(config: Config, material: Material) -> None:
    """Another worker goes on behind the last commit, with its marks."""
    store, writer = opened(config)
    put(writer, 7, 1, 2)
    assert writer.rows == 2
    assert (material.numbers(config), resumed(config)) == ([], (0, {}))
    store.commit([writer])
    assert material.numbers(config) == [1, 2]
    assert writer.rows == 0
    assert resumed(config) == (8, {(0, 0): Position(0, 2, 0)})
    reached = open_store(config).reached(TOPIC, 0)
    assert reached is not None
    assert reached[0] == 2


def test_committing_nothing_does_nothing_and_an_empty_record_moves_on(config: Config, material: Material) -> None:
    """A record that became a dead letter still moves the offset."""
    store, writer = opened(config)
    store.commit([writer])
    assert resumed(config) == (0, {})
    writer.append(0, [], [])
    store.commit([writer])
    assert resumed(config)[0] == 1
    assert material.numbers(config) == []


def test_what_comes_twice_lands_once(config: Config, material: Material) -> None:
    """A replay under the same offsets or new ones is dropped, by lane and raw partition."""
    store, writer = opened(config)
    put(writer, 0, 1, 2)
    store.commit([writer])
    store, writer = opened(config)
    put(writer, 0, 1, 2)
    put(writer, 1, 1, 2, 3)
    put(writer, 2, 1, lane=1)
    put(writer, 3, 2, lane=1, raw=1)
    store.commit([writer])
    assert material.numbers(config) == [1, 1, 2, 2, 3]


def test_new_events_at_a_landed_offset_stop_the_worker(config: Config) -> None:
    """It is another topic: going on would lose its events."""
    store, writer = opened(config)
    put(writer, 5, 1)
    store.commit([writer])
    with pytest.raises(Stop):
        put(writer, 0, 2)


def test_an_event_that_cannot_be_written_is_named_and_the_others_land(config: Config, material: Material) -> None:
    """By its place in the record, with a reason for the dead letters."""
    store, writer = opened(config)
    refused = writer.append(0, [change(2), HOSTILE, change(4)], [ORDINARY] * 3, 0)
    assert [(place, bool(why.reason), bool(str(why))) for place, why in refused] == [(1, True, True)]
    store.commit([writer])
    assert material.numbers(config) == [2, 4]


def test_of_two_workers_one_wins_and_the_other_goes_on_behind_it(config: Config, material: Material) -> None:
    """What the other partitions of the loser had lands all the same."""
    store, writer = opened(config)
    other = store.writer(TOPIC, 1)
    other.resume()
    rival_store, rival = opened(config)
    put(rival, 0, 1)
    rival_store.commit([rival])
    put(writer, 0, 1)
    put(writer, 1, 2)
    put(other, 0, 9, lane=1)
    with pytest.raises(Superseded):
        store.commit([writer, other])
    assert material.numbers(config) == [1, 9]
    assert writer.resume()[0] == 1
    put(writer, 1, 2)
    store.commit([writer, other])
    assert material.numbers(config) == [1, 2, 9]


def test_storage_that_refuses_at_any_step_shows_nothing_half_and_loses_nothing(
    tmp_path: Path, material: Material, s3: S3Server
) -> None:
    """The error is a `Retry` with a sentence; the next commit lands everything once, by the same worker or another."""
    steps = refusals = 0
    while steps == refusals:
        steps += 1
        for same in (True, False):
            config = configured(tmp_path / f"{steps}{same}", material, s3)
            store, writer = opened(config)
            put(writer, 0, 1, 2)
            with material.refusing(steps) as refused, suppress(Retry):
                store.commit([writer])
            assert material.numbers(config) in ([], [1, 2]), steps
            if not same:
                store, writer = opened(config)
                put(writer, 0, 1, 2)
            put(writer, 1, 3)
            store.commit([writer])
            assert material.numbers(config) == [1, 2, 3], steps
        refusals += bool(refused)
    assert refusals > 2


def test_a_full_buffer_says_so(config: Config) -> None:
    """Before memory is short; it goes on taking."""
    _, writer = opened(config)
    number = 0
    while not writer.full:
        events = [change(number + n, at=Position(0, number + n, 0)) for n in range(5_000)]
        writer.append(number, events, [ORDINARY] * len(events))
        number += 5_000
        assert number <= 5_000_000
    put(writer, number, number)
    assert (writer.rows, writer.buffered_bytes > 0) == (number + 1, True)
