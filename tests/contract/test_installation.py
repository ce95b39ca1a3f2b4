"""The how-to, word by word, on a secured site: every command of it is run as it stands.

PostgreSQL lets in by TLS and SCRAM alone. So does Apache Kafka, whose authorizer allows each account what `topics apply
--print` lists, and nothing else. Hosts, ports and folders are put in the place of those on the page.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pgwitness.cli.doctor import installation
from pgwitness.cli.doctor.lines import Line
from pgwitness.core.config import load
from pgwitness.demo.servers import FAST_AND_FORGETFUL, LOOPBACK, Postgres, wait_for
from streams.kafka.acls import lacking
from tests.collectors.tls import Authority
from tests.conftest import DEBIAN_BIN, leave_out
from tests.contract.system import Daemon
from tests.servers import kafka
from tests.servers.kafka import Kafka, Secured

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
ACCOUNTS = ("collect", "worker", "deliver", "alerts", "sql", "token", "doctor", "dead-letters", "topics", "consumers")
BLOCK = re.compile(r"```(?P<language>sh|toml)\n(?P<text>.*?)```", re.DOTALL)
QUICK = """
[worker]
grace = "500ms"
session_timeout = "6s"
checkpoint_interval = "1s"
[collectors]
heartbeat_interval = "1s"
[http]
collect_port = 0
worker_port = 0
deliver_port = 0
[deliveries.archive]
kind = "file"
path = "alerts.jsonl"
start = "beginning"
"""
"""What the page does not speak of: shorter intervals, free ports, and a target for deliveries."""
PAGE = "install-on-your-database.md"
NOT_RUN = ("pip install pgwitness",)
"""What these tests have in place already."""

pytestmark = [pytest.mark.kafka, pytest.mark.debian, pytest.mark.timeout(300)]


@dataclass
class Site:
    """A secured PostgreSQL and Kafka, the folder that stands for /etc/pgwitness, and what was run there."""

    folder: Path
    broker: Kafka
    postgres: Postgres
    passwords: dict[str, str]
    exported: list[str] = field(default_factory=list)
    run: list[str] = field(default_factory=list)
    daemons: dict[str, Daemon] = field(default_factory=dict)

    def here(self, text: str) -> str:
        """Put this site's places where the page has its own."""
        text = text.replace("/etc/pgwitness", str(self.folder)).replace("kafka.example:9093", self.broker.bootstrap)
        return text.replace("db.example", f"localhost:{self.postgres.port}").replace("'postgresql", "'postgresql")

    def environment(self, account: str) -> dict[str, str]:
        """Give the environment of an account: Kafka's name and the file with its password, and PostgreSQL's file."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PGWITNESS"))}
        password = self.folder / f"{account}.password"
        password.write_text(self.passwords[account] + "\n")
        password.chmod(0o600)
        return kept | {
            "PGPASSFILE": str(self.folder / "pgpass"),
            "PGWITNESS_KAFKA__SASL__USERNAME": account,
            "PGWITNESS_KAFKA__SASL__PASSWORD_FILE": str(password),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def command(self, line: str, code: int = 0) -> str:
        """Run a line of the page in a shell, as the account of its command; another exit code fails the test."""
        done = subprocess.run(
            ["bash", "-c", self.here("\n".join([*self.exported, line]))],
            cwd=self.folder, env=self.environment(account_of(line)),
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{line}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        self.run.append(line)
        return done.stdout

    def daemon(self, line: str) -> Daemon:
        """Start a daemon of the page as its account, and wait until it is ready."""
        arguments = shlex.split(line, comments=True)[1:]
        name = account_of(line)
        config = [] if "--config" in arguments else ["--config", str(self.folder / "pgwitness.toml")]
        daemon = Daemon([*map(self.here, arguments), *config], self.folder / f"{name}.log", self.environment(name))
        self.daemons[name] = daemon.start()
        self.run.append(line)
        return daemon.ready()


def account_of(line: str) -> str:
    """Give the account that runs a line: the first words of its command."""
    words = re.split(r"pgwitness ", line, maxsplit=1)[-1].split()
    if words[:2] == ["alerts", "deliver"]:
        return "deliver"
    return words[0] if words and words[0] in ACCOUNTS else "doctor"


def blocks(page: str, language: str) -> list[str]:
    """Give the blocks of a language of a page of the how-to."""
    found = BLOCK.finditer((DOCS / page).read_text(encoding="utf-8"))
    return [match["text"] for match in found if match["language"] == language]


def lines(block: str) -> list[str]:
    """Give the commands of a block."""
    return [line for line in block.splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, servers_path: Path) -> Iterator[Site]:
    """Start the servers; nothing of pgwitness is there yet."""
    absent = kafka.missing()
    if absent is not None:
        leave_out(f"Apache Kafka: {absent} not found")
    if not (DEBIAN_BIN / "postgres").exists():
        leave_out(f"PostgreSQL 15 is not installed in {DEBIAN_BIN} (Debian: apt-get install postgresql-15)")
    folder = tmp_path_factory.mktemp("etc")
    authority = Authority(tmp_path_factory.mktemp("authority"))
    certificate, key, _ = authority.issue("broker", LOOPBACK)
    keystore = authority.folder / "broker.pem"
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes() + authority.path.read_bytes())
    passwords = {account: secrets.token_urlsafe(12) for account in ACCOUNTS}
    broker = Kafka(tmp_path_factory.mktemp("kafka"), secured=Secured(keystore, passwords, authorizer=True))
    settings = {**FAST_AND_FORGETFUL, "password_encryption": "scram-sha-256"}
    with broker, Postgres(servers_path / "installed", bin=DEBIAN_BIN, settings=settings) as postgres:
        secure(postgres, authority)
        (folder / "kafka-ca.crt").write_bytes(authority.path.read_bytes())
        (folder / "db-ca.crt").write_bytes(authority.path.read_bytes())
        (folder / "pgpass").write_text("*:*:*:postgres:of the superuser\n*:*:*:pgwitness:of the collectors\n")
        (folder / "pgpass").chmod(0o600)
        made = Site(folder, broker, postgres, passwords)
        try:
            yield made
        finally:
            for daemon in made.daemons.values():
                daemon.kill()


def secure(server: Postgres, authority: Authority) -> None:
    """Let nobody in over TCP but by TLS and SCRAM; make the database of the page."""
    with psycopg.connect(server.socket_dsn(), autocommit=True) as admin:
        admin.execute("ALTER ROLE postgres PASSWORD 'of the superuser'")
        admin.execute("CREATE DATABASE shop")
        admin.execute("CREATE EXTENSION pg_stat_statements")
    owner = server.place.stat()
    certificate, key, _ = authority.issue("localhost")
    for source, name in ((certificate, "server.crt"), (key, "server.key")):
        target = server.place / name
        target.write_bytes(source.read_bytes())
        target.chmod(0o600)
        os.chown(target, owner.st_uid, owner.st_gid)
    (server.place / "pg_hba.conf").write_text(
        "local all all trust\nhostssl all all all scram-sha-256\nhostssl replication all all scram-sha-256\n"
    )
    server.settings |= {"ssl": "on", "listen_addresses": "localhost"}
    server.restart()


def allow(site: Site, rows: list[dict[str, Any]]) -> None:
    """Give the accounts what was printed."""
    client = AdminClient({"bootstrap.servers": site.broker.plain, "log_level": 0})
    bindings = [
        AclBinding(
            ResourceType[row["resource"].upper()], row["name"], ResourcePatternType[row["pattern"].upper()],
            f"User:{row['account']}", "*", _operation(operation), AclPermissionType.ALLOW,
        )
        for row in rows for operation in row["operations"]
    ]  # fmt: skip
    for future in client.create_acls(bindings).values():
        future.result(30)


def _operation(name: str) -> Any:
    return AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()]


@pytest.fixture(scope="module")
def installed(site: Site) -> Site:
    """Do what the page says, from its beginning to its end."""
    tables = blocks(PAGE, "toml")
    for block in blocks(PAGE, "sh"):
        for line in lines(block):
            if line in NOT_RUN or line.startswith("export "):
                site.run.append(line)
                if "ADMIN" in line:  # the others are of a daemon: `environment` sets them
                    site.exported.append(line)
            elif re.match(r"pgwitness (collect|worker)", line):
                site.daemon(line)
            elif line.startswith("pgwitness sql"):
                work(site)
                site.command(line)
            else:
                site.command(line)
                after(site, line, tables)
    return site


def test_the_how_to_is_what_is_done(installed: Site) -> None:
    """Every command of the page does its work with its own account, and the evidence comes through."""
    wanted = [line for block in blocks(PAGE, "sh") for line in lines(block)]
    assert [line for line in installed.run if line in wanted] == wanted


def after(site: Site, line: str, tables: list[str]) -> None:
    """Do what the page says in its text: write the configuration, set the password, give the ACLs."""
    if "pgwitness init" in line:
        config = site.folder / "pgwitness.toml"
        text = config.read_text()
        text = text[: text.index("\n[kafka]")] + text[text.index("\n[privacy]") :]
        config.write_text("\n".join([site.here(tables[0]), text, QUICK]))
        with psycopg.connect(site.postgres.socket_dsn(dbname="shop")) as admin:
            admin.execute("CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
    elif "db install" in line and "--print" not in line:
        with psycopg.connect(site.postgres.socket_dsn()) as admin:
            admin.execute("ALTER ROLE pgwitness PASSWORD 'of the collectors'")
    elif "topics apply --print" in line:
        rows = json.loads(site.command("pgwitness topics apply --print --json"))
        site.run.pop()
        allow(site, [row for row in rows if row["section"] == "acl"])


def work(site: Site) -> None:
    """Do something that is evidence, and something that raises an alert; wait until both are there."""
    site.daemon("pgwitness alerts deliver")
    site.run.pop()
    with psycopg.connect(site.postgres.socket_dsn(dbname="shop"), autocommit=True) as admin:
        admin.execute("INSERT INTO orders VALUES (1, 'a')")
        admin.execute("SELECT pg_logical_emit_message(true, 'pgwitness.beacon', 'I am the chief accountant')")

    def landed() -> bool:
        rows = json.loads(site.command('pgwitness sql --json "SELECT count(*) AS n FROM changes"'))
        site.run.pop()
        return bool(rows[0]["n"] == 1)

    logs = "\n".join(daemon.complaint() for daemon in site.daemons.values())
    archive = site.folder / "alerts.jsonl"
    # The alert first: it is of what was done last, and to look into a file costs nothing beside a command's process.
    wait_for(lambda: archive.exists() and "beacon_forged" in archive.read_text(), 150, f"the alert\n{logs}")
    wait_for(landed, 60, f"the change\n{logs}", every_s=1.0)


READ = """
import json, sys
sys.modules |= dict.fromkeys(("lz4", "lz4.frame", "cramjam", "snappy", "zstandard", "crc32c", "xxhash"))
from kafka import KafkaConsumer
settings, topic = json.loads(sys.argv[1]), sys.argv[2]
consumer = KafkaConsumer(topic, auto_offset_reset="earliest", consumer_timeout_ms=10_000, **settings)
for record in consumer:
    print(json.dumps([record.topic, (record.value or b"").decode(errors="replace")]))
    break
