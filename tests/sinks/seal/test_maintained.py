"""A lake that is compacted, retained and held is in order, and what proves that outlives the files that went."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pgwitness.core.errors import Stop
from sinks.lake.compaction.plan import Sizes
from sinks.lake.compaction.retention import Terms
from sinks.lake.log import chain
from sinks.lake.log.chain import Replace
from sinks.seal import place
from sinks.seal.place import sealed_to
from sinks.seal.prove import prove
from sinks.seal.verification.bundle import verify_bundle
from tests.sinks.material import DAY_US, NOON_US, entries
from tests.sinks.seal.material import KEY, checkpoint, named, sealer, verified
from tests.sinks.test_compaction import compactor, contents, fill, live
from tests.sinks.test_retention import DAY_S, retainer

MONTH_US = NOON_US + 60 * DAY_US


def compacted(path: Path, now_us: int = MONTH_US) -> int:
    """Compact without a grace, but never ahead of the seal; gives how many files were removed."""
    one = compactor(path, now_us, grace_s=0.0, sealed=lambda: sealed_to(path / place.FOLDER), sizes=Sizes())
    return one.run().removed


def test_a_lake_is_in_order_at_every_step_of_its_life(tmp_path: Path) -> None:
    """Landed, sealed, compacted, retained, held; before and after what went is deleted."""
    path = tmp_path / "lake"
    fill(path, 12, days=3)
    rows = contents(path)["events"]
    first = sealer(path).round().note
    assert verified(path, first, rows=True).findings == []

    assert compacted(path) == 0  # the replacement is not sealed yet
    report = verified(path, first, rows=True, lag_us=10**15)
    assert report.findings == []
    assert any("files that entries removed are still there" in note for note in report.notes)
    assert any(isinstance(entry, Replace) for entry in entries(path))
    sealer(path).round()
    assert compacted(path, MONTH_US + DAY_US) > 0
    report = verified(path, first, checkpoint(path), rows=True)
    assert report.findings == []
    assert contents(path)["events"] == rows

    event = next(iter(sorted(rows))).split('"event_id": "')[1].split('"')[0]
    prove(path, path / place.FOLDER, KEY.public(), event, tmp_path / "proof", row_images=True)
    assert verify_bundle(tmp_path / "proof", KEY.public()).findings == []

    retainer(path, MONTH_US, Terms(), grace_s=0.0).hold("ada", "a court", first_day="2026-09-22")
    terms = Terms({"rows": 1 * DAY_S, "events": 10_000 * DAY_S})
    assert retainer(path, MONTH_US, terms, grace_s=0.0).run().retired == 0
    assert verified(path, first, rows=True, lag_us=10**15).findings == []
    retained = retainer(path, MONTH_US, terms, grace_s=0.0)
    retained.release(retained.holds()[0].id, "ada", "it is over")
    assert retained.run().retired > 0
    sealer(path).round()
    report = verified(path, first, checkpoint(path), rows=True)
    assert report.findings == []
    assert (report.sealed_to, report.chained_entries) == (report.entries - 1, 0)


def test_a_replacement_with_other_rows_is_neither_signed_nor_in_order(tmp_path: Path) -> None:
    """Its digests do not add up, though every hash is right."""
    path = tmp_path / "lake"
    fill(path, 6)
    sealer(path).round()
    compacted(path)
    last = entries(path)[-1]
    assert isinstance(last, Replace)
    short = chain.encode(
        Replace(
            number=last.number, predecessor=last.predecessor, at_us=last.at_us,
            removes=last.removes[:-1], files=last.files,
        )
    )[0]  # fmt: skip
    (path / chain.entry_name(last.number)).write_bytes(short)
    with pytest.raises(Stop, match="the rows of its files are not those of the files that they replace"):
        sealer(path).round()
    assert ("altered", chain.entry_name(last.number)) in named(verified(path))


def test_a_file_that_was_replaced_and_is_put_back_under_a_new_name_is_named(tmp_path: Path) -> None:
    """It counted once, and does no more."""
    path = tmp_path / "lake"
    fill(path, 6)
    old = live(path)[-1]  # rows are compacted last
    shutil.copy(path / old.path, tmp_path / "kept")
    sealer(path).round()
    compacted(path)
    sealer(path).round()
    assert compacted(path, MONTH_US + DAY_US) > 0
    assert not (path / old.path).exists()
    shutil.copy(tmp_path / "kept", path / "rows" / "dt=2026-09-22" / "new.parquet")
    assert named(verified(path)) == {("rolled_back", "rows/dt=2026-09-22/new.parquet")}
