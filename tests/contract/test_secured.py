"""Apache Kafka behind TLS and SASL: everything works that works without, and a refusal says what to do."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Producer

from pgwitness.core.errors import ConfigurationError
from pgwitness.demo.servers import LOOPBACK, Postgres, wait_for
from streams.faust.credentials import credentials
from tests.collectors.tls import Authority
from tests.conftest import fresh_database, leave_out, write_config
from tests.contract.system import Daemon, System
from tests.servers import kafka
from tests.servers.kafka import Kafka, Secured

USER, PASSWORD = "pgwitness", "s3cret: with spaces"
ACCESS = """
[kafka.security]
protocol = "sasl_ssl"
[kafka.sasl]
mechanism = "{mechanism}"
username = "{user}"
password_file = "kafka.password"
[kafka.ssl.ca]
location = "kafka-ca.crt"
[deliveries.file]
kind = "file"
path = "alerts.jsonl"
start = "beginning"
"""
CREDENTIALS = "correct sasl.mechanism, sasl.username and sasl.password (or sasl.password_file)"
COMMANDS = (["topics", "apply"], ["alerts"], ["dead-letters", "list"])

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the broker's certificate."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Apache Kafka that lets clients in by TLS and SASL alone."""
    absent = kafka.missing()
    if absent is not None:
        leave_out(f"Apache Kafka: {absent} not found")
    certificate, key, _ = authority.issue("broker", LOOPBACK)
    keystore = authority.folder / "broker.pem"
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes() + authority.path.read_bytes())
    with Kafka(tmp_path_factory.mktemp("secured"), secured=Secured(keystore, {USER: PASSWORD})) as server:
        yield server


def system(
    folder: Path,
    server: Kafka,
    admin_dsn: str,
    trusted: Authority,
    *,
    mechanism: str = "SCRAM-SHA-512",
    password: str = PASSWORD,
    bootstrap: str = "",
) -> System:
    """Configure an installation on the broker, as an operator does: secrets and authority as files beside it."""
    (folder / "kafka.password").write_text(password + "\n")
    (folder / "kafka-ca.crt").write_bytes(trusted.path.read_bytes())
    config = write_config(
        folder,
        bootstrap or server.bootstrap,
        admin_dsn.replace("postgres@", "pgwitness@"),
        [admin_dsn.rpartition("/")[2]],
        prefix=f"s{secrets.token_hex(3)}.",
        extra=ACCESS.format(mechanism=mechanism, user=USER),
    )
    return System(folder, config, admin_dsn)


@pytest.mark.timeout(600)
def test_everything_works_over_tls_and_sasl(
    secured: Kafka, authority: Authority, postgres18: Postgres, tmp_path: Path
) -> None:
    """Topics, collectors, worker, alerts, their delivery, dead letters and their redrive, with PLAIN.

    With SCRAM, the default here, `test_installation` does the same and more.
    """
    with (
        fresh_database(postgres18) as admin_dsn,
        system(tmp_path, secured, admin_dsn, authority, mechanism="PLAIN") as it,
    ):
        with psycopg.connect(admin_dsn) as admin:
            admin.execute("CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric)")
        it.prepare()
        collectors, worker = it.collect("wal").ready(), it.worker().ready()
        deliver = it.daemon("alerts", "deliver", name="deliver").ready()
        with psycopg.connect(admin_dsn) as admin:
            admin.execute("INSERT INTO orders SELECT n, n FROM generate_series(1, 300) AS r(n)")
            admin.commit()
            admin.execute("SELECT pg_logical_emit_message(true, 'pgwitness.beacon', 'I am the chief accountant')")
            admin.execute("DELETE FROM orders")
        it.landed("SELECT operation, count(*) FROM changes GROUP BY ALL ORDER BY ALL", lambda rows: rows == [
            ("delete", 300), ("insert", 300)
        ])  # fmt: skip
        it.landed("SELECT count(*) FROM alerts WHERE policy = 'beacon_forged'", lambda rows: rows[0][0] > 0)
        assert "beacon_forged" in {row["unmapped"]["policy"] for row in it.table("alerts")}
        told = tmp_path / "alerts.jsonl"
        wait_for(lambda: told.exists() and "beacon_forged" in told.read_text(), 30, f"delivery\n{deliver.complaint()}")

        garbage = Producer({**it.config.kafka.client(), "log_level": 0})
        garbage.produce(it.config.kafka.topic("raw"), b"no batch", b"k", 0)
        assert garbage.flush(30) == 0
        wait_for(lambda: len(it.table("dead-letters", "list")) == 1, 30, "the dead letter", every_s=0.5)
        (letter,) = it.table("dead-letters", "list")
        it.command("dead-letters", "redrive", "--all")
        wait_for(lambda: len(it.table("dead-letters", "list")) == 2, 30, "the letter that came back", every_s=0.5)
        assert letter["reason"] == "not_a_batch"

        it.command("sql", "SELECT 1")
        it.landed("SELECT count(*) FROM control WHERE operation = 'query'", lambda rows: rows == [(1,)])
        assert [daemon.stop() for daemon in (collectors, worker, deliver)] == [0, 0, 0]


