"""Which files in a lake's folders may be deleted: those that an entry has taken out long ago, and those of no entry.

Nothing but the log and the folders says so, so that it does not matter who has taken a file out and when whoever would
have deleted it was killed. A file that is in no entry may belong to a commit that is on its way: nothing is said of it
for a day. And it may be evidence, if the log is an older copy of itself: only a person has it deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from sinks.lake.log import layout
from sinks.lake.log.chain import Retire
from sinks.lake.log.on_store import Reader, Reads
from sinks.lake.log.removed import taken_out
from sinks.lake.rows.schema import TABLES
from sinks.lake.views.listing import empty_file, old_empty_file

ORPHANED_S = 86_400.0
"""How long a file of no entry stays: whoever would enter it is gone by then."""


class Lists(Reads, Protocol):
    """What this takes of a store."""

    def walk(self, folder: str) -> Iterator[tuple[str, int]]:
        """Give all files below a folder with when each was written (µs); what lies behind a link is none of them."""


@dataclass
class Gone:
    """Files that may be deleted: replaced or retired, and, where a person says so, those that no entry names."""

    replaced: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)


def removable(store: Lists, log: Reader, now_us: int, *, grace_s: float, sealed: int | None) -> Gone:
    """List what may be deleted: taken out more than `grace_s` ago, by an entry up to `sealed` where that is given."""
    present = _parquet(store)
    log.refresh()  # what has landed while the folders were read is live by now
    written = {path: at_us for path, at_us in present.items() if path not in log.state.live}
    taken = taken_out(store, log.state.number, written)
    gone, holds = Gone(), log.state.holds.values()
    if taken is None:
        return gone
    for path, at_us in sorted(written.items()):
        entry = taken.get(path)
        if entry is None:
            if now_us - at_us > ORPHANED_S * 1e6:
                gone.orphans.append(path)
        elif isinstance(entry, Retire) and any(hold.covers(*layout.days_of(path)) for hold in holds):
            continue  # it was retired, and somebody holds what is left of it
        elif now_us - entry.at_us > grace_s * 1e6 and (sealed is None or entry.number <= sealed):
            gone.replaced.append(path)
    return gone


def _parquet(store: Lists) -> dict[str, int]:
    """List the Parquet files that lie where files of a lake do, with when each was written.

    A folder of a day that is a link leads out of the lake: nothing there is the lake's to delete.
    """
    kept = {name for table in TABLES for name in (empty_file(table), old_empty_file(table))}
    return {
        path: at_us
        for table in TABLES
        for path, at_us in store.walk(table)
        if layout.table_of(path) is not None and path not in kept
    }
