"""The publisher on real brokers, and the supervision of collectors."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from msgspec.structs import replace

from collectors import stalled
from collectors.daemon import run_collectors, supervise, tasks
from collectors.publisher import Publisher, explain
from collectors.stalled import Progress
from pgwitness.core.config import Config
from pgwitness.core.errors import ConfigurationError, Retry, Stop
from pgwitness.core.events import Tick
from pgwitness.core.runtime.health import Health
from pgwitness.demo.servers import Broker, free_port, wait_for
from tests.collectors.raw_topic import RawTopic, context_of
from tests.servers.kafka import Kafka

Factory = Callable[..., Config]


def test_events_arrive_in_order_and_are_reported(
    broker: Broker | Kafka, config_factory: Factory, tmp_path: Path
) -> None:
    """Every event arrives once, in the order sent, and its report comes after the broker has it."""
    config = config_factory(tmp_path, broker.bootstrap, "postgresql://nowhere/x")
    raw, publisher, reports = RawTopic(config), Publisher(config), []
    try:
        channel = publisher.channel("shop", "test", None)
        for number in range(5_000):
            channel.send(Tick(captured_at_us=number), delivered=lambda n=number: reports.append(n))  # type: ignore[misc]
        channel.flush(20)
        assert reports == list(range(5_000))
        raw.wait(lambda: len(raw.seen) >= 5_000, "all events")
        assert [tick.captured_at_us for tick in raw.of(Tick)] == list(range(5_000))
    finally:
        publisher.close()
        raw.close()


def test_a_lonely_event_does_not_wait_for_company(
    embedded_broker: Broker, config_factory: Factory, tmp_path: Path
) -> None:
    """A batch that never fills goes after the linger, without a flush."""
    config = config_factory(tmp_path, embedded_broker.bootstrap, "postgresql://nowhere/x")
    raw, publisher, reported = RawTopic(config), Publisher(config), threading.Event()
    try:
        publisher.channel("shop", "test", None).send(Tick(captured_at_us=1), delivered=reported.set)
        assert reported.wait(10)
    finally:
        publisher.close()
        raw.close()


def test_nobody_builds_on_what_a_failed_producer_still_delivers(
    embedded_broker: Broker, config_factory: Factory, tmp_path: Path
) -> None:
    """Its batches may arrive all the same; they are sent again, and no position moves for them."""
    config = config_factory(tmp_path, embedded_broker.bootstrap, "postgresql://nowhere/x")
    slow = config.kafka.settings | {"linger.ms": "500"}
    raw = RawTopic(config)
    publisher = Publisher(replace(config, kafka=replace(config.kafka, settings=slow)))
    reports: list[str] = []
    try:
        channel = publisher.channel("shop", "test", None)
        channel.send(Tick(captured_at_us=1), delivered=lambda: reports.append("confirmed"))
        wait_for(lambda: channel.undelivered == 1, 10, "it is under way")
        channel._generation.fail(Retry("the broker did not take another record"))
        raw.wait(lambda: raw.of(Tick) != [], "it arrives")
        wait_for(lambda: channel.undelivered == 0, 10, "its report")
        assert reports == []
        with pytest.raises(Retry, match="another record"):
            channel.send(Tick(captured_at_us=2))
        with pytest.raises(Retry, match="another record"):
            channel.flush(10)
        successor = publisher.channel("shop", "test", None)
        successor.send(Tick(captured_at_us=1), delivered=lambda: reports.append("again"))
        successor.flush(20)
        assert reports == ["again"]
    finally:
        publisher.close()
        raw.close()


def test_an_absent_broker_is_said_and_lets_the_sender_go(config_factory: Factory, tmp_path: Path) -> None:
    """A flush ends with a sentence; a sender that the full queue blocks wakes when the publisher is abandoned."""
    config = config_factory(tmp_path, f"127.0.0.1:{free_port()}", "postgresql://nowhere/x")
    publisher = Publisher(config)
    channel = publisher.channel("shop", "test", None)
    channel.send(Tick(captured_at_us=1))
    with pytest.raises(Retry, match="check that it runs"):
        channel.flush(0.3)
    blocked, raised = threading.Event(), []
    channel.while_blocked = blocked.set

    def fill() -> None:
        try:
            while True:
                channel.send(b'"' + b"x" * 200_000 + b'"')
        except Retry as error:
            raised.append(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    assert blocked.wait(20), "the queue is bounded"
    publisher.abandon()
    thread.join(10)
    assert len(raised) == 1
    publisher.close(0.1)


def test_a_producer_that_gets_nowhere_is_given_up_while_the_broker_runs(
    embedded_broker: Broker, config_factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its senders are told to begin again, with another one; one whose broker is away is kept and waited for."""
    monkeypatch.setattr(stalled, "STALLED_S", 0.3)
    monkeypatch.setattr(stalled, "ASK_S", 1.0)
    config = config_factory(tmp_path, embedded_broker.bootstrap, "postgresql://localhost/shop")
    away = replace(config, kafka=replace(config.kafka, bootstrap=f"127.0.0.1:{free_port()}"))
    RawTopic(config).close()
    found = [stalled.leads(each, config.kafka.topic("raw")) for each in (away, config)]
    assert found == [False, True]
    answers = iter(found)
    monkeypatch.setattr(stalled, "leads", lambda *_: next(answers))
    publisher = Publisher(away)
    try:
        channel = publisher.channel("shop", "tick", None)
        channel.send(Tick(captured_at_us=1))
        with pytest.raises(Retry, match="is not sent to any more"):
            channel.flush(30)
        assert next(answers, None) is None  # asked twice: at first nobody was there
        publisher.channel("shop", "tick", None).send(Tick(captured_at_us=2))
    finally:
        publisher.close(0.1)


