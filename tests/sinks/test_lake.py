"""The lake: resume, append and commit; what comes twice, too early, too late, or from two writers."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from pgwitness.core.errors import Retry, Stop, Superseded
from pgwitness.core.events import Position
from sinks.lake.log import chain
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake, PartitionWriter
from tests.sinks.material import (
    DAY_US,
    NOON_US,
    ORDINARY,
    Disk,
    Finding,
    Judgement,
    change,
    entries,
    landed,
    lands,
    other,
)


def writer(path: Path, disk: Disk | None = None) -> PartitionWriter:
    """Open the lake and resume partition 0."""
    made = Lake(path, files=disk).writer("events", 0)
    made.resume()
    return made


def put(into: PartitionWriter, offset: int, *numbers: int, lane: int = 0) -> None:
    """Append a record with these transactions."""
    into.append(offset, [change(number) for number in numbers], [ORDINARY] * len(numbers), lane)


def numbers(path: Path) -> list[int]:
    """Give the transactions that readers see."""
    return sorted(row["xid"] - 1_000 for row in landed(path))


def attempt(lake: PartitionWriter) -> str | None:
    """Commit; gives why that is to be tried again, None when it was done."""
    try:
        lake.commit()
    except Retry as error:
        return str(error)
    return None


def strange(path: Path) -> list[str]:
    """Give what lies in the lake and is not of it: files in no entry, and what was being written."""
    listing = Listing(path)
    listing.refresh()
    return listing.strange() + [str(one) for one in (path / "_staging").iterdir()]


def test_a_new_lake_starts_at_the_beginning_and_is_readable(tmp_path: Path) -> None:
    """Before anything has landed a lake has its folders, the empty files with the columns, and `views.sql`."""
    assert Lake(tmp_path / "lake").writer("events", 0).resume() == (0, {})
    assert landed(tmp_path / "lake") == []
    assert (tmp_path / "lake" / "views.sql").read_text().startswith("-- The views of pgwitness")


def test_nothing_is_seen_before_the_commit_and_all_of_it_after(tmp_path: Path) -> None:
    """Readers see appended events only after the commit; the next writer goes on behind them."""
    first = writer(tmp_path)
    put(first, 7, 1, 2)
    assert (first.rows, numbers(tmp_path)) == (2, [])
    first.commit()
    assert (first.rows, numbers(tmp_path)) == (0, [1, 2])
    assert Lake(tmp_path).writer("events", 0).resume() == (8, {(0, 0): Position(0, 2, 0)})


def test_a_replay_of_events_under_new_offsets_is_dropped(tmp_path: Path) -> None:
    """Events at or below the high-water mark of their lane and raw partition have landed and are dropped."""
    lake = writer(tmp_path)
    put(lake, 0, 1, 2)
    lake.commit()
    lake = writer(tmp_path)
    put(lake, 1, 1, 2, 3)
    put(lake, 2, 3, 4)
    lake.commit()
    assert numbers(tmp_path) == [1, 2, 3, 4]


def test_a_replay_from_an_earlier_offset_is_dropped(tmp_path: Path) -> None:
    """Records that have landed may be appended again, with or without a commit between."""
    lake = writer(tmp_path)
    put(lake, 0, 1)
    put(lake, 1, 2)
    put(lake, 0, 1)
    lake.commit()
    put(lake, 0, 1)
    put(lake, 1, 2)
    put(lake, 2, 3)
    lake.commit()
    assert numbers(tmp_path) == [1, 2, 3]


def test_lanes_and_raw_partitions_do_not_hide_each_other(tmp_path: Path) -> None:
    """Positions grow only within a lane and a raw partition: a lower one from elsewhere is new."""
    lake = writer(tmp_path)
    put(lake, 0, 5, lane=1)
    put(lake, 1, 3, lane=2)
    lake.append(2, [change(4, at=Position(1, 1, 0))], [ORDINARY], 1)
    lake.commit()
    lake = writer(tmp_path)
    put(lake, 3, 5, lane=1)
    put(lake, 4, 4, lane=2)
    lake.commit()
    assert numbers(tmp_path) == [3, 4, 4, 5]


def test_a_range_of_nothing_but_duplicates_is_committed(tmp_path: Path) -> None:
    """An entry without files moves the offset on, so that the range is not read for ever."""
    lake = writer(tmp_path)
    put(lake, 0, 1)
    lake.commit()
    put(lake, 1, 1)
    lake.append(2, [], [])
    lake.commit()
    assert Lake(tmp_path).writer("events", 0).resume()[0] == 3
    _, entry = lands(tmp_path)
    (landed_range,) = entry.ranges
    assert (landed_range.start, landed_range.end, entry.files) == (1, 3, [])


def test_a_commit_without_anything_appended_does_nothing(tmp_path: Path) -> None:
    """There is no entry for an empty range of offsets."""
    lake = writer(tmp_path)
    lake.commit()
    assert lands(tmp_path) == []


def test_new_events_at_a_landed_offset_stop_the_writer(tmp_path: Path) -> None:
    """A topic that was made anew is not taken for a replay: going on would lose its events."""
    lake = writer(tmp_path)
    put(lake, 5, 1)
    lake.commit()
    with pytest.raises(Stop, match="made anew"):
        put(lake, 0, 2)


def test_of_two_writers_one_wins_and_the_other_resumes_behind_it(tmp_path: Path) -> None:
    """The loser's files vanish, nothing of its range is seen twice, and after resuming it goes on."""
    first, second = writer(tmp_path), writer(tmp_path)
    put(first, 0, 1)
    put(second, 0, 1)
    put(second, 1, 2)
    first.commit()
    with pytest.raises(Superseded, match="another worker"):
        second.commit()
    assert numbers(tmp_path) == [1]
    assert strange(tmp_path) == []
    assert second.resume()[0] == 1
    put(second, 1, 2)
    second.commit()
    put(first, 1, 2)
    with pytest.raises(Superseded):
        first.commit()
    assert numbers(tmp_path) == [1, 2]


