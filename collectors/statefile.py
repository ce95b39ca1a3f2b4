"""What a collector must know again after a restart: one small JSON file, written whole or not at all.

A file holds `{"version": 1, "state": …}`. It is written beside its place, made durable and then renamed, so a crash
leaves the old one or the new one. What is damaged is not a reason to stop witnessing: who loads it gets the reason,
starts anew and says so with a gap. What the operating system does not let us read or write is tried again, since the
file may be whole. One of a newer release stops the collector, because an older one would take up the wrong thread.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from pgwitness.core.errors import Retry, Stop
from pgwitness.core.runtime.disk import read_whole, write_whole

VERSION = 1

T = TypeVar("T", bound=Struct)


class _Envelope(Struct):
    version: int
    state: msgspec.Raw


class StateFile(Generic[T]):
    """The file of one collector: `FOLDER/NAME.json`, readable by its owner only."""

    def __init__(self, folder: Path, name: str, kind: type[T]) -> None:
        self.path = folder / (re.sub(r"[^A-Za-z0-9._-]", "_", name) + ".json")
        self._decoder = msgspec.json.Decoder(kind)
        self.problem: str | None = None
        """Why the file that was there could not be used."""

    def load(self) -> T | None:
        """Read what was stored last; None when there is nothing, or nothing usable (`problem` then says why).

        Raise `Stop` for a file of a newer release, `Retry` when the operating system does not let it be read.
        """
        self.problem = None
        content = read_whole(self.path)
        if content is None:
            return None
        try:
            envelope = msgspec.json.decode(content, type=_Envelope)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.problem = f"{self.path.name}: {error}"
            return None
        if envelope.version > VERSION:
            raise Stop(
                f"{self.path} was written by a newer release of pgwitness (version {envelope.version}, this one reads "
                f"{VERSION}): update pgwitness on this host, or move the file away and accept a gap in the evidence"
            )
        try:
            return self._decoder.decode(envelope.state)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.problem = f"{self.path.name}: {error}"
            return None

    def store(self, state: T, *, durable: bool = True) -> None:
        """Replace what is stored. Raise `Retry` when that is impossible: whoever needs it must not go on without."""
        content = b'{"version":%d,"state":%b}' % (VERSION, msgspec.json.encode(state))
        try:
            write_whole(self.path, content, durable=durable)
        except Retry as error:
            raise Retry(f"{error}, as long as collectors.state_path names this folder") from error
