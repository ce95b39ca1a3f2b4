"""What the tests of the lake are made of: events, verdicts, and a disk that fails where it is told to."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow.parquet as pq
from msgspec import Raw, Struct

from pgwitness.core.events import Event, Position, Relation
from sinks.lake.log import chain
from sinks.lake.log.chain import Entry, File, Land, Range, State
from sinks.lake.log.on_store import Log
from sinks.lake.log.protocol import Attempt
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder, Store, at
from sinks.lake.views.listing import Listing

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


class Judgement(Struct, frozen=True):
    """What a judge says of an event."""

    policies: list[str] = []
    anomaly: float | None = None
    reasons: list[dict[str, Any]] = []
    alerts: list[Finding] = []


ORDINARY = Judgement()


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


def landed(lake: Path | Store, table: str = "events") -> list[dict[str, Any]]:
    """Read what counts of a table, with nothing but a Parquet reader."""
    listing = Listing(lake)
    listing.refresh()
    files = sorted(file.path for file in listing.live() if file.table == table)
    contents = [listing.store.read(path) for path in files]
    return [row for content in contents for row in pq.ParquetFile(io.BytesIO(content or b"")).read().to_pylist()]


def entries(lake: Path | Store) -> list[Entry]:
    """Read the lake's chain from its beginning, each entry with its predecessor's hash checked."""
    found: list[Entry] = []
    before = None
    while (content := at(lake).read(chain.entry_name(len(found)))) is not None:
        entry = chain.decode(content, len(found))
        assert (entry.number, entry.predecessor) == (len(found), before)
        before = chain.digest(content)
        found.append(entry)
    return found


def lands(lake: Path) -> list[Land]:
    """Read the commits of a lake."""
    return [entry for entry in entries(lake) if isinstance(entry, Land)]


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
        self._dead = False
        self._unsynced: set[Path] = set()
        self._names: list[tuple[set[Path], Callable[[], object]]] = []

    def _step(self, what: str) -> None:
        if self._dead:  # what would run while the process goes down
            raise Crash
        self.steps += 1
        happens = self._at.get(self.steps)
        if isinstance(happens, BaseException):
            self._dead = isinstance(happens, Crash)
            raise happens
        if happens is not None:
            happens()
        self.done.append(what)

    def begin(self, path: Path) -> IO[bytes]:
        """Begin a file that is not synced yet."""
        self._step(f"create {path.suffix}")
        file = super().begin(path)
        self._unsynced.add(path)
        self._names.append(({path.parent}, lambda: path.unlink(missing_ok=True)))
        return file

    def write(self, file: IO[bytes], content: bytes) -> None:
        """Write more of a file; what was asked for first is in `begin`, a step with it."""
        if self._dead:
            raise Crash
        super().write(file, content)

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


def enter(lake: Path, file: Path, schema_version: int = 1) -> None:
    """Enter a file of `events` into the lake's chain, as a commit of a partition of its own does."""
    log = Log(Folder(lake, Files()))
    log.refresh()

    def propose(state: State) -> Land:
        return Land(
            number=state.number + 1,
            predecessor=state.sha256,
            at_us=NOON_US,
            ranges=[Range("entered", state.number, 0, 1, [])],
            files=[File("events", str(file.relative_to(lake)), 1, 1, "", schema_version)],
        )

    log.append(propose, Attempt())
    log.publish()
