"""A lake that is verified while others write it: what is on its way is no finding, and what stays is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sinks.lake.compaction.plan import Sizes
from sinks.lake.compaction.rewrite import rewrite
from sinks.lake.log.chain import Replace
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder
from sinks.seal.verification import rows, settling
from sinks.seal.verification import verify as verifying
from sinks.seal.verification.copies import Copy, copy_of
from sinks.seal.verification.verify import Wanted, verify
from tests.sinks.material import DAY_US, NOON_US
from tests.sinks.seal.material import KEY, append, checkpoint, grow, named, sealer, verified
from tests.sinks.test_compaction import SMALL, compactor, fill

LAG_US = 10**16


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Make a lake that is sealed, with much to compact."""
    path = tmp_path / "lake"
    fill(path, 8)
    sealer(path).round()
    return path


def found(lake: Path, **more: Any) -> set[tuple[str, str]]:
    """Verify a lake against the checkpoint that it has."""
    return named(
        verify(lake, Wanted(KEY.public(), NOON_US, remembered=(("c", checkpoint(lake)),), lag_us=LAG_US, **more))
    )


def test_files_whose_entry_comes_meanwhile_are_no_finding(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compactor writes for minutes before its entry is there."""
    job = compactor(lake).planned()[0]
    made = rewrite(Folder(lake, Files()), job, lambda: "new", lambda: None, SMALL)
    assert found(lake) == {("added", made[0].path)}
    waited: list[float] = []

    def enter(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            removes = [file.path for file in job.inputs]
            append(
                lake,
                lambda state: Replace(
                    number=state.number + 1, predecessor=state.sha256, at_us=NOON_US, removes=removes, files=made
                ),
            )

    monkeypatch.setattr(verifying.time, "sleep", enter)
    assert found(lake, patience_s=10.0) == set()
    assert len(waited) == 3


def test_what_nobody_goes_on_with_is_a_finding(tmp_path: Path) -> None:
    """Once it has stayed as it is; one that grows is waited for, and not for ever."""
    (tmp_path / "planted").write_bytes(b"x")
    waited: list[float] = []

    def grow(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) < 20:
            (tmp_path / "planted").write_bytes(b"x" * len(waited))

    assert settling.settled(copy_of(tmp_path), lambda: ["planted"], 5.0, grow) == ["planted"]
    assert sum(waited) == pytest.approx(20 * settling.STEP_S + 5.0, abs=1.0)
    waited.clear()

    def always(seconds: float) -> None:
        waited.append(seconds)
        (tmp_path / "planted").write_bytes(b"x" * len(waited))

    assert settling.settled(copy_of(tmp_path), lambda: ["planted"], 5.0, always) == ["planted"]
    assert sum(waited) == settling.WAIT_S_MAX


def test_rows_of_files_that_are_replaced_meanwhile_are_read_where_they_are_now(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files are gone, and that is neither an error nor a finding."""
    read, calls = rows.wrong_rows, []

    def replaced(path: Copy, file: Any) -> str | None:
        calls.append(file.path)
        if len(calls) == 1:
            compactor(lake, sizes=Sizes(landed_files=2)).run()
            assert compactor(lake, NOON_US + DAY_US, sizes=Sizes(landed_files=2)).run().removed > 0
        return read(path, file)

    monkeypatch.setattr(rows, "THREADS", 1)
    monkeypatch.setattr(rows, "wrong_rows", replaced)
    assert found(lake, rows=True) == set()
    assert len(calls) > 3


def test_a_file_that_somebody_removes_while_rows_are_read_is_missing(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No entry took it out."""
    read, gone = rows.wrong_rows, []

    def removed(copy: Copy, file: Any) -> str | None:
        if not gone:
            gone.append(file.path)
            (lake / file.path).unlink()
        return read(copy, file)

    monkeypatch.setattr(rows, "wrong_rows", removed)
    assert found(lake, rows=True) == {("missing", gone[0])}


def test_an_entry_of_days_to_come_does_not_hide_that_nobody_seals(tmp_path: Path) -> None:
    """Whoever writes behind the seal says when: what says a later time than now never gets old."""
    path = tmp_path / "lake"
    grow(path, [1, 2])
    sealer(path).round()
    grow(path, [3], clock_us=NOON_US + 400 * DAY_US)
    report = verified(path, checkpoint(path), lag_us=DAY_US)
    assert named(report) == {("unsealed", "_log/000000/000/003.json")}
    assert "which is to come" in report.findings[0].text