def test_progress_is_any_report() -> None:
    """Who waits for one thing after another does not wait in vain; who waits for nothing waits for nobody."""
    progress = Progress(0, lambda: True)
    assert not progress.stalled(44, 0, waiting=True)
    assert not progress.stalled(50, 1, waiting=True)
    assert not progress.stalled(94, 1, waiting=True)
    assert progress.stalled(95, 1, waiting=True)
    assert not progress.stalled(139, 1, waiting=False)
    assert not progress.stalled(183, 1, waiting=True)


def test_delivery_failures_are_sorted_by_what_helps() -> None:
    """A record too large stops; a missing topic or permission names the command."""
    assert isinstance(explain(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)), Stop)
    assert "topics apply" in str(explain(KafkaError(KafkaError._UNKNOWN_TOPIC)))
    assert "ACLs" in str(explain(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))


def test_a_task_that_loses_its_server_is_started_again() -> None:
    """Retry and unexpected errors are tried again, health says why not, and a stop ends it with 0."""
    stop, health, runs = threading.Event(), Health(), []

    def task(stop: threading.Event) -> None:
        runs.append(time.monotonic())
        if len(runs) == 1:
            raise Retry("the server is away")
        if len(runs) == 2:
            raise ValueError("a defect")
        health.ready("task")
        stop.wait()

    result: list[int] = []
    thread = threading.Thread(target=lambda: result.append(supervise({"task": task}, stop, health)))
    thread.start()
    wait_for(lambda: len(runs) == 3 and not health.not_ready(), 20, "the third run")
    stop.set()
    thread.join(10)
    assert result == [0]


def test_what_the_operating_system_refuses_says_what_to_do() -> None:
    """Without descriptors nothing is a defect of ours: the task is tried again, and readiness names the limit."""
    stop, health = threading.Event(), Health()

    def task(_: threading.Event) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    thread = threading.Thread(target=supervise, args=[{"task": task}, stop, health])
    thread.start()
    wait_for(lambda: any("LimitNOFILE" in why for why in health.not_ready()), 20, "the reason")
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_stop_ends_every_task_with_exit_code_1() -> None:
    """One collector that must not go on ends the daemon."""

    def bad(_: threading.Event) -> None:
        raise Stop("evidence would be falsified")

    def good(stop: threading.Event) -> None:
        stop.wait()

    assert supervise({"bad": bad, "good": good}, threading.Event(), Health()) == 1


def test_every_instance_and_database_has_its_task(config_factory: Factory, tmp_path: Path) -> None:
    """Databases have a WAL collector each, instances their statistics and sessions, a cluster its tick."""
    config = config_factory(
        tmp_path, "127.0.0.1:1", "postgresql://db/x", ["a", "b"], replicas=["postgresql://ro:5433/x"]
    )
    publisher = Publisher(config)
    try:
        made = tasks(context_of(config, publisher), ["wal", "stats", "sessions"])
    finally:
        publisher.close(0.1)
    assert set(made) == {
        "tick shop", "wal shop/a", "wal shop/b", "stats shop db:5432", "stats shop ro:5433",
        "sessions shop db:5432", "sessions shop ro:5433",
    }  # fmt: skip


def test_wrong_names_are_refused(config_factory: Factory, tmp_path: Path) -> None:
    """An unknown collector is a configuration error that lists those there are."""
    config = config_factory(tmp_path, "127.0.0.1:1", "postgresql://db/x", ["a"])
    with pytest.raises(ConfigurationError, match="sessions"):
        run_collectors(config, ["wall"], threading.Event(), Health())
