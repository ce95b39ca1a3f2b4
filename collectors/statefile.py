"""What a collector must know again after a restart: one small JSON file, written whole or not at all.

A file holds `{"version": 1, "state": …}`. It is written beside its place, made durable and then renamed, so a crash
leaves the old one or the new one. A file that cannot be read is not a reason to stop witnessing: who loads it gets
the reason, starts anew and says so with a gap. One of a newer release stops the collector instead, because an older
one would take up the wrong thread.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from pgwitness.errors import Stop

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

        Raises `Stop` for a file of a newer release.
        """
        self.problem = None
        try:
            envelope = msgspec.json.decode(self.path.read_bytes(), type=_Envelope)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
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
        """Replace what is stored. Raises `Stop` when that is impossible, since a restart would then lose evidence."""
        content = b'{"version":%d,"state":%b}' % (VERSION, msgspec.json.encode(state))
        fresh = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            raise Stop(
                f"{self.path} cannot be written: {error}; make room, or let collectors.state_path name a folder "
                "that the collector may write to"
            ) from error