def test_a_second_writer_at_any_moment_of_a_commit_changes_nothing(tmp_path: Path) -> None:
    """Whenever another writer resumes and commits the same range, the range lands once and is complete."""
    dry = Disk()
    probe = writer(tmp_path / "probe", dry)
    begun = dry.steps
    put(probe, 0, 1, 2)
    probe.commit()
    for step in range(begun + 1, dry.steps + 1):
        path = tmp_path / str(step)

        def race(path: Path = path) -> None:
            rival = Lake(path).writer("events", 0)
            start, _ = rival.resume()
            for offset, transaction in ((0, 1), (1, 3)):
                if offset >= start:
                    put(rival, offset, transaction)
            rival.commit()

        slow = writer(path, Disk({step: race}))
        put(slow, 0, 1, 2)
        try:
            slow.commit()
        except Superseded:
            start, _ = slow.resume()
            assert start > 0
        assert len(numbers(path)) == len(set(numbers(path))), step
        assert 1 in numbers(path), step
        assert 3 in numbers(path), step
        assert strange(path) == [], step


def test_a_resume_at_any_moment_does_not_take_away_what_another_is_committing(tmp_path: Path) -> None:
    """A writer that only resumes, then stays behind, leaves the staged files of a slower one alone."""
    dry = Disk()
    probe = writer(tmp_path / "probe", dry)
    begun = dry.steps
    put(probe, 0, 1)
    probe.commit()
    for step in range(begun + 1, dry.steps + 1):
        path = tmp_path / str(step)
        slow = writer(path, Disk({step: lambda path=path: writer(path)}))  # type: ignore[misc]
        put(slow, 0, 1)
        slow.commit()
        assert numbers(path) == [1], step


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "make room"), (errno.EACCES, "right to write"), (errno.EIO, "look at the disk")],
)
def test_a_disk_that_refuses_shows_nothing_half_and_loses_nothing(tmp_path: Path, code: int, advice: str) -> None:
    """At whatever operation of a commit the disk refuses, the error says what to do; the same call succeeds later.

    It may also have succeeded at once: a file that cannot be tidied away, or an error for what was done.
    """
    dry = Disk()
    probe = writer(tmp_path / "probe", dry)
    begun = dry.steps
    put(probe, 0, 1, 2)
    probe.commit()
    refused = 0
    for step in range(begun + 1, dry.steps + 1):
        path = tmp_path / str(step)
        lake = writer(path, Disk({step: OSError(code, "scripted")}))
        put(lake, 0, 1, 2)
        why = attempt(lake)
        if why is None:
            assert numbers(path) == [1, 2], step
            continue
        refused += 1
        assert advice in why, step
        assert numbers(path) in ([], [1, 2]), step
        put(lake, 1, 3)
        lake.commit()
        assert numbers(path) == [1, 2, 3], step
        assert [name for name in strange(path) if name.endswith(".parquet")] == [], step
    assert refused > 10


