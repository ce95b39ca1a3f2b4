"""The chain of a lake on its store: opened through a snapshot, read to its end, added to, and summed up again.

What decides is `sinks.lake.log.protocol`; here its steps are carried out. Not for several threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from pgwitness.core.errors import Stop
from sinks.lake.log import chain, protocol, snapshots
from sinks.lake.log.chain import Entry, State
from sinks.lake.log.protocol import Attempt, Create, Steps, T


class Reads(Protocol):
    """What reading the chain takes of a store (`sinks.lake.storage.store`)."""

    def read(self, name: str) -> bytes | None:
        """Give what a file holds, None when there is none."""

    def names(self, folder: str) -> list[str]:
        """List what is in a folder, in order; nothing when there is none."""


class Writes(Reads, Protocol):
    """What adding to it takes. Each operation either did what it says or raises `OSError`."""

    def create(self, name: str, content: bytes) -> bool:
        """Make a file whole or not at all, if its name is free: of two callers, one wins. False when it was taken."""

    def replace(self, name: str, content: bytes) -> None:
        """Write a file over whatever has its name."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone is fine."""


class Reader:
    """The chain as a reader follows it. `state` is what it amounts to as of the last `refresh`."""

    def __init__(self, store: Reads) -> None:
        self._reads = store
        self.state = State()

    def refresh(self) -> bool:
        """Read on to the end; gives whether anything has changed. A lake that was made anew is read anew.

        Raises `Stop` when an entry is damaged, missing, or does not follow the one before it.
        """
        before = self.state.sha256
        if not self._stands():
            self.state = open_state(self._reads)
            self._look_for_holes()
        self._run(protocol.catch_up(self.state))
        return self.state.sha256 != before

    def _stands(self) -> bool:
        """Say whether the entry that the state ends with is still the one that is there."""
        if self.state.number < 0:
            return False
        content = self._reads.read(chain.entry_name(self.state.number))
        return content is not None and chain.digest(content) == self.state.sha256

    def _look_for_holes(self) -> None:
        self._run(protocol.catch_up(self.state))
        newest = newest_entry(self._reads)
        if newest > self.state.number:
            self._run(protocol.catch_up(self.state))  # it may have come this moment
        if newest > self.state.number:
            raise Stop(
                f"{chain.entry_name(self.state.number + 1)} is missing although entry {newest} is there: restore it "
                "from a copy of the lake"
            )

    def _run(self, steps: Steps[T]) -> T:
        answer: object = None
        try:
            while True:
                asked = steps.send(answer)
                try:
                    answer = self._carry_out(asked)
                except OSError as error:
                    answer = self._carry_out(steps.throw(error))
        except StopIteration as end:
            value: T = end.value
            return value

    def _carry_out(self, asked: Create | protocol.Read) -> object:
        assert isinstance(asked, protocol.Read)
        return self._reads.read(asked.name)


class Log(Reader):
    """The chain as a writer adds to it."""

    def __init__(self, store: Writes) -> None:
        super().__init__(store)
        self._store = store
        self._published: str | None = None
        self._based = -1

    def append(self, propose: Callable[[State], Entry | None], attempt: Attempt) -> bool:
        """Put an entry behind the last one (`protocol.append`).

        Raises `Stop` when the entry that the state ends with is there no more: what is added behind it would have no
        predecessor.
        """
        if self.state.number >= 0 and not self._stands():
            raise Stop(
                f"{chain.entry_name(self.state.number)} is not the entry that this worker has read: another copy of "
                "the lake was put in its place while the worker ran. Start the worker again: it goes on from what is "
                "there now"
            )
        return self._run(protocol.append(self.state, propose, attempt))

    def publish(self) -> None:
        """Write the snapshot of the state, if it is not there, and point to it; doing it again changes nothing.

        A writer that was paused here may point back behind others: whoever has pointed looks whether more has come.
        """
        while self.state.number >= 0 and self._published != self.state.sha256:
            self._sum_up(self.state)
            self._run(protocol.catch_up(self.state))

    def _sum_up(self, state: State) -> None:
        base = snapshots.base_of(state.number)
        if self._based != base:
            self._keep(snapshots.base_name(state.number), snapshots.encode_base(state))
        self._keep(snapshots.tail_name(state.number), snapshots.encode_tail(state))
        if not self._points_well(state.number):
            self._store.replace(snapshots.HEAD, snapshots.encode_head(state.number))
        if state.number >= snapshots.KEPT:
            self._store.remove(snapshots.tail_name(state.number - snapshots.KEPT))
        if self._based != base:
            self._sweep(base)
            self._based = base
        self._published = state.sha256

    def _keep(self, name: str, content: bytes) -> None:
        """Make a snapshot; one that says something else is of entries that are there no more."""
        if not self._store.create(name, content) and self._reads.read(name) != content:
            self._store.replace(name, content)

    def _points_well(self, number: int) -> bool:
        """Say whether the hint names the snapshot of this entry, or that of a later one that is there."""
        known = self._reads.read(snapshots.HEAD)
        at = snapshots.decode_head(known) if known else None
        if at is None or at < number or known != snapshots.encode_head(at):
            return False
        return at == number or _snapshot(self._reads, at) is not None

    def _sweep(self, base: int) -> None:
        """Remove snapshots that nobody opens any more: all can be made again from the entries."""
        keep = {snapshots.base_name(base), snapshots.base_name(max(0, base - snapshots.BASE_EVERY))}
        for name in self._store.names(snapshots.FOLDER):
            path = f"{snapshots.FOLDER}/{name}"
            old_tail = name.startswith("tail-") and path < snapshots.tail_name(max(0, base - snapshots.KEPT))
            old_base = name.startswith("base-") and path < min(keep)
            if old_tail or old_base:
                self._store.remove(path)

    def _carry_out(self, asked: Create | protocol.Read) -> object:
        if isinstance(asked, Create):
            return self._store.create(asked.name, asked.content)
        return self._store.read(asked.name)


