"""Room in a dictionary whose order is the order of forgetting: the oldest entry goes first."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def evict_oldest(items: dict[K, V], items_max: int) -> list[K]:
    """Forget the oldest entries until one more has room; return their keys."""
    gone: list[K] = []
    while len(items) >= items_max:
        key = next(iter(items))
        del items[key]
        gone.append(key)
    return gone