def test_what_a_crash_left_half_written_goes_after_a_day(tmp_path: Path) -> None:
    """What another worker is writing at the moment stays."""
    writer(tmp_path)
    for name, age_s in (("old", 2 * 86_400), ("new", 60)):
        (tmp_path / "_staging" / name).write_text("")
        os.utime(tmp_path / "_staging" / name, (time.time() - age_s,) * 2)
    writer(tmp_path)
    assert [path.name for path in (tmp_path / "_staging").iterdir()] == ["new"]


def test_a_lake_that_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    """A path under a file is refused by the operating system, and the error names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Retry, match="file/lake"):
        Lake(tmp_path / "file" / "lake").writer("events", 0).resume()
    with pytest.raises(Retry, match="file/lake"):
        Lake(tmp_path / "file" / "lake").prepare()


def test_a_hostile_event_is_refused_and_those_beside_it_land(tmp_path: Path) -> None:
    """What cannot be written is named by its place and leaves nothing behind; the rest of its record is taken."""
    lake = writer(tmp_path)
    put(lake, 0, 1)
    bad = change(3, [0, "x", 0, None, None, None, None])
    ((place, why),) = lake.append(1, [change(2), bad, change(4)], [ORDINARY] * 3, 0)
    assert (place, why.reason) == (1, "wrong_rows")
    put(lake, 2, 5)
    lake.commit()
    assert numbers(tmp_path) == [1, 2, 4, 5]
    assert Lake(tmp_path).writer("events", 0).resume()[0] == 3


def test_files_lie_in_the_folder_of_their_utc_day(tmp_path: Path) -> None:
    """Midnight UTC of the time of capture divides the days, for rows and alerts as for events."""
    midnight = NOON_US - NOON_US % DAY_US + DAY_US
    lake = writer(tmp_path)
    before = change(1, captured_at_us=midnight - 1)
    after = change(2, captured_at_us=midnight)
    alert = Judgement(alerts=[Finding("a", {"finding_info": {"title": "t"}})])
    lake.append(0, [before, after], [alert, alert])
    lake.commit()
    for table in ("events", "rows", "alerts"):
        days = sorted(file.days[0] for file in lands(tmp_path)[0].files if file.table == table)
        assert days == ["2026-09-22", "2026-09-23"]
    assert numbers(tmp_path) == [1, 2]


def test_entries_form_a_chain_and_name_every_file_with_its_hash(tmp_path: Path) -> None:
    """Each entry carries its predecessor's hash, and rows, bytes and SHA-256 of its files are true."""
    lake = writer(tmp_path)
    for offset in range(3):
        put(lake, offset, offset + 1)
        lake.commit()
    assert [type(entry).__name__ for entry in entries(tmp_path)] == ["Begin", "Land", "Land", "Land"]
    for start, entry in enumerate(lands(tmp_path)):
        assert [(one.start, one.end) for one in entry.ranges] == [(start, start + 1)]
        assert [file.table for file in entry.files] == ["events", "rows"]
        for file in entry.files:
            stored = (tmp_path / file.path).read_bytes()
            assert (file.bytes, file.sha256, file.rows) == (len(stored), chain.digest(stored), 1)


