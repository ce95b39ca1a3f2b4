"""A sealed lake with entries of every kind, and copies of it that are altered and verified."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sinks.lake.log import chain
from sinks.lake.log.chain import File, Replace, Retire, Retired
from sinks.lake.views.listing import Listing
from sinks.seal.verification.findings import Report
from tests.sinks.material import NOON_US
from tests.sinks.seal.material import append, checkpoint, grow, hold, pad, sealer, verified

HELD = 115
"""Pairs of a hold and its release: cheap entries, so that the log has a full tile."""


def build(folder: Path) -> tuple[Path, Path, bytes]:
    """Make a lake with entries of every kind, sealed; gives it, an older copy of it, and the auditor's checkpoint."""
    lake, older = folder / "lake", folder / "older"
    grow(lake, range(5))
    pad(lake, HELD)
    sealer(lake).round()
    shutil.copytree(lake, older)
    grow(lake, range(5, 10))
    _replace(lake)
    _retire(lake)
    sealer(lake).round()
    kept = checkpoint(lake)
    grow(lake, range(10, 12))
    append(lake, hold("open"))
    sealer(lake).round()
    return lake, older, kept


def live(lake: Path, table: str = "") -> list[File]:
    """List the files that count, of a table or of all."""
    listing = Listing(lake)
    listing.refresh()
    return sorted((file for file in listing.live() if not table or file.table == table), key=lambda file: file.path)


def _replace(lake: Path) -> None:
    """Merge two files into one; the old ones are still there, as during the grace."""
    old = live(lake, "events")[:2]
    table = pa.concat_tables([pq.ParquetFile(lake / file.path).read() for file in old])
    path = old[0].path.rsplit("/", 1)[0] + "/merged.parquet"
    pq.write_table(table, lake / path)
    content = (lake / path).read_bytes()
    new = msgspec.structs.replace(
        old[0], path=path, rows=table.num_rows, bytes=len(content), sha256=chain.digest(content), digest=None
    )
    append(
        lake,
        lambda state: Replace(
            number=state.number + 1, predecessor=state.sha256, at_us=NOON_US, removes=[f.path for f in old], files=[new]
        ),
    )


def _retire(lake: Path) -> None:
    """Retire a file, which is gone."""
    old = live(lake, "rows")[-1]
    retired = [Retired(old.path, old.sha256, old.rows)]
    append(
        lake,
        lambda state: Retire(
            number=state.number + 1, predecessor=state.sha256, at_us=NOON_US, removes=retired, reason="twelve months"
        ),
    )
    (lake / old.path).unlink()


class World:
    """A sealed lake of which copies are altered; `chance` decides how."""

    def __init__(self, folder: Path) -> None:
        self.lake, self.older, self.kept = build(folder)
        self._work = folder / "work"

    def altered(self, alter: Alteration, chance: random.Random) -> tuple[str, Report]:
        """Alter a copy and verify it; gives what was done and what was found."""
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self.lake, self._work, copy_function=os.link)
        what = alter(self, self._work, chance)
        return what, verified(self._work, self.kept)


Alteration = Callable[[World, Path, random.Random], str]
