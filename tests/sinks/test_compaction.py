"""Compaction: the same rows in fewer files, in order, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pgwitness.core.errors import NotInOrder, Retry
from pgwitness.core.events import Event, Position, Relation
from sinks.lake.compaction import rewrite
from sinks.lake.compaction.compactor import Compactor, Done
from sinks.lake.compaction.plan import Sizes
from sinks.lake.log import chain, layout
from sinks.lake.log.chain import File, Hold, Release, Replace, State
from sinks.lake.log.layout import Level
from sinks.lake.log.on_store import Log
from sinks.lake.log.protocol import Attempt
from sinks.lake.rows import digest, parquet
from sinks.lake.rows.schema import SCHEMA_VERSION, TABLES
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake
from sinks.sql import query
from sinks.sql.catalogue import connect
from sinks.sql.evidence import Evidence
from tests.sinks.material import DAY_US, NOON_US, ORDERS, ORDINARY, Disk, Finding, Judgement, change, entries, other

ITEMS = Relation("public.items", ["id", "status", "Note"], beacon=True)
PEOPLE = ("ada", "erika", "batch", "support-agent", None)
SMALL = Sizes(landed_files=4, tier_files=3, sorted_rows_max=400)


def fill(
    path: Path, commits: int, *, days: int = 1, files: Files | None = None, topic: str = "events", landed_us: int = 0
) -> Lake:
    """Land a few events in each of so many commits, spread over days; each row can be told from any other.

    `landed_us` is the writer's clock, that of this machine by default.
    """
    lake = Lake(path, files=files, clock_us=lambda: landed_us or time.time_ns() // 1_000)
    writer = lake.writer(topic, 0)
    start, _ = writer.resume()
    for offset in range(start, start + commits):
        at_us = NOON_US + ((offset - start) * days // max(commits, 1)) * DAY_US + offset * 1_000_000
        events: list[Event] = []
        for place in range(3):
            number = offset * 10 + place + 1
            who = PEOPLE[(offset + place) % len(PEOPLE)]
            facts: dict[str, Any] = {
                "captured_at_us": at_us + 1_000 + place,
                "occurred_at_us": at_us - place * 7_000_000,
                "at": Position(0, offset, place),
                "principal": who,
                "on_behalf_of": "ada" if who == "support-agent" else None,
            }
            if place == 2:
                events.append(other(number, **facts))
            else:
                rows = [
                    [n, "i", n % 2, {"id": number * 10 + n}, None, None, {"id": number * 10 + n, "status": "new"}]
                    for n in range(1 + place)
                ]
                events.append(change(number, *rows, relation_table=[ORDERS, ITEMS], **facts))
        verdicts = [ORDINARY, ORDINARY, Judgement(alerts=[Finding(f"alert-{offset}", {"count": 1, "time": 1})])]
        assert writer.append(offset, events, verdicts, 0) == []
        writer.commit()
    return lake


def live(path: Path) -> list[File]:
    """List the files that count."""
    listing = Listing(path)
    listing.refresh()
    assert listing.missing() == []
    return sorted(listing.live(), key=lambda file: file.path)


def contents(path: Path) -> dict[str, list[str]]:
    """Read every row that counts, with its day, in an order of its own; with nothing but a Parquet reader."""
    found: dict[str, list[str]] = {table: [] for table in TABLES}
    for file in live(path):
        for row in pq.ParquetFile(path / file.path).read().to_pylist():
            day = row.pop("dt").isoformat() if layout.is_month(file.path) else file.days[0]
            found[file.table].append(json.dumps({"dt": day, **row}, default=str, sort_keys=True))
    return {table: sorted(rows) for table, rows in found.items()}


def compactor(path: Path, now_us: int = NOON_US, *, files: Files | None = None, **more: Any) -> Compactor:
    """Make a compactor whose clock stands still."""
    return Compactor(path, Folder(path, files or Files()), clock_us=lambda: now_us, **{"sizes": SMALL, **more})


def age(path: Path, days: float) -> None:
    """Let every Parquet file look as if it had been written so many days before noon of the first day."""
    for file in path.glob("*/*/*.parquet"):
        os.utime(file, (NOON_US / 1e6 - days * 86_400, NOON_US / 1e6 - days * 86_400))


def append(path: Path, propose: Callable[[State], Any]) -> None:
    """Put an entry behind the last one."""
    log = Log(Folder(path, Files()))
    log.refresh()
    assert log.append(propose, Attempt())
    log.publish()


def hold(path: Path, **days: Any) -> None:
    """Hold days."""
    append(
        path,
        lambda state: Hold(
            number=state.number + 1, predecessor=state.sha256, at_us=0, id="h", by="me", why="case", **days
        ),
    )


def release(path: Path) -> None:
    """End that hold."""
    append(
        path,
        lambda state: Release(
            number=state.number + 1, predecessor=state.sha256, at_us=0, id="h", by="me", why="closed"
        ),
    )


def in_order(path: Path, file: File) -> bool:
    """Say whether a file's rows stand in the order of its table."""
    rows = pq.ParquetFile(path / file.path).read().to_pylist()
    names = {"events": ("principal", "occurred_at"), "alerts": ("principal", "time"), "rows": ("event_id",)}[file.table]
    if file.table == "rows" and layout.is_month(file.path):
        names = ("dt", *names)
    keys = [tuple((row[name] is None, row[name] if row[name] is not None else 0) for name in names) for row in rows]
    return keys == sorted(keys)


