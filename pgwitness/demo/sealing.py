"""Upkeep and seal in the demo: what landed is compacted and sealed, somebody alters a copy, and `verify` says where.

The sealer has a key and a memory in the demo's folder; in earnest it is a process of another user.
"""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pgwitness.core.config import Config, load
from pgwitness.core.errors import NotInOrder, Retry
from sinks.lake.compaction.compactor import Compactor
from sinks.lake.compaction.plan import Sizes
from sinks.lake.opening import open_lake
from sinks.lake.views.listing import Listing
from sinks.seal import keys
from sinks.seal.opening import open_sealer, sealed_to
from sinks.seal.tlog.note import PublicKey
from sinks.seal.verification.findings import Finding
from sinks.seal.verification.verify import Wanted, verify

KEY = "seal.key"
CHECKPOINT = "checkpoint.kept"
"""What the auditor keeps: the first checkpoint."""
SETTINGS = f"""\
[seal]
key = "{KEY}"
state_path = "state/seal"
"""
WHO, NOBODY = ("maria", "lena"), "jonas"


@dataclass
class Sealing:
    """What came of it: the checkpoints that were signed, and what was found in the lake and in an altered copy."""

    checkpoints: list[bytes] = field(default_factory=list)
    sealed_to: int = -1
    files: int = 0
    """Files that counted before they were put together, and then."""
    became: int = 0
    untouched: list[Finding] = field(default_factory=list)
    altered: str = ""
    findings: list[Finding] = field(default_factory=list)


class Notary:
    """Seals the demo's lake, and verifies it."""

    def __init__(self, config: Path) -> None:
        self._place = config.parent
        self._config: Config = load(config)
        self._key: PublicKey = keys.make_key(self._place / KEY, f"pgwitness.local/demo/{secrets.token_hex(8)}")
        self._sealer = open_sealer(self._config).sealer
        self.result = Sealing()

    def seal(self) -> None:
        """Sign what has landed by now; the auditor keeps the first checkpoint."""
        try:
            done = self._sealer.round()
        except Retry:  # nothing has landed yet
            return
        if not self.result.checkpoints:
            (self._place / CHECKPOINT).write_bytes(done.note)
        if done.note not in self.result.checkpoints:
            self.result.checkpoints.append(done.note)
        self.result.sealed_to = done.checkpoint.size - 1

    def compact(self) -> None:
        """Put the small files of what has landed together, as a daemon does all day long, and seal that."""
        store = open_lake(self._config).store
        compactor = Compactor(
            self._config.lake.path,
            store,
            grace_s=0.0,  # nobody asks the lake now
            sizes=Sizes(landed_files=2),
            sealed=lambda: sealed_to(self._config),
        )
        before = Listing(self._config.lake.folder)
        before.refresh()
        self.result.files = len(before.live())
        compactor.run()
        self.seal()
        compactor.run()  # what was replaced goes when a checkpoint covers that
        self.result.became = compactor.live

    def show(self) -> None:
        """Verify the lake, alter a copy of it, and verify that."""
        lake, copy = self._config.lake.folder, self._place / "altered"
        self.result.untouched = self._verified(lake)
        shutil.copytree(lake, copy)
        try:
            self.result.altered = _alter(copy)
            self.result.findings = self._verified(copy)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _verified(self, lake: Path) -> list[Finding]:
        kept = tuple((CHECKPOINT, note) for note in self.result.checkpoints[:1])
        return verify(lake, Wanted(self._key, time.time_ns() // 1_000, remembered=kept)).findings


def _alter(lake: Path) -> str:
    """Put what somebody did down to somebody else, in one file; gives what was done, in words."""
    listing = Listing(lake)
    listing.refresh()
    for file in sorted(listing.live(), key=lambda file: file.path):
        if file.table != "events":
            continue
        table = pq.ParquetFile(lake / file.path).read()
        theirs = pc.is_in(table["principal"], value_set=pa.array(WHO))
        if (count := pc.sum(theirs).as_py() or 0) > 0:
            at = table.column_names.index("principal")
            written = pc.if_else(theirs, NOBODY, table["principal"])
            pq.write_table(table.set_column(at, table.schema.field(at), written), lake / file.path)
            return f"{count} events of {' and '.join(WHO)} put down to {NOBODY}"
    raise NotInOrder(f"the lake has no event of {' or '.join(WHO)}, which the demo would alter in a copy")
