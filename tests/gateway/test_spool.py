"""The spool keeps whole records in their order, whatever the disk or a crash does to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.gateway import spool as module
from collectors.gateway.records import Begun, Closed, Ended, Record, Said
from collectors.gateway.spool import Full, Reader, Spool, segments
from pgwitness.core.errors import Retry, Stop


def begun(number: int, text: str = "SELECT 1") -> Begun:
    """A statement that begins."""
    return Begun(session=1, at_us=number, number=number, way="query", said=Said(text))


def everything(spool: Spool, place: int = 0) -> list[Record]:
    """All records from a place on."""
    return [record for _, record in Reader(spool.folder, place).read(spool.end)]


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(64, 500))
def test_records_come_back_from_every_place(sizes: list[int], segment: int) -> None:
    """Over however many segments, from any record's place on, the rest comes back as it was written."""
    import tempfile

    records = [begun(n, "x" * size) for n, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(module, "SEGMENT_BYTES", segment):
        spool = Spool(Path(folder), 1 << 30)
        for record in records:
            spool.write([record])
        places = [0, *(place for place, _ in Reader(spool.folder, 0).read(spool.end))]
        assert [everything(spool, place) for place in places] == [records[n:] for n in range(len(records) + 1)]
        for n, place in enumerate(places):
            spool.release(place)
            assert everything(spool, place) == records[n:]
        spool.close()


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    """What a crash left in the midst of a line was never acted on; what comes after it is read."""
    spool = Spool(tmp_path, 1 << 30)
    spool.write([begun(1)])
    os.write(spool._file, b'{"record":"begun","session":1')
    spool.close()
    again = Spool(tmp_path, 1 << 30)
    again.write([begun(2)])
    assert everything(again) == [begun(1), begun(2)]
    again.close()


def test_a_disk_that_takes_half_takes_nothing(tmp_path: Path) -> None:
    """A write that fails in its midst leaves whole records only, and says that it failed."""
    spool = Spool(tmp_path, 1 << 30)
    spool.write([begun(1)])
    real = os.write
    with mock.patch("os.write", lambda file, data: real(file, data[:10])), pytest.raises(Retry, match="disk is full"):
        spool.write([begun(2)])
    refusing = OSError(errno.EROFS, "read-only")
    with mock.patch("os.write", side_effect=refusing), pytest.raises(Retry, match="read-only"):
        spool.write([begun(3)])
    spool.write([begun(4)])
    assert everything(spool) == [begun(1), begun(4)]
    spool.close()


def test_a_full_spool_takes_ends_only(tmp_path: Path) -> None:
    """Nothing begins on a full spool; what came of what is there is still written down."""
    spool = Spool(tmp_path, 300)
    spool.write([begun(1)])
    with pytest.raises(Full, match="broker"):
        spool.write([begun(2, "x" * 300)])
    ends: list[Record] = [Ended(session=1, at_us=1, number=1, outcome="success"), Closed(session=1, at_us=2)]
    spool.write(ends)
    assert everything(spool)[-2:] == ends
    spool.release(spool.end)
    spool.write([begun(7)])
    spool.close()


def test_one_gateway_a_spool(tmp_path: Path) -> None:
    """A second gateway on the same folder is refused; its name outlives the process, its segments go when released."""
    spool = Spool(tmp_path, 1 << 30)
    with pytest.raises(Stop, match="another gateway"):
        Spool(tmp_path, 1 << 30)
    spool.write([begun(1)])
    spool.close()
    again = Spool(tmp_path, 1 << 30)
    assert again.id == spool.id
    assert again.end == spool.end
    again.write([begun(2)])
    again.release(again.end)
    assert len(segments(tmp_path)) == 1
    again.close()
