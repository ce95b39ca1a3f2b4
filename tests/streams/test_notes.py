"""What the worker puts among the events: verdicts, suppressions and the time, on a real broker, into the real lake."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from pgwitness.cli import main
from pgwitness.core import config as configuration
from pgwitness.core.errors import ConfigurationError
from pgwitness.core.events import Forgery
from streams.kafka import notes
from tests.conftest import AnyBroker
from tests.streams.conftest import Installation, eventually
from tests.streams.records import batch, transaction
from tests.streams.test_worker import read_all

AGO_S = -60_000_000
FILE = """
suppressions:
  - id: forgeries
    match: {policy: beacon_forged}
    reason: the red team forges beacons this week
    owner: security
    expires: 2099-01-01
"""


def alerts(installation: Installation) -> list[dict[str, Any]]:
    """Everything on the alerts topic."""
    return [json.loads(message.value()) for message in read_all(installation, "alerts")]


def forge(installation: Installation, lsn: int) -> None:
    """A message under the beacon's prefix that does not verify, captured more than a year ago."""
    part = transaction(lsn, at_s=AGO_S, n_rows=0, relations=[], forged=[Forgery("mac")])
    installation.send(batch(part))


def run(installation: Installation, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """Run a command of `pgwitness alerts` and give its rows."""
    path = installation.config.lake.path.parent / "pgwitness.toml"
    result = CliRunner().invoke(main, ["alerts", *words, "--json", "--config", str(path)])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else []  # type: ignore[no-any-return]


def reviewed(installation: Installation) -> Path:
    """Make a reviewer's key with the command for it, and list its owner in the configuration; gives the key's file."""
    folder = installation.config.lake.path.parent
    file = folder / "reviewer.key"
    (row,) = run(installation, "key", str(file))
    path = folder / "pgwitness.toml"
    path.write_text(path.read_text() + f'\n[reviewers.ada]\nkey = "{row["key"]}"\n')
    installation.config = replace(installation.config, reviewers=configuration.load(path).reviewers)
    return file


def kinds(found: list[dict[str, Any]]) -> list[str]:
    """The activities, in their order."""
    return [alert["activity_name"] for alert in found]


def test_a_verdict_is_taken_by_the_worker_and_is_evidence(installation: Installation, broker: AnyBroker) -> None:
    """On both brokers: resolved from the shell, closed on the topic, quiet from then on, landed once as a decision."""
    key = reviewed(installation)
    with installation.worker():
        forge(installation, 10)
        (first, *_) = eventually(lambda: alerts(installation), "an alert")
        uid = first["finding_info"]["uid"]
        words = (
            "--as",
            "false-positive",
            "--reason",
            "the red team",
            "--scope",
            "policy-and-cluster",
            "--key",
            str(key),
        )
        (row,) = run(installation, "resolve", uid[:12], *words)
        assert row["match"] == {"policy": "beacon_forged", "cluster": "shop"}
        installation.landed(1, "kind = 'decision'")
        known = len(alerts(installation))
        forge(installation, 20)
        installation.landed(2, "operation = 'beacon_forged'")
        assert len(alerts(installation)) == known
    with installation.worker():  # the verdict is in the checkpoint, and is not taken again
        forge(installation, 30)
        installation.landed(3, "operation = 'beacon_forged'")
        installation.landed(1, "kind = 'decision'")
    assert len(alerts(installation)) == known
    query = "SELECT principal, assurance, operation, outcome FROM decisions"
    assert installation.ask(query) == [("ada", "verified", "verdict", "success")]
    query = "SELECT DISTINCT status, suppressed_by, is_alert FROM alerts WHERE suppressed_by IS NOT NULL"
    quiet = installation.ask(query)
    assert quiet == [("Suppressed", f"verdict:{row['verdict']}", False)]


def test_a_finding_that_stopped_is_closed_by_the_time_alone(installation: Installation) -> None:
    """No event comes any more; the worker writes down the time, and the finding is closed, once."""
    with installation.worker():
        forge(installation, 10)
        found = eventually(lambda: (a := alerts(installation))[1:] and a, "the finding is closed")
    assert kinds(found) == ["Create", "Close"]
    assert found[0]["finding_info"]["uid"] == found[1]["finding_info"]["uid"]
    with installation.worker():
        forge(installation, 20)
        eventually(lambda: len(alerts(installation)) >= 4, "a late occurrence opens it again, and it is closed again")
    told = [(alert["activity_name"], alert["count"]) for alert in alerts(installation)]
    assert told == [("Create", 1), ("Close", 1), ("Update", 2), ("Close", 2)]
    modes = installation.ask("SELECT DISTINCT activity, mode, is_alert FROM alerts ORDER BY 1")
    assert modes == [("Close", "active", False), ("Create", "active", True), ("Update", "active", True)]
    rows = installation.ask("SELECT activity, cluster, detector, count FROM alerts ORDER BY count, activity DESC")
    about = ("shop", "policy:beacon_forged")
    assert rows == [("Create", *about, 1), ("Close", *about, 1), ("Update", *about, 2), ("Close", *about, 2)]
    query = "SELECT incident, cluster, findings, occurrences, still_open, severity, detectors FROM incidents"
    ((incident, *story),) = installation.ask(query)
    assert story == ["shop", 1, 2, 0, "Critical", ["policy:beacon_forged"]]
    (shown,) = run(installation, "--incidents")
    assert (shown["incident"], shown["findings"], shown["occurrences"], shown["open"]) == (incident, 1, 2, 0)


@pytest.mark.parametrize("value", [b"", b"{}", b'{"schema":1,"signed":"{}"}', b"\xff" * 40])
def test_what_is_no_verdict_is_a_finding_and_evidence(installation: Installation, value: bytes) -> None:
    """Whoever writes to the topic without being a reviewer keeps nothing quiet, and is seen."""
    with installation.worker():
        installation.send(value, topic="feedback")
        found = eventually(lambda: alerts(installation), "the refusal")
        assert found[0]["unmapped"]["detector"] == "verdict_refused"
        assert found[0]["is_alert"] is True
        installation.landed(1, "kind = 'decision' AND outcome = 'denied'")


def test_suppressions_are_reloaded_and_are_evidence(installation: Installation) -> None:
    """The file can come, change and break while the worker runs; what held when is in the lake."""
    path = installation.config.triage.suppressions
    with installation.worker():
        path.write_text(FILE)
        installation.landed(1, "operation = 'suppressions_changed'")
        forge(installation, 10)
        installation.landed(1, "operation = 'beacon_forged'")
        assert alerts(installation) == []
        path.write_text("suppressions: 5")
        path.write_text(FILE.replace("beacon_forged", "mass_change"))
        installation.landed(2, "operation = 'suppressions_changed'")
        forge(installation, 20)
        eventually(lambda: alerts(installation), "the next forgery is told")
    (content,) = installation.ask(
        "SELECT json_extract_string(detail, '$.content') FROM control WHERE operation = 'suppressions_changed'"
        " ORDER BY occurred_at LIMIT 1"
    )[0]
    assert content == FILE
    (row,) = run(installation, "suppressions")
    assert (row["id"], row["state"]) == ("suppression:forgeries", "in force")
    path.write_text(FILE.replace("2099", "2001"))
    run(installation, "suppressions", code=1)


def test_a_worker_does_not_start_on_suppressions_it_cannot_read(tmp_path: Path) -> None:
    """To start without them would wake people for what was settled; while it runs, the last good file holds."""
    file = notes.SuppressionFile(tmp_path / "suppressions.yaml")
    assert file.load().rules == []
    file.path.write_text(FILE)
    assert [rule.id for rule in file.poll().rules] == ["suppression:forgeries"]
    for broken in (b"suppressions: 5", b"\xff", b"#" * (notes.FILE_BYTES_MAX + 1)):
        file.path.write_bytes(broken)
        assert [rule.id for rule in file.poll().rules] == ["suppression:forgeries"]
        with pytest.raises(ConfigurationError, match=r"suppressions\.yaml"):
            notes.SuppressionFile(file.path).load()
    file.path.unlink()
    assert file.poll().rules == []


def test_a_note_can_always_be_written() -> None:
    """A record with numbers that no JSON of ours carries is refused, not in the way."""
    said: Mapping[str, Any] = {
        **dict.fromkeys(("uid", "scope", "why", "who"), "x"),
        "verdict": "false-positive",
        "match": {},
        "decided_us": 1,
        "expires_us": 10**30,
    }
    value = json.dumps({"schema": 1, "signed": json.dumps(said)}).encode()
    told = notes.verdict(value, 3, time.time_ns() // 1000, {})
    assert told.checked.refused in ("not_a_verdict", "unsigned")
    assert told.note.at.offset == 3