"""
"""A client in nothing but Python, as if nothing that unpacks were installed beside it."""


@pytest.mark.parametrize(("topic", "account"), [("alerts", "consumers"), ("dead-letters", "dead-letters")])
def test_any_client_reads_what_is_for_others(installed: Site, topic: str, account: str) -> None:
    """Alerts and dead letters need no package beside the client, and no right beyond those printed."""
    site = installed
    if topic == "dead-letters":
        producer = Producer({"bootstrap.servers": site.broker.plain, "log_level": 0})
        producer.produce("pgwitness.raw", b"no batch", b"k", 0)
        assert producer.flush(30) == 0
    settings = {
        "bootstrap_servers": site.broker.bootstrap,
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(site.folder / "kafka-ca.crt"),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": account,
        "sasl_plain_password": site.passwords[account],
    }
    command = [sys.executable, "-I", "-W", "ignore", "-c", READ, json.dumps(settings), f"pgwitness.{topic}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] == f"pgwitness.{topic}"


@pytest.mark.parametrize(
    "line",
    [
        "pgwitness dead-letters redrive --all",
        "pgwitness alerts --incidents",
        "pgwitness alerts suppressions",
        "pgwitness doctor --json",
        "pgwitness topics apply --json",
        "printf x | pgwitness token public.orders.note",
        "pgwitness policy test",
    ],
)
def test_what_else_people_run_needs_no_more_rights(installed: Site, line: str) -> None:
    """Commands that the page does not have work with their accounts, too."""
    installed.command(line)


def test_what_an_account_may_not_do_is_said(installed: Site) -> None:
    """An account that is not allowed is told what to look at, not that something is missing or slow."""
    site, environment = installed, installed.environment("sql")
    for command, said in ((["alerts"], "topics apply --print"), (["topics", "apply"], "ot allowed|uthoriz")):
        done = subprocess.run(
            [sys.executable, "-m", "pgwitness", *command], cwd=site.folder, env=environment,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in (1, 3), done.stdout
        assert re.search(said, done.stdout + done.stderr), done.stderr


def test_the_doctor_says_what_its_account_lacks(installed: Site) -> None:
    """With exactly its ACLs an account lacks nothing; without the right on a group that is named."""
    client = AdminClient({"bootstrap.servers": installed.broker.plain, "log_level": 0})
    config = load(installed.folder / "pgwitness.toml", installed.environment("dead-letters"))
    assert "dead-letters" not in lacking(config)
    assert "on topic pgwitness.feedback" in str(lacking(config)["alerts"])
    worker = load(installed.folder / "pgwitness.toml", installed.environment("worker"))
    assert "worker" not in lacking(worker)
    rights = AclBindingFilter(
        ResourceType.GROUP, "pgwitness.reader", ResourcePatternType.LITERAL, "User:dead-letters", "*",
        AclOperation.ANY, AclPermissionType.ANY,
    )  # fmt: skip
    (taken,) = [future.result(30) for future in client.delete_acls([rights]).values()]
    try:
        wait_for(lambda: "dead-letters" in lacking(config), 30, "the ACL is gone")
        found: list[Line] = []
        installation.kafka(config, found)
        said = [line for line in found if line["state"] == "error" and "rights" in str(line["what"])]
        assert [(line["what"], line["found"]) for line in said] == [
            ("rights of dead-letters", "not allowed: Describe on group pgwitness.reader")
        ]
    finally:
        for future in client.create_acls(taken).values():
            future.result(30)


def test_daemons_end_when_told(installed: Site) -> None:
    """Each ends with 0, and none has complained that it is not allowed something."""
    complaints = {name: daemon.complaint() for name, daemon in installed.daemons.items()}
    codes = {name: daemon.stop() for name, daemon in installed.daemons.items()}
    assert codes == dict.fromkeys(codes, 0)
    assert [text for text in complaints.values() if "uthorization" in text] == []
    for daemon in installed.daemons.values():
        daemon.start().ready()
