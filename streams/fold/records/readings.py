"""What was read from the server: snapshots of its posture, and what its statistics counted.

Both know what, and not who. The server's log does, so both wait until it was read past them
(`streams.fold.joins.log_wait`), if there is something to wait for, and are then emitted with the session that it gives:
by what a statement says (`streams.fold.records.posture`), or by how often one ran (`streams.fold.records.statistics`).
"""

from __future__ import annotations

from msgspec.structs import replace

from pgwitness.core.events import Posture, QueryStats
from streams.fold.context import FoldContext
from streams.fold.joins.log_wait import PATIENCE_US
from streams.fold.memory.attribution import Attribution
from streams.fold.memory.statements import HeldReading


def hold_or_return(
    context: FoldContext, raw: Posture | QueryStats, event_id: str, *, whole: bool, wait: bool
) -> HeldReading | None:
    """Take up a reading, once; return it unless it waits for the log, which may explain it."""
    cluster, partition = context.cluster, context.partition
    if not cluster.is_new(event_id):
        partition.dropped += 1
        return None
    held = HeldReading(context.header, raw, raw.captured_at_us + partition.grace_us + PATIENCE_US, whole)
    waits = wait and partition.grace_us > 0 and cluster.log.followed and cluster.readings.hold(held)
    return None if waits else held


def of_several(attribution: Attribution) -> Attribution:
    """Keep the principal, and take away what only one of its sessions has."""
    return replace(attribution, pid=None, client_port=None, session_id=None, trace_id=None, agent=None)
