"""Positions only grow, until a server is put back to what it was: recognised by transactions that come again. Pure.

A restored snapshot has the system id and the timeline of what was there before, and its LSNs come again. A collector
that notices says so by an `incarnation` of its own; one that cannot (its memory is gone, or the server has passed the
old place meanwhile) sends transactions that lie before what was read. Those are known already, unless they were
committed later than anything that was read: then a new incarnation begins, named after that commit.
"""

from __future__ import annotations

from pgwitness.core.events import Transaction
from streams.fold.memory.transactions import Watermark

SKEW_US = 1_000_000
"""How much later the clock may have been at a commit that lies before another one in the WAL."""


def incarnation(mark: Watermark | None, part: Transaction) -> int:
    """Return the incarnation of its server that a part belongs to; greater than the mark's where positions go back."""
    if mark is None:
        return part.incarnation
    if part.incarnation > mark.incarnation:
        return part.incarnation
    # A forgery outside of a transaction has the collector's time, and no id.
    judged = part.xid != 0 and mark.newest_us > 0 and (part.lsn < mark.lsn or (part.lsn == mark.lsn and mark.whole))
    if judged and part.committed_at_us > mark.newest_us + SKEW_US:
        return max(part.committed_at_us, mark.incarnation + 1)
    return mark.incarnation