def test_while_a_day_goes_on_small_files_become_larger_ones(tmp_path: Path) -> None:
    """The same rows, sorted, in fewer files; what is too little yet stays as it landed."""
    fill(tmp_path, 30)
    before = contents(tmp_path)
    done = compactor(tmp_path).run()
    assert contents(tmp_path) == before
    files = live(tmp_path)
    assert len(files) <= 3 * (SMALL.landed_files + SMALL.tier_files * 3)
    assert done.replaced > 80
    assert all(in_order(tmp_path, file) for file in files if layout.level_of(file.path) != Level.LANDED)
    assert compactor(tmp_path).run() == Done()


def test_a_day_that_is_over_becomes_one_file_of_each_table(tmp_path: Path) -> None:
    """And a second one that is late joins it."""
    fill(tmp_path, 10)
    compactor(tmp_path, NOON_US + DAY_US).run()
    assert [layout.level_of(file.path) for file in live(tmp_path)] == [Level.DAY] * 3
    fill(tmp_path, 10)
    before = contents(tmp_path)
    compactor(tmp_path, NOON_US + DAY_US).run()
    assert contents(tmp_path) == before
    assert len(live(tmp_path)) == 3


def test_a_month_that_is_over_becomes_a_few_files(tmp_path: Path) -> None:
    """Each row keeps its day, and where there are buckets, each principal is in its own."""
    fill(tmp_path, 40, days=8)
    before = contents(tmp_path)
    sizes = Sizes(landed_files=4, tier_files=3, sorted_rows_max=400, file_bytes=30_000)
    compactor(tmp_path, NOON_US + 40 * DAY_US, sizes=sizes).run()
    files = live(tmp_path)
    assert contents(tmp_path) == before
    assert {layout.level_of(file.path) for file in files} == {Level.MONTH}
    assert all(in_order(tmp_path, file) for file in files)
    buckets = [found for file in files if file.table == "events" and (found := layout.bucket_in(file.path))]
    assert len({count for _, count in buckets}) == 1 < len({number for number, _ in buckets})
    for file in files:
        if found := layout.bucket_in(file.path):
            names = set(pq.ParquetFile(tmp_path / file.path).read(["principal"]).column(0).to_pylist())
            assert {layout.bucket_of(name, found[1]) for name in names} == {found[0]}


def test_a_replacement_adds_up(tmp_path: Path) -> None:
    """Each entry's files have the digests of those that they replace, and a row of each is what it was."""
    fill(tmp_path, 12, days=3)
    compactor(tmp_path, NOON_US + 60 * DAY_US).run()
    made = [entry for entry in entries(tmp_path) if isinstance(entry, Replace)]
    assert made
    assert all(file.digest for entry in made for file in entry.files)


