"""A disk that takes nothing more, a folder that is gone or closed: the collectors say so, wait, and lose nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from msgspec import Struct

from collectors.beacon.keyring import Keyring
from collectors.sessions.collector import run as sessions
from collectors.statefile import StateFile
from collectors.stats.collector import run as stats
from collectors.wal.assembly.held import Body, Held
from collectors.wal.beacons import keys
from collectors.wal.database import slot
from pgwitness.core.config import Config
from pgwitness.core.errors import Retry
from pgwitness.core.events import Posture, Session
from pgwitness.core.runtime.disk import read_whole, write_whole
from pgwitness.demo.servers import Broker, wait_for
from tests.collectors.raw_topic import bench
from tests.collectors.wal_source import MARK, Source, rows


class Count(Struct):
    """A state."""

    number: int


class Closed:
    """A folder that somebody has put a file in the place of; what was in it comes back at the end of the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._aside = folder.with_name(folder.name + ".aside")

    def __enter__(self) -> None:
        self._folder.rename(self._aside)
        self._folder.touch()

    def __exit__(self, *_: object) -> None:
        self._folder.unlink()
        self._aside.rename(self._folder)


def test_what_cannot_be_read_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Damage in a state begins anew with its reason; a file that is only out of reach is tried again, as it was."""
    file = StateFile(tmp_path / "state", "stats", Count)
    file.store(Count(7))
    slot.remember(tmp_path / "state" / "memory", slot.Memory(system_id="7", confirmed=9))
    keys.remember(tmp_path / "state" / "keys", "7", Keyring())
    with Closed(tmp_path / "state"):
        for attempt in (
            file.load,
            lambda: file.store(Count(8)),
            lambda: slot.recover(tmp_path / "state" / "memory", "shop", 5),
            lambda: keys.recall(tmp_path / "state" / "keys", "7"),
        ):
            with pytest.raises(Retry, match=r"state.* cannot be (read|written) \(.*it is tried again"):
                attempt()
    assert (file.load(), file.problem) == (Count(7), None)
    assert slot.recover(tmp_path / "state" / "memory", "shop", 5).confirmed == 9
    file.path.write_bytes(b"{")
    assert file.load() is None
    assert "stats.json" in (file.problem or "")


def test_a_memory_of_the_slot_that_is_damaged_is_a_gap(tmp_path: Path) -> None:
    """Witnessing goes on; that what was missed before may go unnoticed is written down."""
    path = tmp_path / "memory"
    slot.remember(path, slot.Memory(system_id="7", confirmed=9))
    path.write_bytes(path.read_bytes()[:10])
    (gap,) = slot.recover(path, "shop", 5).gaps
    assert (gap.reason, gap.database, gap.captured_at_us) == ("collector_state_lost", "shop", 5)


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused says what to do, and no half of a file takes the place of a whole one."""
    path = tmp_path / "file"
    write_whole(path, b"old")
    for number, word in (
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "right"),
        (errno.EROFS, "mounted read-only"),
        (errno.EMFILE, "LimitNOFILE"),
        (errno.EIO, "look at the disk"),
    ):

        def full(_: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(Retry, match=word):
            write_whole(path, b"new")
        assert read_whole(path) == b"old"


def test_a_spool_without_room_is_tried_again(tmp_path: Path) -> None:
    """A transaction that waits for its beacon is no transaction that cannot be read: it must never be passed over."""
    (tmp_path / "spool").touch()
    held = Held(tmp_path / "spool", 100, 1_000_000)
    with pytest.raises(Retry, match="spool cannot be written"):
        held.add(Body(0, 1, b"", b"", b"x" * 200))


def test_a_position_that_cannot_be_written_stays_and_the_stream_goes_on(source18: Source) -> None:
    """Rows still arrive, the server keeps its WAL, readiness says why; with room again the position moves on."""
    source18.create(MARK, "CREATE TABLE item (id int PRIMARY KEY)")
    folder = source18.bench.config.collectors.state_path / "wal"
    not_ready = source18.bench.health.not_ready
    with source18.running() as raised:
        source18.streaming()
        source18.until_marked()
        end = source18.position()
        wait_for(lambda: source18.confirmed() >= end, 30, "what came before is confirmed")
        with Closed(folder):
            source18.sql.execute("INSERT INTO item VALUES (1)")
            begun = source18.position()
            source18.until_marked()
            wait_for(lambda: any("cannot be written" in why for why in not_ready()), 30, "readiness says so")
            assert source18.confirmed() < begun
        end = source18.position()
        wait_for(lambda: source18.confirmed() >= end, 30, "the position moves on")
        assert not any("cannot be written" in why for why in not_ready())
        found = source18.until_marked()
    assert raised == []
    assert [row[2] for row in rows(found)] == [{"id": 1}]


def test_other_collectors_wait_or_go_on(
    embedded_broker: Broker, database18: str, config_factory: Callable[..., Config], tmp_path: Path
) -> None:
    """Statistics are read again later, from where they stood; sessions are watched on, and posture is told when it can
    be remembered. None of them ends the daemon, however the folder and the looks fall together."""
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION pg_stat_statements")
    config = config_factory(tmp_path, embedded_broker.bootstrap, database18)
    config.collectors.state_path.mkdir()
    role = f"came_meanwhile_{os.getpid()}"
    with bench(config) as made:
        with Closed(config.collectors.state_path), made.running(stats) as raised:
            wait_for(lambda: bool(raised), 30, "it cannot begin")
        assert isinstance(raised[0], Retry)
        why = made.health.not_ready
        with psycopg.connect(database18, autocommit=True) as admin, made.running(sessions) as raised:
            made.raw.wait(lambda: bool(made.raw.of(Session) and made.raw.of(Posture)), "the first looks")
            with Closed(config.collectors.state_path):
                admin.execute(f"CREATE ROLE {role}")
                wait_for(lambda: any("cannot be" in text for text in why()) or raised, 30, "readiness says so")
                with psycopg.connect(database18) as another:
                    pid = another.info.backend_pid
                    made.raw.wait(lambda: any(e.pid == pid for e in made.raw.of(Session)), "who came meanwhile")
                posture = [event.name for event in made.raw.of(Posture)]
            wait_for(lambda: not why(), 30, "all is well again")
            made.raw.wait(lambda: any(event.name == role for event in made.raw.of(Posture)), "the role")
        assert raised == []
        assert role not in posture
