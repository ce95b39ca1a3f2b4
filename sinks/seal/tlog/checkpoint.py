"""Checkpoints of a log (C2SP tlog-checkpoint v1.0.0): its origin, how many entries it has, and their root. Pure."""

from __future__ import annotations

import base64
import re

from msgspec import Struct

from sinks.seal.tlog import note
from sinks.seal.tlog.merkle import HASH_BYTES
from sinks.seal.tlog.note import PublicKey

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class Checkpoint(Struct, frozen=True):
    """What a log was at one moment; it is of the lake's entries 0 to `size - 1`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """Write the text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


def parsed(text: bytes) -> Checkpoint:
    """Read the text of a checkpoint; lines behind the third are passed over. Raise `ValueError` when it is none."""
    lines = text.decode(errors="replace").split("\n")
    root = note.decoded(lines[2]) if len(lines) > 3 else None
    if root is None or len(root) != HASH_BYTES or not lines[0] or not _SIZE.fullmatch(lines[1]) or lines[-1]:
        raise ValueError("not a checkpoint: an origin, a size, and a root hash, on a line each")
    return Checkpoint(lines[0], int(lines[1]), root)


def opened(content: bytes, key: PublicKey) -> Checkpoint:
    """Read a signed checkpoint of the log that has the key's name. Raise `ValueError` when it is none, saying why."""
    found = parsed(note.opened(content, key))
    if found.origin != key.name:
        raise ValueError(f"it is of the log {found.origin}, not of {key.name}")
    return found
