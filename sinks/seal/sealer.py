"""The sealer: reads the entries that have come, checks them and their files, and signs a checkpoint of all of them.

It reads the lake and writes nothing there but its own folder. The order of a round is: files of the log, durable; the
signed checkpoint into the sealer's own memory, outside of the lake; then the checkpoint beside the log. So a kill
anywhere leaves a log that goes on, and whatever the sealer has signed once it never contradicts: a lake that was put
back from a copy has other entries than the memory says, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import structlog
from msgspec import Struct

from pgwitness.core.errors import PgwitnessError, Retry, Stop
from sinks.lake.log import chain
from sinks.lake.log.on_store import newest_entry
from sinks.lake.storage.store import Folder, Store
from sinks.seal import measuring
from sinks.seal.history import History, added
from sinks.seal.keys import Signer
from sinks.seal.place import CHECKPOINT
from sinks.seal.tlog import checkpoint, merkle, note, tiles
from sinks.seal.tlog.checkpoint import Checkpoint
from sinks.seal.tlog.merkle import leaf_hash
from sinks.seal.tlog.tiles import Edge, Tiles, Torn

REMEMBERED = "checkpoint"
BATCH = 4096
"""Entries that are written before more are read: memory is bounded, however long the lake was not sealed."""

log = structlog.get_logger()


class Sealed(Struct, frozen=True):
    """What a round did: the checkpoint that holds now, its signed note, and how many entries and files it added."""

    lake: str
    checkpoint: Checkpoint
    note: bytes
    entries: int
    files: int


class Sealer:
    """Seals one lake. Not for several threads, nor for two processes.

    `store` reads the lake; `seal` is the log's own folder, `memory` the one where the sealer keeps what it
    signed last. `anchored` gives the checkpoints that anchors have, each with the anchor's name.
    """

    def __init__(
        self,
        store: Store,
        seal: Store,
        memory: Folder,
        signer: Signer,
        anchored: Callable[[], list[tuple[str, bytes]]] = list,
    ) -> None:
        self._lake = store.path
        self._store = store
        self._seal = seal
        self._memory = memory
        self._signer = signer
        self._anchored = anchored
        self._held = False
        self._beat: Callable[[], object] = lambda: None
        self._history = History()
        self._edge = Edge()
        self._kept: list[bytes] = []
        self._signed: tuple[Checkpoint, bytes] | None = None

    def round(self, beat: Callable[[], object] = lambda: None) -> Sealed:
        """Seal what has come; without anything new, the checkpoint that is there is given again.

        `beat` is called again and again while it works.

        Raise `Stop` when what is there contradicts what was signed, or is missing or altered: then nothing is signed.
        Raise `Retry` when the operating system refuses.
        """
        self._beat = beat
        try:
            return self._round()
        except OSError as error:
            self._signed = None
            raise Retry(
                f"the lake {self._lake} could not be read or its seal not written ({error}): look at rights and room; "
                "nothing was signed that is not whole, and the next round goes on"
            ) from error
        except PgwitnessError:
            self._signed = None  # what was half read is read anew
            raise

    def _round(self) -> Sealed:
        if self._signed is None or not self._stands(*self._signed):
            self._open()
        older = self._edge.size
        files = 0
        while entries := self._new(BATCH):
            files += self._grow(entries)
        if not self._held:
            self._hold_against_anchors()
        if self._signed is None or self._edge.size > self._signed[0].size:
            self._sign()
        found, content = self._known()
        if self._seal.read(CHECKPOINT) != content:
            self._seal.replace(CHECKPOINT, content)
        self._tidy(older)
        return Sealed(self._history.state.lake, found, content, found.size - older, files)

    def _known(self) -> tuple[Checkpoint, bytes]:
        assert self._signed is not None
        return self._signed

    def _stands(self, found: Checkpoint, content: bytes) -> bool:
        """Say whether lake and seal are still as this process left them."""
        last = self._store.read(chain.entry_name(found.size - 1)) if found.size else b""
        return (
            last is not None
            and (not found.size or chain.digest(last) == self._history.state.sha256)
            and self._seal.read(CHECKPOINT) == content
            and self._memory.read(REMEMBERED) == content
        )

    def _open(self) -> None:
        """Find where to go on, and that the lake is still the one that was signed."""
        self._signed, self._held = self._newest(), False
        size = self._signed[0].size if self._signed else 0
        self._history, self._edge, self._kept = History(), Edge(), []
        if self._signed is None:
            if self._store.read(chain.entry_name(0)) is None:
                raise Retry(f"the lake {self._lake} has no entry yet: start a worker, which makes it")
            return
        self._fold(size)
        if self._edge.root() != self._signed[0].root:
            raise Stop(self._another(size))

    def _fold(self, size: int) -> None:
        """Take the entries that are signed, as the log has them; where that is torn, as the lake has them."""
        try:
            edge, entries = Tiles(size, self._seal.read).edge(), tiles.entries(size, self._seal.read)
            self._take(entries)
        except (Torn, Stop) as error:
            log.warning("log_torn", why=str(error), then="it is made again of the lake's entries")
            self._history = History()
            self._rebuild(size)
            return
        last = self._store.read(chain.entry_name(size - 1)) if size else None
        if size and (last is None or chain.digest(last) != self._history.state.sha256):
            raise Stop(self._another(size))
        if edge.root() != self._edge.root():
            log.warning("log_torn", why="tiles are not of its entries", then="they are made again")
            self._history = History()
            self._rebuild(size)

    def _take(self, entries: Iterator[bytes]) -> None:
        self._edge, self._kept = Edge(), []
        for content in entries:
            self._history.take(content, self._store.read)
            self._add(content)

    def _add(self, content: bytes) -> None:
        self._kept.append(content)
        for level, _, _ in self._edge.add(leaf_hash(content)):
            if level == 0:
                self._kept.clear()

    def _rebuild(self, size: int) -> None:
        """Write the log again from its beginning, of entries that have the root that was signed."""
        assert self._signed is not None
        self._take(self._entries(0, size))
        if self._edge.size < size or self._edge.root() != self._signed[0].root:
            raise Stop(self._another(size))
        edge, kept = Edge(), list[bytes]()
        for start in range(0, size, BATCH):
            self._write(edge, kept, list(self._entries(start, min(size, start + BATCH))))
        self._edge, self._kept = edge, kept

    def _entries(self, start: int, end: int) -> Iterator[bytes]:
        for number in range(start, end):
            content = self._store.read(chain.entry_name(number))
            if content is None:
                return
            if len(content) > chain.ENTRY_BYTES_MAX:
                raise Stop(
                    f"{chain.entry_name(number)} is longer than an entry can be: restore it from a copy of the lake"
                )
            self._beat()
            yield content

    def _hold_against_anchors(self) -> None:
        """Look whether the lake goes on from what the anchors have. Raise `Stop` when they have another history."""
        subtree = Tiles(self._edge.size, self._seal.read).subtree
        for name, content in self._anchored():
            try:
                found = checkpoint.opened(content, self._signer.public)
            except ValueError as error:
                raise Stop(
                    f"the anchor {name} has a checkpoint of another lake or key ({error}): nothing is signed. Give "
                    "each lake an anchor of its own"
                ) from error
            if found.size > self._edge.size or merkle.root(found.size, subtree) != found.root:
                raise Stop(f"the anchor {name} has a later checkpoint: {self._another(found.size)}")
        self._held = True

    def _newest(self) -> tuple[Checkpoint, bytes] | None:
        """Give the newest checkpoint that was signed, as the memory and the seal know it."""
        found = []
        known: list[tuple[Store, str, str]] = [(self._memory, REMEMBERED, "memory"), (self._seal, CHECKPOINT, "seal")]
        for store, name, where in known:
            content = store.read(name)
            if content is None:
                continue
            try:
                found.append((checkpoint.opened(content, self._signer.public), content))
            except ValueError as error:
                raise Stop(
                    f"{store.path / name}: {error}. The {where} of another lake or key, or altered: nothing is signed. "
                    "Give each lake a seal.state_path and a key of its own, or restore the file from a copy"
                ) from error
        if not found:
            return None
        return max(found, key=lambda one: one[0].size)

    def _new(self, at_most: int) -> list[bytes]:
        start = self._edge.size
        entries = list(self._entries(start, start + at_most))
        if not entries:
            newest = newest_entry(self._store)
            if newest >= start and self._store.read(chain.entry_name(start)) is None:
                raise Stop(
                    f"{chain.entry_name(start)} is missing although entry {newest} is there: nothing is signed; "
                    "restore it from a copy of the lake"
                )
        return entries

    def _grow(self, entries: list[bytes]) -> int:
        """Check entries and their files, and put them behind the log. Give how many files were looked at."""
        files = {
            file.path: file for content in entries for file in added(self._history.take(content, self._store.read))
        }
        for path, file in files.items():
            self._check(path, file)
            self._beat()
        self._write(self._edge, self._kept, entries)
        return len(files)

    def _check(self, path: str, file: chain.File) -> None:
        """Look at a file that is about to be signed. Raise `Stop` when it is not what its entry says."""
        why = measuring.differs(self._store, file)
        if why is None and (count := measuring.rows(self._store, path)) != file.rows:
            why = f"has {count} rows, its entry says {file.rows}"
        if why is None or (why == "is missing" and self._removed_by_now(path)):
            return
        raise Stop(
            f"{path} {why}: nothing is signed over it. Restore the file from a copy; `pgwitness verify` says what "
            "else is not in order"
        )

    def _removed_by_now(self, path: str) -> bool:
        """Say whether an entry, be it one that has come meanwhile, has removed a file."""
        if path in self._history.gone:
            return True
        ahead = History(self._copied_state(), dict(self._history.gone))
        number = ahead.state.number + 1
        while (content := self._store.read(chain.entry_name(number))) is not None:
            ahead.take(content, self._store.read)
            number += 1
        return path in ahead.gone

    def _copied_state(self) -> chain.State:
        state = self._history.state
        return chain.State(
            state.number,
            state.sha256,
            state.lake,
            dict(state.live),
            {source: chain.Reached(one.end, dict(one.marks), one.at_us) for source, one in state.ends.items()},
            dict(state.holds),
            retired=dict(state.retired),
        )

    def _write(self, edge: Edge, kept: list[bytes], entries: list[bytes]) -> None:
        for name, content in tiles.grown(edge, kept, entries):
            if not self._seal.create(name, content) and self._seal.read(name) != content:
                self._seal.replace(name, content)

    def _sign(self) -> None:
        found = Checkpoint(self._signer.public.name, self._edge.size, self._edge.root())
        content = note.signed(found.text(), self._signer.public, self._signer.sign(found.text()))
        self._memory.replace(REMEMBERED, content)
        self._signed = found, content

    def _tidy(self, older: int) -> None:
        """Remove partial files of the log that full ones have taken the place of."""
        for folder in tiles.filled(older, self._edge.size):
            for name in self._seal.names(folder):
                self._seal.remove(f"{folder}/{name}")

    def _another(self, size: int) -> str:
        return (
            f"the lake {self._lake} does not begin with the {size} entries that were signed: an older copy of it was "
            "put back, or its entries were altered. Nothing is signed, for that would make two histories. Restore the "
            "lake's folder _log from a newer copy; if that is lost, go on with a new lake, and keep this one as it is"
        )
