"""The spool keeps whole records in their order, whatever the disk or a crash does to it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.gateway.spool import spool as module
from collectors.gateway.spool.records import Begun, Closed, Ended, Opened, Record, Said
from collectors.gateway.spool.shipping import Shipper, mend
from collectors.gateway.spool.spool import Full, Reader, Spool, segments
from pgwitness.core.config import Config
from pgwitness.core.errors import Retry, Stop
from pgwitness.core.events import Gap, Session
from pgwitness.core.runtime.health import Health
from pgwitness.demo.servers import Broker
from tests.collectors.raw_topic import bench


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


def spoil(spool: Spool, line: int) -> None:
    """Write over the beginning of a line of the first segment."""
    path = spool.folder / f"{segments(spool.folder)[0]:020d}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = b"?" * 9 + lines[line][9:]
    path.write_bytes(b"".join(lines))


def test_a_damaged_line_is_a_hole(tmp_path: Path) -> None:
    """Only the last line of a segment can be torn: what else cannot be read was acted on."""
    with mock.patch.object(module, "SEGMENT_BYTES", 300):
        spool = Spool(tmp_path, 1 << 30)
        for n in range(9):
            spool.write([begun(n)])
        first, *later = segments(tmp_path)
        places = [place for place, _ in Reader(tmp_path, 0).read(spool.end)]
        spoil(spool, 1)
        (tmp_path / f"{later[0]:020d}.jsonl").unlink()
        reader = Reader(tmp_path, 0)
        found = [record for _, record in reader.read(spool.end)]
        gone = [n for n, place in enumerate(places) if later[0] < place <= later[1]]
        assert found == [begun(n) for n in range(9) if n != 1 and n not in gone]
        assert reader.holes == [(places[0], places[1]), (later[0], later[1])]
        assert first == 0
        spool.close()


def test_what_is_missing_of_a_spool_is_a_gap(
    tmp_path: Path, embedded_broker: Broker, database18: str, config_factory: Callable[..., Config]
) -> None:
    """A damaged line, and an end that was taken away: both are told, and what is written then arrives."""
    config = config_factory(tmp_path, embedded_broker.bootstrap, database18)
    opened = Opened(session=1, at_us=1, cluster="shop", instance="db:5432", role="ada", database="d", pid=7)
    with bench(config) as made:

        def ship(spool: Spool) -> None:
            over = threading.Event()
            over.set()
            publisher = made.publisher
            Shipper(spool, publisher, Health(), tmp_path / "state", [("shop", "db:5432")]).run(over)

        def gaps() -> list[Gap]:
            return [gap for gap in made.raw.of(Gap) if gap.reason == "spool_damaged"]

        spool = Spool(tmp_path / "spool", 1 << 30)
        spool.write([opened, begun(1), begun(2), Ended(session=1, at_us=3, number=1, outcome="success")])
        spoil(spool, 2)
        ship(spool)
        made.raw.wait(lambda: len(gaps()) == 1, "the damaged line")
        before, end = spool.id, spool.end
        spool.close()
        for first in segments(spool.folder):
            os.truncate(spool.folder / f"{first:020d}.jsonl", 0)
        again = Spool(tmp_path / "spool", 1 << 30)
        mend(again, tmp_path / "state")
        ship(again)
        made.raw.wait(lambda: len(gaps()) == 2, "the end that is gone")
        assert gaps()[1].detail["end"] == end
        assert again.id != before
        again.write([replace(opened, session=2), Closed(session=2, at_us=9)])
        ship(again)
        made.raw.wait(lambda: any(s.operation == "disconnect" for s in made.raw.of(Session)), "what came then")
        again.close()