def test_all_partitions_land_in_one_commit_and_share_its_files(tmp_path: Path) -> None:
    """One entry and one file a table and day, whatever the number of partitions; each resumes from its own end."""
    lake = Lake(tmp_path)
    writers = [lake.writer("events", number) for number in range(3)]
    for number, one in enumerate(writers):
        one.resume()
        put(one, number, number + 1, lane=number)
    lake.commit(writers)
    (entry,) = lands(tmp_path)
    assert [(one.partition, one.start, one.end) for one in entry.ranges] == [(0, 0, 1), (1, 0, 2), (2, 0, 3)]
    assert [file.table for file in entry.files] == ["events", "rows"]
    assert numbers(tmp_path) == [1, 2, 3]
    found = [(row["source"], row["source_offset"], row["source_index"]) for row in landed(tmp_path)]
    assert found == [("events-0", 0, 0), ("events-1", 1, 0), ("events-2", 2, 0)]
    assert [Lake(tmp_path).writer("events", number).resume()[0] for number in range(3)] == [1, 2, 3]


def test_a_partition_that_moved_is_left_out_of_the_common_commit(tmp_path: Path) -> None:
    """The others land, in files without its rows; whoever commits is told which it was."""
    lake = Lake(tmp_path)
    writers = [lake.writer("events", number) for number in range(2)]
    rival = Lake(tmp_path).writer("events", 1)
    for one in (*writers, rival):
        one.resume()
    put(rival, 0, 2)
    rival.commit()
    put(writers[0], 0, 1)
    put(writers[1], 0, 2)
    with pytest.raises(Superseded, match=r"^events-1: another worker"):
        lake.commit(writers)
    assert numbers(tmp_path) == [1, 2]
    assert strange(tmp_path) == []
    assert [one.resume()[0] for one in writers] == [1, 1]


