"""The deliveries on a real broker and a real database: positions, repeats, dead letters, and the responder."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from confluent_kafka import Producer
from msgspec.structs import replace
from prometheus_client import REGISTRY

from detectors.alerts.verdicts import public_text
from pgwitness.approvals import records as approval_records
from pgwitness.core.codec import decode_raw
from pgwitness.core.config import Approvals, Config, Delivery, Respond, RespondCluster
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Control
from pgwitness.core.runtime import backoff
from pgwitness.core.runtime.health import Health, serve
from pgwitness.demo.servers import Broker, Postgres
from sinks.deliveries import daemon, routing
from sinks.deliveries.targets.file import File
from streams.kafka import admin, dead_letters
from streams.kafka.reading import make_reader, read
from tests.approvals import signing
from tests.conftest import AnyBroker
from tests.sinks.test_deliveries import ALERT, hooks

DEADLINE_S = 60.0


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds and give its value."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_S:.0f} s: {what}")
        time.sleep(0.05)
    return found


class Alerts:
    """Topics of one's own, and the daemon that delivers from them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        admin.apply(config)
        self.producer = Producer(config.kafka.client() | {"log_level": "0"})
        self.health = Health()

    def tell(self, *numbers: int, **changes: Any) -> None:
        """Put alerts on the topic, each named by its number."""
        for number in numbers:
            alert = ALERT | {"metadata": ALERT["metadata"] | {"uid": f"a{number}"}} | changes
            self.put(json.dumps(alert).encode())

    def put(self, value: bytes) -> None:
        """Put anything on the topic."""
        self.producer.produce(self.config.kafka.topic("alerts"), value, b"uid", 0)
        assert self.producer.flush(20) == 0

    def records(self, topic: str, partition: int = 0) -> list[bytes]:
        """Everything in a partition."""
        consumer = make_reader(self.config.kafka)
        try:
            found = read(consumer, self.config.kafka.topic(topic), partition)
            return [value for message in found if isinstance(value := message.value(), bytes)]
        finally:
            consumer.close()

    @contextmanager
    def delivering(self, **targets: Delivery) -> Iterator[None]:
        """Run the daemon until the block ends; it must then end by itself."""
        config = replace(self.config, deliveries=targets)
        stop = threading.Event()
        self.health = Health()
        errors: list[BaseException] = []

        def work() -> None:
            try:
                asyncio.run(daemon.run(config, self.health, stop))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            eventually(lambda: errors or (self.health._ready and not self.health.not_ready()), "the daemon is ready")
            yield
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()
        assert errors == []


@pytest.fixture
def installation(embedded_broker: Broker, tmp_path: Path, config_factory: Callable[..., Config]) -> Alerts:
    """Topics on the embedded broker."""
    return Alerts(config_factory(tmp_path, embedded_broker.bootstrap, "postgresql://localhost/shop"))


def uids(got: list[tuple[dict[str, str], bytes]]) -> list[str]:
    """The names of what a web server got."""
    return [json.loads(body)["id"] for _, body in got]


