"""The keys that a collector has seen, kept on its own disk: WAL that it has not read yet may be signed with them.

A crash of the server, or a rotation, takes a key out of the database while beacons that it signed wait in the slot. Who
reads this file can sign as the database does, so it is its owner's alone; it stands beside the password with which the
same key can be read.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from collectors.beacon.keyring import Key, Keyring


class Kept(Struct):
    """What is written down: the keys of one system."""

    system_id: str
    keys: list[Key]


def recall(path: Path, system_id: str) -> Keyring:
    """Read the keys of a system; none where there are none, or the file is of another system or cannot be read."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Keyring()
    return Keyring(kept.keys) if kept.system_id == system_id else Keyring()


def remember(path: Path, system_id: str, ring: Keyring) -> None:
    """Write the keys down, whole or not at all, for nobody else to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".keys-new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.encode(Kept(system_id, ring.keys)))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
