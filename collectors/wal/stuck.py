"""A transaction at which the stream ends again and again: after some tries it is passed over, as a gap; pure.

The server may be unable to send what it decodes (a character that UTF-8 does not have, a row that is longer than any
message can be: anybody who may write to a table can make one), or we may be unable to take a begin or commit. The slot
would hold its WAL back for ever, and everything behind it would be missing. `START_REPLICATION` may begin behind the
commit record of that one transaction: those before it have ended and are delivered, those behind it are sent.
"""

from __future__ import annotations

from msgspec import Struct

TRIES_MAX = 3
"""How often a transaction is tried before it is passed over."""
PATIENT_TRIES_MAX = 30
"""How often where memory was short, which may be a matter of the moment: with the pauses a quarter of an hour."""
OUT_OF_MEMORY = "53200"
_OF_THE_DATA = ("22", "54", "XX", OUT_OF_MEMORY)
"""SQLSTATEs of errors that come again with the same data: data exceptions, limits, internal errors, out of memory."""


class Stuck(Struct, frozen=True):
    """The commit LSN of the transaction in which the stream ended, how often it did, and whether that was told.

    `patience` is how often it is tried, by what ended it last.
    """

    lsn: int = 0
    tries: int = 0
    told: bool = False
    patience: int = TRIES_MAX


def of_the_data(sqlstate: str) -> bool:
    """Return whether the server's error will come again with the same data."""
    return sqlstate.startswith(_OF_THE_DATA)


def failed(before: Stuck, lsn: int, *, short_of_memory: bool = False) -> Stuck:
    """Count one more end of the stream within a transaction."""
    patience = PATIENT_TRIES_MAX if short_of_memory else TRIES_MAX
    if before.lsn != lsn:
        return Stuck(lsn, 1, patience=patience)
    return Stuck(lsn, before.tries + 1, before.told, patience)


def start_after(stuck: Stuck, confirmed: int) -> int:
    """Return the LSN to start from, 0 for where the slot stands."""
    return stuck.lsn + 1 if stuck.tries >= stuck.patience and confirmed <= stuck.lsn else 0