def metric(name: str, **labels: str) -> float:
    """The present value of a counter."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_each_target_gets_each_alert_from_its_own_place(
    broker: AnyBroker, tmp_path: Path, config_factory: Callable[..., Config]
) -> None:
    """On both brokers: a new target begins at the end, one that was there goes on where it was, at least once."""
    here = Alerts(config_factory(tmp_path, broker.bootstrap, "postgresql://localhost/shop"))
    archive = Delivery(kind="file", path=tmp_path / "alerts.jsonl", start="beginning")
    here.tell(1, 2)
    with hooks() as (url, got):
        soc = Delivery(kind="webhook", url=url)
        with here.delivering(archive=archive, soc=soc):
            here.tell(3, 4)
            eventually(lambda: len(got) >= 2, "the webhook has both")
            eventually(lambda: len((tmp_path / "alerts.jsonl").read_text().splitlines()) >= 4, "the file has four")
        here.tell(5)
        with here.delivering(archive=archive, soc=soc):
            here.tell(6)
            eventually(lambda: "a6" in uids(got), "the webhook has the last")
    lines = [json.loads(line)["metadata"]["uid"] for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert uids(got) == ["a3", "a4", "a5", "a6"]
    assert lines[:5] == ["a1", "a2", "a3", "a4", "a5"]


def test_what_is_not_taken_is_tried_again_in_order(installation: Alerts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two failures, then success; the next alert waits its turn; both arrive once."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    before = metric("pgwitness_deliver_failures_total", target="again")
    with hooks(500, 429) as (url, got), installation.delivering(again=Delivery(kind="webhook", url=url)):
        installation.tell(1, 2)
        eventually(lambda: len(got) >= 4, "four posts")
    assert uids(got) == ["a1", "a1", "a1", "a2"]
    assert metric("pgwitness_deliver_failures_total", target="again") == before + 2


def test_what_cannot_be_delivered_is_a_dead_letter_and_the_rest_goes_on(
    installation: Alerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused at once, not taken after all tries, or no alert at all; it can be tried again from there."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    with hooks(400, 500, 500) as (url, got), installation.delivering(soc=Delivery(kind="webhook", url=url, tries=2)):
        installation.tell(1, 2)
        installation.put(b"not an alert")
        installation.tell(3)
        eventually(lambda: "a3" in uids(got), "the last one arrives")
        letters = dead_letters.letters(installation.config)
        assert [(letter.reason, letter.stage) for letter in letters] == [
            ("undeliverable", "deliver:soc"),
            ("undeliverable", "deliver:soc"),
            ("not_an_alert", "deliver:soc"),
        ]
        assert letters[2].value == b"not an alert"
        dead_letters.redrive(installation.config, [letters[0].offset])
        eventually(lambda: uids(got).count("a1") >= 2, "it is delivered after all")
    assert uids(got) == ["a1", "a2", "a2", "a3", "a1"]


def test_a_flood_is_held_back_and_told_in_one_summary(installation: Alerts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the rate alerts wait; the summary counts them, and only then is their place behind us."""
    monkeypatch.setattr(routing, "SUMMARY_S", 0.5)
    with hooks() as (url, got):
        chat = Delivery(kind="webhook", url=url, rate=3)
        with installation.delivering(chat=chat):
            installation.tell(*range(20))
            eventually(lambda: any(uid.startswith("summary-") for uid in uids(got)), "a summary")
            eventually(lambda: _told(got) >= 20, "all are told, one by one or in summaries")
        assert _told(got) == 20
        assert uids(got)[:3] == ["a0", "a1", "a2"]
        with installation.delivering(chat=chat):
            installation.tell(99)
            eventually(lambda: _told(got) >= 21, "what comes next")
        assert _told(got) == 21


def _told(got: list[tuple[dict[str, str], bytes]]) -> int:
    bodies = [json.loads(body) for _, body in got]
    return sum(body["data"]["held_back"] if body["type"] == "summary" else 1 for body in bodies)


def test_ending_while_a_target_is_gone_loses_nothing(installation: Alerts) -> None:
    """The daemon ends at once in the middle of a pause, and the next run delivers what was left."""
    with installation.delivering(soc=Delivery(kind="webhook", url="http://127.0.0.1:9/")):
        before = metric("pgwitness_deliver_failures_total", target="soc")
        installation.tell(1)
        eventually(lambda: metric("pgwitness_deliver_failures_total", target="soc") > before + 2, "it is tried")
        assert installation.health.not_ready() == [
            "soc: the target does not take alerts: no answer: ClientConnectorError"
        ]
    with hooks() as (url, got):
        with installation.delivering(soc=Delivery(kind="webhook", url=url)):
            eventually(lambda: got, "it is delivered")
        assert uids(got) == ["a1"]
        assert installation.health.not_ready() == []


