"""Where a seal lies: `LAKE/seal/`, or the folder that `seal.path` names; and how far a lake is sealed.

checkpoint                        the newest signed checkpoint
tile/…                            the log: hashes and entries (`sinks.seal.tlog.tiles`)
anchors/SIZE-TIME.…               checkpoints that went to anchors, and what these answered
"""

from __future__ import annotations

from pathlib import Path

from pgwitness.core.errors import NotInOrder
from sinks.lake.log import chain
from sinks.lake.log.on_store import Reads
from sinks.lake.storage.files import PRIVATE, Files
from sinks.lake.storage.store import Folder
from sinks.seal.tlog import checkpoint
from sinks.seal.tlog.merkle import leaf_hash
from sinks.seal.tlog.note import PublicKey
from sinks.seal.tlog.tiles import WIDTH, Tiles

FOLDER = "seal"
CHECKPOINT = "checkpoint"
ANCHORS = "anchors"
OPEN_FOLDER, OPEN_FILE = 0o755, 0o644


def folder_of(lake: Path, path: Path | None = None) -> Path:
    """Give the folder of a lake's seal; `path` is what the configuration says."""
    return path or lake / FOLDER


class OpenFiles(Files):
    """The file system as the sealer writes: whoever comes as far as the lake may read its seal, which has no secret."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it, durably; one that exists is fine."""
        if not path.is_dir():
            super().make_folder(path)
            path.chmod(OPEN_FOLDER)

    def create(self, path: Path, content: bytes) -> None:
        """Write a new file; durable only after `sync`."""
        super().create(path, content)
        path.chmod(OPEN_FILE)


def seal_store(folder: Path, files: Files | None = None) -> Folder:
    """Give the store of a seal."""
    return Folder(folder, files or OpenFiles())


def sealed_to(seal: Path | Reads, key: PublicKey | None = None, lake: Reads | None = None) -> int:
    """Give the number of the last entry that a lake's checkpoint covers, -1 when there is none.

    `seal` is the folder of the seal (`folder_of`), or its store. With a key, the checkpoint must be signed by it;
    without, what it says is believed: whoever takes files away by it has at worst done so before they were sealed.
    With the lake, its entry of that number must be the one that was sealed; so are all before it, by their hashes.
    Raise `ValueError` for a checkpoint that is none or is not signed by the key, or with a torn log, `OSError` when it
    cannot be read, `NotInOrder` when the lake's entry is another one or missing.
    """
    store = Folder(seal, Files()) if isinstance(seal, Path) else seal
    content = store.read(CHECKPOINT)
    if content is None:
        return -1
    found = checkpoint.opened(content, key) if key else checkpoint.parsed(content.partition(b"\n\n")[0] + b"\n")
    if lake is not None and found.size:
        _hold(lake, store, found.size)
    return found.size - 1


def _hold(lake: Reads, seal: Reads, size: int) -> None:
    """Hold the last of the entries that are sealed against the lake's."""
    hashes = Tiles(size, seal.read).hashes(0, (size - 1) // WIDTH)
    entry = lake.read(chain.entry_name(size - 1))
    if entry is None or leaf_hash(entry) != hashes[(size - 1) % WIDTH]:
        what = "is missing, although it was sealed" if entry is None else "is not the entry that was sealed"
        raise NotInOrder(
            f"{chain.entry_name(size - 1)} {what}: an older copy of the log was put back, its end was cut off, or it "
            "was altered. Nothing is replaced, retired or deleted. Restore the folder _log from a newer copy; "
            "`pgwitness verify` says what else is not in order"
        )


__all__ = ["ANCHORS", "CHECKPOINT", "FOLDER", "PRIVATE", "OpenFiles", "folder_of", "seal_store", "sealed_to"]
