"""Makes the bundle that proves one event: a folder that is checked without the lake, by `verify` or by hand.

events.parquet       the file that has the event, and others, too
events.entry.json    the entry that brought it, as the lake has it: the file's SHA-256 stands there
events.more.json     … or here, if that was too long for the entry, which has the SHA-256 of this
events.tlog-proof    that the entry stands in the log, with a signed checkpoint
rows.…               the same four of the file with the event's row images, where they are wanted
event.json           the event as it stands in the file, to be read
checkpoint.tsr       a time stamp of the checkpoint, if there is one
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct

from pgwitness.core.errors import NotInOrder
from sinks.lake.log import chain
from sinks.lake.log.chain import Entry, File
from sinks.lake.log.on_store import Reader
from sinks.lake.storage.store import Folder, Store, at
from sinks.seal import measuring
from sinks.seal.history import added
from sinks.seal.place import ANCHORS, CHECKPOINT
from sinks.seal.tlog import checkpoint, merkle
from sinks.seal.tlog.note import PublicKey
from sinks.seal.tlog.proof import Proof
from sinks.seal.tlog.tiles import Tiles, Torn

EVENTS, ROWS = "events", "rows"
EVENT, STAMP = "event.json", "checkpoint.tsr"
DATA, ENTRY, MORE, PROOF = "{}.parquet", "{}.entry.json", "{}.more.json", "{}.tlog-proof"
"""Names in a bundle, by table."""
THREADS = min(8, (os.cpu_count() or 1) + 2)


class Source(Struct, frozen=True):
    """Where a table has the event: the file, and the entry that brought it, with its bytes."""

    file: File
    number: int
    content: bytes
    more: bytes | None


def prove(
    lake: Path | Store, seal: Path | Store, key: PublicKey, event_id: str, into: Path, *, row_images: bool = False
) -> Source:
    """Write the bundle of an event into a new folder; gives the file that has the event, and the entry it rests on.

    Raise `NotInOrder` when the lake has no such event, when it is not sealed yet, or when what is there is not what was
    sealed; `OSError` when something cannot be read or written.
    """
    store, log = at(lake), at(seal)
    reader = Reader(store)
    reader.refresh()
    live = sorted(reader.state.live.values(), key=lambda file: file.path, reverse=True)
    files = {EVENTS: _having(store, [file for file in live if file.table == EVENTS], event_id)}
    if files[EVENTS] is None:
        raise NotInOrder(f"the lake has no event {event_id}: `pgwitness sql` lists what it has")
    if row_images:
        files[ROWS] = _having(store, [file for file in live if file.table == ROWS], event_id)
    sources = [_source(store, file, reader.state.number) for file in files.values() if file is not None]
    note, stamp = _checkpoint(log, key, max(source.number for source in sources))
    with _whole(into) as folder:
        for source in sources:
            _add(folder, store, source, _proof(log, key, note, source))
        if stamp is not None:
            _write(folder / STAMP, stamp)
        _write(folder / EVENT, as_json(row(folder / DATA.format(EVENTS), event_id) or {}))
    return sources[0]


def _add(folder: Path, lake: Store, source: Source, proof: Proof) -> None:
    table = source.file.table
    _copy(lake, source.file, folder / DATA.format(table))
    _write(folder / ENTRY.format(table), source.content)
    if source.more is not None:
        _write(folder / MORE.format(table), source.more)
    _write(folder / PROOF.format(table), proof.text())


def row(path: Path, event_id: str) -> dict[str, object] | None:
    """Read the row of an event out of a file; None when it has none."""
    table = pq.ParquetFile(path).read(columns=["event_id"])
    at = pc.index(table["event_id"], pa.scalar(event_id, table["event_id"].type)).as_py()
    if at < 0:
        return None
    found: dict[str, object] = pq.ParquetFile(path).read().slice(at, 1).to_pylist()[0]
    return found


def as_json(found: dict[str, object]) -> bytes:
    """Write a row as one line of JSON."""
    return msgspec.json.encode(found, enc_hook=str) + b"\n"


def _having(lake: Store, files: list[File], event_id: str) -> File | None:
    """Find the file that has an event."""

    def has(file: File) -> bool:
        try:
            with lake.open(file.path) as opened, pq.ParquetFile(opened) as parquet:
                ids = parquet.read(columns=["event_id"])["event_id"]
        except (FileNotFoundError, pa.ArrowException):
            return False  # what is missing or altered is said by verify
        return bool(pc.index(ids, pa.scalar(event_id, ids.type)).as_py() >= 0)

    with ThreadPoolExecutor(THREADS) as threads:
        for start in range(0, len(files), 64):
            some = files[start : start + 64]
            for file, there in zip(some, threads.map(has, some), strict=True):
                if there:
                    return file
    return None


def _source(store: Store, file: File, last: int) -> Source:
    for number in range(last, -1, -1):
        content = store.read(chain.entry_name(number))
        if content is None:
            raise NotInOrder(f"{chain.entry_name(number)} is missing: `pgwitness verify` says what else is")
        entry: Entry = chain.decode(content, number)
        wanted: str | None = getattr(entry, "more", None)
        more = store.read(chain.more_name(wanted)) if wanted else None
        if any(one == file for one in added(chain.whole(entry, more))):
            return Source(file, number, content, more)
    raise NotInOrder(f"no entry brought {file.path}: `pgwitness verify` says what is not in order")


def _checkpoint(seal: Store, key: PublicKey, number: int) -> tuple[bytes, bytes | None]:
    """Choose the checkpoint to prove with: the first that has a time stamp and covers the entry, else the newest."""
    names = seal.names(ANCHORS)
    for name in names:
        if name.endswith(".tsr"):
            note = seal.read(f"{ANCHORS}/{name.split('.')[0]}.checkpoint")
            if note is not None and _covers(note, key, number):
                return note, seal.read(f"{ANCHORS}/{name}")
    note = seal.read(CHECKPOINT)
    if note is None or not _covers(note, key, number):
        raise NotInOrder(f"entry {number} is not sealed yet: run `pgwitness seal`, or wait for its next round")
    return note, None


def _covers(note: bytes, key: PublicKey, number: int) -> bool:
    try:
        return checkpoint.opened(note, key).size > number
    except ValueError as error:
        raise NotInOrder(f"the checkpoint of the seal: {error}") from error


def _proof(seal: Store, key: PublicKey, note: bytes, source: Source) -> Proof:
    size = checkpoint.opened(note, key).size
    newest = checkpoint.opened(seal.read(CHECKPOINT) or note, key).size
    try:
        hashes = merkle.inclusion(source.number, size, Tiles(max(size, newest), seal.read).subtree)
    except Torn as error:
        raise NotInOrder(f"the log in the seal: {error}; the sealer makes it again when it starts") from error
    made = Proof(source.number, hashes, note)
    try:
        made.checked(source.content, key)
    except ValueError as error:
        raise NotInOrder(f"entry {source.number}: {error}; `pgwitness verify` says more") from error
    return made


def _copy(lake: Store, file: File, target: Path) -> None:
    if isinstance(lake, Folder) and not measuring.is_file(lake.path / file.path):
        raise NotInOrder(f"{file.path} is missing, or no file: `pgwitness verify` says what else is not in order")
    with lake.open(file.path) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    found = measuring.measure(target)
    if found is None or found.sha256 != file.sha256:
        raise NotInOrder(f"{file.path} is not what its entry says: it was altered, and proves nothing")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Make a folder that is there as a whole or not at all."""
    if path.exists():
        raise NotInOrder(f"{path} is there already; name another folder with --output")
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.mkdir(parents=True)
    try:
        yield staged
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    staged.rename(path)


def is_bundle(path: Path) -> bool:
    """Say whether a folder is a bundle."""
    return (path / PROOF.format(EVENTS)).is_file()
