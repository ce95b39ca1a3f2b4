"""`pgwitness lake`: what it prints, what it exits with, and that the daemon ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pgwitness.cli import main
from pgwitness.cli.doctor import installation
from pgwitness.cli.doctor.lines import Line
from pgwitness.core.config import load
from sinks.lake.views.listing import Listing
from tests.sinks.test_compaction import fill, live


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a configuration with a lake of many small files, long ago."""
    fill(tmp_path / "lake", 12, days=3)
    path = tmp_path / "pgwitness.toml"
    path.write_text('[lake]\npath = "lake"\n[clusters.shop]\ndsn = "postgresql://localhost/shop"\n')
    return path


def test_it_says_what_it_would_do_and_does_it(config: Path) -> None:
    """Then there is nothing left to do."""
    printed = CliRunner().invoke(main, ["lake", "compact", "--config", str(config), "--print", "--json"])
    assert printed.exit_code == 0, printed.output
    assert {row["becomes"] for row in json.loads(printed.stdout)} == {"day"}
    done = CliRunner().invoke(main, ["lake", "compact", "--config", str(config), "--json"])
    (row,) = json.loads(done.stdout)
    assert (row["live"], row["refused"]) == (len(live(config.parent / "lake")), [])
    again = CliRunner().invoke(main, ["lake", "compact", "--config", str(config), "--print"])
    assert "nothing to compact" in again.stderr


def test_a_file_that_is_gone_is_said_and_exits_1(config: Path) -> None:
    """It is named, so that it can be restored."""
    victim = live(config.parent / "lake")[0]
    (config.parent / "lake" / victim.path).unlink()
    done = CliRunner().invoke(main, ["lake", "compact", "--config", str(config)])
    assert done.exit_code == 1
    assert f"left as it is: {victim.path} is missing" in done.stderr


def test_what_was_replaced_is_nothing_strange(config: Path) -> None:
    """The doctor names only what no entry names; and many small files."""
    lake = config.parent / "lake"
    CliRunner().invoke(main, ["lake", "compact", "--config", str(config)])
    listing = Listing(lake)
    listing.refresh()
    assert listing.strange() == []
    (lake / "events" / "dt=2026-09-22" / "planted.parquet").write_bytes(b"x")
    assert listing.strange() == ["events/dt=2026-09-22/planted.parquet"]


def test_the_doctor_tells_that_nobody_compacts(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts small files."""
    monkeypatch.setattr(installation, "SMALL_FILES_MAX", 20)
    lines: list[installation.Line] = []
    installation.lake(load(config), lines)
    (found,) = [line for line in lines if line["what"] == "compaction"]
    assert found["state"] == "warning"
    assert "36 small files" in str(found["found"])


def test_a_log_that_was_longer_once_is_said_and_exits_1(config: Path) -> None:
    """By both commands and by the doctor; the daemon never deletes what no entry names."""
    lake = config.parent / "lake"
    (lake / "_log" / "000000" / "000" / "012.json").unlink()
    for command in ("compact", "retain"):
        done = CliRunner().invoke(main, ["lake", command, "--config", str(config)])
        assert done.exit_code == 1
        assert "the log ends with entry 11" in done.stderr
    lines: list[Line] = []
    installation.lake(load(config), lines)
    assert any("the end of the log was cut off" in str(one) for one in lines)
    daemon = CliRunner().invoke(main, ["lake", "compact", "--config", str(config), "--orphans", "--every", "1m"])
    assert daemon.exit_code == 2


def test_what_no_entry_names_is_deleted_only_when_asked_for(config: Path) -> None:
    """It is told before."""
    planted = config.parent / "lake" / "events" / "dt=2026-09-22" / "planted.parquet"
    planted.write_bytes(b"x")
    os.utime(planted, (1_700_000_000, 1_700_000_000))
    done = CliRunner().invoke(main, ["lake", "compact", "--config", str(config)])
    assert "1 files older than a day are in no entry" in done.stderr
    assert planted.exists()
    done = CliRunner().invoke(main, ["lake", "compact", "--config", str(config), "--orphans"])
    assert "1 files that no entry names and that were older than a day are deleted" in done.stderr
    assert not planted.exists()


def test_a_folder_without_a_lake_exits_1(tmp_path: Path) -> None:
    """It says what to do."""
    path = tmp_path / "pgwitness.toml"
    path.write_text('[lake]\npath = "lake"\n')
    done = CliRunner().invoke(main, ["lake", "compact", "--config", str(path)])
    assert done.exit_code == 1
    assert "start a worker" in done.stderr


def test_holding_retaining_and_releasing(config: Path) -> None:
    """A hold prints its id, retention leaves what it holds, and a release ends it."""

    def run(*words: str) -> str:
        done = CliRunner().invoke(main, ["lake", words[0], "--config", str(config), *words[1:]])
        assert done.exit_code == 0, done.output
        return done.stdout

    with config.open("a") as file:
        file.write('[retention]\nevents = "1d"\nrows = "1d"\n[privacy]\nkey_file = "privacy.key"\n')
    (config.parent / "privacy.key").write_text("ab" * 32)
    (config.parent / "privacy.key").chmod(0o600)
    name = run("hold", "--why", "case 7", "--by", "ada", "--principal", "erika").strip()
    (held,) = json.loads(run("holds", "--json"))
    assert (held["id"], held["by"], held["why"]) == (name, "ada", "case 7")
    assert str(held["principal"]).startswith("tok_")
    assert json.loads(run("retain", "--json"))[0]["retired"] == 0
    run("release", name, "--why", "closed")
    assert len(json.loads(run("retain", "--print", "--json"))) == 24
    assert json.loads(run("retain", "--json"))[0]["retired"] == 24
    assert {file.table for file in live(config.parent / "lake")} == {"alerts"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kinds = { sessions = "1d" }', "there is no kind 'sessions'"),
        ('events = "1d"\nkinds = { session = "2d" }', "session cannot be kept longer than events"),
        ("events = 5", "expected a number with one of the units"),
    ],
)
def test_terms_that_cannot_be_are_refused(config: Path, text: str, said: str) -> None:
    """With the key and what is wrong."""
    with config.open("a") as file:
        file.write(f"[retention]\n{text}\n")
    done = CliRunner().invoke(main, ["lake", "retain", "--config", str(config)])
    assert done.exit_code == 2
    assert said in done.stderr
