"""The keys that a collector has seen, kept on its own disk: WAL that it has not read yet may be signed with them.

A crash of the server, or a rotation, takes a key out of the database while beacons that it signed wait in the slot. Who
reads this file can sign as the database does, so it is its owner's alone; it stands beside the password with which the
same key can be read.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from collectors.beacon.keyring import Key, Keyring
from pgwitness.core.runtime.disk import read_whole, write_whole


class Kept(Struct):
    """What is written down: the keys of one system."""

    system_id: str
    keys: list[Key]


def recall(path: Path, system_id: str) -> Keyring:
    """Read the keys of a system; none where there are none, or the file is of another system or damaged.

    Raise `Retry` when the operating system does not let it be read: beacons would pass for forged without its keys.
    """
    content = read_whole(path)
    if content is None:
        return Keyring()
    try:
        kept = msgspec.json.decode(content, type=Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Keyring()
    return Keyring(kept.keys) if kept.system_id == system_id else Keyring()


def remember(path: Path, system_id: str, ring: Keyring) -> None:
    """Write the keys down, whole or not at all, for nobody else to read. Raise `Retry` when that is impossible."""
    write_whole(path, msgspec.json.encode(Kept(system_id, ring.keys)))