def complains(it: System, command: list[str], *wanted: str) -> None:
    """Run a command that has to end with exit code 3 and a sentence that says what to do."""
    import subprocess

    from tests.contract.system import PROGRAM

    done = subprocess.run(
        [*PROGRAM, *command, "--config", str(it.directory / "pgwitness.toml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert [text for text in wanted if text not in said] == [], said
    assert PASSWORD not in done.stderr


@pytest.mark.parametrize(
    ("mechanism", "command"),
    [
        *(("SCRAM-SHA-512", command) for command in COMMANDS),  # each command has a client of its own
        *zip(("PLAIN", "SCRAM-SHA-256"), COMMANDS, strict=False),
    ],
)
def test_wrong_credentials_end_with_what_to_correct(
    secured: Kafka, authority: Authority, postgres18: Postgres, tmp_path: Path, command: list[str], mechanism: str
) -> None:
    """A wrong password, or a mechanism that the broker does not have: exit code 3, and the settings to correct."""
    password = PASSWORD if mechanism == "SCRAM-SHA-256" else "wrong"
    it = system(tmp_path, secured, postgres18.dsn(), authority, mechanism=mechanism, password=password)
    complains(it, command, secured.bootstrap, "was reached and refused", "uthentication", CREDENTIALS) if (
        mechanism != "SCRAM-SHA-256"
    ) else complains(it, command, "Unsupported SASL mechanism", "SCRAM-SHA-512,PLAIN", CREDENTIALS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_certificate_that_nobody_trusts_ends_with_what_to_correct(
    secured: Kafka, postgres18: Postgres, tmp_path: Path, command: list[str]
) -> None:
    """A broker whose certificate another authority signed: exit code 3, and the setting to correct."""
    (tmp_path / "other").mkdir()
    it = system(tmp_path, secured, postgres18.dsn(), Authority(tmp_path / "other", "somebody else"))
    complains(it, command, "was reached and refused", "certificate verify failed", "correct ssl.ca.location")


def test_tls_to_a_listener_without_says_so(
    secured: Kafka, authority: Authority, postgres18: Postgres, tmp_path: Path
) -> None:
    """The port of a listener without TLS: exit code 3, and the setting to look at."""
    it = system(tmp_path, secured, postgres18.dsn(), authority, bootstrap=secured.plain)
    complains(it, ["topics", "apply"], secured.plain, '"security.protocol" in [kafka]')


def not_ready(daemon: Daemon) -> str:
    """Give why a daemon that runs is not ready, once it says so of the broker."""
    wait_for(lambda: "refused" in daemon.get("/readyz")[1], 60, f"a reason; {daemon.get('/readyz')}")
    assert daemon.running
    return daemon.get("/readyz")[1]


def test_a_refused_daemon_goes_on_trying_and_says_why(
    secured: Kafka, authority: Authority, postgres18: Postgres, tmp_path: Path
) -> None:
    """Worker, collectors and deliveries with a wrong password run on, are not ready, say what to correct, and can be
    ended."""
    with (
        fresh_database(postgres18) as admin_dsn,
        system(tmp_path, secured, admin_dsn, authority, password="wrong") as it,
    ):
        it.command("db", "install", "--dsn", admin_dsn)
        daemons = [it.worker(), it.collect("sessions"), it.daemon("alerts", "deliver", name="deliver")]
        assert [CREDENTIALS in not_ready(daemon) for daemon in daemons] == [True, True, True]
        assert [daemon.stop() for daemon in daemons] == [0, 0, 0]


def test_what_the_worker_cannot_use_is_refused() -> None:
    """Settings that only librdkafka knows end the worker rather than let it connect in another way than meant."""
    for settings, said in (
        ({"security.protocol": "ssl", "ssl.keystore.location": "a.p12"}, "kafka.ssl.keystore.location"),
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "GSSAPI"}, "SCRAM-SHA-512"),
        ({"security.protocol": "tls"}, "sasl_ssl"),
        ({"security.protocol": "ssl", "ssl.ca.pem": json.dumps("nonsense")}, "kafka.ssl"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            credentials(settings)