def test_a_commit_that_was_not_answered_is_recognised_however_late_it_comes(tmp_path: Path) -> None:
    """The entry turns up after the error: the next commit finds it, and only adds what was appended since."""
    disk = Disk()
    lake = writer(tmp_path, disk)
    put(lake, 0, 1)
    late: list[tuple[Path, bytes]] = []

    def lose(source: Path, target: Path) -> None:
        late.append((target, source.read_bytes()))
        raise OSError(errno.EIO, "no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "link", lose)
        with pytest.raises(Retry):
            lake.commit()
    target, content = late[0]
    target.write_bytes(content)
    put(lake, 1, 2)
    lake.commit()
    assert numbers(tmp_path) == [1, 2]
    assert [one.ranges[0].start for one in lands(tmp_path)] == [0, 1]


def test_a_long_list_of_files_lies_beside_its_entry(tmp_path: Path) -> None:
    """An entry stays below what a log of transparency takes; what it leaves out is named by its hash and checked."""
    lake = writer(tmp_path)
    for day in range(400):
        lake.append(day, [change(day + 1, captured_at_us=NOON_US + day * DAY_US)], [ORDINARY])
    lake.commit()
    (entry,) = lands(tmp_path)
    assert entry.files == []
    assert entry.more is not None
    assert len((tmp_path / chain.entry_name(1)).read_bytes()) < 1_000
    assert len(numbers(tmp_path)) == 400
    (tmp_path / chain.more_name(entry.more)).write_bytes(b"{}")
    shutil.rmtree(tmp_path / "_snapshots")
    with pytest.raises(Stop, match="missing or altered"):
        writer(tmp_path)


def test_partitions_share_a_lake_and_keep_their_own_chains(tmp_path: Path) -> None:
    """Partitions whose names begin alike do not take each other's entries or files for theirs."""
    lake = Lake(tmp_path)
    for place, (topic, partition) in enumerate([("events", 1), ("events", 11), ("events-1", 1), ("p.events", 1)]):
        one = lake.writer(topic, partition)
        assert one.resume()[0] == 0
        put(one, place, place + 1)
        one.commit()
    assert numbers(tmp_path) == [1, 2, 3, 4]
    assert lake.writer("events-1", 1).resume()[0] == 3


@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("how", ["damaged", "missing", "of another chain"])
def test_a_chain_that_is_not_whole_stops_writers_and_readers(tmp_path: Path, number: int, how: str) -> None:
    """Whatever entry it is: nothing goes on behind it, and without a snapshot nothing is read past it."""
    lake = writer(tmp_path)
    for offset in range(4):
        put(lake, offset, offset + 1)
        lake.commit()
    entry = tmp_path / chain.entry_name(number)
    if how == "damaged":
        entry.write_text("{")
    elif how == "missing":
        entry.unlink()
    else:
        entry.write_text(entry.read_text().replace('"at_us":1', '"at_us":2'))
    shutil.rmtree(tmp_path / "_snapshots")
    says = {"damaged": "not an entry", "missing": "is missing although entry 4 is there", "of another chain": "follow"}
    with pytest.raises(Stop, match=says[how]):
        writer(tmp_path)
    with pytest.raises(Stop, match=says[how]):
        Listing(tmp_path).refresh()


def test_an_entry_of_a_newer_program_stops_this_one(tmp_path: Path) -> None:
    """It says to update."""
    lake = writer(tmp_path)
    put(lake, 0, 1)
    lake.commit()
    (tmp_path / chain.entry_name(2)).write_text('{"kind":"surprise","format":"pgwitness-lake/3"}')
    with pytest.raises(Stop, match="update pgwitness"):
        writer(tmp_path)


def test_resuming_does_not_read_the_chain_from_its_beginning(tmp_path: Path) -> None:
    """Behind any number of entries: the snapshot, the entries since, and no other."""
    lake = Lake(tmp_path, files=Disk())
    one = lake.writer("events", 0)
    one.resume()
    for offset in range(300):
        one.append(offset, [], [])
        one.commit()
    read: list[str] = []
    again = Lake(tmp_path)
    real = again.store.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(again.store, "read", lambda name: read.append(name) or real(name))
        assert again.writer("events", 0).resume()[0] == 300
    assert len([name for name in read if name.startswith("_log/")]) < 10


def test_a_full_buffer_says_so(tmp_path: Path) -> None:
    """`full` holds from the bound in rows on, and no longer after the commit."""
    lake = Lake(tmp_path).writer("events", 0, rows_max=3)
    lake.resume()
    put(lake, 0, 1, 2)
    assert not lake.full
    put(lake, 1, 3)
    assert lake.full
    lake.commit()
    assert not lake.full


def test_equal_input_gives_equal_files(tmp_path: Path) -> None:
    """The bytes of a file follow from its events alone, so that a copy can be checked by making it again."""
    hashes = []
    for name in ("a", "b"):
        lake = writer(tmp_path / name)
        put(lake, 0, 1, 2, 3)
        lake.append(1, [other(9)], [ORDINARY])
        lake.commit()
        (entry,) = lands(tmp_path / name)
        hashes.append([file.sha256 for file in entry.files])
    assert hashes[0] == hashes[1]


def test_a_value_that_fails_at_the_commit_is_found_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no column takes and nobody foresaw fails one commit; the writer after it sets aside that event alone."""
    from sinks.lake.rows.columns import Columns

    tables = Columns.tables

    def fail(columns: Columns) -> object:
        if any("bad" in event_id for event_id in columns._pending.ids):
            raise OverflowError("a number that nobody foresaw")
        return tables(columns)

    monkeypatch.setattr(Columns, "tables", fail)
    lake = Lake(tmp_path)
    bad = msgspec.structs.replace(change(2), event_id="bad")
    for attempt in range(2):
        one = lake.writer("events", 0)
        one.resume()
        refused = one.append(0, [change(1), bad, change(3)], [ORDINARY] * 3, 0)
        if attempt == 0:
            assert refused == []
            with pytest.raises(OverflowError):
                one.commit()
    assert [(place, why.reason) for place, why in refused] == [(1, "failed")]
    one.commit()
    assert numbers(tmp_path) == [1, 3]
    assert lake.careful == set()
