"""What every registered collector promises, held on a real server and a real broker.

A new collector is added to `collectors.registry` and to `MATERIAL`: what it needs, and how to make something happen
that it must see.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from collectors import daemon
from collectors.context import Context
from collectors.installation.install import install
from collectors.publisher import Publisher
from collectors.registry import COLLECTORS, load
from pgwitness.core.config import Config
from pgwitness.core.errors import Retry
from pgwitness.core.events import Gap, QueryStats, RawEvent, Session, Statement, Transaction
from pgwitness.core.runtime.health import Health
from pgwitness.demo.servers import Broker, Postgres, wait_for
from tests.collectors.log_server import logging_server, pattern
from tests.collectors.raw_topic import Bench, bench, context_of
from tests.conftest import fresh_database

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


@dataclass(frozen=True)
class Material:
    """What the suite needs of one collector.

    `act` makes the thing of a number happen in a database, `saw` finds it among what was sent. `cluster` is added to
    the cluster's table, `prepare` is SQL, `beacon` installs ours.
    """

    act: Callable[[str, int], None]
    saw: Callable[[RawEvent, int], bool]
    cluster: Callable[[Postgres], str] = lambda _: ""
    prepare: str = ""
    beacon: bool = False


def _insert(dsn: str, number: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"INSERT INTO marks VALUES ({number})")


def _create(dsn: str, number: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE mark_{number} (id int)")


_connections: list[psycopg.Connection] = []


def _connect(dsn: str, number: int) -> None:
    _connections.append(psycopg.connect(dsn, autocommit=True, application_name=f"mark_{number}"))


def _log_table(server: Postgres) -> str:
    return f'[clusters.shop.log]\npath = "{pattern(server, "jsonlog")}"\nformat = "jsonlog"\ninterval = "50ms"\n'


MATERIAL = {
    "wal": Material(
        act=_insert,
        saw=lambda event, number: isinstance(event, Transaction) and str(number).encode() in bytes(event.rows),
        prepare="CREATE TABLE marks (id int PRIMARY KEY)",
        beacon=True,
    ),
    "stats": Material(
        act=_create,
        saw=lambda event, number: isinstance(event, QueryStats) and f"mark_{number}" in (event.statement or ""),
        prepare="CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()",
    ),
    "sessions": Material(
        act=_connect,
        saw=lambda event, number: isinstance(event, Session) and event.application == f"mark_{number}",
    ),
    "log": Material(
        act=_create,
        saw=lambda event, number: isinstance(event, Statement) and f"mark_{number}" in (event.statement or ""),
        cluster=_log_table,
    ),
}


@pytest.fixture(scope="module")
def server(servers_path: Path) -> Iterator[Postgres]:
    """A server that writes its log too."""
    with logging_server(servers_path / "contract-suites") as made:
        yield made


@pytest.fixture(params=COLLECTORS)
def name(request: pytest.FixtureRequest) -> str:
    """Each registered collector in turn."""
    return str(request.param)


@pytest.fixture
def material(name: str) -> Material:
    """What the collector under test needs."""
    return MATERIAL[name]


@pytest.fixture
def at(
    tmp_path: Path,
    server: Postgres,
    embedded_broker: Broker,
    config_factory: Callable[..., Config],
    material: Material,
) -> Iterator[Bench]:
    """A database for the collector under test, and the topic it writes to."""
    with fresh_database(server) as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(material.prepare)
            if material.beacon:
                install(admin)
        extra = '[privacy]\nclear = ["*"]\n'
        config = config_factory(
            tmp_path,
            embedded_broker.bootstrap,
            dsn,
            [dsn.rsplit("/", 1)[1]],
            extra=extra,
            cluster_extra=material.cluster(server),
        )
        with bench(config) as made:
            yield made
        while _connections:
            _connections.pop().close()


class Run:
    """The tasks of one collector, as the daemon runs them."""

    def __init__(self, name: str, context: Context, publisher: Publisher) -> None:
        self.stop = threading.Event()
        self.codes: list[int] = []
        self._tasks = load(name).tasks(context)
        self._arguments = (self._tasks, self.stop, context.health, publisher.abandon)
        self._thread = threading.Thread(target=lambda: self.codes.append(daemon.supervise(*self._arguments)))

    def __enter__(self) -> Run:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(30)
        working = {thread.name for thread in threading.enumerate()}
        assert self.codes == [0], "it ended the daemon"
        assert working.isdisjoint(self._tasks), "it did not end in time"


def all_seen(at: Bench, material: Material, numbers: range) -> Callable[[], bool]:
    """Make the question whether everything of some numbers arrived."""
    return lambda: all(any(material.saw(event, number) for event in at.raw.seen) for number in numbers)


def test_it_has_material(name: str) -> None:
    """Nothing is registered that this suite does not try."""
    assert name in MATERIAL


def test_its_tasks_are_named_for_it_and_its_cluster(name: str, at: Bench) -> None:
    """All names in a daemon differ, and say what they are of."""
    made = load(name).tasks(context_of(at.config, at.publisher))
    assert made
    assert all(part.startswith(f"{name} shop") for part in made)


def test_checking_and_making_tasks_waits_for_nobody(
    name: str, material: Material, tmp_path: Path, server: Postgres, config_factory: Callable[..., Config]
) -> None:
    """With a database and a broker that are not there, both are done."""
    config = config_factory(tmp_path, "127.0.0.1:1", NOWHERE, ["nothing"], cluster_extra=material.cluster(server))
    publisher = Publisher(config)
    try:
        load(name).check(config)
        assert load(name).tasks(context_of(config, publisher))
    finally:
        publisher.close(0.1)


def test_what_happens_becomes_evidence(name: str, material: Material, at: Bench) -> None:
    """Everything is sent, and each part says under its own name that it is ready."""
    health = Health()
    context = context_of(at.config, at.publisher, health=health)
    with Run(name, context, at.publisher):
        wait_for(_began(name, at, health), 20, "the collector began")
        for number in range(1000, 1005):
            material.act(at.dsn, number)
            at.raw.wait(all_seen(at, material, range(1000, number + 1)), f"evidence of {number}")
        assert health.not_ready() == []


def _began(name: str, at: Bench, health: Health) -> Callable[[], bool]:
    """Make the question whether what happens from now on is seen; what counts differences says that it has begun."""

    def began() -> bool:
        at.raw.read(0.05)
        return not health.not_ready() and (
            name != "stats" or any(gap.reason == "stats_begun" for gap in at.raw.of(Gap))
        )

    return began


def test_what_happens_while_it_is_down_is_not_silent(name: str, material: Material, at: Bench) -> None:
    """Run again it sends what happened meanwhile, or a gap that says that nobody looked."""
    health = Health()
    with Run(name, context_of(at.config, at.publisher, health=health), at.publisher):
        wait_for(_began(name, at, health), 20, "the collector began")
        material.act(at.dsn, 2000)
        at.raw.wait(all_seen(at, material, range(2000, 2001)), "evidence of the first run")
    before = len(at.raw.of(Gap))
    material.act(at.dsn, 2001)
    with Run(name, context_of(at.config, at.publisher), at.publisher):
        seen = all_seen(at, material, range(2001, 2002))
        at.raw.wait(lambda: seen() or len(at.raw.of(Gap)) > before, "evidence of what happened in between, or a gap")


def test_a_lost_server_is_a_retry(
    name: str, material: Material, tmp_path: Path, server: Postgres, config_factory: Callable[..., Config]
) -> None:
    """Where no server answers, a task raises `Retry` with a sentence, or waits; it ends when told to."""
    config = config_factory(tmp_path, "127.0.0.1:1", NOWHERE, ["nothing"], cluster_extra=material.cluster(server))
    publisher = Publisher(config)
    raised: list[BaseException] = []
    stop = threading.Event()
    try:
        for part, task in load(name).tasks(context_of(config, publisher)).items():
            thread = threading.Thread(target=_catching, args=(task, stop, raised), name=part)
            thread.start()
            thread.join(2.0)
            stop.set()
            began = time.monotonic()
            thread.join(daemon.END_S)
            publisher.abandon()
            thread.join(daemon.ABANDONED_S)
            assert not thread.is_alive(), f"{part} goes on {time.monotonic() - began:.1f} s after it was told to end"
    finally:
        publisher.close(0.1)
    assert [error for error in raised if not isinstance(error, Retry) or not str(error)] == []


def _catching(task: Callable[[threading.Event], None], stop: threading.Event, raised: list[BaseException]) -> None:
    try:
        task(stop)
    except Exception as error:
        raised.append(error)
