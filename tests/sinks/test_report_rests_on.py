"""What a report says of itself: how far its lake is sealed, whether that was verified, and what retention took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from pgwitness.cli import main
from pgwitness.cli.sql import retired
from pgwitness.core.config import Config, load
from pgwitness.core.errors import NotInOrder
from pgwitness.core.privacy import write_key
from sinks.lake.log import snapshots
from sinks.lake.log.on_store import Log
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.report.facts import Facts, gather
from sinks.report.page import render
from sinks.report.subject import Subject
from sinks.seal import place
from sinks.seal.standing import standing
from sinks.sql import query
from sinks.sql.catalogue import connect
from tests.sinks.material import DAY_US, NOON_US
from tests.sinks.seal.material import KEY, grow, sealer
from tests.sinks.test_catalogue import plain
from tests.sinks.test_compaction import fill
from tests.sinks.test_retention import LATER_US, YEAR, Terms, retainer

OPENED: dict[Path, duckdb.DuckDBPyConnection] = {}
AFTER_A_YEAR_US = NOON_US + 400 * DAY_US


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration with a lake in a folder, and the key to check its seal with."""
    write_key(tmp_path / "privacy.key", b"k" * 32)
    path = tmp_path / "pgwitness.toml"
    path.write_text(
        f'[kafka]\nbootstrap = "127.0.0.1:1"\n[lake]\npath = "{tmp_path / "lake"}"\n'
        f'[seal]\npublic_key = "{KEY.public().text()}"\nlag_max = "99999d"\n'
    )
    return load(path)


