"""The evidence lake as a worker writes it: what all of its partitions have lands in one commit, once.

A `PartitionWriter` collects one partition of the topic `events`; `Lake.commit` lands what several of them have. The
files go to their places first and are durable there, then one entry goes behind the last one of the chain
(`sinks.lake.log.protocol`): that is the commit. Readers go by the chain alone, so what a crash leaves without an entry
is nowhere. A partition that somebody else has landed meanwhile is left out, and its writer told.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import structlog
from msgspec import Struct

from pgwitness.core.errors import DeadLetter, PgwitnessError, Stop, Superseded
from pgwitness.core.events import Event
from sinks.lake import adoption
from sinks.lake.log import chain
from sinks.lake.log.chain import File, HighWater, Land, Range, State
from sinks.lake.log.on_store import Log, forgotten
from sinks.lake.log.protocol import Attempt
from sinks.lake.rows import digest, parquet
from sinks.lake.rows.columns import Columns, Judgement
from sinks.lake.rows.schema import SCHEMA_VERSION, TABLES
from sinks.lake.storage.files import Files
from sinks.lake.storage.store import Folder, Store, at
from sinks.lake.storage.troubles import Troubles
from sinks.lake.views import listing, views

BYTES_MAX = 64 * 1024**2
"""Bytes a writer may hold before `full` says that it is time to commit."""

log = structlog.get_logger("lake")


class Lake:
    """A lake in a folder or another store; several processes may have it open at once.

    `files`, `clock_us` and `unique` are what a test replaces: the file system, the time that entries carry, and the
    names of files, which no other writer has.
    """

    def __init__(
        self,
        place: Path | Store,
        *,
        files: Files | None = None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.store: Store = Folder(place, files) if isinstance(place, Path) and files else at(place)
        self.path = self.store.path
        self.clock_us = clock_us
        self.unique = unique
        self.log = Log(self.store)
        self.careful: set[str] = set()
        """Partitions of which a commit failed for what stood in it, until one succeeds."""
        self._landing: _Landing | None = None

    def writer(self, topic: str, partition: int, *, rows_max: int = 100_000) -> PartitionWriter:
        """Give the writer of one partition; call `resume` before anything else. `rows_max` makes it `full`."""
        return PartitionWriter(self, topic, partition, rows_max)

    def reached(self, topic: str, raw_partition: int) -> tuple[int, int] | None:
        """Give the last position of a raw partition that landed from `topic`, and when (µs); None when none did."""
        with Troubles(self.path):
            self.log.refresh()
        found: tuple[int, int] | None = None
        for (of, _), ended in self.log.state.ends.items():
            offsets = [at.offset for (lane, raw), at in ended.marks.items() if lane >= 0 and raw == raw_partition]
            if of == topic and offsets:
                offset, at_us = found or (0, 0)
                found = max(offset, *offsets), max(at_us, ended.at_us)
        return found

    def prepare(self, partitions: Iterable[tuple[str, int]] = ()) -> None:
        """Make the store ready, the lake's first entry, the empty files that carry the columns, and `views.sql`.

        All may exist; a lake of version 0.1 is taken over, and `partitions` (topic and number) are those that its
        workers might land. Raises `Retry` when the operating system refuses, saying what to do, and `Stop` when what
        is there is damaged.
        """
        with Troubles(self.path):
            self.store.prepare()
            self._look_back()
            adoption.begin(self.log, self.store, partitions, self.clock_us, self.unique)
            self.log.publish()
            for table, schema in TABLES.items():
                self._place(listing.empty_file(table), parquet.encode(schema.empty_table()))
                self.store.remove(listing.old_empty_file(table))
            self._place("views.sql", views.views_sql(self.store.root).encode())
            self.store.sweep()

    def _look_back(self) -> None:
        """Say so where the log was longer once: going on makes it forget for good what landed behind its end.

        It goes on all the same, for what the topics still have lands again, and no evidence of today is to wait for it.
        """
        self.log.refresh()
        if (known := forgotten(self.store, self.log.state)) is not None:
            log.error(
                "log_went_back",
                lake=str(self.path),
                ends_with=self.log.state.number,
                had=known,
                then="what the topics still have lands again; if a newer copy of the folder _log exists, stop the "
                "worker and put that back: files that landed behind the end count for nothing now",
            )

    def _place(self, name: str, content: bytes) -> None:
        """Put a file that is the same whoever writes it, and replace one of an older version."""
        if self.store.read(name) != content:
            self.store.replace(name, content)

    def forget(self, source: str) -> None:
        """Give up what is on its way of a partition: it is read again from the lake."""
        if self._landing is not None:
            self._landing.parts = [part for part in self._landing.parts if part.source != source]
            if not self._landing.parts:
                self._landing = None

    def waiting(self, source: str) -> tuple[int, int]:
        """Give rows and bytes of a partition whose commit was tried and not answered."""
        parts = self._landing.parts if self._landing is not None else []
        found = [(part.columns.rows, part.columns.bytes) for part in parts if part.source == source]
        return found[0] if found else (0, 0)

    def commit(self, writers: Sequence[PartitionWriter]) -> None:
        """Land what these writers have, in one commit; without anything appended since the last one, do nothing.

        Raises `Superseded` when another writer has landed a range of one of them, after the others have landed: drop
        that writer, or `resume` it. Raises `Retry` when the disk refuses (the text says why): then calling again is
        safe, and what was appended is kept.
        """
        with Troubles(self.path):
            if self._landing is not None:
                self._land(self._landing)
            parts = [part for writer in writers if (part := writer.take()) is not None]
            if parts:
                self._landing = _Landing(parts, Attempt())
                self._land(self._landing)
            self.log.publish()

    def _land(self, landing: _Landing) -> None:
        def propose(state: State) -> Land | None:
            self._discard(landing)  # somebody else has the number that they were for
            landing.lost += [part.source for part in landing.parts if not state.continues(part.range)]
            landing.parts = [part for part in landing.parts if state.continues(part.range)]
            if not landing.parts:
                return None
            self._write(landing)
            return Land(
                number=state.number + 1,
                predecessor=state.sha256,
                at_us=self.clock_us(),
                ranges=[part.range for part in landing.parts],
                files=landing.files,
            )

        self.log.append(propose, landing.attempt)
        self._landing = None
        pa.default_memory_pool().release_unused()
        if landing.lost:
            raise Superseded(
                f"{', '.join(landing.lost)}: another worker has landed what was to be committed here: the partition "
                "has moved; this worker reads on from what the lake holds. If it goes on, two workers run with "
                "different groups on one lake: stop one"
            )

    def _write(self, landing: _Landing) -> None:
        """Write the files of a commit, each with what all partitions have of a table and day."""
        tables: dict[tuple[str, str], list[pa.Table]] = {}
        for part in landing.parts:
            try:
                for key, table in part.columns.tables().items():
                    tables.setdefault(key, []).append(table)
            except (OSError, PgwitnessError):
                raise
            except Exception:
                # A value that no column takes, found too late: the next writer of this process looks at each event.
                self.careful.add(part.source)
                raise
        try:
            for (name, day), several in sorted(tables.items(), key=lambda item: item[0]):
                table = pa.concat_tables(several)
                encoded = parquet.encode(table)
                path = f"{name}/dt={day}/{self.unique()}.parquet"
                sha256, added_up = chain.digest(encoded), str(digest.of(table, name))
                landing.files.append(File(name, path, table.num_rows, len(encoded), sha256, SCHEMA_VERSION, added_up))
                self.store.put(path, encoded)
        except OSError:
            self._discard(landing)
            raise
        self.careful -= {part.source for part in landing.parts}

    def _discard(self, landing: _Landing) -> None:
        """Remove files that no entry names nor can name any more."""
        for file in landing.files:
            with suppress(OSError):
                self.store.remove(file.path)
        landing.files = []


class _Part(Struct):
    """What one partition has in a commit."""

    source: str
    range: Range
    columns: Columns


class _Landing(Struct):
    """A commit on its way: until it is known what became of it, its bytes stay the same."""

    parts: list[_Part]
    attempt: Attempt
    files: list[File] = []
    lost: list[str] = []


class PartitionWriter:
    """Collects one partition of `events`: resume, then append and commit in turn. Not for several threads.

    `rows` is how many rows wait, `buffered_bytes` about how many bytes they are, `full` whether to commit.
    """

    def __init__(self, lake: Lake, topic: str, partition: int, rows_max: int) -> None:
        self._lake = lake
        self._topic = topic
        self._partition = partition
        self._rows_max = rows_max
        self._source = f"{topic}-{partition}"
        self._columns = Columns(self._source)
        self._start = 0
        self._end = 0
        self._high_water: HighWater = {}
        self._moved: set[tuple[int, int]] = set()

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._columns.rows + self._lake.waiting(self._source)[0]

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait, roughly."""
        return self._columns.bytes + self._lake.waiting(self._source)[1]

    @property
    def full(self) -> bool:
        """Whether the buffer has reached its bound, in rows or bytes."""
        return self.rows >= self._rows_max or self.buffered_bytes >= BYTES_MAX

    def resume(self) -> tuple[int, HighWater]:
        """Forget the buffer and say where to go on.

        Gives the next offset to read (0 in a lake that has nothing of this partition) and the high-water marks by
        lane and raw partition. Raises `Retry` when the lake cannot be read or written at the moment.
        """
        self._lake.forget(self._source)
        self._columns = Columns(self._source)
        self._moved = set()
        with Troubles(self._lake.path):
            self._lake.prepare()
        reached = self._lake.log.state.ends.get((self._topic, self._partition))
        self._start = self._end = reached.end if reached else 0
        self._high_water = dict(reached.marks) if reached else {}
        return self._end, dict(self._high_water)

    def append(
        self, offset: int, events: Sequence[Event], verdicts: Sequence[Judgement], lane: int = 0
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
        refused = self._add(events, verdicts, fresh, offset)
        for raw, mark in marks.items():
            if self._high_water.get((lane, raw)) != mark:
                self._high_water[lane, raw] = mark
                self._moved.add((lane, raw))
        self._end = offset + 1
        return refused

    def _add(
        self, events: Sequence[Event], verdicts: Sequence[Judgement], fresh: list[int], offset: int
    ) -> list[tuple[int, DeadLetter]]:
        """Take the events at these places; when one is in the way, find which, and take the others."""
        whole = len(fresh) == len(events)
        try:
            if self._source in self._lake.careful:
                raise ValueError("each event is looked at by itself")
            if whole:
                self._columns.add(events, verdicts, offset)
            else:
                self._columns.add([events[place] for place in fresh], [verdicts[place] for place in fresh], offset)
        except Exception:
            refused = [
                (place, why) for place in fresh if (why := self._columns.refusal(events[place], verdicts[place]))
            ]
            bad = {place for place, _ in refused}
            good = [place for place in fresh if place not in bad]
            self._columns.add([events[place] for place in good], [verdicts[place] for place in good], offset)
            return refused
        return []

    def take(self) -> _Part | None:
        """Give what was appended since it was last taken, for a commit; None when nothing was."""
        if self._end == self._start:
            return None
        marks = [
            (lane, raw, at.offset, at.index)
            for (lane, raw), at in sorted((key, self._high_water[key]) for key in self._moved)
        ]
        part = _Part(self._source, Range(self._topic, self._partition, self._start, self._end, marks), self._columns)
        self._start = self._end
        self._columns = Columns(self._source)
        self._moved = set()
        return part

    def commit(self) -> None:
        """Land what this partition has, alone (`Lake.commit`)."""
        self._lake.commit([self])

    def _wrong_topic(self, offset: int) -> str:
        return (
            f"{self._source}: new events at offset {offset}, but the lake {self._lake.path} has "
            f"landed everything before {self._end}: the topic was made anew, or the lake belongs to another one. Give "
            "the worker a new lake folder (lake.path); both remain readable"
        )
