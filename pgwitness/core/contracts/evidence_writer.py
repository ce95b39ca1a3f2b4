"""The contract of an evidence writer: where the worker lands what was attributed and judged, exactly once.

A store has one writer for each partition of `events`. The worker resumes a writer, reads the topic from there, appends
record after record, and commits all writers together; only behind a commit does it move its place in the topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from pgwitness.core.errors import DeadLetter
from pgwitness.core.events import Event, Position


class EvidenceWriter(Protocol):
    """Collects one partition of `events`. One thread."""

    @property
    def rows(self) -> int:
        """Rows that were appended and are not committed."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes of them in memory, roughly."""

    @property
    def full(self) -> bool:
        """Whether it is time to commit: `append` goes on taking, but memory grows."""

    def resume(self) -> tuple[int, Mapping[tuple[int, int], Position]]:
        """Forget what is not committed; return the next offset and the high-water marks by lane and raw partition.

        Both are those of the last commit, whoever made it: a crash, a second worker and a replay change nothing in
        them. Reads, and may wait for, the storage. Raise `Retry` when that does not answer.
        """

    def append(
        self, offset: int, events: Sequence[Event], verdicts: Sequence[Any], lane: int = 0
    ) -> list[tuple[int, DeadLetter]]:
        """Take the record at an offset; return the places of events that cannot be written, and why.

        The others are taken, in memory only: nothing is durable or seen, and nothing waits for storage. An event at or
        below the mark of its lane and raw partition has landed and is dropped. A record without events moves the
        offset on. Raise `Stop` for new events at an offset that has landed: it is another topic.
        """


class EvidenceStore(Protocol):
    """Where evidence lands. Several processes may have it open at once; each partition has one writer that wins."""

    def prepare(self, partitions: Iterable[tuple[str, int]] = ()) -> None:
        """Make the store ready to be read and written; it may be ready already. Raise `Retry` when it cannot be yet.

        `partitions` (topic and number) are all that its workers may land, for a store that is taken over.
        """

    def writer(self, topic: str, partition: int) -> EvidenceWriter:
        """Return the writer of one partition; `resume` comes before anything else."""

    def commit(self, writers: Sequence[Any]) -> None:
        """Make what these writers were given durable and visible to readers, at once and once; blocks until it is.

        Before that nothing of it is visible, and afterwards all of it, with the ends and marks from which `resume` goes
        on. Raise `Superseded` when another worker has landed a range of one of them: nothing of that one landed, the
        others did. Raise `Retry` when the storage refuses: nothing appended is lost, and calling again is safe,
        also when it had succeeded.
        """

    def reached(self, topic: str, raw_partition: int) -> tuple[int, int] | None:
        """Return the last position of a raw partition that landed from `topic`, and when (µs); None when none did."""
