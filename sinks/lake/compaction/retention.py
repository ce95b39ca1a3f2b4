"""Which files' time is over, by table and kind. Pure.

Files go as a whole, when the last day of capture that may stand in them is longer ago than what their table, or the
kind that compaction has put into them alone, is kept for. A file of several kinds is kept as long as its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sinks.lake.log import layout
from sinks.lake.log.chain import File

RETIRED_AT_ONCE, PATHS_AT_ONCE = 200, 25_000
"""Files that one entry retires, and the letters of their paths: each stands in it with its hash, and an entry has
60,000 bytes at most. Files of version 0.1 have the topic's name in theirs."""


@dataclass(frozen=True)
class Terms:
    """How many seconds tables are kept, and kinds of `events` that are not kept as long; what is not named stays."""

    tables: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, file: File) -> float | None:
        """Give how long a file is kept, None for ever."""
        kind = layout.kind_in(file.path)
        table = self.tables.get(file.table)
        own = self.kinds.get(kind) if kind is not None else None
        return table if own is None else own

    def reason(self, file: File) -> str:
        """Say why a file goes, as its entry does."""
        kind = layout.kind_in(file.path)
        what = f"kind {kind}" if kind is not None and kind in self.kinds else file.table
        return f"{what}: kept for {(self.seconds(file) or 0) / 86_400:g} days"


def due(live: Iterable[File], kept: Callable[[File], bool], now_us: int, terms: Terms) -> dict[str, list[File]]:
    """List the files whose time is over, by the reason; those that are held stay."""
    found: dict[str, list[File]] = {}
    for file in sorted(live, key=lambda file: file.path):
        seconds = terms.seconds(file)
        ended_s = _end_s(file.days[1])
        if seconds is not None and ended_s is not None and now_us / 1e6 >= ended_s + seconds and not kept(file):
            found.setdefault(terms.reason(file), []).append(file)
    return found


def portions(files: Sequence[File]) -> Iterator[list[File]]:
    """Part files so that each part stands in one entry."""
    part: list[File] = []
    for file in files:
        if len(part) == RETIRED_AT_ONCE or sum(len(one.path) for one in [*part, file]) > PATHS_AT_ONCE:
            yield part
            part = []
        part.append(file)
    if part:
        yield part


def _end_s(day: str) -> float | None:
    """Give when a day ends, of a month's 31st when that month does (Unix time); None for what is no day."""
    try:
        if layout.is_last(day):
            first = datetime.strptime(day[:7], "%Y-%m").replace(tzinfo=UTC)
            following = (first + timedelta(days=32)).replace(day=1)
            return following.timestamp()
        return (datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        return None
