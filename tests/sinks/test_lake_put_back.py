"""A lake that is not the one it was: copies put back, snapshots of other entries, hints that lie, sleeping writers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pgwitness.core.errors import NotInOrder, Stop
from sinks.lake.log import chain, snapshots
from sinks.lake.log.on_store import open_state
from sinks.lake.rows.schema import TABLES
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.views.listing import Listing, empty_file
from sinks.lake.writer import Lake, PartitionWriter
from sinks.sql import query
from sinks.sql.catalogue import connect
from tests.sinks.material import ORDINARY, change, entries, landed


def fill(path: Path, count: int, first: int = 0) -> PartitionWriter:
    """Land so many transactions more, each in a commit, with numbers that begin at `first` where the lake is empty."""
    writer = Lake(path).writer("events", 0)
    start, _ = writer.resume()
    for offset in range(start, start + count):
        writer.append(offset, [change(first + offset + 1)], [ORDINARY], 0)
        writer.commit()
    return writer


def put_back(copy: Path, path: Path) -> None:
    """Put a copy in the place of a folder."""
    shutil.rmtree(path)
    shutil.copytree(copy, path)


def numbers(path: Path) -> list[int]:
    """Give the transactions that readers see."""
    return sorted(row["xid"] - 1_000 for row in landed(path))


def summed_up(path: Path) -> list[str]:
    """List the live files by the snapshot that `head.json` points to, whatever the entries say."""
    number = snapshots.decode_head((path / snapshots.HEAD).read_bytes())
    assert number is not None
    base, tail = (path / name(number) for name in (snapshots.base_name, snapshots.tail_name))
    return sorted(snapshots.decode(base.read_bytes(), tail.read_bytes()).live)


def live(path: Path) -> list[str]:
    """List the live files by the entries."""
    listing = Listing(path)
    listing.refresh()
    return sorted(file.path for file in listing.live())


def test_a_backup_put_back_under_a_running_worker_stops_it_before_it_leaves_a_hole(tmp_path: Path) -> None:
    """Its next entry would stand behind one that is gone; started again, it goes on from the backup."""
    path, backup = tmp_path / "lake", tmp_path / "backup"
    writer = fill(path, 3)
    shutil.copytree(path, backup)
    for offset in range(3, 6):
        writer.append(offset, [change(offset + 1)], [ORDINARY], 0)
        writer.commit()
    put_back(backup, path)
    writer.append(6, [change(7)], [ORDINARY], 0)
    with pytest.raises(Stop, match="another copy of the lake was put in its place"):
        writer.commit()
    fill(path, 4)
    assert numbers(path) == [1, 2, 3, 4, 5, 6, 7]
    assert len(entries(path)) == 8


def test_snapshots_of_entries_that_are_gone_do_not_outlive_the_next_commit(tmp_path: Path) -> None:
    """An older log put back beside newer snapshots: what lands then is what the snapshots say, and nothing else."""
    path = tmp_path / "lake"
    fill(path, 3)
    shutil.copytree(path / "_log", tmp_path / "log")
    fill(path, 4)
    put_back(tmp_path / "log", path / "_log")
    assert numbers(path) == [1, 2, 3]
    fill(path, 1, first=100)
    assert numbers(path) == [1, 2, 3, 104]
    assert summed_up(path) == live(path)


def test_a_base_of_entries_that_are_gone_is_made_again(tmp_path: Path) -> None:
    """Likewise where the log that was put back ends before a base, so that the base would be another one."""
    path = tmp_path / "lake"
    fill(path, 3)
    shutil.copytree(path / "_log", tmp_path / "log")
    fill(path, snapshots.BASE_EVERY)
    put_back(tmp_path / "log", path / "_log")
    fill(path, snapshots.BASE_EVERY, first=1_000)
    assert summed_up(path) == live(path)
    assert len(numbers(path)) == 3 + snapshots.BASE_EVERY


@pytest.mark.parametrize(
    "hint",
    [
        "",
        "null",
        '{"number":',
        '{"number":-1,"base":"","tail":""}',
        '{"number":1%s,"base":"","tail":""}' % ("0" * 300),
        '{"number":999999999999,"base":"_snapshots/base-000000000000.json","tail":"_snapshots/tail-000000000001.json"}',
        '{"number":3,"base":"_snapshots/base-000000000000.json","tail":"_snapshots/tail-000000000001.json"}',
    ],
    ids=["empty", "null", "torn", "negative", "without end", "ahead", "two things at once"],
)
def test_a_hint_that_lies_misleads_nobody_and_is_put_right(tmp_path: Path, hint: str) -> None:
    """Readers see everything, and the next writer that starts points to the newest snapshot again."""
    fill(tmp_path, 3)
    (tmp_path / snapshots.HEAD).write_text(hint)
    assert numbers(tmp_path) == [1, 2, 3]
    fill(tmp_path, 0)
    assert (tmp_path / snapshots.HEAD).read_bytes() == snapshots.encode_head(3)


@pytest.mark.parametrize("path", ["events/../../etc/x.parquet", "events/dt=２０２６-09-22/x.parquet", "/etc/x.parquet"])
def test_a_snapshot_that_leaves_the_lake_is_none(tmp_path: Path, path: str) -> None:
    """What no entry could bring in, no snapshot does."""
    fill(tmp_path, 3)
    tail = tmp_path / snapshots.tail_name(3)
    first = live(tmp_path)[0]
    tail.write_text(tail.read_text().replace(first, path))
    assert path not in live(tmp_path)
    assert numbers(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("folder", ["_log/000000/001", "_log/000001", "_log/000001/000", "_log/٠٠٠٠٠١"])
def test_an_empty_folder_hides_no_missing_entry(tmp_path: Path, folder: str) -> None:
    """A writer that died before its entry leaves the next folder empty: what is missing before it is noticed."""
    fill(tmp_path, 3)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "_log/000000/000/002.json").unlink()
    shutil.rmtree(tmp_path / snapshots.FOLDER)
    with pytest.raises(Stop, match=r"002\.json is missing although entry 3 is there"):
        numbers(tmp_path)


def test_a_lake_that_the_system_does_not_let_one_read_says_so(tmp_path: Path) -> None:
    """A sentence instead of a traceback, be it rights, a disk, or a folder where a file was."""
    fill(tmp_path, 1)
    connection = connect(tmp_path)
    entry = tmp_path / chain.entry_name(1)
    entry.unlink()
    entry.mkdir()
    with pytest.raises(NotInOrder, match="could not be read"):
        query.ask(connection, "SELECT 1")


class Watched(Files):
    """A file system that says which folders were synced before each link, and calls `before` a rename."""

    def __init__(self) -> None:
        self.synced: set[Path] = set()
        self.linked: dict[str, set[Path]] = {}
        self.before: Callable[[Path], None] = lambda target: None

    def sync_folder(self, path: Path) -> None:
        """Remember it."""
        super().sync_folder(path)
        self.synced.add(path)

    def link(self, source: Path, target: Path) -> None:
        """Remember what was durable."""
        self.linked[target.name] = set(self.synced)
        super().link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Let something happen before it."""
        self.before(target)
        super().rename(source, target)


