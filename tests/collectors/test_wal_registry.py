"""Whether a table was asked for and carried a beacon when a transaction committed, by readings of before and after."""

from __future__ import annotations

import pytest

from collectors.wal.database.catalogue import Horizon, Horizons
from collectors.wal.database.listing import Asked
from collectors.wal.database.registry import Covered, Reading, Registry
from collectors.wal.decoding.described import Belongs

OLD, NEW = 7, 8
"""Tables: one that is older than all that happens here, and one that is made in it."""


def reading(lsn: int, covered: dict[int, Covered] | None, *globs: str, xid: int = 5, paused: bool = False) -> Reading:
    """Give what was read while the WAL stood at `lsn`."""
    asked = Asked(globs or ("*",), xid)
    return Reading(before_lsn=lsn, after_lsn=lsn + 1, asked=asked, paused=paused, covered=covered)


def registry(*, asked: tuple[Asked, ...] = ()) -> Registry:
    """Make one that knows that at 100 all transactions below 50 had ended."""
    return Registry(Horizons(Horizon(100, 50)), asked)


def of(made: Registry, commit_lsn: int, *, oid: int = OLD, xid: int = 60, before: tuple[int, ...] = ()) -> Belongs:
    """Ask about a table."""
    return made.of(oid, ("public.orders",), commit_lsn, xid, before, ours=False)


@pytest.mark.parametrize(
    ("oid", "xid", "commit_lsn", "right"),
    [
        (OLD, 60, 200, False),  # it wrote, or may have, before the entry's writer had the lock
        (OLD, 71, 200, True),  # it began to write later
        (OLD, 60, 401, False),  # behind the reading only what is behind its end
        (OLD, 60, 402, True),
        (NEW, 60, 200, True),  # covered as it was made: nobody had written it before
    ],
)
def test_a_beacon_counts_from_where_on_it_was_there(oid: int, xid: int, commit_lsn: int, right: bool) -> None:
    """An entry that is read late counts for whom it was there; else nobody is accused, and it is asked again."""
    made = registry()
    made.take(reading(400, {OLD: Covered(70, 20), NEW: Covered(72, 72)}))
    assert of(made, commit_lsn, oid=oid, xid=xid) == Belongs(beacon=right, wanted=True, settled=right)


def test_an_entry_that_is_gone_counts_until_the_stream_has_passed_its_removal() -> None:
    """By its announcement, or at last behind the reading that had it no more; found again, it is the same."""
    made = registry()
    made.take(reading(110, {OLD: Covered(20, 20)}))
    made.take(reading(400, {}))
    assert of(made, 300).beacon
    assert not of(made, 402).beacon
    made.announced("publications", 320)
    assert not of(made, 330).beacon
    made.take_one(OLD, Covered(90, 20), 501)
    assert of(made, 330).beacon
    made.take(reading(600, None))
    assert of(made, 700).beacon, "a lock on the registry takes nothing out of it"


def test_what_was_asked_for_counts_from_its_writer_on() -> None:
    """Rows of before a removal are kept, those behind it are not; where it cannot be told, rows are kept."""
    made = registry(asked=(Asked(("orders",), 20, 90),))
    made.take(reading(400, {}, "notes", "!orders", xid=70))
    assert [version.globs for version in made.asked] == [("orders",), ("notes", "!orders")]
    assert of(made, 200) == Belongs(beacon=False, wanted=True, settled=False)
    assert of(made, 200, before=(70,)) == Belongs(beacon=False, wanted=False)
    assert of(made, 402) == Belongs(beacon=False, wanted=False)
    assert not made.of(OLD, ("public.orders",), 200, 60, (), ours=True).wanted


def test_a_pause_counts_from_its_announcement_on() -> None:
    """Read early it says nothing of what was written before."""
    made = registry()
    made.take(reading(110, {OLD: Covered(20, 20)}))
    made.take(reading(400, {OLD: Covered(20, 20)}, paused=True))
    assert of(made, 300).beacon
    made.announced("pause", 310)
    assert not of(made, 320).beacon
    made.announced("resume", 330)
    assert of(made, 340).beacon
    made.take(reading(500, {OLD: Covered(20, 20)}, paused=True))
    assert not of(made, 502).beacon
