"""The lake as tables of Iceberg: read back by PyIceberg they hold what the lake's log says, after each change of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from pgwitness.cli import main
from pgwitness.core.config import S3
from pgwitness.core.errors import NotInOrder, Retry
from pgwitness.core.events import Position
from sinks.export import iceberg
from sinks.lake.compaction.compactor import Compactor
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder, Store, at
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake
from tests.conftest import write_config
from tests.servers.s3 import S3Server
from tests.sinks.material import DAY_US, NOON_US, ORDINARY, change, landed, other


def land(place: Path | Store, first: int, commits: int) -> None:
    """Land commits of three rows over two days."""
    lake = Lake(place)
    writer = lake.writer("events", 0)
    start, _ = writer.resume()
    for number in range(first, first + commits):
        events: list[Any] = [
            change(number * 3 + n + 1, captured_at_us=NOON_US + n * DAY_US, at=Position(0, number * 3 + n, 0))
            for n in range(2)
        ]
        events.append(other(number * 3 + 3, principal="erika", at=Position(0, number * 3 + 2, 0)))
        writer.append(start + number - first, events, [ORDINARY] * 3)
        lake.commit([writer])


def publish(place: Path | Store, folder: Path, **named: Any) -> iceberg.Published:
    """Publish the events."""
    with iceberg.opened(at(place), folder, **named) as publisher:
        return publisher.publish("events")


def table(folder: Path, **settings: str) -> Table:
    """Open the table as another program does."""
    uri = f"sqlite:///{folder}/catalog.db"
    return SqlCatalog("pgwitness", uri=uri, warehouse=f"file://{folder}", **settings).load_table("pgwitness.events")


def ids(rows: list[dict[str, Any]]) -> list[str]:
    """Give the ids of events, in order."""
    return sorted(row["event_id"] for row in rows)


def held(folder: Path, place: Path | Store, **settings: str) -> None:
    """Hold that the table has the rows of the lake, each with every value."""
    rows = table(folder, **settings).scan().to_arrow().to_pylist()
    want = [{name: value for name, value in row.items() if name not in iceberg.LEFT_OUT} for row in landed(place)]
    key = lambda row: row["event_id"]  # noqa: E731
    assert sorted(rows, key=key) == sorted(want, key=key)
    assert table(folder, **settings).scan().count() == len(want)


def test_a_table_has_the_rows_of_the_lake_and_follows_it(tmp_path: Path) -> None:
    """What lands is added; nothing is published twice."""
    lake, folder = tmp_path / "lake", tmp_path / "iceberg"
    land(lake, 0, 3)
    first = publish(lake, folder)
    assert (first.added, first.removed, first.rows, first.entry) == (first.files, 0, 9, 3)
    held(folder, lake)
    again = publish(lake, folder)
    assert (again.added, again.removed, again.rows) == (0, 0, 9)
    land(lake, 3, 2)
    assert publish(lake, folder).rows == 15
    held(folder, lake)
    found = table(folder).scan(row_filter="principal == 'erika'", selected_fields=("event_id",)).to_arrow()
    assert found.num_rows == 5


def test_replaced_files_go_with_those_that_take_their_place_in_one_snapshot(tmp_path: Path) -> None:
    """So that no snapshot has a row twice or not at all."""
    lake, folder = tmp_path / "lake", tmp_path / "iceberg"
    land(lake, 0, 4)
    publish(lake, folder)
    before = len(table(folder).snapshots())
    land(lake, 4, 1)
    Compactor(lake, Folder(lake, Files()), grace_s=3_600.0).run()
    followed = publish(lake, folder)
    assert followed.removed > 0
    assert followed.rows == 15
    assert len(table(folder).snapshots()) == before + 1
    held(folder, lake)
    for snapshot in table(folder).snapshots():
        rows = table(folder).scan(snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist()
        assert len(ids(rows)) == len(set(ids(rows)))
    listing = Listing(lake)
    listing.refresh()
    assert any("month=" in file.path for file in listing.live())
    last = table(folder).current_snapshot()
    assert last is not None
    assert last.summary is not None
    assert last.summary["pgwitness.entry"] == str(listing.state.number)


def test_files_are_added_in_batches_and_a_publisher_that_dies_between_them_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one adds what is missing, and nothing twice."""
    lake, folder = tmp_path / "lake", tmp_path / "iceberg"
    land(lake, 0, 4)
    monkeypatch.setattr(iceberg, "BATCH_FILES", 3)
    described = iceberg.Publisher._described
    calls = 0

    def dies(self: iceberg.Publisher, into: Table, file: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return described(self, into, file)

    monkeypatch.setattr(iceberg.Publisher, "_described", dies)
    with pytest.raises(KeyboardInterrupt):
        publish(lake, folder)
    monkeypatch.setattr(iceberg.Publisher, "_described", described)
    assert 0 < table(folder).scan().count() < 12
    assert publish(lake, folder).rows == 12
    held(folder, lake)


def test_a_file_that_is_gone_or_another_is_not_published(tmp_path: Path) -> None:
    """The table stays as it was."""
    lake, folder = tmp_path / "lake", tmp_path / "iceberg"
    land(lake, 0, 1)
    publish(lake, folder)
    land(lake, 1, 1)
    listing = Listing(lake)
    listing.refresh()
    known = {task.file.file_path for task in table(folder).scan().plan_files()}
    root = f"file://{lake.resolve()}/"
    file = next(file for file in listing.live() if file.table == "events" and root + file.path not in known)
    content = (lake / file.path).read_bytes()
    (lake / file.path).unlink()
    with pytest.raises(NotInOrder, match="has a file no more"):
        publish(lake, folder)
    planted = next(iter(known)).removeprefix(root)
    (lake / file.path).write_bytes((lake / planted).read_bytes() + b" ")
    with pytest.raises((NotInOrder, pa.ArrowInvalid)):
        publish(lake, folder)
    assert table(folder).scan().count() == 3
    (lake / file.path).write_bytes(content)
    assert publish(lake, folder).rows == 6


def test_rows_that_somebody_else_put_into_the_table_go(tmp_path: Path) -> None:
    """The table has what the log names, and nothing else."""
    lake, folder, elsewhere = tmp_path / "lake", tmp_path / "iceberg", tmp_path / "elsewhere"
    land(lake, 0, 2)
    land(elsewhere, 5, 1)
    publish(lake, folder)
    with iceberg.opened(at(elsewhere), folder) as publisher:
        planted = publisher._listing
        planted.refresh()
        (first, *_) = [file for file in planted.live() if file.table == "events"]
        into = table(folder)
        with into.transaction() as commit, commit.update_snapshot().fast_append() as update:
            update.append_data_file(publisher._described(into, first))
    assert table(folder).scan().count() > 6
    assert (publish(lake, folder).removed, table(folder).scan().count()) == (1, 6)


def test_two_do_not_publish_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one folder the second is told; with one catalogue from two hosts, the slower one."""
    lake, folder = tmp_path / "lake", tmp_path / "iceberg"
    land(lake, 0, 2)
    with iceberg.opened(at(lake), folder), pytest.raises(NotInOrder, match="another export is publishing"):
        publish(lake, folder)
    publish(lake, folder)
    land(lake, 2, 1)
    uri, warehouse = f"sqlite:///{folder}/catalog.db", f"file://{folder}"
    described = iceberg.Publisher._described
    raced: list[int] = []

    def races(self: iceberg.Publisher, into: Table, file: Any) -> Any:
        if not raced:
            raced.append(1)
            publish(lake, tmp_path / "other host", uri=uri, warehouse=warehouse)
        return described(self, into, file)

    monkeypatch.setattr(iceberg.Publisher, "_described", races)
    with pytest.raises(Retry, match="do it again"):
        publish(lake, folder)
    assert publish(lake, folder).added == 0
    held(folder, lake)


def test_a_file_that_stands_in_the_table_twice_is_put_right(tmp_path: Path) -> None:
    """However it came to that."""
    lake, folder = tmp_path / "lake", tmp_path / "iceberg"
    land(lake, 0, 2)
    publish(lake, folder)
    into = table(folder)
    again = next(iter(into.scan().plan_files())).file
    with into.transaction() as commit, commit.update_snapshot().fast_append() as update:
        update.append_data_file(again)
    assert table(folder).scan().count() > 6
    assert publish(lake, folder).rows == 6
    held(folder, lake)


def test_a_lake_in_a_bucket_is_published_where_it_is(s3: S3Server, tmp_path: Path) -> None:
    """Files and metadata are in buckets; the catalogue is not."""
    store = s3.objects(s3.bucket())
    land(store, 0, 3)
    warehouse = str(s3.bucket())
    published = publish(store, tmp_path, warehouse=warehouse, s3=S3(endpoint=s3.endpoint))
    assert published.rows == 9
    settings = {"s3.endpoint": s3.endpoint}
    held(tmp_path, store, **settings)
    assert table(tmp_path, **settings).location().startswith(warehouse)
    tasks = list(table(tmp_path, **settings).scan().plan_files())
    assert all(task.file.file_path.startswith(f"{store.path}/events/dt=") for task in tasks)


def test_the_command_publishes_all_tables_and_says_how_many_rows(tmp_path: Path) -> None:
    """Row images only when they are asked for."""
    land(tmp_path / "lake", 0, 2)
    write_config(tmp_path, "127.0.0.1:1", "postgresql://127.0.0.1:1/x", prefix="")

    def run(*more: str) -> Any:
        command = ["lake", "export", "--format", "iceberg", "--output", str(tmp_path / "iceberg"), "--json", *more]
        return CliRunner().invoke(main, [*command, "--config", str(tmp_path / "pgwitness.toml")])

    assert {row["table"]: row["rows"] for row in json.loads(run().stdout)} == {"events": 6, "alerts": 0}
    assert {row["table"]: row["rows"] for row in json.loads(run("--row-images").stdout)}["rows"] == 4
    partly = run("--principal", "erika")
    assert (partly.exit_code, "the whole lake" in partly.stderr) == (2, True)


PUBLISHER = """
import sys
from pathlib import Path
from sinks.export import iceberg
from sinks.lake.storage.store import at
iceberg.BATCH_FILES = 1
with iceberg.opened(at(Path(sys.argv[1])), Path(sys.argv[2])) as publisher:
    print("begun", flush=True)
    publisher.publish("events")
"""


def test_a_publisher_that_is_killed_leaves_a_table_that_the_next_one_completes(tmp_path: Path) -> None:
    """`kill -9` at any moment, also of one that takes replaced files away; no snapshot has a row twice."""
    lake, folder = tmp_path / "lake", tmp_path / "iceberg"
    land(lake, 0, 6)
    chance = random.Random(0)
    for turn in range(8):
        command = [sys.executable, "-c", PUBLISHER, str(lake), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.random() * 0.8)
            process.kill()
        if turn == 4:
            Compactor(lake, Folder(lake, Files()), grace_s=3_600.0).run()
    assert publish(lake, folder).rows == 18
    held(folder, lake)
    for snapshot in table(folder).snapshots():
        rows = table(folder).scan(snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist()
        assert len(ids(rows)) == len(set(ids(rows)))