def test_a_defect_in_one_target_does_not_end_the_others(
    installation: Alerts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody expected is logged and tried again; the others deliver, and nothing is lost."""
    send = File.send
    raised = iter([RuntimeError("can't start new thread")])

    async def once(self: File, item: routing.Item) -> None:
        for error in raised:
            raise error
        await send(self, item)

    monkeypatch.setattr(File, "send", once)
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    path = tmp_path / "alerts"
    with hooks() as (url, got):
        both = {"bad": Delivery(kind="file", path=path), "good": Delivery(kind="webhook", url=url)}
        with installation.delivering(**both):
            installation.tell(1)
            eventually(lambda: got and path.exists() and path.read_text().count("a1"), "both have it")


def test_the_daemon_says_how_it_is(installation: Alerts, tmp_path: Path) -> None:
    """Live, ready and measured like every daemon; without a target there is nothing to do."""
    with installation.delivering(archive=Delivery(kind="file", path=tmp_path / "a")):
        server, port = serve(installation.health, "127.0.0.1", 0)
        for path in ("livez", "readyz"):
            with urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                assert answer.read() == b"ok\n"
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert b"pgwitness_deliver_delivered_total" in answer.read()
        server.shutdown()
        server.server_close()
    with pytest.raises(ConfigurationError, match="nothing to deliver to"):
        daemon.routes(installation.config, threading.Event())


# -- the responder -----------------------------------------------------------------------------------------------


class Shop:
    """A database with the responder's role, and alerts about its sessions."""

    def __init__(self, alerts: Alerts, admin: str, server: Postgres) -> None:
        self.alerts = alerts
        self.admin = admin
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute("CREATE ROLE responder LOGIN IN ROLE pg_signal_backend, pg_read_all_stats")
            connection.execute("CREATE ROLE agent LOGIN")
            connection.execute("CREATE ROLE pgwitness_reader LOGIN")
        place = RespondCluster(
            dsn=server.dsn(user="responder", dbname=psycopg.conninfo.conninfo_to_dict(admin)["dbname"])
        )
        self.respond = Respond(enabled=True, clusters={"shop": place})
        alerts.config = replace(alerts.config, respond=self.respond)

    def connect(self, user: str) -> psycopg.Connection:
        """Log in."""
        return psycopg.connect(self.admin, user=user, autocommit=True)

    def accuse(self, session: psycopg.Connection, how: str = "terminate", **changes: Any) -> None:
        """Tell an alert about a session that asks for a response."""
        with psycopg.connect(self.admin) as connection:
            query = "SELECT floor(extract(epoch FROM backend_start))::bigint FROM pg_stat_activity WHERE pid = %s"
            (start,) = connection.execute(query, [session.info.backend_pid]).fetchone() or (0,)
        ours = {"respond": how, "pid": session.info.backend_pid, "session_start": start, "cluster": "shop"}
        self.alerts.tell(1, time=time.time_ns() // 1_000_000, unmapped=ALERT["unmapped"] | ours | changes)

    def outcome(self) -> str:
        """Wait for what came of it, by the evidence that it left in raw."""
        found = eventually(lambda: [e for e in self.evidence() if e.operation == "backend_ended"], "the evidence")
        return str(found[-1].detail["outcome"])

    def evidence(self) -> list[Control]:
        """Everything the responder wrote into raw."""
        partitions = range(self.alerts.config.topics.raw_partitions)
        batches = [decode_raw(value) for number in partitions for value in self.alerts.records("raw", number)]
        return [event for each in batches for event in each.events if isinstance(event, Control)]


@pytest.fixture
def shop(installation: Alerts, database18: str, postgres18: Postgres) -> Shop:
    """A database with a responder."""
    return Shop(installation, database18, postgres18)


def alive(session: psycopg.Connection) -> bool:
    """Whether a session still answers."""
    try:
        return session.execute("SELECT true").fetchone() == (True,)
    except psycopg.OperationalError:
        return False


def test_the_backend_of_an_alert_is_ended_with_evidence(shop: Shop) -> None:
    """Its session is gone; before and after stand in raw; the alert is told again with what was done."""
    with shop.alerts.delivering():
        agent = shop.connect("agent")
        pid = agent.info.backend_pid
        shop.accuse(agent)
        assert shop.outcome() == "done"
        assert not alive(agent)
        assert [event.operation for event in shop.evidence()] == ["backend_ending", "backend_ended"]
        assert shop.evidence()[1].detail["pid"] == pid
        updates = eventually(lambda: shop.alerts.records("alerts")[1:], "the update")
        told = json.loads(updates[0])
        assert (told["activity_name"], told["status"]) == ("Update", "In Progress")
        assert told["unmapped"]["response"]["outcome"] == "done"
        agent.close()


def test_a_statement_can_be_cancelled_and_the_session_kept(shop: Shop) -> None:
    """`cancel` ends what runs and no more."""
    with shop.alerts.delivering():
        agent = shop.connect("agent")
        cancelled: list[bool] = []

        def work() -> None:
            try:
                agent.execute("SELECT pg_sleep(120)")
            except psycopg.errors.QueryCanceled:
                cancelled.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        shop.accuse(agent, "cancel")
        thread.join(60)
        assert cancelled == [True]
        assert alive(agent)
        agent.close()


@pytest.mark.parametrize(
    ("user", "changes", "expected"),
    [
        ("agent", {"session_start": 1_000_000_000}, "gone"),
        ("pgwitness_reader", {}, "never"),
        ("responder", {}, "never"),
        (None, {}, "superuser"),
        ("agent", {"certainty": "none"}, "not_certain"),
        ("agent", {"pid": 2**31 - 1}, "gone"),
    ],
)
def test_who_is_not_meant_is_left_alone(shop: Shop, user: str | None, changes: dict[str, Any], expected: str) -> None:
    """A pid with another start, pgwitness's own roles, superusers, and what is not certain: said, and not touched."""
    with shop.alerts.delivering():
        session = shop.connect(user) if user is not None else psycopg.connect(shop.admin, autocommit=True)
        shop.accuse(session, **changes)
        assert shop.outcome() == expected
        assert alive(session)
        session.close()


def test_no_more_backends_are_ended_than_the_rate_allows(shop: Shop) -> None:
    """A wrong policy cannot end everybody at once."""
    shop.alerts.config = replace(shop.alerts.config, respond=replace(shop.respond, rate=1))
    with shop.alerts.delivering():
        sessions = [shop.connect("agent") for _ in range(3)]
        for session in sessions:
            shop.accuse(session)
        ended = eventually(
            lambda: (e := [e for e in shop.evidence() if e.operation == "backend_ended"])[2:] and e, "three outcomes"
        )
        assert sorted(event.detail["outcome"] for event in ended) == ["done", "rate", "rate"]
        assert sum(alive(session) for session in sessions) == 2
        for session in sessions:
            session.close()


def test_requests_for_approval_are_told_besides_alerts(installation: Alerts, tmp_path: Path) -> None:
    """To targets that want them: those that gateways have signed, tried again like alerts; decisions are none."""
    here = installation
    key = tmp_path / "link.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    gateways = [public_text(signing.GATEWAY.public_key())]
    settings = Approvals(gateways=gateways, console_url="https://console.example", link_key_file=key)
    here.config = replace(here.config, approvals=settings)
    now_us = time.time_ns() // 1000
    life = {"at_us": now_us, "expires_us": now_us + 600_000_000}
    first, second = (signing.request(name, **life) for name in ("r1", "r2"))
    values = [
        approval_records.sign(first, signing.STRANGER),
        b"no record",
        approval_records.sign(first, signing.GATEWAY),
        approval_records.sign(signing.decision(of=first, at_us=now_us), signing.KEYS["ada"]),
        approval_records.sign(second, signing.GATEWAY),
    ]
    with hooks(503, 503) as (url, got), hooks() as (other, without):
        dba = Delivery(kind="webhook", url=url, approvals=True)
        with here.delivering(dba=dba, soc=Delivery(kind="webhook", url=other)):
            for value in values:
                here.producer.produce(here.config.kafka.topic("approvals"), value, b"r", 0)
            assert here.producer.flush(20) == 0
            here.tell(1)
            eventually(lambda: {"approval-r1", "approval-r2", "a1"} <= set(uids(got)), "requests and the alert")
            eventually(lambda: uids(without) == ["a1"], "the alert alone")
    told = [json.loads(body) for _, body in got]
    links = {each["id"]: each["data"]["link"] for each in told if each["type"] == "approval"}
    assert all(link.startswith("https://console.example/approvals/r") for link in links.values())
    assert len({json.dumps(each) for each in told if each["id"] == "approval-r1"}) == 1
    assert here.records("dead-letters") == []
