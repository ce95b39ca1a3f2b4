from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx2
import psycopg
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from pgwitness.cli import kafka, main
from pgwitness.core.codec import decode_raw
from pgwitness.core.config import Config
from pgwitness.core.events import Control
from pgwitness.demo.servers import Broker, Postgres, wait_for
from sinks.lake.writer import Lake
from tests.conftest import fresh_database
from tests.sinks.material import ORDINARY, other


class Shop:
    """An installation's folder, and the program run on it."""

    def __init__(self, folder: Path, config: Config, admin: str) -> None:
        self.folder = folder
        self.config = config
        self.admin = admin

    def run(self, *words: str) -> Result:
        """Run the program in this process."""
        words = (*words, "--config", str(self.folder / "pgwitness.toml"))
        return CliRunner().invoke(main, list(words), prog_name="pgwitness")

    def rows(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """Run it with --json and give the rows; stdout must be nothing but them."""
        result = self.run(*words, "--json")
        assert result.exit_code == code, result.stderr
        return list(json.loads(result.stdout))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Run it as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pgwitness", *words, "--config", str(self.folder / "pgwitness.toml")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def shop(
    postgres18: Postgres, embedded_broker: Broker, tmp_path: Path, config_factory: Callable[..., Config]
) -> Iterator[Shop]:
    """A database with one table, a broker, and a configuration that names both."""
    with fresh_database(postgres18) as admin:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute("CREATE TABLE orders (id int PRIMARY KEY, status text)")
            connection.execute("CREATE EXTENSION pg_stat_statements")
            name = connection.info.dbname
        dsn = postgres18.dsn(user="pgwitness", dbname=name)
        yield Shop(tmp_path, config_factory(tmp_path, embedded_broker.bootstrap, dsn, [name]), admin)


def test_topics_are_made_once(shop: Shop) -> None:
    """Applying creates every topic, and applying again finds them as they should be."""
    assert {row["state"] for row in shop.rows("topics", "apply")} == {"created"}
    assert {row["state"] for row in shop.rows("topics", "apply")} == {"ok"}


def test_the_beacon_comes_pauses_and_goes(shop: Shop) -> None:
    """Status says with its exit code what install, pause, resume and uninstall have done."""
    admin = ("--dsn", shop.admin)
    assert shop.run("db", "status", *admin).exit_code == 1
    assert [row["state"] for row in shop.rows("db", "install", *admin)] == ["ok"]
    assert [row["done"] for row in shop.rows("db", "install", *admin)] == [0]
    status = shop.rows("db", "status")
    assert {row["table"]: row["state"] for row in status} == {"(database)": "ok", "public.orders": "installed"}
    assert shop.run("db", "pause", *admin).exit_code == 0
    paused = shop.rows("db", "status", code=1)
    assert "pause" in paused[0]["problem"]
    assert "--resume" in paused[0]["fix"]
    assert shop.run("db", "pause", "--resume", *admin).exit_code == 0
    assert shop.run("db", "status").exit_code == 0
    assert shop.run("db", "uninstall", *admin).exit_code == 0
    assert shop.run("db", "status", *admin).exit_code == 1


def test_a_level_without_superuser_is_told_and_no_fault(shop: Shop) -> None:
    """What an owner's installation cannot see stands in the report and the status, with the SQL that lifts it."""
    with psycopg.connect(shop.admin, autocommit=True) as connection:
        connection.execute("CREATE ROLE boss LOGIN CREATEROLE; ALTER TABLE orders OWNER TO boss")
        connection.execute(f"GRANT CREATE ON DATABASE {connection.info.dbname} TO boss")
    boss = ("--dsn", shop.admin.replace("postgres@", "boss@"))
    installed = shop.rows("db", "install", *boss)
    shown = shop.rows("db", "status", *boss)
    for rows in (installed, shown):
        limits = {row["table"]: row for row in rows if row["state"] == "limit"}
        assert "CREATE EVENT TRIGGER" in limits["(event triggers)"]["fix"]
        assert limits["(guard)"]["problem"].startswith("not seen: ")


def test_a_printed_installation_changes_nothing(shop: Shop) -> None:
    """`--print` gives SQL that psql can run, and runs none of it."""
    result = shop.run("db", "install", "--print", "--dsn", shop.admin)
    assert result.exit_code == 0
    assert "CREATE OR REPLACE TRIGGER pgwitness_beacon" in result.stdout
    with psycopg.connect(shop.admin) as connection:
        assert connection.execute("SELECT to_regnamespace('pgwitness')").fetchone() == (None,)


