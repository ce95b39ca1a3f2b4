"""The measure on ADBench's sets counts right; the sets themselves are not in this repository."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.quality import adbench


def test_what_stands_apart_is_found_whatever_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is drawn once, three orders differ, features lie between 0 and 1; a set that is missing is skipped."""
    random = Random(1)
    values = [[random.gauss(0, 1), random.gauss(5, 2)] for _ in range(290)] + [[9.0, 30.0 + n] for n in range(10)]
    np.savez(tmp_path / "38_thyroid.npz", X=np.array(values), y=np.array([0] * 290 + [1] * 10))
    rows, labels = adbench.drawn(tmp_path / "38_thyroid.npz", 1, 1_000)
    assert sorted(rows) == sorted(values)
    assert [row[0] == 9.0 for row in rows] == labels
    assert rows != adbench.drawn(tmp_path / "38_thyroid.npz", 2, 1_000)[0]
    assert len(adbench.drawn(tmp_path / "38_thyroid.npz", 1, 50)[0]) == 50
    assert all(0.0 <= value <= 1.0 for x in adbench.scaled(rows) for value in x.values())
    found = adbench.measure(tmp_path / "38_thyroid.npz")
    assert set(found) == {"half-space trees", "LODA", "ensemble"}
    assert all(0.8 < area <= 1.0 for name, area in found.items() if name != "half-space trees")
    monkeypatch.setattr("sys.argv", ["adbench", str(tmp_path / "nowhere")])
    assert adbench.main() == 1
