"""Whether this host's clock can be right: one that is days behind would take all evidence for what is yet to come.

What was captured more than a day from now is not believed (`streams.worker.sanity`). A host whose clock begins in
another year would set everything aside; it waits instead, as long as two others contradict its clock: the lake, when it
was last written, and whoever wrote the newest record of `raw`, which are the collectors. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime

from streams.worker.sanity import AHEAD_US_MAX

LAST_S = 253_402_300_799
"""The end of the year 9999: whoever writes a record says when that was."""


def behind(now_us: int, landed_us: int | None, written_us: int | None) -> str | None:
    """Say that the clock is behind, if lake and topic agree that it is; None when it can be right."""
    if landed_us is None or written_us is None or min(landed_us, written_us) <= now_us + AHEAD_US_MAX:
        return None
    return (
        f"the clock of this host says {_time(now_us)}, but the lake was written at {_time(landed_us)} and the newest "
        f"record of raw at {_time(written_us)}: set the clock; the worker waits, or it would believe nothing"
    )


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(min(at_us // 1_000_000, LAST_S), UTC).isoformat(timespec="seconds")
