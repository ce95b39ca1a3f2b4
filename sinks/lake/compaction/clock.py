"""What time it is for retention: the clock's, unless the lake's own commits say that the clock has jumped.

Whoever retires goes by days and years, and a host whose clock is set wrong for an hour must not end a year of evidence.
On such a host the worker's clock is often the same one, so that the last commit says what the clock says. Therefore
days count: a clock is believed up to a week behind the third youngest day on which something landed.
"""

from __future__ import annotations

from collections.abc import Iterator

from sinks.lake.log import chain
from sinks.lake.log.chain import Begin, Land
from sinks.lake.log.on_store import Reads

DAY_US = 86_400_000_000
AHEAD_US = 7 * DAY_US
"""How far behind the day that is believed it may be: weeks in which little lands are ordinary."""
DAYS = 3
"""A clock that was wrong over one midnight has left two days in the log."""
ONE_BY_ONE = 32
"""Entries that are looked at one by one; behind that ever fewer are, since days are told apart by few."""
TRIES = 8
"""Entries that are looked at for one that landed something."""


def believed_us(store: Reads, newest: int, clock_us: int) -> int:
    """Give the time by which files may be over (µs); `newest` is the last entry. Raise `Stop` for a damaged one."""
    days: dict[int, int] = {}
    for number in _looked_at(newest):
        at_us = _landed_us(store, number)
        if at_us is not None:
            days[at_us // DAY_US] = max(at_us, days.get(at_us // DAY_US, at_us))
        if len(days) == DAYS:
            break
    return min(clock_us, min(days.values(), default=0) + AHEAD_US)


def _looked_at(newest: int) -> Iterator[int]:
    yield from range(newest, max(newest - ONE_BY_ONE, -1), -1)
    back = ONE_BY_ONE
    while back < newest:
        yield newest - back
        back += back // 2
    yield 0


def _landed_us(store: Reads, number: int) -> int | None:
    """Give when an entry, or one of those before it, landed something."""
    for at in range(number, max(number - TRIES, -1), -1):
        content = store.read(chain.entry_name(at))
        entry = chain.decode(content, at) if content is not None else None
        if isinstance(entry, Begin | Land):
            return entry.at_us
    return None
