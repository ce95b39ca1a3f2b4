"""Transaction ids as 64 bits, from the 32 that most of what a server shows has. Pure."""

from __future__ import annotations


def widen(xid: int, next_xid: int) -> int:
    """Return a 32-bit transaction id its epoch: the 64-bit one nearest to `next_xid`, which has it."""
    distance = (xid - next_xid) & 0xFFFFFFFF
    return next_xid + (distance - (1 << 32) if distance >= 1 << 31 else distance)
