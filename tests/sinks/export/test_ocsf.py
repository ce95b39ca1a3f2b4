"""Exports as OCSF: every event of the period conforms to the published release, and none is missing or there twice."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pgwitness.cli import main
from pgwitness.core.events import Position
from sinks.export.ocsf import WRITERS, Wanted, queries
from sinks.lake.writer import Lake
from sinks.sql.catalogue import connect
from tests import ocsf
from tests.conftest import write_config
from tests.sinks.material import DAY_US, NOON_US, ORDINARY, Finding, Judgement, change, other

CLASSES = {"datastore_activity": 6005, "authentication": 3002, "detection_finding": 2004}


def finding(uid: str, count: int, **more: Any) -> Finding:
    """Make what an alert says that is raised for the `count`-th time."""
    at_ms = NOON_US // 1_000
    info = {"uid": uid, "title": "it", "first_seen_time": at_ms, "last_seen_time": at_ms + count}
    return Finding(
        uid, {"class_uid": 2004, "count": count, "finding_info": info, "time": at_ms + count, "none": None} | more
    )


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two days: rows by an agent for a person, sessions, a finding that is raised twice and another one."""
    path = tmp_path / "lake"
    writer = Lake(path).writer("events", 0)
    writer.resume()
    named = {"principal": "bot", "principal_kind": "agent", "on_behalf_of": "erika"}
    events = [
        change(1, occurred_at_us=NOON_US, **named),
        change(2, occurred_at_us=NOON_US + DAY_US, captured_at_us=NOON_US + DAY_US, principal="o'neil"),
        other(3, occurred_at_us=NOON_US + 5, auth_method="scram-sha-256", **named),
        other(4, occurred_at_us=NOON_US + 6, operation="disconnect", **named),
        other(5, occurred_at_us=NOON_US + 7, operation="login_failed", sqlstate="28P01", role="root"),
        other(6, occurred_at_us=NOON_US + 8, operation="found", **named),
        other(7, occurred_at_us=NOON_US + DAY_US, captured_at_us=NOON_US + DAY_US, at=Position(0, 7, 0)),
    ]
    raised = [[finding("a", 1)], [finding("a", 2)], [finding("b", 1)], [], [], [], []]
    writer.append(0, events, [Judgement(alerts=alerts) for alerts in raised])
    writer.append(1, [change(8, occurred_at_us=NOON_US + 9)], [ORDINARY])
    writer.commit()
    return path


def exported(lake: Path, wanted: Wanted = Wanted(), ending: str = "jsonl") -> dict[str, bytes]:  # noqa: B008
    """Export all classes into memory."""
    found = {}
    with connect(lake) as connection:
        for name, asked in queries(wanted).items():
            file = io.BytesIO()
            number = WRITERS[ending](connection, asked, file)
            found[name] = file.getvalue()
            assert number == (len(parsed(found[name])) if ending == "jsonl" else pq.read_metadata(file).num_rows)
    return found


def parsed(content: bytes) -> list[dict[str, Any]]:
    """Read JSON lines."""
    return [json.loads(line) for line in content.splitlines()]


def uids(events: list[dict[str, Any]]) -> list[int]:
    """Give the numbers of events."""
    return [int(event["metadata"]["uid"].split("-")[0], 16) for event in events]


def test_everything_is_exported_once_and_conforms(lake: Path) -> None:
    """In the order of time; what is null is not there."""
    found = {name: parsed(content) for name, content in exported(lake).items()}
    assert {name: len(events) for name, events in found.items()} == {
        "datastore_activity": 5,
        "authentication": 4,
        "detection_finding": 2,
    }
    assert uids(found["datastore_activity"]) == [1, 3, 8, 2, 7]
    assert uids(found["authentication"]) == [3, 4, 5, 7]
    for name in ("datastore_activity", "authentication"):
        assert [problem for event in found[name] for problem in ocsf.problems(event, CLASSES[name])] == []
    assert [(one["finding_info"]["uid"], one["count"]) for one in found["detection_finding"]] == [("b", 1), ("a", 2)]
    assert b"null" not in exported(lake)["detection_finding"]


