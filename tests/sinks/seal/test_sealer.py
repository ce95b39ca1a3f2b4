"""The sealer: what it signs, what it refuses, and what a kill leaves."""

from __future__ import annotations

import itertools
import os
import shutil
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgwitness.core.errors import Retry, Stop
from sinks.lake.log import chain
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake
from sinks.seal import place
from sinks.seal.place import sealed_to
from sinks.seal.verification.verify import Wanted, verify
from tests.sinks.material import NOON_US, Crash, Disk
from tests.sinks.seal.material import KEY, OTHER_KEY, checkpoint, grow, named, pad, sealer, verified


def live(lake: Path) -> list[Path]:
    """List the files that count."""
    listing = Listing(lake)
    listing.refresh()
    return [lake / file.path for file in listing.live()]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Make a lake of four entries that is sealed."""
    path = tmp_path / "lake"
    grow(path, range(3))
    assert sealer(path).round().entries == 4
    return path


def test_a_sealed_lake_is_in_order(lake: Path) -> None:
    """What was sealed verifies, and says how far."""
    report = verified(lake)
    assert report.findings == []
    assert (report.sealed_to, report.entries, report.chained_entries, report.rows) == (3, 4, 0, 6)
    assert sealed_to(lake / place.FOLDER, KEY.public()) == 3
    assert sealed_to(lake / place.FOLDER) == 3
    assert sealed_to(lake / "elsewhere") == -1
    with pytest.raises(ValueError, match="not signed by"):
        sealed_to(lake / place.FOLDER, OTHER_KEY.public())


def test_rounds_go_on_where_the_last_one_ended(lake: Path) -> None:
    """One process or many, the checkpoints are consistent, and the same for the same entries."""
    first, running = checkpoint(lake), sealer(lake)
    assert running.round().entries == 0
    assert checkpoint(lake) == first
    for number in range(3, 9):
        grow(lake, [number])
        pad(lake, 24)
        running.round()
    assert sealer(lake).round().checkpoint.size == 298
    assert running.round().entries == 0
    again = lake.parent / "again"
    shutil.copytree(lake, again, ignore=shutil.ignore_patterns("seal"))
    sealer(again, lake.parent / "other").round()
    assert checkpoint(again) == checkpoint(lake)
    report = verified(lake, first)
    assert report.findings == []


def test_what_is_not_sealed_is_said_and_found_when_it_is_old(lake: Path) -> None:
    """Entries behind the checkpoint are only chained: for a while that is no finding."""
    grow(lake, [7, 8])
    report = verified(lake, lag_us=0)
    assert report.findings == []
    assert (report.sealed_to, report.chained_entries, report.chained_rows) == (3, 2, 4)
    late = verified(lake, now_us=report.sealed_at_us + 61_000_000, lag_us=60_000_000)
    assert named(late) == {("unsealed", chain.entry_name(4))}


def test_nothing_is_signed_over_a_file_that_is_missing_or_altered(lake: Path) -> None:
    """A file that is new is looked at before its entry is sealed."""
    before, old = checkpoint(lake), set(live(lake))
    grow(lake, [7])
    file = next(path for path in live(lake) if path not in old)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Stop, match=r"has the SHA-256 .*: nothing is signed"):
        sealer(lake).round()
    file.unlink()
    with pytest.raises(Stop, match="is missing: nothing is signed"):
        sealer(lake).round()
    assert checkpoint(lake) == before
    file.write_bytes(content)
    assert sealer(lake).round().entries == 1


def test_a_lake_that_was_put_back_is_refused(lake: Path) -> None:
    """An older copy, with or without its seal, and with or without new entries, is never signed."""
    copy = lake.parent / "copy"
    shutil.copytree(lake, copy)
    running = sealer(lake)
    grow(lake, [7, 8])
    running.round()
    shutil.rmtree(lake)
    shutil.copytree(copy, lake)
    for one in (running, sealer(lake)):
        with pytest.raises(Stop, match="older copy of it was put back"):
            one.round()
    grow(lake, [9, 10, 11])
    with pytest.raises(Stop, match="older copy of it was put back"):
        sealer(lake).round()
    shutil.rmtree(lake / "seal")
    with pytest.raises(Stop, match="older copy of it was put back"):
        sealer(lake).round()


def test_a_hole_and_an_altered_entry_are_refused(lake: Path) -> None:
    """Entries that are missing or do not follow are not signed."""
    grow(lake, [7, 8])
    entry = lake / chain.entry_name(4)
    content = entry.read_bytes()
    entry.unlink()
    with pytest.raises(Stop, match=r"004.json is missing although entry 5"):
        sealer(lake).round()
    entry.write_bytes(content.replace(b"at_us", b"at_uz"))
    with pytest.raises(Stop, match="not an entry"):
        sealer(lake).round()
    entry.write_bytes(content)
    assert sealer(lake).round().entries == 2


def test_a_torn_log_is_made_again_of_entries_that_have_its_root(lake: Path) -> None:
    """Tiles that are gone or altered are written anew; the checkpoint stays."""
    before = checkpoint(lake)
    for path in sorted(path for path in (lake / "seal" / "tile").rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.write_bytes(b"\0" * len(content))
        sealer(lake).round()
        assert path.read_bytes() == content
        path.unlink()
        sealer(lake).round()
        assert path.read_bytes() == content
    assert checkpoint(lake) == before
    assert verified(lake, before).findings == []


def test_another_key_and_an_altered_checkpoint_are_refused(lake: Path) -> None:
    """The sealer goes on from nothing that its own key did not sign."""
    with pytest.raises(Stop, match="is not signed by"):
        sealer(lake, key=OTHER_KEY).round()
    (lake / "seal" / "checkpoint").write_bytes(checkpoint(lake).replace(b"\n4\n", b"\n3\n"))
    with pytest.raises(Stop, match="was altered"):
        sealer(lake).round()


def test_a_lake_without_entries_is_waited_for(tmp_path: Path) -> None:
    """There is nothing to sign yet."""
    with pytest.raises(Retry, match="has no entry yet"):
        sealer(tmp_path / "lake").round()


def test_a_kill_anywhere_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    """Each operation on the disk is the last one once; what was signed stays true, and the next process goes on."""
    base = tmp_path / "base"
    grow(base / "lake", range(5))
    pad(base / "lake", 124)
    assert sealer(base / "lake").round().checkpoint.size == 254
    grow(base / "lake", range(5, 9))
    for step in range(1, 200):
        one = tmp_path / str(step)
        shutil.copytree(base, one)
        disk = Disk({step: Crash()})
        before = checkpoint(one / "lake")
        try:
            sealer(one / "lake", files=disk).round()
        except Crash:
            signed = one / "memory" / "checkpoint"
            known = signed.read_bytes()
            done = sealer(one / "lake").round()
            assert verified(one / "lake", before, known, done.note).findings == []
            assert done.checkpoint.size == 258
            shutil.rmtree(one)
            continue
        assert step > 20
        return
    pytest.fail("it does not end")


def test_verifying_a_lake_that_grows_finds_nothing(tmp_path: Path) -> None:
    """A worker that commits and a sealer that signs meanwhile are no alterations."""
    path = tmp_path / "lake"
    grow(path, range(3))
    running = sealer(path)
    first = running.round().note
    stop = threading.Event()

    def work() -> None:
        for number in itertools.count(10):
            if stop.is_set():
                return
            grow(path, [number])
            running.round()

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work)
        try:
            for _ in range(15):
                assert verified(path, first, lag_us=10**15).findings == []
        finally:
            stop.set()
        working.result()
    assert verified(path, first).findings == []


def test_files_of_the_log_that_are_ahead_of_the_checkpoint_are_no_finding(lake: Path) -> None:
    """A sealer that was killed has written them; a later one signs."""
    grow(lake, [7])
    disk = Disk()
    sealer(lake, files=disk).round()
    copy = lake.parent / "killed"
    shutil.copytree(lake, copy)
    before = (lake.parent / "memory" / "checkpoint").read_bytes()
    grow(copy, [8])
    sealer(copy, lake.parent / "other").round()
    (copy / "seal" / "checkpoint").write_bytes(before)
    assert verified(copy, before).findings == []
    (copy / "seal" / "tile" / "0" / "000.p" / "6").write_bytes(bytes(6 * 32))
    assert named(verified(copy, before)) == {("altered", "seal/tile/0/000.p/6")}


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b"{}", b"", b'{"kind":"land"}', b"9" * 400])
def test_hostile_bytes_are_findings_and_nothing_is_signed_over_them(lake: Path, content: bytes) -> None:
    """Wherever they stand in what is not sealed yet, or sums it up."""
    grow(lake, [7])
    for name in (chain.entry_name(4), "head.json", "_snapshots/tail-000000000004.json"):
        right = (lake / name).read_bytes()
        (lake / name).write_bytes(content)
        assert named(verified(lake)) & {(kind, name) for kind in ("altered", "forged", "missing", "rolled_back")}
        if name.startswith("_log"):
            with pytest.raises(Stop):
                sealer(lake).round()
        (lake / name).write_bytes(right)
    assert verified(lake).findings == []


def test_a_name_that_is_no_text_is_named(lake: Path) -> None:
    """A file's name may be any bytes."""
    (Path(os.fsdecode(os.fsencode(lake / "events") + b"/\xff\x1b[2J"))).write_bytes(b"x")
    ((kind, subject),) = named(verified(lake))
    assert (kind, subject) == ("added", "events/\\xff\x1b[2J")


