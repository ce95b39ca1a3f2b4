"""A worker of one's own on a real broker, with the real judge and the real lake."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from detectors.judge import Judge
from detectors.policy.details import wrong
from detectors.policy.policies import Bundle
from pgwitness.core.config import Config
from pgwitness.core.contracts.evidence_writer import EvidenceStore
from pgwitness.core.events import Event, RawBatch
from pgwitness.core.runtime.health import Health
from pgwitness.core.units import Duration
from sinks.lake.writer import Lake
from sinks.sql import catalogue
from streams.faust import worker
from streams.fold.fold import Fold
from streams.kafka import admin
from streams.worker.policy_file import PolicyFile
from tests.streams.records import IDENTITIES, value

DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def details_that_policies_know(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever any of these tests makes the fold emit, its `detail` is one that the language of policies knows."""
    strange: list[str] = []
    end = Fold._end

    def checked(fold: Fold, offset: int) -> list[Event]:
        events = end(fold, offset)
        strange.extend(f"{event.kind}: {problem}" for event in events for problem in wrong(event.kind, event.detail))
        return events

    monkeypatch.setattr(Fold, "_end", checked)
    yield
    assert strange == []


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds and give its value; fails after `DEADLINE_S`."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_S:.0f} s: {what}")
        time.sleep(0.1)
    return found


class Installation:
    """Topics, identities and a lake; workers run in threads."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.producer = Producer(config.kafka.client() | {"message.max.bytes": "4000000", "log_level": "0"})
        self.bundle = Bundle.packaged()
        self._catalogue: duckdb.DuckDBPyConnection | None = None
        config.identities.file.write_text(IDENTITIES)
        admin.apply(config)

    def send(self, *batches: RawBatch | bytes | None, partition: int = 0, topic: str = "raw") -> None:
        """Write records, whatever they are."""
        for batch in batches:
            payload = value(batch) if isinstance(batch, RawBatch) else batch
            self.producer.produce(self.config.kafka.topic(topic), payload, b"shop", partition)
        assert self.producer.flush(20) == 0

    @contextmanager
    def worker(self, lake: EvidenceStore | None = None, policies: PolicyFile | None = None) -> Iterator[Health]:
        """Run a worker until the block ends; it must then end cleanly. `policies` may change while it runs.

        Like a process, it opens a lake of its own: two that shared one would land each other's commit.
        """
        stop, health, codes = threading.Event(), Health(), list[int]()
        ready = threading.Event()

        def judge() -> Judge:
            return Judge(policies.last if policies else self.bundle, labels={}, behaviour=None)

        def run() -> None:
            store = lake or Lake(self.config.lake.path)
            codes.append(worker.run(self.config, store, judge, health, stop, ready.set, policies))

        thread = threading.Thread(target=run, name="worker")
        thread.start()
        try:
            eventually(lambda: ready.is_set() or codes, "the worker owns partitions")
            yield health
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()
        assert codes == [0]

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the lake."""
        if self._catalogue is None:  # once: making the views takes ten times as long as most questions
            self._catalogue = catalogue.connect(self.config.lake.path)
        catalogue.refresh(self._catalogue)
        return self._catalogue.execute(query).fetchall()

    def landed(self, number: int, where: str = "kind = 'change'") -> None:
        """Wait until that many events are in the lake, no fewer and no more, each once."""
        query = f"SELECT count(*), count(DISTINCT event_id) FROM events WHERE {where}"

        def count() -> tuple[Any, ...]:
            return self.ask(query)[0] if self.config.lake.path.exists() else (0, 0)

        eventually(lambda: count()[0] >= number, f"{number} events with {where}")
        assert count() == (number, number)


@pytest.fixture
def installation(request: pytest.FixtureRequest, tmp_path: Path, config_factory: Callable[..., Config]) -> Installation:
    """An installation on the broker that the test asks for, the embedded one otherwise."""
    name = "broker" if "broker" in request.fixturenames else "embedded_broker"
    bootstrap = request.getfixturevalue(name).bootstrap
    config = config_factory(tmp_path, bootstrap, "postgresql://localhost/shop")
    # A short session: joining takes the embedded broker half of it.
    quick = replace(config.worker, session_timeout=Duration(3.0))
    return Installation(replace(config, worker=quick))
