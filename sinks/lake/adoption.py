"""Entry 0 of a lake: of a new one its id alone, of one that version 0.1 wrote all that stands in its manifest.

Before entry 0 every chain of the old manifest is fenced: the name that its next entry would have is taken, exclusively,
by one of a newer format, so that a worker of the old version that still runs loses its commit and stops. Only then is
the manifest read for good. Doing it again, or twice at once, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pgwitness.core.errors import Stop
from sinks.lake import manifest
from sinks.lake.log.chain import Begin, Range, State
from sinks.lake.log.on_store import Log
from sinks.lake.log.protocol import Attempt
from sinks.lake.storage.store import Folder, Store

ROUNDS_MAX = 100


def begin(
    log: Log,
    store: Store,
    partitions: Iterable[tuple[str, int]],
    clock_us: Callable[[], int],
    unique: Callable[[], str],
) -> None:
    """Put entry 0 if there is none; `partitions` are those that a worker of the old version might begin to land.

    Raises `Stop` when the old manifest is damaged: what it holds would be lost without a word.
    """
    log.refresh()
    if log.state.number >= 0:
        return
    old = _taken_over(store, partitions) if isinstance(store, Folder) else None

    def propose(state: State) -> Begin | None:
        if state.number >= 0:
            return None
        ranges = [
            Range(topic, number, 0, entry.end, entry.high_water)
            for (topic, number), (entry, _) in sorted(old.ends.items() if old else ())
        ]
        files = manifest.as_files(old) if old else []
        return Begin(number=0, predecessor=None, at_us=clock_us(), lake=unique(), ranges=ranges, files=files)

    log.append(propose, Attempt())


def _taken_over(store: Folder, partitions: Iterable[tuple[str, int]]) -> manifest.Gathered | None:
    """Fence what version 0.1 wrote, and bring each of its files to its place; None when there is nothing of it."""
    if not manifest.there(store.path):
        return None
    old = _fenced(store, partitions)
    for file, _ in old.files:
        _publish(store, file)
    return old


def _fenced(store: Folder, partitions: Iterable[tuple[str, int]]) -> manifest.Gathered:
    """Fence every chain, and read them all when none can grow any more."""
    for _ in range(ROUNDS_MAX):
        found = manifest.gather(store.path)
        if found.damaged:
            raise Stop(
                f"{store.path / manifest.FOLDER / found.damaged[0]}: not a manifest entry; restore it from a copy of "
                "the lake, then start again"
            )
        if found.gaps:
            raise Stop(
                f"{store.path / manifest.FOLDER / found.gaps[0]} is missing although the entry behind it is there; "
                "restore it from a copy of the lake, then start again"
            )
        open_ones = ({*found.ends, *partitions}) - found.fenced
        if not open_ones:
            return found
        for source in sorted(open_ones):
            store.create(*manifest.fence(found.ends.get(source), source))
    raise Stop(f"{store.path}: a worker of version 0.1 goes on landing; stop it, then start again")


def _publish(store: Folder, file: manifest.File) -> None:
    """Bring a committed file to its place where a crash had left it staged."""
    staged = store.path / manifest.STAGING / file.staged if file.staged else None
    if staged is not None and staged.exists() and not (store.path / file.path).exists():
        store.move(staged, store.path / file.path)