def test_a_folder_that_another_writer_made_is_durable_before_anything_is_in_it(tmp_path: Path) -> None:
    """Whoever made it may have died before that: a loss of power would take it away with all entries in it."""
    fill(tmp_path, 2)
    (tmp_path / "events/dt=2026-09-22").mkdir(exist_ok=True)
    files = Watched()
    writer = Lake(tmp_path, files=files).writer("events", 0)
    start, _ = writer.resume()
    writer.append(start, [change(3)], [ORDINARY], 0)
    writer.commit()
    above = {tmp_path, tmp_path / "_log", tmp_path / "_log/000000", tmp_path / "events", tmp_path / "rows"}
    assert above <= files.linked["003.json"]


def test_a_writer_that_slept_before_it_pointed_does_not_leave_the_hint_behind(tmp_path: Path) -> None:
    """While it sleeps another lands a hundred commits; the hint then names the last of them."""
    fill(tmp_path, 1)
    files = Watched()
    writer = Lake(tmp_path, files=files).writer("events", 1)
    writer.resume()
    writer.append(0, [change(500)], [ORDINARY], 1)
    slept: list[Path] = []

    def sleep(target: Path) -> None:
        if target.name == snapshots.HEAD and not slept:
            slept.append(target)
            fill(tmp_path, 100)

    files.before = sleep
    writer.commit()
    assert slept
    assert summed_up(tmp_path) == live(tmp_path)
    assert open_state(Folder(tmp_path, Files())).number == len(entries(tmp_path)) - 1


