"""Proofs that are checked without the log (C2SP tlog-proof, its format v1): one entry, one checkpoint. Pure."""

from __future__ import annotations

import base64
import re

from msgspec import Struct

from sinks.seal.tlog import checkpoint, merkle, note
from sinks.seal.tlog.checkpoint import Checkpoint
from sinks.seal.tlog.merkle import HASH_BYTES, leaf_hash
from sinks.seal.tlog.note import PublicKey

HEADER = "c2sp.org/tlog-proof@v1"
HASHES_MAX = 64
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


class Proof(Struct, frozen=True):
    """That entry `index` stands in the log of the signed checkpoint `note`: `hashes` lead from it to the root."""

    index: int
    hashes: list[bytes]
    note: bytes

    def text(self) -> bytes:
        """Write the proof."""
        lines = [HEADER, f"index {self.index}", *(base64.b64encode(one).decode() for one in self.hashes), ""]
        return "\n".join(lines).encode() + b"\n" + self.note

    def checked(self, entry: bytes, key: PublicKey) -> Checkpoint:
        """Give the checkpoint, if it is signed and the entry stands in its log. Raise `ValueError` otherwise."""
        found = checkpoint.opened(self.note, key)
        if not merkle.includes(leaf_hash(entry), self.index, found.size, self.hashes, found.root):
            raise ValueError(f"the entry is not entry {self.index} of the log that was signed: one of them was altered")
        return found


def parsed(content: bytes) -> Proof:
    """Read a proof; extra data are passed over. Raise `ValueError` when it is none."""
    head, _, signed = content.partition(b"\n\n")
    lines = head.decode(errors="replace").split("\n")
    if lines[:1] != [HEADER]:
        raise ValueError(f"not a proof: the first line is not {HEADER}")
    rest = lines[2:] if lines[1:2] and lines[1].startswith("extra ") else lines[1:]
    index = _INDEX.fullmatch(rest[0]) if rest else None
    hashes = [note.decoded(line) for line in rest[1:]]
    if index is None or len(hashes) > HASHES_MAX:
        raise ValueError("not a proof: it has no index, or too many hashes")
    found = [one for one in hashes if one is not None and len(one) == HASH_BYTES]
    if len(found) != len(hashes):
        raise ValueError("not a proof: a line of it is no hash")
    return Proof(int(index[1]), found, signed)