QUESTIONS = (
    "SELECT dt, kind, count(*) FROM events GROUP BY ALL ORDER BY ALL",
    "SELECT event_id, dt FROM events WHERE dt = DATE '2026-09-23' ORDER BY ALL",
    "SELECT event_id, row_key, before, after, dt FROM changes ORDER BY ALL",
    "SELECT event_id, after FROM changes WHERE dt = DATE '2026-09-23' ORDER BY ALL",
    "SELECT event_id, dt, principal, lsn FROM timeline('ada') ORDER BY ALL",
    "SELECT event_id, dt FROM timeline('support-agent') ORDER BY ALL",
    "SELECT event_id, how FROM touched('public.orders', 110) ORDER BY ALL",
    "SELECT uid, dt FROM alerts ORDER BY ALL",
    "FROM coverage ORDER BY ALL",
    "FROM reconciliation ORDER BY ALL",
    "FROM accesses ORDER BY ALL",
    "FROM logins ORDER BY ALL",
)
PLAIN = (
    "import sys, duckdb, json; c = duckdb.connect(); c.execute(open('views.sql').read()); c.execute(\"SET TimeZone = "
    "'UTC'\"); print(json.dumps([c.execute(q).fetchall() for q in json.loads(sys.argv[1])], default=str))"
)


