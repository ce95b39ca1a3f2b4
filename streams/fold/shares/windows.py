"""What one principal, or everybody, took of a relation over time: rows by hour and day, keys of rows written over."""

from __future__ import annotations

from collections.abc import Iterable

from streams.fold.bounded import evict_oldest
from streams.fold.memory.shares import Window

WINDOWS_MAX = 5_000
KEYS_MAX = 256
"""Hashes of keys kept of a window: the smallest ones, which show how many there are in all."""
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
MONTH_US = 30 * DAY_US
USUAL_DAYS = 3
HASHES = 1 << 64


def window_of(windows: dict[str, Window], key: str, who: str) -> Window:
    """Return what somebody did to a relation, and keep it as the latest."""
    name = f"{key}\n{who[:300]}"
    window = windows.pop(name, None)
    if window is None:
        evict_oldest(windows, WINDOWS_MAX)
        window = Window()
    windows[name] = window
    return window


def add_rows(window: Window, at_us: int, rows: int) -> None:
    """Add rows in their hour; hours of which a day has passed become parts of their day."""
    slot = at_us // HOUR_US * HOUR_US + HOUR_US - 1  # its end: it counts for as long as any row of it may
    window.total += rows
    if window.gone and window.gone[-1][0] == slot:
        window.gone[-1][1] += rows
        return
    sums: dict[int, int] = {}
    for since_us, number in [*window.gone, (slot, rows)]:
        if since_us > at_us - MONTH_US:
            grain = HOUR_US if since_us > at_us - DAY_US else DAY_US
            end = since_us // grain * grain + grain - 1
            sums[end] = sums.get(end, 0) + number
    window.gone = [[end, number] for end, number in sorted(sums.items())]
    window.total = sum(sums.values())


def is_usual(window: Window, at_us: int) -> bool:
    """Return whether as much went at this hour on several days before; now it has once more."""
    hour = at_us // HOUR_US
    day = hour // 24
    same = {past // 24 for past in window.large if past // 24 != day and (past - hour + 1) % 24 <= 2}
    if not any(past // 24 == day for past in window.large):
        window.large = [*window.large, hour][-10:]
    return len(same) >= USUAL_DAYS


def smallest(known: list[int], more: Iterable[int]) -> list[int]:
    """Return the smallest hashes of both, as many as are kept."""
    return sorted({*known, *more})[:KEYS_MAX]


def distinct(keys: list[int]) -> int:
    """Estimate how many different keys there were (k minimum values); exact as long as all are kept."""
    return len(keys) if len(keys) < KEYS_MAX else int((KEYS_MAX - 1) * HASHES / max(1, keys[-1]))
