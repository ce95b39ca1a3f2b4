"""The climate: what many principals show within a day though it is rare for each: so what is one's own stands out.

On a day of threefold load, after a failover or a release, many do at once what each of them seldom does: by their own
past each is strange, by that day none is. So a feature that is rare in a window counts for no more than the share of
principals that showed it within the last day, as far as these are more than chance gives. Who is the first counts
whole; what of the others is less than it was before still makes a crowd (`detectors.alerts.crowds`).
Bounded; state is JSON.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

DAY_US = 86_400_000_000
RARE_FROM = 3.0
"""Powers of ten from which on a feature of an hour is remembered."""
TIMES = 3.0
"""So many times what chance gives are not more than chance."""
REMEMBERED_MAX = 64
"""Principals of one feature; more of them make it no less rare."""


class Climate:
    """Who showed what rare feature, and when last."""

    def __init__(self) -> None:
        self._shown: dict[str, OrderedDict[str, int]] = {}

    def note(self, who: str, features: list[str], now_us: int) -> None:
        """Remember the rare features of an hour."""
        for feature in features:
            shown = self._shown.setdefault(feature, OrderedDict())
            shown[who] = max(now_us, shown.get(who, 0))
            shown.move_to_end(who)
            if len(shown) > REMEMBERED_MAX:
                shown.popitem(last=False)

    def most(self, who: str, now_us: int, principals: float, hours: float) -> Callable[[str], float]:
        """Return, for a feature, the powers of ten it can count for of a principal now: no end when others are as
        usual.

        So many `principals` are active a day, each in so many `hours`.
        """
        chance = TIMES * principals * hours / 10.0**RARE_FROM

        def of(feature: str) -> float:
            shown = self._shown.get(feature)
            if shown is None:
                return math.inf
            others = sum(1 for other, last_us in shown.items() if now_us - last_us <= DAY_US and other != who)
            more = others - chance
            return math.log10(max(1.0, principals / more)) if more > 0 else math.inf

        return of

    def state(self) -> list[Any]:
        """Return everything as JSON values."""
        return [[feature, list(shown.items())] for feature, shown in self._shown.items()]

    def restore(self, state: list[Any]) -> None:
        """Take a state."""
        self._shown = {feature: OrderedDict((who, last_us) for who, last_us in shown) for feature, shown in state}
