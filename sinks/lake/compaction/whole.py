"""Whether a lake's log is all that it once was: looked at before anything is replaced, retired or deleted by it.

A log whose end was cut off, or of which an older copy was put back, folds as well as any other. But by it files that
landed later are in no entry, and files that were compacted count that are long gone: whoever goes by it takes away
evidence that nothing else has. What remembers more than such a log are snapshots, and the seal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from pgwitness.core.errors import NotInOrder
from sinks.lake.log import snapshots
from sinks.lake.log.on_store import Reader, Reads, newest_snapshot


def refresh(path: PurePath, store: Reads, log: Reader, sealed: Callable[[], int | None]) -> int | None:
    """Read the log to its end; give what `sealed` says: the last entry that a checkpoint covers, None without a seal.

    Raise `NotInOrder` where there is no log, or where a snapshot or the seal knows of entries that it does not have.
    """
    summed, known = newest_snapshot(store), sealed()
    log.refresh()  # what was known before it is in it by now
    if (said := cut_off(log.state.number, summed, known)) is not None:
        raise NotInOrder(f"{path}: {said}")
    if log.state.number < 0:
        raise NotInOrder(
            f"{path} has no log: start a worker on it (`pgwitness worker`), which makes it, and takes over a lake of "
            "version 0.1"
        )
    return known


def cut_off(last: int, summed: int, sealed: int | None) -> str | None:
    """Say that a log which ends with entry `last` was longer once; None where nothing says so. Pure."""
    if (sealed if sealed is not None else -1) > last:
        who, known = "the seal", sealed
    elif summed > last:
        who, known = snapshots.tail_name(summed), summed
    else:
        return None
    ends = f"the log ends with entry {last}" if last >= 0 else "there is no entry of the log"
    return (
        f"{ends}, and {who} knows of entry {known}: the end of the log was cut off, or an "
        "older copy of it put back. Nothing is replaced, retired or deleted, for files that landed later would count "
        "for nothing. Restore the folder _log from a newer copy; if there is none, keep the files that "
        "`pgwitness doctor` finds in no entry, and remove the snapshots that are newer than the log"
    )
