"""The entries of a lake as the seal has them: read one by one, folded, and what each file's part in them was. Pure.

The fold is the lake's own (`sinks.lake.log.chain.apply`); it believes no snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sinks.lake.log import chain, snapshots
from sinks.lake.log.chain import Begin, Entry, File, Land, Replace, Retire, State

Read = Callable[[str], bytes | None]


@dataclass
class History:
    """The lake up to an entry. `gone` are files that entries removed: the file, and the entry's number."""

    state: State = field(default_factory=State)
    gone: dict[str, tuple[File, int]] = field(default_factory=dict)
    rows: int = 0
    """Rows that landed, ever."""
    retired: bool = False
    """Whether retention took files."""

    def take(self, content: bytes, read: Read) -> Entry:
        """Take the next entry; what it leaves out is read. Raise `Stop` when it is none or cannot follow."""
        number = self.state.number + 1
        entry = chain.decode(content, number)
        wanted: str | None = getattr(entry, "more", None)
        entry = chain.whole(entry, read(chain.more_name(wanted)) if wanted else None)
        before = {path: self.state.live[path] for path in removed(entry) if path in self.state.live}
        chain.apply(self.state, entry, chain.digest(content))
        snapshots.rebase(self.state)
        self.gone |= {path: (file, number) for path, file in before.items()}
        self.retired |= isinstance(entry, Retire)
        if isinstance(entry, Begin | Land):
            self.rows += sum(file.rows for file in entry.files)
        return entry


def removed(entry: Entry) -> list[str]:
    """List the files that an entry removes."""
    match entry:
        case Replace(removes=removes):
            return removes
        case Retire(removes=retired):
            return [one.path for one in retired]
    return []


def added(entry: Entry) -> list[File]:
    """List the files that an entry brings."""
    return entry.files if isinstance(entry, Begin | Land | Replace) else []