def answers(path: Path) -> list[Any]:
    """Ask by pgwitness and by a plain DuckDB; both say the same."""
    connection = connect(path)
    ours = [[list(row) for row in query.ask(connection, question).rows] for question in QUESTIONS]
    connection.close()
    found = json.loads(json.dumps(ours, default=str))
    command = [sys.executable, "-c", PLAIN, json.dumps(QUESTIONS)]
    said = subprocess.run(command, cwd=path, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(said.stdout) == found
    return list(found)


def past(path: Path) -> list[Any]:
    """Read the events as they were judged."""
    with Evidence(path, 0) as evidence:
        assert evidence.total() > 0
        return [(one.partition, one.event, one.policies) for one in evidence]


@pytest.mark.parametrize("days_later", [0, 1, 60])
def test_every_question_has_the_same_answer_afterwards(tmp_path: Path, days_later: int) -> None:
    """By pgwitness, in plain DuckDB, and in the order of a replay."""
    fill(tmp_path, 24, days=2)
    asked, judged = answers(tmp_path), past(tmp_path)
    sizes = Sizes(landed_files=4, tier_files=3, file_bytes=20_000)
    assert compactor(tmp_path, NOON_US + DAY_US + days_later * DAY_US, sizes=sizes).run().jobs
    assert answers(tmp_path) == asked
    assert past(tmp_path) == judged


def test_replaced_files_stay_for_the_grace_and_go_then(tmp_path: Path) -> None:
    """A query that has begun still finds them."""
    fill(tmp_path, 8)
    age(tmp_path, 0.1)
    old = [file.path for file in live(tmp_path)]
    assert compactor(tmp_path, NOON_US).run().removed == 0
    assert all((tmp_path / path).exists() for path in old)
    assert compactor(tmp_path, NOON_US + 3_000_000_000).run().removed == 0
    done = compactor(tmp_path, NOON_US + 3_700_000_000).run()
    assert done.removed == len(old) - sum(path in {file.path for file in live(tmp_path)} for path in old)
    assert {file.path for file in live(tmp_path)} == {
        str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*/*.parquet") if path.name != "empty.parquet"
    }


def test_what_no_checkpoint_covers_stays(tmp_path: Path) -> None:
    """Where the lake is sealed, the sealer has yet to see what was replaced."""
    fill(tmp_path, 8)
    compactor(tmp_path).run()
    later = NOON_US + DAY_US // 2
    assert compactor(tmp_path, later, sealed=lambda: 3).run().removed == 0
    assert compactor(tmp_path, later, sealed=lambda: len(entries(tmp_path)) - 1).run().removed > 0


def test_what_is_in_no_entry_goes_when_a_person_says_so_and_it_is_a_day_old(tmp_path: Path) -> None:
    """A crash left it, or the log forgot it; what was written today may be a commit that is on its way."""
    fill(tmp_path, 3)
    left = tmp_path / "events" / "dt=2026-09-22" / "left.parquet"
    left.write_bytes(b"half")
    age(tmp_path, 0.5)
    assert compactor(tmp_path, orphans=True).run().orphans == 0
    age(tmp_path, 1.5)
    assert compactor(tmp_path).run().orphans == 1
    assert left.exists()
    assert compactor(tmp_path, orphans=True).run().orphans == 1
    assert not left.exists()
    assert len(live(tmp_path)) == 9


def test_what_lies_behind_a_link_is_not_the_lakes_to_delete(tmp_path: Path) -> None:
    """A folder of a day that leads elsewhere would else have other people's files deleted."""
    lake, theirs = tmp_path / "lake", tmp_path / "theirs"
    fill(lake, 3)
    theirs.mkdir()
    (theirs / "another.parquet").write_bytes(b"theirs")
    (lake / "events" / "dt=2026-01-01").symlink_to(theirs)
    age(lake, 2)
    os.utime(theirs / "another.parquet", (NOON_US / 1e6, NOON_US / 1e6))
    assert compactor(lake, NOON_US + 9 * DAY_US, grace_s=0.0, orphans=True).run().orphans == 0
    assert (theirs / "another.parquet").exists()


def test_files_with_fewer_columns_become_files_with_all(tmp_path: Path) -> None:
    """Their rows add up as before, and say of themselves which version they are of."""
    fill(tmp_path, 6)
    before = contents(tmp_path)
    renamed = {}
    for file in live(tmp_path):
        if file.table == "events":
            table = pq.ParquetFile(tmp_path / file.path).read().drop_columns(["relation", "touch", "touch_before"])
            encoded = parquet.encode(table)
            path = file.path.replace("/dt=2026-09-22/", "/dt=2026-09-22/0")
            (tmp_path / path).write_bytes(encoded)
            made = File(
                "events", path, table.num_rows, len(encoded), chain.digest(encoded), 3, str(digest.of(table, "events"))
            )
            renamed[file.path] = made
    append(
        tmp_path,
        lambda state: chain.Retire(
            number=state.number + 1,
            predecessor=state.sha256,
            at_us=0,
            removes=[chain.Retired(path, "", file.rows) for path, file in renamed.items()],
            reason="older",
        ),
    )
    append(
        tmp_path,
        lambda state: chain.Land(
            number=state.number + 1,
            predecessor=state.sha256,
            at_us=0,
            ranges=[chain.Range("older", 0, 0, 1, [])],
            files=list(renamed.values()),
        ),
    )
    compactor(tmp_path, NOON_US + 60 * DAY_US).run()
    (events,) = (file for file in live(tmp_path) if file.table == "events")
    assert events.schema_version == SCHEMA_VERSION
    after = [json.loads(row) for row in contents(tmp_path)["events"]]
    newer = ("relation", "touch", "touch_before")
    assert [row[name] for row in after for name in newer] == [None] * 3 * len(after)
    assert [{**json.loads(row), **dict.fromkeys(newer)} for row in before["events"]] == after


def test_what_is_held_stays_as_it_is(tmp_path: Path) -> None:
    """Until it is released."""
    fill(tmp_path, 20, days=2)
    hold(tmp_path, first_day="2026-09-23", last_day="2026-09-23")
    held = [file.path for file in live(tmp_path) if file.days[0] == "2026-09-23"]
    compactor(tmp_path, NOON_US + 60 * DAY_US).run()
    assert [file.path for file in live(tmp_path) if file.days[0] == "2026-09-23"] == held
    release(tmp_path)
    before = contents(tmp_path)
    compactor(tmp_path, NOON_US + 60 * DAY_US).run()
    assert contents(tmp_path) == before
    assert len(live(tmp_path)) == 3


def test_what_was_altered_is_left_and_told(tmp_path: Path) -> None:
    """Nothing that its entry does not know is written anew as if it were evidence; other files are compacted."""
    fill(tmp_path, 8, days=2)
    victim = next(file for file in live(tmp_path) if file.table == "events")
    table = pq.ParquetFile(tmp_path / victim.path).read()
    pq.write_table(table.set_column(7, "principal", [["mallory"] * table.num_rows]), tmp_path / victim.path)
    done = compactor(tmp_path, NOON_US + 60 * DAY_US).run()
    assert [victim.path in why for why in done.refused] == [True]
    assert victim.path in {file.path for file in live(tmp_path)}
    assert {layout.level_of(file.path) for file in live(tmp_path) if file.table == "rows"} == {Level.MONTH}


def test_what_cannot_be_read_keeps_nobody_from_compacting_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector under one file: it is named, and the other tables are compacted all the same."""
    fill(tmp_path, 6)
    bad = next(file.path for file in live(tmp_path) if file.table == "events")
    opened = Folder.open

    def refuse(self: Folder, name: str) -> Any:
        if name == bad:
            raise OSError(errno.EIO, "Input/output error")
        return opened(self, name)

    monkeypatch.setattr(Folder, "open", refuse)
    done = compactor(tmp_path).run()
    assert [why.split(" (")[0] for why in done.refused] == [f"{bad} could not be read"]
    assert done.jobs == 2


def test_what_was_replaced_is_known_beside_entries_of_a_clock_that_was_behind(tmp_path: Path) -> None:
    """An entry that says it is years older than the files ends no search for who took them out."""
    fill(tmp_path, 8)
    compactor(tmp_path).run()
    hold(tmp_path)  # at the beginning of time
    release(tmp_path)
    listing = Listing(tmp_path)
    listing.refresh()
    assert listing.strange() == []
    assert compactor(tmp_path, time.time_ns() // 1000 + DAY_US).run().removed > 0


def test_a_folder_without_a_lake_is_refused(tmp_path: Path) -> None:
    """It says what to do."""
    with pytest.raises(NotInOrder, match="start a worker"):
        compactor(tmp_path).run()


def test_a_full_disk_is_tried_again(tmp_path: Path) -> None:
    """What was written of a job goes, and the next run does it."""
    fill(tmp_path, 8)
    before = contents(tmp_path)
    full = Disk({2: OSError(errno.ENOSPC, "No space left on device")})
    with pytest.raises(Retry, match=r"disk is full.*run it again"):
        compactor(tmp_path, files=full).run()
    assert contents(tmp_path) == before
    compactor(tmp_path).run()
    assert contents(tmp_path) == before


def test_wide_rows_are_held_and_written_in_smaller_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded in bytes and not in rows; what comes out is the same."""
    fill(tmp_path, 30, days=3)
    before = contents(tmp_path)
    monkeypatch.setattr(rewrite, "HELD_BYTES", 10_000)
    monkeypatch.setattr(rewrite, "BATCH_ROWS_MIN", 2)
    monkeypatch.setattr(rewrite, "GROUP_BYTES", 20_000)
    compactor(tmp_path, NOON_US + 60 * DAY_US).run()
    assert contents(tmp_path) == before
    (events,) = (file for file in live(tmp_path) if file.table == "events")
    assert pq.ParquetFile(tmp_path / events.path).num_row_groups > 1
    assert in_order(tmp_path, events)


def test_the_wider_rows_are_and_the_more_files_the_fewer_are_held(tmp_path: Path) -> None:
    """Within bounds."""
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.table({"x": [os.urandom(20_000) for _ in range(50)]}), path)
    wide = pq.ParquetFile(path).metadata
    assert rewrite.batch_rows(wide, 1, 1) > rewrite.batch_rows(wide, 1, 30) > rewrite.BATCH_ROWS_MIN
    assert rewrite.batch_rows(wide, 1, 10_000) == rewrite.BATCH_ROWS_MIN
    pq.write_table(pa.table({"x": [1]}), path)
    assert rewrite.batch_rows(pq.ParquetFile(path).metadata, 1, 1) == rewrite.BATCH_ROWS_MAX