def test_a_lake_of_version_0_1_that_was_taken_over_is_sealed(tmp_path: Path) -> None:
    """Entry 0 has its files; its manifests are read by nobody."""
    with tarfile.open(Path(__file__).parent.parent / "lake-0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    path = tmp_path / "lake"
    Lake(path).prepare()
    sealer(path).round()
    report = verified(path, rows=True)
    assert report.findings == []
    assert report.rows > 0


def test_pipes_and_endless_files_keep_nobody_waiting(lake: Path) -> None:
    """Who can write the lake cannot stop who verifies it."""
    file = live(lake)[0]
    content = file.read_bytes()
    with file.open("ab") as opened:
        opened.truncate(10**13)
    assert named(verified(lake)) == {("altered", str(file.relative_to(lake)))}
    file.write_bytes(content)
    with (lake / "events" / "endless").open("wb") as opened:
        opened.truncate(10**13)
    assert named(verified(lake)) == {("added", "events/endless")}
    (lake / "events" / "endless").unlink()
    grow(lake, [7])
    for name in ("events/pipe", chain.entry_name(4), "head.json", "seal/checkpoint", str(file.relative_to(lake))):
        kept = (lake / name).read_bytes() if (lake / name).exists() else None
        (lake / name).unlink(missing_ok=True)
        os.mkfifo(lake / name)
        assert ("altered", name) in named(verified(lake))
        (lake / name).unlink()
        if kept is not None:
            (lake / name).write_bytes(kept)
    assert verified(lake).findings == []


def test_an_entry_that_is_too_long_is_refused(lake: Path) -> None:
    """No log takes it."""
    grow(lake, [7])
    entry = lake / chain.entry_name(4)
    entry.write_bytes(entry.read_bytes() + b" " * 60_000)
    with pytest.raises(Stop, match="longer than an entry can be"):
        sealer(lake).round()


def test_a_file_without_a_whole_checkpoint_is_no_anchor(lake: Path) -> None:
    """What was remembered has to be read to count."""
    key = KEY.public()
    report = verify(lake, Wanted(key, NOON_US, remembered=(("kept", b'{"lake":'),)))
    assert named(report) == {("unanchored", "checkpoint")}
