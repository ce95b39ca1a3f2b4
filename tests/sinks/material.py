"""What the tests of the lake are made of: events, verdicts, and a disk that fails where it is told to."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
from msgspec import Raw, Struct

from pgwitness.core.events import Event, Position, Relation
from sinks.lake.files import Files

NOON_US = 1_790_078_400_000_000
"""2026-09-22 12:00 UTC."""
DAY_US = 86_400_000_000
ORDERS = Relation("public.orders", ["id", "status", "Note"], beacon=True)


class Finding(Struct, frozen=True):
    """An alert as detectors raise it, reduced to what the lake reads."""

    uid: str
    finding: dict[str, Any]

    def ocsf(self) -> dict[str, Any]:
        """Give the finding."""
        return self.finding


class Verdict(Struct, frozen=True):
    """What a judge says of an event."""

    policies: list[str] = []
    anomaly: float | None = None
    reasons: list[dict[str, Any]] = []
    alerts: list[Finding] = []


ORDINARY = Verdict()


def change(number: int, *rows: list[Any], **facts: Any) -> Event:
    """Make the transaction `number` with these rows (as `events.Row`); without rows, it inserts order `number`."""
    made = list(rows) or [[0, "i", 0, {"id": number}, None, None, {"id": number, "status": "new"}]]
    values: dict[str, Any] = {
        "kind": "change",
        "event_id": f"{number:032x}",
        "at": Position(0, number, 0),
        "occurred_at_us": NOON_US + number,
        "captured_at_us": NOON_US + 1_000 + number,
        "cluster": "shop",
        "database": "shop",
        "binding": "beacon",
        "certainty": "exact",
        "assurance": "role_only",
        "role": "app",
        "xid": 1_000 + number,
        "lsn": (22 << 32) + number,
        "n_rows": len(made),
        "relation_table": [ORDERS],
        "rows": Raw(msgspec.json.encode(made)),
    }
    return Event(**(values | facts))


def other(number: int, **facts: Any) -> Event:
    """Make an event that is no change: by default, a session that connects."""
    values: dict[str, Any] = {
        "kind": "session",
        "event_id": f"{number:032x}",
        "at": Position(0, number, 0),
        "occurred_at_us": NOON_US + number,
        "captured_at_us": NOON_US + 1_000 + number,
        "cluster": "shop",
        "operation": "connect",
    }
    return Event(**(values | facts))


def landed(lake: Path, table: str = "events") -> list[dict[str, Any]]:
    """Read what readers see of a table, with nothing but a Parquet reader."""
    return [
        row for path in sorted(lake.glob(f"{table}/dt=*/*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()
    ]


class Crash(BaseException):
    """The process is gone; nothing after it runs."""


class Disk(Files):
    """A real disk on which something happens before the operation of a given number.

    `at` maps numbers of operations, counted from 1, to what happens: a call, or an exception to raise. After a crash,
    `lose` takes away what was not synced: contents of files, and names since the last sync of their folder.
    """

    def __init__(self, at: dict[int, BaseException | Callable[[], object]] | None = None) -> None:
        self.steps = 0
        self.done: list[str] = []
        self._at = at or {}
        self._unsynced: set[Path] = set()
        self._names: list[tuple[set[Path], Callable[[], object]]] = []

    def _step(self, what: str) -> None:
        self.steps += 1
        happens = self._at.get(self.steps)
        if isinstance(happens, BaseException):
            raise happens
        if happens is not None:
            happens()
        self.done.append(what)

    def create(self, path: Path, content: bytes) -> None:
        """Write a file that is not synced yet."""
        self._step(f"create {path.suffix}")
        super().create(path, content)
        self._unsynced.add(path)
        self._names.append(({path.parent}, lambda: path.unlink(missing_ok=True)))

    def sync(self, path: Path) -> None:
        """Sync content, or of a folder its names: here, remember that `lose` must leave them."""
        self._step(f"sync {path.suffix}")
        path.stat()
        self._unsynced.discard(path)
        self._names = [(folders - {path}, undo) for folders, undo in self._names if folders - {path}]

    def link(self, source: Path, target: Path) -> None:
        """Add a name that is not synced yet."""
        self._step("link")
        super().link(source, target)
        self._names.append(({target.parent}, lambda: target.unlink(missing_ok=True)))

    def rename(self, source: Path, target: Path) -> None:
        """Rename; durable as soon as the target's folder is."""
        self._step(f"rename {source.suffix}")
        replaced = target.read_bytes() if target.exists() else None
        super().rename(source, target)

        def undo() -> None:
            target.rename(source)
            if replaced is not None:
                target.write_bytes(replaced)

        self._names.append(({target.parent}, undo))

    def remove(self, path: Path) -> None:
        """Remove a name."""
        self._step("remove")
        super().remove(path)

    def lose(self, chance: random.Random) -> None:
        """Lose the last so many names that were not synced, and parts of the contents that were not."""
        for _ in range(chance.randint(0, len(self._names))):
            self._names.pop()[1]()
        for path in self._unsynced:
            if path.exists():
                content = path.read_bytes()
                path.write_bytes(content[: chance.randint(0, len(content))])


def enter(lake: Path, file: Path) -> None:
    """Enter a file into the lake's manifest, as its commit does."""
    entry = {"files": [{"table": "events", "path": str(file.relative_to(lake)), "staged": "gone"}]}
    (lake / "events/_manifest" / f"{file.stem}.json").write_text(json.dumps(entry))
