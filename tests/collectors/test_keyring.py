"""Which key may have signed what: rotated, lost and unknown keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.beacon.keyring import KEYS_MAX, OLDER_US, UNDER_WAY_US, Key, Keyring
from collectors.wal.beacons import keys

FIRST = Key(key=b"1" * 32, number=1, made_lsn=100, made_xid=10, made_at_us=1_000)
SECOND = Key(key=b"2" * 32, number=2, made_lsn=200, made_xid=20, made_at_us=2_000)
LATER = SECOND.made_at_us + UNDER_WAY_US + 1


@pytest.mark.parametrize(
    ("lsn", "xid", "committed_at_us", "right"),
    [
        (150, 15, 1_500, [FIRST]),
        (250, 25, 2_500, [SECOND, FIRST]),
        (250, 25, LATER, [SECOND]),
        (250, 15, LATER, [SECOND, FIRST]),
        (250, (1 << 32) - 5, LATER, [SECOND, FIRST]),
        (250, 15, SECOND.made_at_us + OLDER_US + 1, [SECOND]),
        (50, 5, 500, []),
        (199, 5, LATER * 100, [FIRST]),
    ],
)
def test_a_rotated_key_holds_for_what_was_under_way(lsn: int, xid: int, committed_at_us: int, right: list[Key]) -> None:
    """Before the rotation always, shortly after it for all, longer for whom it met in a transaction, then no more."""
    ring = Keyring([SECOND, FIRST])
    assert ring.usable(lsn, xid, committed_at_us) == right
    assert ring.knows(lsn) == bool(right)


def test_a_lost_key_holds_on() -> None:
    """A key that a crash took signed what is still unread, and open sessions go on with one that was deleted."""
    ring = Keyring([FIRST])
    assert not ring.take([])
    assert ring.keys == [FIRST]
    again = Key(key=b"3" * 32, number=1, made_lsn=300, made_xid=30, made_at_us=3_000)
    assert ring.take([again])
    assert not ring.take([again])
    assert ring.usable(400, 40, LATER * 100) == [again, FIRST]
    assert ring.usable(250, 25, LATER) == [FIRST]


def test_keys_of_a_later_state_retire_nothing() -> None:
    """A server that was put back to an earlier state has the key of then, which is in force again."""
    ring = Keyring([SECOND, FIRST])
    assert ring.take([FIRST])
    assert ring.usable(150, 15, LATER * 100) == [FIRST]


def test_they_are_bounded() -> None:
    """Of many rotations the newest keys are known."""
    ring = Keyring()
    for number in range(50):
        assert ring.take([Key(key=bytes([number]) * 32, number=number)])
    assert [key.number for key in ring.keys] == list(range(49, 49 - KEYS_MAX, -1))


def test_they_are_kept_for_one_system_and_one_reader(tmp_path: Path) -> None:
    """The file is its owner's alone, holds the keys of one system, and damage is as if there were none."""
    path = tmp_path / "wal" / "shop.keys"
    keys.remember(path, "7", Keyring([SECOND, FIRST]))
    keys.remember(path, "7", Keyring([SECOND, FIRST]))
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.recall(path, "7").keys == [SECOND, FIRST]
    assert keys.recall(path, "8").keys == []
    path.write_bytes(path.read_bytes()[:40])
    assert keys.recall(path, "7").keys == []
