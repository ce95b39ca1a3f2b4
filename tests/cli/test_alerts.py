"""`pgwitness alerts`: what people see of alerts and may say about them, and the daemon that sends them on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from pgwitness.cli import main
from pgwitness.cli.alerts import row, stories
from pgwitness.cli.doctor.lines import Line
from pgwitness.cli.doctor.triage import triage
from pgwitness.core.config import Config
from pgwitness.demo.servers import Broker
from streams.kafka import admin
from tests.sinks.test_deliveries import ALERT
from tests.sinks.test_delivery_daemon import eventually

WORDS = ("resolve", "0123456789", "--as", "false-positive")


def run(folder: Path, *words: str) -> Result:
    """Run a command of the group."""
    return CliRunner().invoke(main, ["alerts", *words, "--config", str(folder / "pgwitness.toml")])


@pytest.fixture
def folder(tmp_path: Path, config_factory: Callable[..., Config]) -> Path:
    """A configuration with a reviewer, whose broker nobody needs to reach."""
    made = CliRunner().invoke(main, ["alerts", "key", str(tmp_path / "reviewer.key"), "--json"])
    (row,) = json.loads(made.stdout)
    reviewer = f'[reviewers.ada]\nkey = "{row["key"]}"\nscopes = ["same-finding"]\nlongest = "7d"\n'
    config_factory(tmp_path, "127.0.0.1:9", "postgresql://localhost/shop", extra=reviewer)
    return tmp_path


def test_a_key_is_made_once_and_is_its_owners_only(tmp_path: Path) -> None:
    """The file is never overwritten; asked again, the command prints the same public half."""
    file = tmp_path / "reviewer.key"
    first, again = (
        json.loads(CliRunner().invoke(main, ["alerts", "key", str(file), "--json"]).stdout)[0] for _ in range(2)
    )
    assert (first["state"], again["state"]) == ("written", "kept")
    assert first["key"] == again["key"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in json.dumps(first)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--reason", "x", "--expires", "soon"), "--expires"),
        (("--reason", "x", "--expires", "30d"), "longest"),
        (("--reason", "x", "--expires", "1d", "--scope", "policy-and-cluster"), "scopes allows same-finding"),
        (("--reason", " ", "--expires", "1d"), "--reason"),
        (("--reason", "x", "--key", "absent.key"), "absent.key"),
    ],
)
def test_a_verdict_that_would_be_refused_is_not_written(folder: Path, words: tuple[str, ...], problem: str) -> None:
    """The command says what is wrong before it asks the broker for anything."""
    result = run(folder, *WORDS, "--key", str(folder / "reviewer.key"), *words)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_only_a_listed_reviewer_with_a_key_of_their_own_decides(folder: Path) -> None:
    """A key that nobody listed, one that others can read and one that is none are refused, each with its remedy."""
    CliRunner().invoke(main, ["alerts", "key", str(folder / "other.key")])
    unlisted = run(folder, *WORDS, "--reason", "x", "--key", str(folder / "other.key"))
    assert (unlisted.exit_code, "[reviewers.NAME]" in unlisted.stderr) == (2, True)
    (folder / "reviewer.key").chmod(0o644)
    readable = run(folder, *WORDS, "--reason", "x", "--key", str(folder / "reviewer.key"))
    assert (readable.exit_code, "chmod 600" in readable.stderr) == (2, True)
    (folder / "none.key").write_text("nothing")
    (folder / "none.key").chmod(0o600)
    nothing = run(folder, *WORDS, "--reason", "x", "--key", str(folder / "none.key"))
    assert (nothing.exit_code, "none.key" in nothing.stderr) == (2, True)


def test_without_a_broker_nothing_is_decided(folder: Path) -> None:
    """Exit code 3 says that it is the server's fault."""
    words = ("--reason", "x", "--expires", "1d", "--key", str(folder / "reviewer.key"))
    assert run(folder, *WORDS, *words).exit_code == 3
    assert run(folder, "--follow", "--incidents").exit_code == 2


