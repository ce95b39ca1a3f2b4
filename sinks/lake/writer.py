"""The evidence lake: Parquet files that appear exactly once (docs/decisions/0011, 8).

A `PartitionWriter` lands one partition of the topic `events`. A commit writes its files under `_staging/` and makes
them durable, then links its manifest entry under a name that only one writer can take: that is the commit. After it
the files are renamed into `TABLE/dt=DAY/`; whatever a crash leaves undone there, the next writer finishes. So a crash,
a replay or a second writer repeats work, never results, and nobody reads a file that was not committed.
"""

from __future__ import annotations

import errno
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from pgwitness.core.errors import DeadLetter, PgwitnessError, Retry, Stop, Superseded
from pgwitness.core.events import Event
from sinks.lake import listing, manifest, parquet, views
from sinks.lake.columns import Columns, Verdict
from sinks.lake.files import Files
from sinks.lake.manifest import Entry, File, HighWater
from sinks.lake.schema import SCHEMA_VERSION, TABLES

STAGING = "_staging"
MANIFEST = "_manifest"
BYTES_MAX = 64 * 1024**2
"""Bytes a writer may hold before `full` says that it is time to commit."""


class Lake:
    """A lake in a folder; several processes may have it open at once.

    `files`, `clock_us` and `unique` are what a test replaces: the file system, the time that entries carry, and the
    part of a staged file's name that no other writer has.
    """

    def __init__(
        self,
        path: Path,
        *,
        files: Files | None = None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.path = path
        self.files = files or Files()
        self.clock_us = clock_us
        self.unique = unique
        self.careful: set[str] = set()
        """Partitions of which a commit failed for what stood in it, until one succeeds."""

    def writer(self, topic: str, partition: int, *, rows_max: int = 100_000) -> PartitionWriter:
        """Give the writer of one partition; call `resume` before anything else. `rows_max` makes it `full`."""
        return PartitionWriter(self, topic, partition, rows_max)

    def reached(self, topic: str, raw_partition: int) -> tuple[int, int] | None:
        """Give the last position of a raw partition that landed from `topic`, and when (µs); None when none did."""
        found: tuple[int, int] | None = None
        for entry in manifest.ends(self.path / "events" / MANIFEST, topic):
            offsets = [offset for lane, raw, offset, _ in entry.high_water if lane >= 0 and raw == raw_partition]
            if offsets:
                offset, at_us = found or (0, 0)
                found = max(offset, *offsets), max(at_us, entry.committed_at_us)
        return found

    def prepare(self) -> None:
        """Make the lake's folders, the empty files that carry the columns, and `views.sql`; all may exist.

        Raises `Retry` when the operating system refuses, saying what to do.
        """
        with _Troubles(self.path):
            self.files.make_folder(self.path / STAGING)
            for table, schema in TABLES.items():
                self.files.make_folder(self.path / table / MANIFEST)
                self.place(self.path / listing.empty_file(table), parquet.encode(schema.empty_table()), "prepare")
            self.place(self.path / "views.sql", views.views_sql().encode(), "prepare")

    def place(self, path: Path, content: bytes, owner: str) -> None:
        """Put a file that is the same whoever writes it, and replace one of an older version.

        `owner` begins the name of the staged file, so that what a crash leaves there can be told.
        """
        if path.exists() and path.read_bytes() == content:
            return
        self.files.make_folder(path.parent)
        staged = self.path / STAGING / f"{owner}-{self.unique()}"
        self.files.create(staged, content)
        try:
            self.files.sync(staged)
            self.files.rename(staged, path)
        except FileNotFoundError:
            if not path.exists():  # otherwise another writer did the same work, and swept up behind itself
                raise
        self.files.sync_folder(path.parent)


class PartitionWriter:
    """Lands one partition of `events`: resume, then append and commit in turn. Not for several threads.

    `rows` is how many rows are buffered, `buffered_bytes` about how many bytes they are, `full` whether to commit.

    """

    def __init__(self, lake: Lake, topic: str, partition: int, rows_max: int) -> None:
        self._lake = lake
        self._files = lake.files
        self._topic = topic
        self._partition = partition
        self._rows_max = rows_max
        self._chain = manifest.chain(topic, partition)
        self._columns = Columns()
        self._last: tuple[Entry, bytes] | None = None
        self._unpublished = False
        self._start = 0
        self._end = 0
        self._high_water: HighWater = {}

    @property
    def rows(self) -> int:
        """Rows in the buffer."""
        return self._columns.rows

    @property
    def buffered_bytes(self) -> int:
        """Bytes in the buffer, roughly."""
        return self._columns.bytes

    @property
    def full(self) -> bool:
        """Whether the buffer has reached its bound, in rows or bytes."""
        return self.rows >= self._rows_max or self.buffered_bytes >= BYTES_MAX

    def resume(self) -> tuple[int, HighWater]:
        """Forget the buffer, finish what a crash left undone, and say where to go on.

        Gives the next offset to read (0 in a lake that has nothing of this partition) and the high-water marks by
        lane and raw partition. Raises `Retry` when the lake cannot be read or written at the moment.
        """
        with self._troubles():
            self._columns.clear()
            self._lake.prepare()
            self._last = manifest.last(self._folder("events"), self._topic, self._partition)
            self._start = self._end = self._last[0].end if self._last else 0
            self._high_water = manifest.high_water(self._last[0]) if self._last else {}
            if self._last:
                self._unpublished = True
                self._publish()
        return self._end, dict(self._high_water)

    def append(
        self, offset: int, events: Sequence[Event], verdicts: Sequence[Verdict], lane: int = 0
    ) -> list[tuple[int, DeadLetter]]:
        """Take the record at `offset` with a verdict for each of its events; what has landed already is dropped.

        `lane` is the batch's (`header.lane`): positions grow within a lane and a raw partition. An empty record, or
        one that went to the dead letters, still moves the offset on: append it without events. Returns the places
        of events that cannot be written, and why; the others are taken. Raises `Stop` when new events come at an
        offset that has landed: then the topic is not the one that the lake was filled from.
        """
        marks = {raw: mark for (of, raw), mark in self._high_water.items() if of == lane}
        fresh = []
        for place, event in enumerate(events):
            mark = marks.get(event.at.partition)
            if mark is None or event.at > mark:
                marks[event.at.partition] = event.at
                fresh.append(place)
        if offset < self._end:
            if fresh:
                raise Stop(self._wrong_topic(offset))
            return []
        refused = self._add(events, verdicts, fresh)
        for raw, mark in marks.items():
            self._high_water[lane, raw] = mark
        self._end = offset + 1
        return refused

    def _add(
        self, events: Sequence[Event], verdicts: Sequence[Verdict], fresh: list[int]
    ) -> list[tuple[int, DeadLetter]]:
        """Take the events at these places; when one is in the way, find which, and take the others."""
        whole = len(fresh) == len(events)
        try:
            if self._chain in self._lake.careful:
                raise ValueError("each event is looked at by itself")
            if whole:
                self._columns.add(events, verdicts)
            else:
                self._columns.add([events[place] for place in fresh], [verdicts[place] for place in fresh])
        except Exception:
            refused = [
                (place, why) for place in fresh if (why := self._columns.refusal(events[place], verdicts[place]))
            ]
            bad = {place for place, _ in refused}
            good = [place for place in fresh if place not in bad]
            self._columns.add([events[place] for place in good], [verdicts[place] for place in good])
            return refused
        return []

    def commit(self) -> None:
        """Land what is buffered; without anything appended since the last commit, do nothing.

        Raises `Superseded` when another writer has landed this range: drop this writer, or `resume`. Raises `Retry`
        when the disk refuses (the text says why): nothing is visible then, the buffer is kept, and calling again is
        safe.
        """
        with self._troubles():
            if self._unpublished:
                self._publish()
            if self._end == self._start:
                return
            try:
                self._commit()
            except (OSError, PgwitnessError):
                raise
            except Exception:
                # A value that no column takes, found too late: the next writer of this process looks at each event.
                self._lake.careful.add(self._chain)
                raise
            self._lake.careful.discard(self._chain)
            self._publish()

    def _commit(self) -> None:
        """Stage, then link the entry; after that the buffer is evidence and no longer ours."""
        base = self._lake.path
        prefix = f"{manifest.chain(self._topic, self._partition)}-{self._start:0{manifest.OFFSET_DIGITS}}"
        unique = self._lake.unique()
        staged: list[Path] = []
        try:
            files = []
            for (table, day), rows in self._columns.tables().items():
                name = f"{prefix}-{unique}-{table}-{day}.parquet"
                encoded = parquet.encode(rows)
                staged.append(base / STAGING / name)
                self._files.create(staged[-1], encoded)
                self._files.sync(staged[-1])
                files.append(
                    File(
                        table=table,
                        path=f"{table}/dt={day}/{prefix}.parquet",
                        staged=name,
                        rows=rows.num_rows,
                        bytes=len(encoded),
                        sha256=manifest.digest(encoded),
                    )
                )
            entry = self._entry(files)
            content = manifest.encode(entry)
            staged.append(base / STAGING / f"{prefix}-{unique}.json")
            self._files.create(staged[-1], content)
            self._files.sync(staged[-1])
            self._files.sync_folder(base / STAGING)
        except OSError as error:
            self._discard(staged)
            if self._target().exists():  # who committed it swept our files away
                raise self._superseded() from error
            raise
        try:
            self._link(staged[-1], content)
        except Superseded:
            self._discard(staged)
            raise
        self._last = (entry, content)
        self._start = self._end
        self._columns.clear()
        pa.default_memory_pool().release_unused()
        self._unpublished = True

    def _discard(self, staged: list[Path]) -> None:
        for path in staged:
            with suppress(OSError):
                self._files.remove(path)

    def _entry(self, files: list[File]) -> Entry:
        before = self._last and manifest.Predecessor(self._last[0].start, manifest.digest(self._last[1]))
        return Entry(
            format=manifest.FORMAT,
            topic=self._topic,
            partition=self._partition,
            start=self._start,
            end=self._end,
            high_water=[(lane, raw, at.offset, at.index) for (lane, raw), at in sorted(self._high_water.items())],
            files=files,
            predecessor=before,
            schema_version=SCHEMA_VERSION,
            committed_at_us=self._lake.clock_us(),
        )

    def _link(self, staged: Path, content: bytes) -> None:
        target = self._target()
        try:
            self._files.link(staged, target)
        except OSError as error:
            # Some file systems report an error for a link that was made; what counts is what is there. In doubt the
            # staged files stay: if the entry turns up later, they are needed.
            if not target.exists():
                raise
            if target.read_bytes() != content:
                raise self._superseded() from error

    def _target(self) -> Path:
        return self._folder("events") / manifest.entry_name(self._topic, self._partition, self._start)

    def _superseded(self) -> Superseded:
        return Superseded(
            f"{self._target().name} was committed by another worker: the partition has moved; this worker reads on "
            "from what the lake holds. If it goes on, two workers run with different groups on one lake: stop one"
        )

    def _publish(self) -> None:
        """Bring the last entry's files to where readers find them; doing it again changes nothing."""
        assert self._last is not None
        entry, content = self._last
        base = self._lake.path
        self._files.sync_folder(self._folder("events"))
        for file in entry.files:
            source, target = base / STAGING / file.staged, base / file.path
            if source.exists():
                self._files.make_folder(target.parent)
                with suppress(FileNotFoundError):  # another writer may be publishing the same entry
                    self._files.rename(source, target)
            if not target.exists():
                raise Stop(
                    f"{target} is missing although {entry.topic}-{entry.partition} committed it: restore it from a "
                    "copy of the lake; the manifest entry has its SHA-256"
                )
        for folder in sorted({(base / file.path).parent for file in entry.files}):
            self._files.sync_folder(folder)
        name = manifest.entry_name(self._topic, self._partition, entry.start)
        for table in TABLES:
            of_table = [file for file in entry.files if file.table == table]
            if table != "events" and of_table:
                self._describe(self._folder(table) / name, entry, content, of_table)
        self._sweep(entry)
        self._unpublished = False

    def _describe(self, path: Path, entry: Entry, content: bytes, files: list[File]) -> None:
        described = manifest.encode(
            manifest.Published(
                manifest.FORMAT,
                manifest.entry_name(entry.topic, entry.partition, entry.start),
                manifest.digest(content),
                files,
            )
        )
        if not path.exists():
            self._lake.place(path, described, path.stem)

    def _sweep(self, entry: Entry) -> None:
        """Remove what dead or beaten writers of this partition staged for offsets that are committed now."""
        for path in sorted((self._lake.path / STAGING).iterdir()):
            start = manifest.start_of(path.name, self._topic, self._partition)
            if start is not None and start < entry.end:
                self._files.remove(path)

    def _folder(self, table: str) -> Path:
        return self._lake.path / table / MANIFEST

    def _wrong_topic(self, offset: int) -> str:
        return (
            f"{self._topic}-{self._partition}: new events at offset {offset}, but the lake {self._lake.path} has "
            f"landed everything before {self._end}: the topic was made anew, or the lake belongs to another one. Give "
            "the worker a new lake folder (lake.path); both remain readable"
        )

    def _troubles(self) -> _Troubles:
        return _Troubles(self._lake.path)


_ADVICE = {
    errno.ENOSPC: "the disk is full: make room or move the lake",
    errno.EDQUOT: "the quota is used up: raise it or move the lake",
    errno.EACCES: "give the worker's user the right to write there",
    errno.EPERM: "give the worker's user the right to write there, on a file system that has hard links",
    errno.EROFS: "the file system is mounted read-only: mount it for writing",
    errno.ENOTSUP: "the file system has no hard links: put the lake on one that has",
}


class _Troubles:
    """Turns what the operating system refuses into a `Retry` that says what to do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            advice = _ADVICE.get(error.errno or 0, "look at the disk and its mount")
            raise Retry(
                f"the lake {self._path} could not be written ({error}): {advice}; nothing is lost, "
                "the worker tries again"
            ) from error
