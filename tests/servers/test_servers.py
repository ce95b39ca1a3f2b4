"""The servers of the demo and the tests keep what they promise: loopback only, and data that survives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from pgwitness.core.errors import Unreachable
from pgwitness.demo.servers import FAST_AND_FORGETFUL, LOOPBACK, Broker, Postgres, wait_for
from tests.conftest import DEBIAN_BIN, AnyBroker, leave_out
from tests.servers import kafka
from tests.servers.kafka import Kafka


@pytest.fixture(params=["wheel", pytest.param("debian", marks=pytest.mark.debian)])
def own_postgres(request: pytest.FixtureRequest, servers_path: Path, topic_prefix: str) -> Iterator[Postgres]:
    """A PostgreSQL that the test may stop and kill."""
    programs = None
    if request.param == "debian":
        if not DEBIAN_BIN.exists():
            leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN}")
        programs = DEBIAN_BIN
    server = Postgres(servers_path / f"own-{topic_prefix}", bin=programs, settings=FAST_AND_FORGETFUL)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def own_kafka(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kafka]:
    """An Apache Kafka that the test may stop and kill."""
    absent = kafka.missing()
    if absent is not None:
        leave_out(f"Apache Kafka: {absent} not found")
    with Kafka(tmp_path / "kafka") as server:
        yield server


def listening(pid: int | None) -> set[str]:
    """Give the addresses that a process and its children listen on."""
    parent = psutil.Process(pid)
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in [parent, *parent.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def remembered(server: Postgres) -> list[int]:
    """Read back what `remember` wrote."""
    with psycopg.connect(server.dsn()) as connection:
        return [value for (value,) in connection.execute("SELECT value FROM kept ORDER BY value").fetchall()]


def remember(server: Postgres, value: int) -> None:
    """Commit a value."""
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def test_postgres_has_what_pgwitness_needs(own_postgres: Postgres) -> None:
    """The server starts with logical WAL and pg_stat_statements, and is reached by TCP and by its socket."""
    for dsn in (own_postgres.dsn(), own_postgres.socket_dsn()):
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            assert connection.execute("SELECT count(*) >= 0 FROM pg_stat_statements").fetchone() == (True,)


def test_postgres_binds_loopback_only(own_postgres: Postgres) -> None:
    """No other machine can connect to the server."""
    assert listening(own_postgres.pid) == {LOOPBACK}


def test_postgres_restart_keeps_data_and_port(own_postgres: Postgres) -> None:
    """After a restart the server answers at the same place and has everything."""
    remember(own_postgres, 1)
    before = own_postgres.dsn()
    own_postgres.restart()
    assert own_postgres.dsn() == before
    assert remembered(own_postgres) == [1]


def test_postgres_recovers_from_a_kill(own_postgres: Postgres) -> None:
    """After SIGKILL of every process nothing of the server is left, and a start recovers what was committed."""
    remember(own_postgres, 2)
    parent = psutil.Process(own_postgres.pid)
    family = [parent, *parent.children(recursive=True)]
    own_postgres.kill()
    assert not [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
    own_postgres.start()
    assert remembered(own_postgres) == [2]


def test_postgres_settings_change_at_the_next_start(own_postgres: Postgres) -> None:
    """Settings are written at each start, so that a test can change one."""
    own_postgres.settings["work_mem"] = "5MB"
    own_postgres.restart()
    with psycopg.connect(own_postgres.dsn()) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)


def test_a_standby_follows_and_can_be_promoted(own_postgres: Postgres, servers_path: Path, topic_prefix: str) -> None:
    """A standby has what the primary committed, and takes writes once it is promoted, on a timeline of its own."""
    standby = Postgres.standby_of(own_postgres, servers_path / f"standby-{topic_prefix}")
    try:
        standby.start()
        remember(own_postgres, 3)
        with psycopg.connect(own_postgres.dsn(), autocommit=True) as primary:
            row = primary.execute("SELECT pg_current_wal_lsn()::text").fetchone()
            assert row is not None
        with psycopg.connect(standby.dsn(), autocommit=True) as replica:
            query = "SELECT coalesce(pg_last_wal_replay_lsn() >= %s::pg_lsn, false)"
            wait_for(lambda: replica.execute(query, [row[0]]).fetchone() == (True,), 30, "the standby replays")
        own_postgres.kill()
        standby.promote()
        remember(standby, 4)
        assert remembered(standby) == [3, 4]
        with psycopg.connect(standby.dsn()) as connection:
            segment = connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchone()
        assert segment is not None
        assert segment[0].startswith("00000002")
    finally:
        standby.remove()


def test_postgres_runs_where_its_user_may_not_go(tmp_path: Path, postgres18: Postgres) -> None:
    """Programs and data in a folder that only root may enter still make a server, and the folder stays closed."""
    closed = tmp_path / "closed"
    package = postgres18.bin.parent.parent
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, closed / source.name, symlinks=True)
    closed.chmod(0o700)
    server = Postgres(closed / "data", bin=closed / package.name / "pginstall" / "bin", settings=FAST_AND_FORGETFUL)
    try:
        server.start()
        remember(server, 5)
        server.restart()
        assert remembered(server) == [5]
        assert server.program("psql", "-At", "-d", server.dsn(), "-c", "SELECT 1").strip() == "1"
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        server.remove()


def test_a_server_that_cannot_start_says_why(own_postgres: Postgres) -> None:
    """A setting that PostgreSQL refuses is named in the error, from the server's own log."""
    own_postgres.stop()
    own_postgres.settings["wal_level"] = "nonsense"
    with pytest.raises(Unreachable, match="wal_level"):
        own_postgres.start()


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    """Deliver one record, or fail."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
    errors: list[object] = []
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    assert errors == [None]


def consume(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    """Read a topic from its start until `count` records came."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,  # the embedded broker makes a joining group wait for half of it
            "log_level": 0,
        }
    )
    values: list[bytes | None] = []
    try:
        consumer.subscribe([topic])

        def poll() -> bool:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                values.append(message.value())
            return len(values) >= count

        wait_for(poll, 60, f"{count} records of {topic}")
    finally:
        consumer.close()
    return values