def test_incidents_count_each_finding_as_it_was_last_told() -> None:
    """Findings of one incident are put together; what is no alert is passed over."""

    def told(uid: str, count: int, activity: int, incident: str | None = "i") -> dict[str, Any]:
        info = ALERT["finding_info"] | {"uid": uid}
        ours = ALERT["unmapped"] | {"incident": incident}
        return ALERT | {"finding_info": info, "count": count, "activity_id": activity, "unmapped": ours}

    odd: list[dict[str, Any]] = [{}, {"unmapped": 5}, {"unmapped": {"incident": 1}}]
    rows = stories([told("a", 1, 1), told("a", 7, 3), told("b", 2, 2), told("c", 1, 1, None), *odd])
    (row,) = rows
    assert (row["incident"], row["findings"], row["occurrences"], row["open"]) == ("i", 2, 9, 1)
    assert (row["who"], row["severity"]) == ("support-agent", "High")


def test_the_daemon_delivers_and_ends_when_it_is_told(
    embedded_broker: Broker, tmp_path: Path, config_factory: Callable[..., Config]
) -> None:
    """As a process of its own, with the configuration from the file: alerts in a file, and exit code 0 on SIGTERM."""
    target = '[deliveries.archive]\nkind = "file"\npath = "out/alerts.jsonl"\nstart = "beginning"\n'
    config = config_factory(tmp_path, embedded_broker.bootstrap, "postgresql://localhost/shop", extra=target)
    (tmp_path / "out").mkdir()
    admin.apply(config)
    producer = Producer(config.kafka.client() | {"log_level": "0"})
    producer.produce(config.kafka.topic("alerts"), json.dumps(ALERT).encode(), b"uid", 0)
    assert producer.flush(20) == 0
    words = ["alerts", "deliver", "--port", "0", "--config", str(tmp_path / "pgwitness.toml")]
    program = subprocess.Popen([sys.executable, "-m", "pgwitness", *words], stderr=subprocess.PIPE, text=True)
    try:
        path = tmp_path / "out" / "alerts.jsonl"
        eventually(lambda: program.poll() is not None or (path.exists() and path.read_text()), "the alert is written")
        program.send_signal(signal.SIGTERM)
        _, said = program.communicate(timeout=60)
    finally:
        program.kill()
        program.wait(10)
    assert program.returncode == 0, said
    assert [json.loads(line) for line in path.read_text().splitlines()] == [ALERT]


def test_the_doctor_reports_what_has_expired_and_what_cannot_work(
    tmp_path: Path, config_factory: Callable[..., Config]
) -> None:
    """An expired suppression, a reviewer's key that is none and a target without an address, each with its remedy."""
    extra = '[reviewers.ada]\nkey = "ssh-rsa AAAA"\n[deliveries.soc]\nkind = "syslog"\n'
    config = config_factory(tmp_path, "127.0.0.1:9", "postgresql://localhost/shop", extra=extra)
    late = "{id: old, match: {cluster: shop}, reason: x, owner: x, expires: 2001-01-01}"
    config.triage.suppressions.write_text(f"suppressions:\n  - {late}\n")
    findings: list[Line] = []
    triage(config, findings)
    assert [(found["what"], found["state"]) for found in findings] == [
        ("suppressions", "error"),
        ("reviewers", "error"),
        ("deliveries", "error"),
    ]
    assert "suppression:old expired; remove or renew" in str(findings[0]["found"])
    assert "deliveries.soc.address" in str(findings[2]["found"])


def test_what_is_on_trial_is_seen_to_be() -> None:
    """A staged policy's finding is no alarm, whatever its severity; the table says so."""
    staged = {**ALERT, "severity": "Medium", "unmapped": {**ALERT["unmapped"], "mode": "staged"}}
    assert row(staged)["severity"] == "Medium, staged"
    assert row({**staged, "unmapped": ALERT["unmapped"]})["severity"] == "Medium"