def facts(config: Config, subject: Subject | None = None) -> Facts:
    """Gather a report; a lake is opened once, for that takes longer than all questions."""
    lake = config.lake.folder
    if lake not in OPENED:
        OPENED[lake] = connect(lake)
    return gather(OPENED[lake], subject or Subject(), lambda state: standing(config, state))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what a test has opened."""
    yield
    while OPENED:
        OPENED.popitem()[1].close()


def test_an_unsealed_lake_says_so(config: Config) -> None:
    """At the top, and where it stands what the page rests on."""
    grow(config.lake.folder, range(2))
    page = render(facts(config))
    assert "This lake is not sealed: whoever can write it" in page
    assert "The lake is not sealed." in page
    assert "Verification was not run for this page" in page


def test_a_page_says_how_far_its_lake_is_sealed_and_what_is_only_chained(config: Config) -> None:
    """Entry and time of it, the entries behind it, and how many events of the period these brought."""
    grow(config.lake.folder, range(3))
    sealer(config.lake.folder).round()
    sealed = facts(config)
    assert "sealed to entry 3, of 2026-09-22 12:00:00" in render(sealed)
    assert "Nothing is only chained." in render(sealed)
    grow(config.lake.folder, [3, 4])
    more = facts(config)
    assert (more.standing.number, more.standing.sealed_to, more.standing.entries, more.standing.signed) == (
        5,
        3,
        2,
        True,
    )
    assert "Of this period 2 rows are not sealed yet." in render(more)
    assert "2 entries behind it are only chained; 2 events of this period lie in their files." in render(more)
    before = facts(config, Subject(until_us=NOON_US - 2 * DAY_US))
    assert "0 events of this period lie in their files" in render(before)


def test_a_seal_that_another_key_signed_is_no_seal(config: Config) -> None:
    """Nor is one whose log was put back: the page says what is wrong, and is made all the same."""
    grow(config.lake.folder, range(2))
    sealer(config.lake.folder).round()
    (config.lake.folder / place.FOLDER / place.CHECKPOINT).write_text("example.com/lake\n3\nAAAA\n\n- forged\n")
    page = render(facts(config))
    assert "How far this lake is sealed is not known" in page
    assert "is sealed to entry" not in page


def test_what_retention_took_of_the_period_stands_on_the_page(config: Config) -> None:
    """Days, table, rows and why; row images a quarter on, everything after a year; and other periods are not warned."""
    lake = config.lake.folder
    fill(lake, 6, days=2, landed_us=LATER_US)
    assert "Nothing of this period was retired." in render(facts(config))
    retainer(lake, NOON_US + 95 * DAY_US).run()
    found = facts(config)
    assert [(row[0], str(row[1]), str(row[2]), row[3], row[6]) for row in found.retired.rows] == [
        ("rows", "2026-09-22", "2026-09-23", 6, "rows: kept for 90 days")
    ]
    assert "Retention took part of this period" in render(found)
    outside = facts(config, Subject(until_us=NOON_US - DAY_US))
    assert outside.retired.total == 0
    assert "Retention took part" not in render(outside)


def test_a_name_that_only_retired_files_may_have_is_told_so(config: Config) -> None:
    """An error alone would read as if nobody had ever done anything under it."""
    fill(config.lake.folder, 4, landed_us=LATER_US)
    fill(config.lake.folder, 1, landed_us=LATER_US)
    retainer(config.lake.folder, AFTER_A_YEAR_US, Terms({"events": 1.0})).run()
    with pytest.raises(NotInOrder, match=r"Retention took \d+ rows of this period, which may have"):
        facts(config, Subject(principal="nobody-knows"))


def test_what_is_held_stands_on_the_page(config: Config) -> None:
    """Who said so, and why."""
    fill(config.lake.folder, 2, landed_us=LATER_US)
    retainer(config.lake.folder, LATER_US).hold("ada", "case 7", first_day="2026-09-01", last_day="2026-09-30")
    assert [row[2:4] for row in facts(config).holds.rows] == [("ada", "case 7")]
    assert facts(config, Subject(until_us=NOON_US - 90 * DAY_US)).holds.total == 0


def test_what_retention_took_is_the_same_by_log_snapshot_and_plain_duckdb(config: Config) -> None:
    """However the lake is opened: a reader by snapshot must not lose what one by all entries knows."""
    lake = config.lake.folder
    fill(lake, 6, days=3, landed_us=LATER_US)
    retainer(lake, AFTER_A_YEAR_US, YEAR).run()
    log = Log(Folder(lake, Files()))
    log.refresh()
    whole = log.state.retired
    assert sum(one.files for one in whole.values()) == 18
    for name in (lake / snapshots.FOLDER).iterdir():
        name.unlink()
    fold = Log(Folder(lake, Files()))
    fold.refresh()
    assert fold.state.retired == whole
    fold.publish()
    told = 'SELECT "table", first_day::VARCHAR, last_day::VARCHAR, files, rows, reason FROM retired ORDER BY ALL'
    with connect(lake) as connection:
        ours = [list(row) for row in query.ask(connection, told).rows]
    assert [row[0] for row in ours] == ["alerts", "events", "rows"]
    assert plain(lake, told) == ours


def test_whoever_asks_is_told_that_answers_lack_something(config: Config) -> None:
    """Not of row images alone: the events that they belonged to are there."""
    lake = config.lake.folder
    fill(lake, 4, landed_us=LATER_US)
    retainer(lake, NOON_US + 95 * DAY_US).run()
    with connect(lake) as connection:
        assert retired(connection) is None
    retainer(lake, AFTER_A_YEAR_US).run()
    with connect(lake) as connection:
        said = retired(connection)
    assert said is not None
    assert "of 2026-09-22 to 2026-09-22, which no answer has: `FROM retired`" in said


def test_verifying_for_a_page_says_what_came_of_it(config: Config, tmp_path: Path) -> None:
    """In order with 0; with 1 where a file was altered, and the page names it."""
    lake = config.lake.folder
    grow(lake, range(3))
    sealer(lake).round()
    page = tmp_path / "page.html"
    words = ["report", "--verify", "--config", str(tmp_path / "pgwitness.toml"), "--output", str(page)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "Verification was run for this page, over 4 entries and 6 files: all is in order." in page.read_text()
    name = next(lake.glob("rows/dt=2026*/*.parquet"))
    name.write_bytes(name.read_bytes()[:-1] + b"?")
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert "Verification found 1 things" in page.read_text()
    assert name.name in page.read_text()
