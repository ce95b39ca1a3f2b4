"""`verify --rows`: digests, and holes in what is numbered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sinks.lake.compaction.plan import Sizes
from sinks.lake.log import chain
from sinks.lake.log.chain import Land
from sinks.lake.views.listing import Listing
from sinks.lake.writer import Lake
from sinks.seal.history import History
from sinks.seal.verification.copies import copy_of
from sinks.seal.verification.findings import Report
from sinks.seal.verification.rows import check_rows, wrong_rows
from tests.sinks.material import DAY_US, NOON_US, ORDINARY, change, entries, other
from tests.sinks.seal.altered_world import live
from tests.sinks.seal.material import grow, named, sealer, verified
from tests.sinks.test_compaction import compactor, fill


def landed(path: Path) -> Path:
    """Land two records of several events and rows."""
    writer = Lake(path).writer("events", 0)
    writer.resume()
    rows = [[ordinal, "i", 0, {"id": ordinal}, None, None, {"id": ordinal, "status": "new"}] for ordinal in range(3)]
    writer.append(0, [change(0, *rows), other(1), change(2)], [ORDINARY] * 3)
    writer.append(1, [change(3), other(4, kind="gap", operation="slot_recreated")], [ORDINARY] * 2)
    writer.commit()
    return path


def rewritten(path: Path, table: str, change_rows: Callable[[pa.Table], pa.Table], *, keep_digest: bool = True) -> None:
    """Land other rows than the digest says, from the beginning: what the sealer sees is in order by its hashes."""
    file = live(path, table)[0]
    made = change_rows(pq.ParquetFile(path / file.path).read())
    pq.write_table(made, path / file.path)
    content = (path / file.path).read_bytes()
    last = entries(path)[-1]
    assert isinstance(last, Land)
    digest = {} if keep_digest else {"digest": None}
    files = [
        msgspec.structs.replace(one, bytes=len(content), sha256=chain.digest(content), rows=made.num_rows, **digest)
        if one.path == file.path
        else one
        for one in last.files
    ]
    (path / chain.entry_name(last.number)).write_bytes(chain.encode(msgspec.structs.replace(last, files=files))[0])
    for snapshot in path.glob("_snapshots/*"):
        snapshot.unlink()
    (path / "head.json").unlink()
    Lake(path).prepare()


def test_rows_in_order_are_told_with_their_gaps(tmp_path: Path) -> None:
    """Nothing is found, and what `gap` events say stands in the notes."""
    path = landed(tmp_path / "lake")
    grow(path, [7, 8])
    sealer(path).round()
    report = verified(path, rows=True)
    assert report.findings == []
    assert "1 gap events say what is missing of shop: slot_recreated" in report.notes


def test_rows_that_are_not_those_of_the_digest_are_found(tmp_path: Path) -> None:
    """A lie before landing that the hashes do not show."""
    path = landed(tmp_path / "lake")

    def lie(table: pa.Table) -> pa.Table:
        at = table.column_names.index("role")
        return table.set_column(at, table.schema.field(at), pa.array(["somebody"] * len(table), pa.string()))

    rewritten(path, "events", lie)
    sealer(path).round()
    assert verified(path).findings == []
    file = live(path, "events")[0]
    assert named(verified(path, rows=True)) == {("altered", file.path)}
    assert wrong_rows(copy_of(path), msgspec.structs.replace(file, rows=2)) == "it has 7 rows, its entry says 2"


@pytest.mark.parametrize(
    ("dropped", "found"),
    [(f"{0:032x}-1", ("gap", "shop xid 1000")), (f"{1:032x}", ("gap", "events-0 0"))],
)
def test_holes_in_what_is_numbered_are_found(tmp_path: Path, dropped: str, found: tuple[str, str]) -> None:
    """A row of a transaction, and an event of a record, that are not there."""
    path = landed(tmp_path / "lake")

    def drop(table: pa.Table) -> pa.Table:
        return table.filter(pc.not_equal(table["event_id"], dropped))

    rewritten(path, "events", drop, keep_digest=False)
    sealer(path).round()
    assert named(verified(path, rows=True)) == {found}


def test_an_event_that_is_there_twice_is_found(tmp_path: Path) -> None:
    """Exactly once is once."""
    path, again = landed(tmp_path / "lake"), f"{1:032x}"
    rewritten(
        path,
        "events",
        lambda table: pa.concat_tables([table, table.filter(pc.equal(table["event_id"], again))]),
        keep_digest=False,
    )
    sealer(path).round()
    assert named(verified(path, rows=True)) == {("added", again)}


@pytest.mark.parametrize("table", ["events", "rows"])
def test_a_row_of_a_month_under_another_day_is_found(tmp_path: Path, table: str) -> None:
    """The day is in no digest, and a question for the right day would not find the row."""
    path = tmp_path / "lake"
    fill(path, 6, days=3)
    compactor(path, NOON_US + 60 * DAY_US, grace_s=0.0, sizes=Sizes()).run()
    listing = Listing(path)
    listing.refresh()
    history, before, after = History(listing.state), Report(), Report()
    check_rows(copy_of(path), history, before)
    assert before.findings == []
    for file in live(path, table):
        found = pq.ParquetFile(path / file.path).read()
        days = pc.add(found["dt"].cast(pa.int32()), pa.scalar(1, pa.int32())).cast(pa.date32())
        at = found.column_names.index("dt")
        pq.write_table(found.set_column(at, found.schema.field(at), days), path / file.path)
    check_rows(copy_of(path), history, after)
    assert {one.kind for one in after.findings} == {"altered"}
    assert all("under another day than" in one.text for one in after.findings)