def plain(path: Path, connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Ask a plain DuckDB, which goes on behind statements of `views.sql` that fail, as its shell does."""
    script = (path / "views.sql").read_text()
    for statement in connection.extract_statements(script):
        try:
            connection.execute(statement)
        except duckdb.Error:
            continue
    return sorted(number - 1_000 for (number,) in connection.execute("SELECT xid FROM events").fetchall())


def forge(path: Path, name: str, old: str, new: str) -> None:
    """Write something else into a snapshot or the hint."""
    content = (path / name).read_text()
    assert old in content
    (path / name).write_text(content.replace(old, new))


SPOILS: dict[str, Callable[[Path], object]] = {
    "no hint": lambda path: (path / snapshots.HEAD).unlink(),
    "a hint to nowhere": lambda path: forge(path, snapshots.HEAD, '"number":3', '"number":99'),
    "a torn hint": lambda path: (path / snapshots.HEAD).write_text('{"number":'),
    "no tail": lambda path: (path / snapshots.tail_name(3)).unlink(),
    "no base": lambda path: (path / snapshots.base_name(3)).unlink(),
    "another tail": lambda path: shutil.copy(path / snapshots.tail_name(1), path / snapshots.tail_name(3)),
    "a tail of another base": lambda path: forge(path, snapshots.tail_name(3), '"base":0', '"base":128'),
    "a file of no place": lambda path: forge(path, snapshots.tail_name(3), "events/dt=", "events/../dt="),
    "a version without end": lambda path: forge(
        path, snapshots.tail_name(3), '"schema_version":', '"schema_version":99999999999'
    ),
    "a file twice": lambda path: forge(
        path, snapshots.tail_name(3), f'"path":"{live(path)[1]}"', f'"path":"{live(path)[0]}"'
    ),
}


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("again", [False, True], ids=["opened", "asked again"])
def test_a_plain_duckdb_answers_nothing_from_a_snapshot_that_is_not_whole(
    tmp_path: Path, how: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing, less, or what was there before would look like an answer: the query fails and says what to do."""
    fill(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        if again:
            assert plain(tmp_path, connection) == [1, 2, 3]
        SPOILS[how](tmp_path)
        with pytest.raises(duckdb.IOException, match=r"run the last part of views\.sql again"):
            plain(tmp_path, connection)


@pytest.mark.parametrize("columns", ["as they are", "with the day as in months"])
def test_rows_in_the_file_that_carries_the_columns_are_no_evidence(tmp_path: Path, columns: str) -> None:
    """Whatever day they say they are of: no entry names that file."""
    fill(tmp_path, 2)
    schema = TABLES["events"]
    if columns != "as they are":
        schema = schema.append(pa.field("dt", pa.date32()))
    row: dict[str, object] = dict.fromkeys(schema.names) | {
        "event_id": "forged",
        "kind": "change",
        "dt": date(2026, 9, 22),
    }
    pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / empty_file("events"))
    forged = "SELECT count(*) FROM events WHERE event_id = 'forged'"
    with connect(tmp_path) as connection:
        assert connection.execute(forged).fetchall() == [(0,)]
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{tmp_path}'")
        connection.execute((tmp_path / "views.sql").read_text())
        assert connection.execute(forged).fetchall() == [(0,)]


def test_marks_of_many_lanes_fit_into_an_entry() -> None:
    """What is too long lies beside it, be it files or ranges, and comes back whole."""
    ranges = [
        chain.Range("events", number, 0, 10, [(lane, raw, 10**9, 3) for lane in range(64) for raw in range(4)])
        for number in range(32)
    ]
    entry = chain.Land(number=1, predecessor="0" * 64, at_us=1, ranges=ranges, files=[])
    content, more = chain.encode(entry)
    assert len(content) <= chain.ENTRY_BYTES_MAX
    assert more is not None
    back = chain.whole(chain.decode(content, 1), more)
    assert isinstance(back, chain.Land)
    assert back.ranges == ranges
