"""What an anchor is given: a signed checkpoint, of which lake, and when. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from sinks.lake.log.chain import UNREADABLE
from sinks.seal.verification.findings import instant


class Given(Struct, frozen=True):
    """A signed checkpoint on its way: `note` is its text with the signature, `at_us` the sealer's clock."""

    lake: str
    size: int
    note: bytes
    at_us: int

    def line(self) -> bytes:
        """Write it as one line of JSON."""
        return msgspec.json.encode(Kept(self.lake, self.size, instant(self.at_us), self.note.decode())) + b"\n"


class Kept(Struct, frozen=True):
    """A line of a file of checkpoints, or the body that a webhook gets."""

    lake: str
    size: int
    at: str
    checkpoint: str


_kept = msgspec.json.Decoder(Kept)


def notes(content: bytes) -> list[bytes]:
    """Read the checkpoints of a file: a signed note, or lines as `Given.line` writes them; torn ones are left out."""
    if not content.lstrip().startswith(b"{"):
        return [content]
    found = []
    for line in content.splitlines():
        try:
            found.append(_kept.decode(line).checkpoint.encode())
        except UNREADABLE:
            continue
    return found