def create(bootstrap: str, topic: str) -> None:
    """Create a topic with one partition."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result(30)


def test_brokers_carry_records(broker: AnyBroker, topic_prefix: str) -> None:
    """What a producer delivered, a consumer group reads."""
    topic = f"{topic_prefix}raw"
    create(broker.bootstrap, topic)
    produce(broker.bootstrap, topic, b"one")
    produce(broker.bootstrap, topic, b"two")
    assert consume(broker.bootstrap, topic, 2) == [b"one", b"two"]


def test_brokers_bind_loopback_only(broker: AnyBroker) -> None:
    """No other machine can connect to a broker."""
    assert listening(broker.pid) == {LOOPBACK}


def test_embedded_broker_comes_back_empty_on_the_same_port(tmp_path: Path) -> None:
    """After a kill the embedded broker starts again at the same place, and has forgotten everything."""
    with Broker(tmp_path / "broker") as server:
        before = server.bootstrap
        create(before, "kept")
        server.kill()
        server.start()
        assert server.bootstrap == before
        topics = AdminClient({"bootstrap.servers": before, "log_level": 0}).list_topics(timeout=10).topics
        assert "kept" not in topics


@pytest.mark.kafka
def test_apache_kafka_keeps_its_records_over_restart_and_kill(own_kafka: Kafka) -> None:
    """What was acknowledged before a restart and before a SIGKILL is read after them."""
    create(own_kafka.bootstrap, "kept")
    produce(own_kafka.bootstrap, "kept", b"before restart")
    own_kafka.restart()
    produce(own_kafka.bootstrap, "kept", b"before kill")
    own_kafka.kill()
    own_kafka.start()
    assert consume(own_kafka.bootstrap, "kept", 2) == [b"before restart", b"before kill"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal is Linux's")
def test_servers_end_with_the_process_that_started_them(servers_path: Path, topic_prefix: str) -> None:
    """When the starting process is killed, its servers go too: nothing stays behind."""
    program = (
        "import sys, signal; from pathlib import Path; from pgwitness.demo.servers import Broker, Postgres\n"
        "here = Path(sys.argv[1]); postgres = Postgres(here / 'data'); postgres.start()\n"
        "broker = Broker(here / 'broker'); broker.start()\n"
        "print(postgres.pid, broker.pid, flush=True); signal.pause()\n"
    )
    here = servers_path / f"orphans-{topic_prefix}"
    here.mkdir(mode=0o711)
    with subprocess.Popen([sys.executable, "-c", program, str(here)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(parent.pid, signal.SIGKILL)

    def gone(pid: int) -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    wait_for(lambda: all(gone(pid) for pid in pids), 30, "the servers end")