def open_state(store: Reads) -> State:
    """Give the state of the newest snapshot that fits the entries, an empty one when none does."""
    head = store.read(snapshots.HEAD)
    hinted = snapshots.decode_head(head) if head else None
    if hinted is not None and (state := _snapshot(store, hinted)) is not None:
        return state
    tails = [name for name in store.names(snapshots.FOLDER) if name.startswith("tail-")]
    for name in reversed(tails):
        digits = name.removeprefix("tail-").removesuffix(".json")
        if digits.isdecimal() and (state := _snapshot(store, int(digits))) is not None:
            return state
    return State()


def _snapshot(store: Reads, number: int) -> State | None:
    """Read the snapshot of an entry; None when it is not whole, or of another entry than the one that is there."""
    base, tail = store.read(snapshots.base_name(number)), store.read(snapshots.tail_name(number))
    entry = store.read(chain.entry_name(number))
    if base is None or tail is None or entry is None:
        return None
    try:
        state = snapshots.decode(base, tail)
    except ValueError:
        return None
    return state if (state.number, state.sha256) == (number, chain.digest(entry)) else None


def newest_entry(store: Reads) -> int:
    """Give the highest number of any entry that is there, -1 when there is none; folders may be empty."""
    for high in _numbered(store, chain.FOLDER, _HIGH):
        for middle in _numbered(store, f"{chain.FOLDER}/{high}", _MIDDLE):
            for low in _numbered(store, f"{chain.FOLDER}/{high}/{middle}", _LOW):
                return int(high + middle + low.removesuffix(".json"))
    return -1


def newest_snapshot(store: Reads) -> int:
    """Give the highest entry that a snapshot is named by, -1 when there is none. The log has that entry, or had it."""
    numbers = [found[1] for name in store.names(snapshots.FOLDER) if (found := _TAIL.fullmatch(name))]
    return int(max(numbers, default="-1"))


def forgotten(store: Reads, state: State) -> int | None:
    """Give the highest entry that a snapshot knows and the log has not, or as another one; None where there is none.

    The entry is durable before its snapshot: a log that knows less was cut off, or an older copy of it put back.
    """
    newest = newest_snapshot(store)
    if newest > state.number:
        return newest
    tail = store.read(snapshots.tail_name(state.number)) if state.number >= 0 else None
    known = snapshots.sha256_in(tail) if tail is not None else None
    return state.number if known not in (None, state.sha256) else None


_TAIL = re.compile(r"tail-([0-9]{12})\.json")
_HIGH, _MIDDLE, _LOW = (re.compile(digits) for digits in ("[0-9]{6}", "[0-9]{3}", r"[0-9]{3}\.json"))


def _numbered(store: Reads, folder: str, name: re.Pattern[str]) -> list[str]:
    """List what in a folder has such a name, the highest first; nothing where no folder is."""
    try:
        return [one for one in reversed(store.names(folder)) if name.fullmatch(one)]
    except NotADirectoryError:
        return []