def test_the_doctor_names_each_trouble_and_its_fix(shop: Shop) -> None:
    """Before the installation the doctor ends with 1 and names the commands; after it, writes are captured exactly."""
    with psycopg.connect(shop.admin, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS pgwitness")
    (nobody,) = [row for row in shop.rows("doctor", code=1) if row.get("what") == "PostgreSQL"]
    assert nobody["state"] == "error"
    assert nobody["fix"].startswith("pgwitness db install")
    with psycopg.connect(shop.admin, autocommit=True) as connection:
        connection.execute("CREATE ROLE pgwitness LOGIN")
    before = shop.rows("doctor", code=1)
    fixes = {str(row.get("fix")) for row in before}
    assert "pgwitness db install" in fixes
    assert "pgwitness topics apply" in fixes
    assert shop.run("db", "install", "--dsn", shop.admin).exit_code == 0
    assert shop.run("topics", "apply").exit_code == 0
    after = shop.rows("doctor")
    matrix = {row["subject"]: (row["captured"], row["certainty"]) for row in after if row["section"] == "capability"}
    assert matrix["writes"] == (True, "exact")
    assert matrix["reads"] == (True, "weak")
    assert matrix["role changes"] == (True, "none")
    # No log is collected here and no gateway runs: they alone tell single statements, refused logins, losses.
    needed = {row["policy"]: row["needs"] for row in after if row["section"] == "policy"}
    assert needed == {
        "refused_again_and_again": ["statement"],
        "break_glass": ["decision"],
        "refused_by_gateway": ["decision", "statement"],
        "refused_by_guard": ["statement"],
        "login_failures": ["session login_failed"],
        "login_after_failures": ["session login_failed"],
        "log_lines_lost": ["gap log_lines_lost"],
        "log_imitated": ["control log_imitated"],
    }
    assert "What can be captured" in shop.run("doctor").stdout


def test_the_doctor_counts_on_a_log_that_is_configured(shop: Shop) -> None:
    """With the server's log no policy is without its events, and what the server writes into it counts."""
    shop.run("db", "install", "--dsn", shop.admin)
    shop.run("topics", "apply")
    with (shop.folder / "pgwitness.toml").open("a") as config:
        config.write('\n[clusters.shop.log]\npath = "*.json"\n')
    database = shop.admin.rpartition("/")[2]
    with psycopg.connect(shop.admin, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{database}" SET log_min_duration_statement = 0')
    rows = shop.rows("doctor")
    # Decisions on approvals are a gateway's, of which there is none here.
    assert [row["policy"] for row in rows if row["section"] == "policy"] == ["break_glass"]
    matrix = {row["subject"]: row for row in rows if row["section"] == "capability"}
    assert (matrix["reads"]["certainty"], matrix["role changes"]["certainty"]) == ("strong", "strong")
    assert "server's log" in matrix["reads"]["how"]


def test_the_doctor_finds_rules_that_never_win_and_sessions_without_a_name(shop: Shop) -> None:
    """Sessions of now and of the last hour that no rule names are listed once, with a rule that names them."""
    shop.run("db", "install", "--dsn", shop.admin)
    shop.run("topics", "apply")
    assert not [row for row in shop.rows("doctor") if row["section"] == "unnamed" and row["application"] == "till*"]
    file = shop.config.identities.file
    file.write_text("rules:\n  - {match: {role: 'till*'}, principal: t, id: tills}\n")
    with file.open("a") as rules:
        rules.write("  - {match: {role: till-4}, principal: u, id: till-4}\n")
    now_us = time.time_ns() // 1000
    shown = {"kind": "session", "cluster": "shop", "operation": "connect", "binding": "activity"}
    past = [
        {"session_id": "db/1.1", "role": "ann", "application": "psql", "client_addr": "10.0.0.4", "at": now_us},
        {"session_id": "db/1.1", "role": "ann", "application": "psql", "client_addr": "10.0.0.4", "at": now_us - 60},
        {"session_id": "db/1.2", "role": "old", "application": "psql", "at": now_us - 2 * 3_600_000_000},
        {"session_id": "db/1.3", "role": "till-1", "application": "psql", "identity_rule": "tills", "at": now_us},
        {"session_id": "db/1.4", "role": "mallory", "operation": "login_failed", "at": now_us},
    ]
    lake = Lake(shop.config.lake.path)
    lake.prepare()
    writer = lake.writer("pgwitness.events", 0)
    events = [
        other(number, **(shown | {k: v for k, v in facts.items() if k != "at"}), captured_at_us=facts["at"])
        for number, facts in enumerate(past)
    ]
    writer.append(0, events, [ORDINARY] * len(events))
    writer.commit()
    with psycopg.connect(shop.admin, application_name="till*") as here:
        there = [row for row in shop.rows("doctor") if row["section"] == "unnamed"]
        assert ("ann", "psql", "10.0.0.4", 1) in [_kind(row) for row in there]
        assert ("postgres", "till*", "127.0.0.1", 1) in [_kind(row) for row in there]
        assert not {"old", "till-1", "mallory", "pgwitness"} & {row["role"] for row in there}
        checks = {row["what"]: row for row in shop.rows("doctor") if row["section"] == "check"}
        assert checks["rule till-4"]["fix"] == "move rule till-4 before tills, or remove it"
        assert checks["sessions"]["state"] == "warning"
        assert "rules" not in checks
        with file.open("a") as rules:
            rules.writelines(f"{row['rule']}\n" for row in there)
            rules.write("  - {match: {role: nobody}, principal: n, id: idle}\n")
        after = shop.rows("doctor")
        assert here.info.backend_pid
    named = {(row["role"], row["application"]) for row in there}
    assert not named & {(row["role"], row["application"]) for row in after if row["section"] == "unnamed"}
    (idle,) = (row["found"] for row in after if row.get("what") == "rules")
    assert idle == "named nobody in the last hour: idle"
    file.write_text("rules: []")
    shown_to_people = shop.run("doctor").stdout
    assert "  - {match: {role: ann, application: psql, client_addr: 10.0.0.4}, principal: psql, kind: unknown}" in (
        shown_to_people
    )


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["role"], row["application"], row["client_addr"], row["sessions"]


def test_alerts_are_read_as_rows_as_objects_and_as_they_come(shop: Shop) -> None:
    """An alert is a row for people, a whole object with --json, and a line with --follow; a bad record hides none."""
    assert shop.run("topics", "apply").exit_code == 0
    assert shop.rows("alerts") == []
    alert = {
        "time": 1_790_000_000_000,
        "severity": "High",
        "count": 1,
        "finding_info": {"uid": "u1", "desc": "maria read 2,000 rows"},
        "unmapped": {
            "principal": "maria",
            "certainty": "weak",
            "policy": "bulk_read",
            "relations": ["public.customers"],
        },
    }
    producer = Producer({**shop.config.kafka.client(), "log_level": 0})
    topic = shop.config.kafka.topic("alerts")
    producer.produce(topic, json.dumps(alert).encode(), b"u1")
    producer.produce(topic, b"\xffno alert", b"u2")
    producer.flush(10)
    rows = shop.rows("alerts")
    assert rows[0] == alert
    assert "reason" in rows[1]
    assert "maria read 2,000 rows" in shop.run("alerts").stdout
    process = shop.start("alerts", "--follow", "--json")
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline()) == alert
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_dead_letter_is_listed_shown_and_tried_again(shop: Shop) -> None:
    """A dead letter is listed with its reason, shown as it came, and driven once unless asked again."""
    assert shop.run("topics", "apply").exit_code == 0
    assert shop.rows("dead-letters", "list") == []
    producer = Producer({**shop.config.kafka.client(), "log_level": 0})
    raw = shop.config.kafka.topic("raw")
    headers = {"reason": "not_a_batch", "stage": "attribute", "topic": raw, "partition": "1", "offset": "7"}
    letter = [(name, value.encode()) for name, value in headers.items()]
    producer.produce(shop.config.kafka.topic("dead-letters"), b"{torn", b"shop", 0, headers=letter)
    producer.flush(10)
    (listed,) = shop.rows("dead-letters", "list")
    assert (listed["reason"], listed["topic"], listed["redriven"]) == ("not_a_batch", raw, False)
    assert shop.run("dead-letters", "show", "0", "--raw").stdout == "{torn"
    assert "not_a_batch" in shop.run("dead-letters", "show", "0").stdout
    assert shop.run("dead-letters", "show", "5").exit_code == 1
    assert shop.run("dead-letters", "redrive").exit_code == 2
    assert len(shop.rows("dead-letters", "redrive", "--all")) == 1
    assert shop.rows("dead-letters", "redrive", "--all") == []
    assert len(shop.rows("dead-letters", "redrive", "0", "--again")) == 1


def test_what_is_asked_is_written_down(shop: Shop) -> None:
    """A query on the lake becomes a control event with who asked and without its literals, a failed one too."""
    assert shop.run("topics", "apply").exit_code == 0
    Lake(shop.config.lake.path).prepare()
    assert shop.rows("sql", "SELECT count(*) AS n FROM changes WHERE principal = 'maria'") == [{"n": 0}]
    assert shop.run("sql", "SELECT 1 FROM nowhere").exit_code == 1
    records = kafka.read(shop.config, shop.config.kafka.topic("raw"))
    events = [event for record in records for event in decode_raw(record.value).events if isinstance(event, Control)]
    assert [(event.operation, event.detail["outcome"]) for event in events] == [
        ("query", "success"),
        ("query", "failure"),
    ]
    assert events[0].detail["user"]
    assert "maria" not in json.dumps([event.detail for event in events])
    assert "changes" in str(events[0].detail["statement"])


def test_who_asks_for_a_token_is_written_down(shop: Shop) -> None:
    """With column and token, and never with the value."""
    assert shop.run("topics", "apply").exit_code == 0
    words = ["token", "public.orders.note", "--config", str(shop.folder / "pgwitness.toml")]
    result = CliRunner().invoke(main, words, input="ada@example.org\n")
    assert (result.exit_code, result.stderr) == (0, "")
    records = kafka.read(shop.config, shop.config.kafka.topic("raw"))
    (event,) = [event for record in records for event in decode_raw(record.value).events if isinstance(event, Control)]
    assert (event.operation, event.detail["column"]) == ("token", "public.orders.note")
    assert event.detail["token"] == result.stdout.strip()
    assert event.detail["user"]
    assert b"ada@" not in b"".join(record.value or b"" for record in records)


def test_a_daemon_serves_its_endpoints_and_ends_cleanly(shop: Shop) -> None:
    """A collector serves /livez on a port of its choice, and ends with 0 when it is told to."""
    assert shop.run("topics", "apply").exit_code == 0
    assert shop.run("db", "install", "--dsn", shop.admin).exit_code == 0
    process = shop.start("collect", "wal", "--port", "0")
    assert process.stderr is not None
    try:
        serving: dict[str, Any] = {}
        while serving.get("event") != "serving":
            serving = json.loads(process.stderr.readline())

        def ready() -> bool:
            try:
                with urlopen(serving["url"].replace("/metrics", "/readyz"), timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_for(ready, 30, "the collector is ready")
        with urlopen(serving["url"], timeout=5) as metrics:
            assert b"pgwitness_raw_events" in metrics.read()
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_a_worker_waits_for_its_lake(shop: Shop) -> None:
    """A worker whose lake cannot be made says so, goes on when it can, and ends with 0 when it is told to."""
    assert shop.run("topics", "apply").exit_code == 0
    blocked = shop.config.lake.path
    blocked.write_text("in the way")
    process = shop.start("worker", "--port", "0")
    assert process.stderr is not None
    try:
        while json.loads(process.stderr.readline()).get("event") != "lake_not_ready":
            pass
        blocked.unlink()
        wait_for(lambda: (blocked / "views.sql").exists(), 30, "the lake is made")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_taken_port_is_said_at_once(shop: Shop) -> None:
    """A daemon whose port is taken ends with 2 and names the way out."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        began = time.monotonic()
        result = shop.run("worker", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 2
    assert "--port" in result.stderr
    assert time.monotonic() - began < 10


def test_who_looks_at_the_console_is_written_down(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command serves, lets a user in that was made on the command line, writes it down, and ends with 0."""
    assert shop.run("topics", "apply").exit_code == 0
    Lake(shop.config.lake.path).prepare()
    words = ["console", "users", "add", "ada", "--role", "viewer", "--config", str(shop.folder / "pgwitness.toml")]
    assert CliRunner().invoke(main, words, input="too short\n").exit_code == 2
    assert CliRunner().invoke(main, words, input="correct horse battery\n").exit_code == 0
    monkeypatch.setenv("PGWITNESS_CONSOLE__LISTEN", "127.0.0.1:0")
    process = shop.start("console", "--port", "0")
    assert process.stderr is not None
    try:
        told: dict[str, Any] = {}
        while told.get("event") != "console":
            told = json.loads(process.stderr.readline())
        with httpx2.Client(base_url=told["url"]) as browser:
            found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/login").text)
            assert found is not None
            form = {"csrf": found[1], "name": "ada", "password": "correct horse battery"}
            assert browser.post("/login", data=form).headers["location"] == "/"
            assert "Alerts that wait for a verdict" in browser.get("/").text
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
    records = kafka.read(shop.config, shop.config.kafka.topic("raw"))
    events = [event for record in records for event in decode_raw(record.value).events if isinstance(event, Control)]
    assert [(event.operation, event.detail["user"], event.detail["address"]) for event in events] == [
        ("console_login", "ada", "127.0.0.1"),
        ("console_look", "ada", "127.0.0.1"),
    ]