def test_a_period_is_by_the_databases_clock_and_its_end_is_not_in_it(lake: Path) -> None:
    """Events at its end are in the next."""
    first = exported(lake, Wanted(NOON_US, NOON_US + DAY_US))
    second = exported(lake, Wanted(NOON_US + DAY_US, NOON_US + 2 * DAY_US))
    whole = exported(lake)
    assert uids(parsed(second["datastore_activity"])) == [2, 7]
    for name in ("datastore_activity", "authentication"):
        assert first[name] + second[name] == whole[name]
    assert second["detection_finding"] == b""


def test_a_principal_has_what_was_done_on_their_behalf(lake: Path) -> None:
    """Names are texts, whatever stands in them."""
    assert uids(parsed(exported(lake, Wanted(principal="erika"))["datastore_activity"])) == [1, 3]
    assert uids(parsed(exported(lake, Wanted(principal="bot"))["authentication"])) == [3, 4]
    assert uids(parsed(exported(lake, Wanted(principal="o'neil"))["datastore_activity"])) == [2]
    assert exported(lake, Wanted(principal="' OR true --"))["datastore_activity"] == b""


def test_parquet_has_the_same_events(lake: Path) -> None:
    """Column by column."""
    lines, tables = exported(lake), exported(lake, ending="parquet")
    for name in ("datastore_activity", "authentication"):
        rows = pq.ParquetFile(io.BytesIO(tables[name])).read().to_pylist()
        assert [ocsf.without_nulls(row) for row in rows] == parsed(lines[name])
    rows = pq.ParquetFile(io.BytesIO(tables["detection_finding"])).read().to_pylist()
    assert [ocsf.without_nulls(json.loads(row["ocsf"])) for row in rows] == parsed(lines["detection_finding"])


def test_the_same_lake_gives_the_same_bytes(lake: Path) -> None:
    """In both forms."""
    for ending in WRITERS:
        assert exported(lake, ending=ending) == exported(lake, ending=ending)


def test_an_empty_lake_gives_empty_files(tmp_path: Path) -> None:
    """And no error."""
    Lake(tmp_path).prepare()
    assert set(exported(tmp_path).values()) == {b""}
    assert all(pq.read_metadata(io.BytesIO(one)).num_rows == 0 for one in exported(tmp_path, ending="parquet").values())


def test_the_command_writes_files_and_says_what_stands_in_the_way(lake: Path, tmp_path: Path) -> None:
    """Whole files, over those of before; nothing into the lake; that nobody wrote it down is said."""
    write_config(tmp_path, "127.0.0.1:1", "postgresql://127.0.0.1:1/x", prefix="")

    def run(*arguments: str) -> Any:
        command = ["lake", "export", "--format", "ocsf", *arguments, "--config", str(tmp_path / "pgwitness.toml")]
        return CliRunner().invoke(main, command)

    into = tmp_path / "new" / "folder"
    for _ in range(2):
        answer = run("--output", str(into), "--json", "--until", "2026-09-23")
        assert answer.exit_code == 0, answer.output
        assert {row["class"]: row["events"] for row in json.loads(answer.stdout)} == {
            "datastore_activity": 3,
            "authentication": 3,
            "detection_finding": 2,
        }
        assert "was not written down as evidence" in answer.stderr
    assert sorted(path.name for path in into.iterdir()) == sorted(f"{name}.jsonl" for name in CLASSES)
    assert (into / "datastore_activity.jsonl").stat().st_mode & 0o077 == 0
    inside = run("--output", str(lake / "export"))
    assert (inside.exit_code, "lies in the lake" in inside.stderr) == (1, True)
    backwards = run("--output", str(into), "--since", "2026-09-23", "--until", "2026-09-22")
    assert (backwards.exit_code, "later than --since" in backwards.stderr) == (2, True)
    (tmp_path / "file").write_text("")
    blocked = run("--output", str(tmp_path / "file"))
    assert (blocked.exit_code, "could not be written" in blocked.stderr) == (1, True)
