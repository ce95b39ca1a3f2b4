"""The keys under which messages of one database may verify, and where each of them holds; pure.

A database has one key at a time. It is *rotated* when another generation replaces it, because somebody may have read
it: from then on it proves nothing, but for what was under way. It is *lost* when a crash took it and one of the same
generation replaced it: nobody has read it, and sessions that introduced themselves under it go on. WAL that is read
late was signed with keys that the database no longer has, so a collector keeps those that it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from collectors.beacon.mac import XID32

KEYS_MAX = 8
"""Keys remembered; of more, the oldest are forgotten."""
UNDER_WAY_US = 300 * 1_000_000
"""For how long after a rotation what commits may still be signed with the key before it."""
OLDER_US = 24 * 3600 * 1_000_000
"""The same for transactions that had begun to write before the rotation."""


class Key(Struct, frozen=True, kw_only=True):
    """One key: the generation it is of, and when it was made: the WAL's place, transaction id and server's clock."""

    key: bytes
    number: int
    made_lsn: int = 0
    made_xid: int = 0
    made_at_us: int = 0


class Keyring:
    """The keys of one database that a collector knows, newest first."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self.keys = list(keys)

    def take(self, found: Sequence[Key]) -> bool:
        """Take over what the database has now; says whether that is news.

        Without any the key is lost, and what is known stays. Keys of later generations than it has are of a server
        that this one was restored from an earlier state of: they retire nothing here.
        """
        if not found:
            return False
        newest = max(key.number for key in found)
        kept = [key for key in self.keys if key.number <= newest and key.key not in {one.key for one in found}]
        keys = sorted([*kept, *found], key=lambda key: (key.number, key.made_at_us, key.made_lsn), reverse=True)[
            :KEYS_MAX
        ]
        changed, self.keys = keys != self.keys, keys
        return changed

    def usable(self, lsn: int, xid32: int, committed_at_us: int) -> list[Key]:
        """Return the keys that may have signed a message: newest first."""
        if len(self.keys) == 1:
            return self.keys if self.keys[0].made_lsn <= lsn else []
        return [key for key in self.keys if key.made_lsn <= lsn and self._holds(key, lsn, xid32, committed_at_us)]

    def knows(self, lsn: int) -> bool:
        """Return whether a message at that place can be judged.

        One from before the first known key cannot, nor one from between two keys of which others were in force.
        """
        if len(self.keys) == 1:
            return self.keys[0].made_lsn <= lsn
        before = max((key.number for key in self.keys if key.made_lsn <= lsn), default=None)
        if before is None:
            return False
        after = min((key.number for key in self.keys if key.number > before), default=before + 1)
        return after == before + 1

    def _holds(self, key: Key, lsn: int, xid32: int, committed_at_us: int) -> bool:
        after = [other for other in self.keys if other.number > key.number]
        if not after:
            return True
        rotation = min(after, key=lambda other: other.number)
        if lsn < rotation.made_lsn or committed_at_us <= rotation.made_at_us + UNDER_WAY_US:
            return True
        began_before = (rotation.made_xid - xid32) % XID32 < XID32 // 2
        return began_before and committed_at_us <= rotation.made_at_us + OLDER_US
